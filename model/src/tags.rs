//! Tags of clusters, container instances, tasks and task definitions, by ECS's rules.
//! In: keys and values from outside. Out: a checked map. Never: keeps a key that breaks a rule.
//! Source: Amazon ECS Developer Guide, "Tagging Amazon ECS resources", "Tag restrictions".

use std::collections::BTreeMap;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Characters of a key.
pub const KEY_CHARS_MAX: usize = 128;
/// Characters of a value.
pub const VALUE_CHARS_MAX: usize = 256;

/// Why tags are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    #[error("the key of a tag must have 1 to {KEY_CHARS_MAX} characters, {key:?} has {count}")]
    KeyLength { key: String, count: usize },
    #[error("the value of tag {key:?} must have at most {VALUE_CHARS_MAX} characters, it has {count}")]
    ValueLength { key: String, count: usize },
    #[error("tag {key:?}: keys and values are letters, digits, spaces and + - = . _ : / @")]
    Characters { key: String },
    #[error("tag {key:?}: keys and values that begin with aws: are reserved")]
    Reserved { key: String },
    #[error("tag {key:?} is given twice")]
    Twice { key: String },
}

/// Checks pairs as they came and makes a map of them.
///
/// # Errors
/// A key or value breaks a rule, or a key comes twice. How many there may be is not checked here.
pub fn checked(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Tags, TagError> {
    let mut tags = Tags::new();
    for (key, value) in pairs {
        check(&key, &value)?;
        if tags.contains_key(&key) {
            return Err(TagError::Twice { key });
        }
        tags.insert(key, value);
    }
    Ok(tags)
}

fn check(key: &str, value: &str) -> Result<(), TagError> {
    let key_owned = || key.to_owned();
    let (key_chars, value_chars) = (key.chars().count(), value.chars().count());
    if !(1..=KEY_CHARS_MAX).contains(&key_chars) {
        let key = key.chars().take(KEY_CHARS_MAX).collect();
        return Err(TagError::KeyLength { key, count: key_chars });
    }
    if value_chars > VALUE_CHARS_MAX {
        return Err(TagError::ValueLength { key: key_owned(), count: value_chars });
    }
    let allowed = |c: char| c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c);
    if !key.chars().chain(value.chars()).all(allowed) {
        return Err(TagError::Characters { key: key_owned() });
    }
    let reserved = |text: &str| text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"));
    if reserved(key) || reserved(value) {
        return Err(TagError::Reserved { key: key_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> Result<Tags, TagError> {
        checked([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_limits_of_keys_and_values_are_ecs_s() {
        assert!(one(&"k".repeat(128), &"v".repeat(256)).is_ok());
        assert!(one("größe", "").is_ok() && one("a b", "+-=._:/@").is_ok());
        assert!(matches!(one("", "v"), Err(TagError::KeyLength { count: 0, .. })));
        assert!(matches!(one(&"k".repeat(129), ""), Err(TagError::KeyLength { count: 129, .. })));
        assert!(matches!(one("k", &"v".repeat(257)), Err(TagError::ValueLength { count: 257, .. })));
        assert!(matches!(one("a\n", "v"), Err(TagError::Characters { .. })));
        assert!(matches!(one("k", "<v>"), Err(TagError::Characters { .. })));
    }

    #[test]
    fn what_begins_with_aws_is_reserved_in_any_spelling() {
        for (key, value) in [("aws:x", ""), ("AWS:x", ""), ("Aws:", "v"), ("k", "aws:v")] {
            assert!(matches!(one(key, value), Err(TagError::Reserved { .. })), "{key}={value}");
        }
        assert!(one("awsome", "laws:").is_ok());
    }

    #[test]
    fn a_key_comes_once() {
        let twice = [("a", "1"), ("a", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(checked(twice), Err(TagError::Twice { key: "a".to_owned() }));
    }
}
