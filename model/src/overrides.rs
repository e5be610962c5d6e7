//! What one call changes of a task definition for the tasks it runs: ECS's `overrides`.
//! In: the JSON that `aws ecs run-task --overrides` takes; a definition. Out: the definition as if it had been
//! written so, checked as a whole. Never: ignores a member; one that is not supported is refused by its name.
//! Source: Amazon ECS API reference, TaskOverride, ContainerOverride.

use crate::ids::ContainerName;
use crate::task_definition::amount::{cpu_units, memory_mib};
use crate::task_definition::{KeyValuePair, TaskDefinition, input, strict_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Characters of all overrides of a call (Amazon ECS API reference, RunTask$overrides).
pub const CHARS_MAX: usize = 8192;
const TASK_UNSUPPORTED: [&str; 4] =
    ["ephemeralStorage", "executionRoleArn", "inferenceAcceleratorOverrides", "taskRoleArn"];
const CONTAINER_UNSUPPORTED: [&str; 2] = ["environmentFiles", "resourceRequirements"];

/// What differs from the definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskOverride {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub container_overrides: Vec<ContainerOverride>,
    /// As ECS writes it: `512`, `0.5 vCPU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// `512`, `0.5 GB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// What differs in one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerOverride {
    pub name: ContainerName,
    /// In place of the definition's and the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Beside the definition's; a variable of the same name is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<KeyValuePair>,
    /// CPU units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
}

/// Why overrides are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct OverrideError {
    /// `overrides.containerOverrides[0].command`.
    pub field: String,
    pub problem: String,
}

fn wrong(field: &str, problem: impl Into<String>) -> OverrideError {
    let field = if field.is_empty() { "overrides".to_owned() } else { format!("overrides.{field}") };
    OverrideError { field, problem: problem.into() }
}

