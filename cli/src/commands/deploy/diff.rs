//! What a file changes about what is deployed, field by field.
//! In: two JSON values. Out: changes with paths. Pure. Never: shows a field that stays as it is.

use serde_json::{Map, Value};

/// One field that changes; `None` is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Member names and indices from the top.
    pub path: Vec<String>,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.join(".");
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "+ {path}: {new}"),
            (Some(old), None) => write!(f, "- {path}: {old}"),
            (Some(old), Some(new)) => write!(f, "~ {path}: {old} → {new}"),
            (None, None) => write!(f, "  {path}"),
        }
    }
}

/// Every change from `old` to `new`; none when they are equal. With `partial`, members that `new`
/// leaves out stay as they are.
pub fn diff(old: &Value, new: &Value, partial: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut changes, &mut Vec::new(), Some(old), Some(new), partial);
    changes
}

fn compare(
    changes: &mut Vec<Change>,
    path: &mut Vec<String>,
    old: Option<&Value>,
    new: Option<&Value>,
    partial: bool,
) {
    match (old, new) {
        (old, new) if old == new => (),
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for name in names(old, new) {
                if partial && !new.contains_key(name) {
                    continue;
                }
                path.push(name.clone());
                compare(changes, path, old.get(name), new.get(name), partial);
                path.pop();
            }
        }
        // Lists of equal length differ element by element; others are another list.
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                path.push(index.to_string());
                compare(changes, path, Some(old), Some(new), partial);
                path.pop();
            }
        }
        (old, new) => changes.push(Change { path: path.clone(), old: old.cloned(), new: new.cloned() }),
    }
}

fn names<'a>(old: &'a Map<String, Value>, new: &'a Map<String, Value>) -> Vec<&'a String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the changes make of a value.
    fn apply(value: &mut Value, changes: &[Change]) {
        for change in changes {
            let Some((last, way)) = change.path.split_last() else {
                *value = change.new.clone().unwrap();
                continue;
            };
            let mut at = &mut *value;
            for step in way {
                at = if at.is_array() {
                    &mut at[step.parse::<usize>().unwrap()]
                } else {
                    &mut at[step.as_str()]
                };
            }
            match (at, &change.new) {
                (Value::Array(list), Some(new)) => list[last.parse::<usize>().unwrap()] = new.clone(),
                (Value::Object(members), Some(new)) => drop(members.insert(last.clone(), new.clone())),
                (Value::Object(members), None) => drop(members.remove(last)),
                _ => panic!("{change:?}"),
            }
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0u8..4).prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_diff_gives_the_file(old in json(), new in json()) {
            let mut made = old.clone();
            apply(&mut made, &diff(&old, &new, false));
            prop_assert_eq!(&made, &new);
        }

        #[test]
        fn applied_partly_nothing_is_left_to_change_and_nothing_is_taken_away(old in json(), new in json()) {
            let mut made = old.clone();
            let changes = diff(&old, &new, true);
            apply(&mut made, &changes);
            prop_assert_eq!(diff(&made, &new, true), vec![]);
            prop_assert!(changes.iter().all(|change| change.new.is_some()));
        }

        #[test]
        fn equal_values_show_nothing(value in json()) {
            prop_assert_eq!(diff(&value, &value, false), vec![]);
        }
    }

    #[test]
    fn a_change_is_a_line_with_its_path() {
        let old = serde_json::json!({"a": [{"image": "web:1", "cpu": 1}]});
        let new = serde_json::json!({"a": [{"image": "web:2"}]});
        let lines: Vec<String> = diff(&old, &new, false).iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["- a.0.cpu: 1", "~ a.0.image: \"web:1\" → \"web:2\""]);
    }
}
