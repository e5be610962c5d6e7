//! The names of a call that changes several things. In: names and how one is found. Out: each with what
//! it means. Never: lets a call begin whose names are not clear; there is no way back from a change.

use crate::error::ApiError;

/// A name, and what it means or why it means nothing.
pub type Named<'a, T> = (&'a str, Result<T, ApiError>);

/// What each name means; what is not there is an answer of its own (ECS's `MISSING`). A beginning that
/// several have is an error of the call, before anything is changed.
pub fn each<'a, T>(
    names: &'a [String],
    find: impl Fn(&str) -> Result<T, ApiError>,
) -> Result<Vec<Named<'a, T>>, ApiError> {
    let clear = |name: &'a String| match find(name) {
        Err(error @ ApiError::AmbiguousPrefix { .. }) => Err(error),
        found => Ok((name.as_str(), found)),
    };
    names.iter().map(clear).collect()
}
