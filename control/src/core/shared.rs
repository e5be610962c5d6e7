//! What keeps a task's record small: there may be 100,000 of them in memory.
//! In: texts that many records have alike, and values that few have at all. Out: the same, as pointers.
//! Owns nothing. Never: changes what is written to the store.

use lighter_model::overrides::TaskOverride;
use lighter_model::placement::PlacementText;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A text; clones are the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SharedText(Arc<str>);

impl SharedText {
    /// Becomes another of the same words, so that one of the two is given back; `false`: it has other words.
    pub fn share(&mut self, other: &Self) -> bool {
        if Arc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        let same = self.0 == other.0;
        if same {
            self.clone_from(other);
        }
        same
    }
}

impl Deref for SharedText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for SharedText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for SharedText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SharedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// What most records have nothing of.
pub trait Seldom: Sized + PartialEq + 'static {
    const NOTHING: &'static Self;
}

impl Seldom for TaskOverride {
    const NOTHING: &'static Self = &Self { container_overrides: Vec::new(), cpu: None, memory: None };
}

impl<T: PartialEq + 'static> Seldom for Vec<T> {
    const NOTHING: &'static Self = &Self::new();
}

impl Seldom for PlacementText {
    const NOTHING: &'static Self = &Self { constraints: Vec::new(), strategies: Vec::new() };
}

/// A value that takes a pointer when it is nothing. It is read and written like the value itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Rare<T> {
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: Seldom> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != *T::NOTHING).then(|| Box::new(value)))
    }
}

impl<T: Seldom> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::NOTHING)
    }
}

impl<T: Seldom + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Seldom + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Seldom + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rare_is_written_and_read_like_the_value_itself() {
        let value = TaskOverride { cpu: Some("512".to_owned()), ..TaskOverride::default() };
        for value in [value, TaskOverride::default()] {
            let rare = Rare::from(value.clone());
            assert_eq!((&*rare, rare.is_nothing()), (&value, value.is_empty()));
            let json = serde_json::to_string(&rare).unwrap();
            assert_eq!(json, serde_json::to_string(&value).unwrap());
            assert_eq!(serde_json::from_str::<Rare<TaskOverride>>(&json).unwrap(), rare);
        }
    }

    #[test]
    fn only_texts_of_the_same_words_become_one() {
        let (kept, mut same, mut other) =
            (SharedText::from("a"), SharedText::from("a"), SharedText::from("b"));
        assert!(same.share(&kept) && Arc::ptr_eq(&same.0, &kept.0));
        assert!(!other.share(&kept) && &*other == "b");
    }
}
