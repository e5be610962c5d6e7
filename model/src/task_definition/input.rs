//! Reads a task definition as people and `aws ecs register-task-definition` write it.
//! In: JSON text. Out: a `TaskDefinition` that keeps every rule, or all that is wrong, each with the
//! path of its member. Owns nothing. Never: ignores a member, or stops at the first mistake.
//! Steps: `strict_json` reads, `walk` compares with `support`, serde builds, `validate` checks the whole.

use super::{TaskDefinition, strict_json, validate, walk};
use serde_json::Value;
use std::fmt;

/// The largest task definition, in bytes of its JSON: one message of a session. ECS's 64 KiB is a
/// quota of the control plane.
pub const DEFINITION_BYTES_MAX: usize = 192 * 1024;
/// Text above this is not even read: white space and comments of tools are no reason to spend memory.
const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// The field named when the fault is in no single member.
pub const WHOLE: &str = "taskDefinition";

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Like `containerDefinitions[0].memory`; `taskDefinition` when no single member is at fault.
    pub field: String,
    /// Like `must be at least 6`; goes on from the field's name.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A task definition that is refused; there is always at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionError {
    first: Problem,
    more: Vec<Problem>,
}

impl DefinitionError {
    /// `None` when nothing is wrong.
    pub(super) fn from_problems(problems: Vec<Problem>) -> Option<Self> {
        let mut problems = problems.into_iter();
        problems.next().map(|first| Self { first, more: problems.collect() })
    }
    fn whole(message: impl Into<String>) -> Self {
        Self { first: Problem { field: WHOLE.into(), message: message.into() }, more: Vec::new() }
    }
    /// The member at fault; the first of several.
    pub fn field(&self) -> &str {
        &self.first.field
    }
    /// What is wrong with it.
    pub fn message(&self) -> &str {
        &self.first.message
    }
    /// All that is wrong, in the order of the text where there is one.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        for problem in &self.more {
            write!(f, "; {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DefinitionError {}

/// The definition that `json` describes, defaults filled in.
///
/// # Errors
/// It is not JSON, has a member that does not exist or is not supported, or breaks a rule; the error
/// names every member at fault.
pub fn parse(json: &str) -> Result<TaskDefinition, DefinitionError> {
    if json.len() > INPUT_BYTES_MAX {
        return Err(DefinitionError::whole(format!("is larger than {INPUT_BYTES_MAX} bytes")));
    }
    let (tree, repeated) =
        strict_json::read(json).map_err(|source| DefinitionError::whole(format!("is not JSON: {source}")))?;
    let Value::Object(members) = tree else {
        return Err(DefinitionError::whole("must be a JSON object, like {\"family\": …}"));
    };
    let mut problems: Vec<Problem> =
        repeated.into_iter().map(|field| Problem { field, message: "is given twice".into() }).collect();
    let known = walk::walk(members, &mut problems);
    if let Some(error) = DefinitionError::from_problems(problems) {
        return Err(error);
    }
    let definition: TaskDefinition =
        serde_json::from_value(known).map_err(|source| DefinitionError::whole(source.to_string()))?;
    checked(definition)
}

fn checked(mut definition: TaskDefinition) -> Result<TaskDefinition, DefinitionError> {
    definition.fill_in_host_ports();
    let mut problems = validate::problems(&definition);
    let size = to_json(&definition).len();
    if size > DEFINITION_BYTES_MAX {
        let message = format!("takes {size} bytes, and may take {DEFINITION_BYTES_MAX}");
        problems.push(Problem { field: WHOLE.into(), message });
    }
    DefinitionError::from_problems(problems).map_or(Ok(definition), Err)
}

/// The definition in ECS's JSON form, defaults filled in; `parse` gives the same definition again.
pub fn to_json(definition: &TaskDefinition) -> String {
    // Cannot fail: every map key is a string and no value refuses to be written.
    serde_json::to_string(definition).unwrap_or_default()
}
