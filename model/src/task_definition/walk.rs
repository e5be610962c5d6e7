//! Compares a definition's JSON with the list of members, one member at a time.
//! In: the tree. Out: a tree of supported members only, in the form serde expects, and what is wrong.
//! Owns nothing. Never: lets a member through that the list does not have, or judges two members together.

use super::amount;
use super::input::{Problem, WHOLE};
use super::options::PortRange;
use super::strict_json::join;
use super::support::{Member, Shape, Support, find, members_of, shape_in_words};
use serde_json::{Map, Value};

/// Bound on one text, in bytes: execve(2) takes 128 KiB an argument, ECS 64 KiB the whole definition.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Objects that the skeletons of the AWS command line print unfilled, and that say nothing then.
const UNFILLED: &[&str] = &["containerDefinitions[].healthCheck", "containerDefinitions[].restartPolicy"];

/// Walks the whole definition.
pub(super) fn walk(members: Map<String, Value>, problems: &mut Vec<Problem>) -> Value {
    Walk { problems }.object("", "", members)
}

struct Walk<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn problem(&mut self, field: &str, message: impl Into<String>) {
        let field = if field.is_empty() { WHOLE } else { field };
        self.problems.push(Problem { field: field.to_owned(), message: message.into() });
    }

    /// `row` is the object's path in the list (`containerDefinitions[]`), `path` its path in the text.
    fn object(&mut self, row: &str, path: &str, members: Map<String, Value>) -> Value {
        let mut known = Map::new();
        for (name, value) in members {
            let field = join(path, &name);
            match find(&join(row, &name)) {
                None => self.unknown(row, &field, &name),
                Some(member) => {
                    if let Some(value) = self.member(member, &field, value) {
                        known.insert(name, value);
                    }
                }
            }
        }
        for member in members_of(row) {
            if matches!(member.support, Support::Supported { required: true, .. })
                && !known.contains_key(member.name())
            {
                let field = join(path, member.name());
                if !self.problems.iter().any(|problem| problem.field == field) {
                    self.problem(&field, "is required");
                }
            }
        }
        Value::Object(known)
    }

    fn unknown(&mut self, row: &str, field: &str, name: &str) {
        let meant = members_of(row).find(|member| member.name().eq_ignore_ascii_case(name));
        let hint = meant.map(|member| format!("; did you mean `{}`?", member.name())).unwrap_or_default();
        self.problem(field, format!("no such member{hint}"));
    }

    /// The value in the form serde expects; `None` when it is absent or wrong.
    fn member(&mut self, member: &Member, field: &str, value: Value) -> Option<Value> {
        match member.support {
            Support::Refused { why, harmless, within } => {
                if let Some(name) = first_unknown_inside(&value, within) {
                    self.problem(&join(field, &name), "no such member");
                } else if !says_nothing(&value)
                    && !harmless.contains(&value.as_str().unwrap_or(&value.to_string()))
                {
                    self.problem(field, refusal(why));
                }
                None
            }
            Support::Supported { .. } | Support::Checked { .. } if value.is_null() => None,
            Support::Checked { .. } => {
                self.shaped(member, false, field, value);
                None
            }
            Support::Supported { .. } if UNFILLED.contains(&member.path) && says_nothing(&value) => {
                if let Some(name) = unknown_member(member.path, &value) {
                    self.problem(&join(field, &name), "no such member");
                }
                None
            }
            Support::Supported { required, .. } => self.shaped(member, required, field, value),
        }
    }

    fn shaped(&mut self, member: &Member, required: bool, field: &str, value: Value) -> Option<Value> {
        match (member.shape, value) {
            (Shape::Object, Value::Object(members)) => Some(self.object(member.path, field, members)),
            (Shape::List, Value::Array(items)) => Some(self.list(member.path, field, items)),
            (Shape::WordList, Value::Array(mut items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.text_of_list(member.shape, &format!("{field}[{index}]"), item);
                }
                items.retain(|item| item.as_str() != Some(""));
                Some(Value::Array(items))
            }
            (Shape::TextList | Shape::ListOf(_), Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.text_of_list(member.shape, &format!("{field}[{index}]"), item);
                }
                Some(Value::Array(items))
            }
            (Shape::WholeList { min, max }, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    if let Err(message) = check(Shape::Whole { min, max }, item) {
                        self.problem(&format!("{field}[{index}]"), message);
                    }
                }
                Some(Value::Array(items))
            }
            (Shape::TextMap, Value::Object(entries)) => {
                for (name, value) in &entries {
                    self.text_of_list(member.shape, &join(field, name), value);
                }
                Some(Value::Object(entries))
            }
            // An empty text stands for absence in the skeletons of the AWS command line.
            (shape, Value::String(text))
                if text.is_empty() && !matches!(shape, Shape::Object | Shape::List) =>
            {
                if required {
                    self.problem(field, "must not be empty");
                }
                None
            }
            (shape, value) => match check(shape, &value) {
                Ok(()) => Some(value),
                Err(message) => {
                    self.problem(field, message);
                    None
                }
            },
        }
    }

    fn list(&mut self, path: &str, field: &str, items: Vec<Value>) -> Value {
        let row = format!("{path}[]");
        let mut known = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let field = format!("{field}[{index}]");
            match item {
                Value::Object(members) => known.push(self.object(&row, &field, members)),
                _ => self.problem(&field, "must be an object"),
            }
        }
        Value::Array(known)
    }

    fn text_of_list(&mut self, shape: Shape, field: &str, value: &Value) {
        let shape = if let Shape::ListOf(words) = shape { Shape::OneOf(words) } else { Shape::Text };
        if let Err(message) = check(shape, value) {
            self.problem(field, message);
        }
    }
}

