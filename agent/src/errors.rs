//! Prints an error with all its causes, and nothing else does: `Display` of our errors never
//! repeats the cause. In: an error. Out: one line `what: why: why`.
//! Owns nothing. Never: logs; the caller decides where the line goes.

use std::error::Error;
use std::fmt::Write;

/// An error of a facility, whatever crate it came from.
pub(crate) type Cause = Box<dyn Error + Send + Sync + 'static>;

/// The error and its causes, from the outermost to the root, joined by `: `.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        // Errors of other crates often print their cause themselves.
        if !text.ends_with(&line) {
            let _ = write!(text, ": {line}");
        }
        next = cause.source();
    }
    text
}

/// A cause made of words alone.
pub(crate) fn words(text: impl Into<String>) -> Cause {
    text.into().into()
}
