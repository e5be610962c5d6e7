//! `tag`: the name under which lines reach a sink, a small part of Docker's template language: text
//! and `{{.Field}}`. In: a template; the values. Out: text. Pure.
//! Never: takes a field, a function or a pipe it does not know.

use std::fmt;
use std::str::FromStr;

/// What a tag can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagField {
    /// The end of the task's id and the container's name: `1f3a5c7e9b2d-web`.
    Id,
    /// The task's whole id and the container's name.
    FullId,
    /// The container's name in the definition.
    Name,
    ImageName,
    TaskId,
    Family,
    Cluster,
    /// `lighter`, where Docker says `docker`.
    DaemonName,
}

const FIELDS: &[(&str, TagField)] = &[
    ("ID", TagField::Id),
    ("FullID", TagField::FullId),
    ("Name", TagField::Name),
    ("ImageName", TagField::ImageName),
    ("TaskID", TagField::TaskId),
    ("Family", TagField::Family),
    ("Cluster", TagField::Cluster),
    ("DaemonName", TagField::DaemonName),
];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(TagField),
}

/// A checked template; `{{.ID}}` when nothing else is said, as with Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTemplate(Vec<Piece>);

impl Default for TagTemplate {
    fn default() -> Self {
        Self(vec![Piece::Field(TagField::Id)])
    }
}

impl TagTemplate {
    /// The tag with these values.
    pub fn render(&self, value: impl Fn(TagField) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field(field) => value(*field),
        });
        pieces.collect()
    }
}

/// A template that is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagError(String);

impl fmt::Display for TagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<String> = FIELDS.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect();
        write!(f, "{:?} is not understood in a tag; there are {}", self.0, known.join(", "))
    }
}

impl std::error::Error for TagError {}

impl FromStr for TagTemplate {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, TagError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let wrong = || TagError(text.to_owned());
            let (inside, behind) = after.split_once("}}").ok_or_else(wrong)?;
            let name = inside.trim().strip_prefix('.').ok_or_else(wrong)?;
            let field = FIELDS.iter().find(|(known, _)| *known == name).ok_or_else(wrong)?;
            pieces.push(Piece::Field(field.1));
            rest = behind;
        }
        if rest.contains(char::is_control) {
            return Err(TagError(text.to_owned()));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }
}