impl TaskOverride {
    /// Reads the `overrides` of a call; an empty text has none.
    pub fn parse(json: &str) -> Result<Self, OverrideError> {
        if json.is_empty() {
            return Ok(Self::default());
        }
        let chars = json.chars().count();
        if chars > CHARS_MAX {
            return Err(wrong("", format!("must be at most {CHARS_MAX} characters, got {chars}")));
        }
        let (tree, repeated) =
            strict_json::read(json).map_err(|error| wrong("", format!("is not JSON: {error}")))?;
        if let Some(field) = repeated.first() {
            return Err(wrong(field, "is given twice"));
        }
        supported(&tree)?;
        serde_json::from_value(tree).map_err(|error| wrong("", error.to_string()))
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The definition with the overrides, checked by the rules of definitions.
    pub fn apply(&self, definition: &TaskDefinition) -> Result<TaskDefinition, OverrideError> {
        let mut changed = definition.clone();
        if let Some(cpu) = &self.cpu {
            changed.cpu_units = Some(cpu_units(cpu).map_err(|problem| wrong("cpu", problem))?);
        }
        if let Some(memory) = &self.memory {
            changed.memory_mib = Some(memory_mib(memory).map_err(|problem| wrong("memory", problem))?);
        }
        for (index, change) in self.container_overrides.iter().enumerate() {
            let field = format!("containerOverrides[{index}].name");
            if self.container_overrides[..index].iter().any(|before| before.name == change.name) {
                return Err(wrong(&field, format!("container {} is overridden twice", change.name)));
            }
            let mut containers = changed.container_definitions.iter_mut();
            let container = containers.find(|container| container.name == change.name).ok_or_else(|| {
                // ECS's words.
                wrong(
                    &field,
                    format!(
                        "Override for container named {} is not a container in the TaskDefinition.",
                        change.name
                    ),
                )
            })?;
            change.apply(container);
        }
        // What the definition's own rules refuse is refused here too.
        match input::parse(&input::to_json(&changed)) {
            Ok(checked) => Ok(checked),
            Err(error) => Err(wrong("", format!("with them, {}: {}", error.field(), error.message()))),
        }
    }
}

impl ContainerOverride {
    fn apply(&self, container: &mut crate::task_definition::ContainerDefinition) {
        if let Some(command) = &self.command {
            container.command.clone_from(command);
        }
        for variable in &self.environment {
            match container.environment.iter_mut().find(|own| own.name == variable.name) {
                Some(own) => own.value.clone_from(&variable.value),
                None => container.environment.push(variable.clone()),
            }
        }
        container.cpu_units = self.cpu.unwrap_or(container.cpu_units);
        container.memory_mib = self.memory.or(container.memory_mib);
        container.memory_reservation_mib = self.memory_reservation.or(container.memory_reservation_mib);
    }
}

/// Refuses what ECS has and Lighter has not; what neither has, serde refuses.
fn supported(tree: &Value) -> Result<(), OverrideError> {
    let given = |of: &Value, name: &str| of.get(name).is_some_and(|value| !value.is_null());
    if let Some(name) = TASK_UNSUPPORTED.into_iter().find(|name| given(tree, name)) {
        return Err(wrong(name, "is not supported"));
    }
    let containers = tree.get("containerOverrides").and_then(Value::as_array);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        if let Some(name) = CONTAINER_UNSUPPORTED.into_iter().find(|name| given(container, name)) {
            return Err(wrong(&format!("containerOverrides[{index}].{name}"), "is not supported"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> TaskDefinition {
        input::parse(
            r#"{"family":"f","containerDefinitions":[
                {"name":"a","image":"i","cpu":100,"memory":64,"command":["serve"],
                 "environment":[{"name":"KEEP","value":"1"},{"name":"CHANGE","value":"1"}]},
                {"name":"b","image":"i","memory":10}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn what_is_given_replaces_and_the_rest_stays() {
        let overrides = TaskOverride::parse(
            r#"{"cpu":"0.5 vCPU","memory":"256","containerOverrides":[{"name":"a","command":["migrate","-v"],"cpu":200,
                "memory":128,"memoryReservation":96,
                "environment":[{"name":"CHANGE","value":"2"},{"name":"NEW","value":"3"}]}]}"#,
        )
        .unwrap();
        let changed = overrides.apply(&definition()).unwrap();
        assert_eq!((changed.cpu_units, changed.memory_mib), (Some(512), Some(256)));
        let container = &changed.container_definitions[0];
        assert_eq!(container.command, ["migrate", "-v"]);
        assert_eq!((container.cpu_units, container.memory_mib), (200, Some(128)));
        assert_eq!(container.memory_reservation_mib, Some(96));
        let environment: Vec<_> =
            container.environment.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(environment, [("KEEP", "1"), ("CHANGE", "2"), ("NEW", "3")]);
        assert_eq!(changed.container_definitions[1], definition().container_definitions[1]);
        let written = serde_json::to_string(&overrides).unwrap();
        assert_eq!(TaskOverride::parse(&written).unwrap(), overrides);
    }

    #[test]
    fn what_is_not_supported_or_wrong_is_named() {
        let field = |json: &str| {
            let read = TaskOverride::parse(json);
            read.and_then(|read| read.apply(&definition())).unwrap_err().field
        };
        assert_eq!(field(r#"{"taskRoleArn":"arn"}"#), "overrides.taskRoleArn");
        assert_eq!(
            field(r#"{"containerOverrides":[{"name":"a","environmentFiles":[]}]}"#),
            "overrides.containerOverrides[0].environmentFiles"
        );
        assert_eq!(
            field(r#"{"containerOverrides":[{"name":"none"}]}"#),
            "overrides.containerOverrides[0].name"
        );
        assert_eq!(field(r#"{"cpu":"lots"}"#), "overrides.cpu");
        assert_eq!(field(r#"{"cpu":"1","cpu":"2"}"#), "overrides.cpu");
        assert_eq!(field(r#"{"nonsense":1}"#), "overrides");
        assert_eq!(field("{"), "overrides");
        let above = r#"{"containerOverrides":[{"name":"a","memory":8,"memoryReservation":96}]}"#;
        assert_eq!(field(above), "overrides", "the rules of definitions hold");
        assert!(TaskOverride::parse("").unwrap().is_empty());
        let long = format!(r#"{{"cpu":"{}"}}"#, "1".repeat(CHARS_MAX));
        assert_eq!(field(&long), "overrides");
    }
}