/// A name in an unfilled object that its row does not have.
fn unknown_member(row: &str, value: &Value) -> Option<String> {
    let members = value.as_object()?;
    members.keys().find(|name| find(&join(row, name)).is_none()).cloned()
}

fn refusal(why: &str) -> String {
    if why.starts_with("not supported") { why.to_owned() } else { format!("is refused: {why}") }
}

/// Checks a value that has no members of its own.
fn check(shape: Shape, value: &Value) -> Result<(), String> {
    match (shape, value) {
        (Shape::Text | Shape::Name, Value::String(text)) if text.len() > TEXT_BYTES_MAX => {
            Err(format!("is longer than {TEXT_BYTES_MAX} bytes"))
        }
        (Shape::Text, Value::String(text)) if text.contains('\0') => Err("contains a NUL byte".into()),
        (Shape::Text, Value::String(_)) | (Shape::Flag, Value::Bool(_)) => Ok(()),
        (Shape::Name, Value::String(text)) if is_name(text) => Ok(()),
        (Shape::OneOf(words), Value::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Shape::OneOf(words), Value::String(text)) => Err(format!(
            "{text:?} is not supported; {}",
            shape_in_words(Shape::OneOf(words)).replace('`', "")
        )),
        (Shape::Whole { min, max }, Value::Number(number))
            if number.as_u64().is_some_and(|whole| (min..=max).contains(&whole)) =>
        {
            Ok(())
        }
        (Shape::Limit, Value::Number(number)) if number.as_i64().is_some_and(|limit| limit >= -1) => Ok(()),
        (Shape::CpuAmount | Shape::MemoryAmount, Value::Number(number)) if number.is_u64() => Ok(()),
        (Shape::PortRange, Value::String(text)) => PortRange::try_from(text.clone()).map(drop),
        (Shape::CpuAmount, Value::String(text)) => amount::cpu_units(text).map(|_| ()),
        (Shape::MemoryAmount, Value::String(text)) => amount::memory_mib(text).map(|_| ()),
        (shape, value) => {
            Err(format!("must be {}, not {}", shape_in_words(shape).replace('`', ""), shortened(value)))
        }
    }
}

fn is_name(text: &str) -> bool {
    text.parse::<crate::ids::Family>().is_ok()
}

/// Null, false, 0, empty, or made of nothing else.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(members) => members.values().all(says_nothing),
    }
}

/// A member name inside a refused value that ECS does not have there. Maps of free keys are judged as
/// a whole: they are refused unless empty.
fn first_unknown_inside(value: &Value, within: &[&str]) -> Option<String> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| first_unknown_inside(item, within)),
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            if within.contains(&name.as_str()) {
                first_unknown_inside(value, within).map(|inner| join(name, &inner))
            } else {
                (says_nothing(value)).then(|| name.clone())
            }
        }),
        _ => None,
    }
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
