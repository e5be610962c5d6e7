//! What may change of a task while it runs: CPU and memory of its containers.
//! In: a definition and changes. Out: the definition as if it had been written so.
//! Never: decides whether there is room for more.

use crate::ids::ContainerName;
use crate::task_definition::TaskDefinition;
use serde::{Deserialize, Serialize};

/// Limits of a container in place of its definition's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerResources {
    pub container: ContainerName,
    /// CPU units, 1024 to a vCPU; `None`: the definition's.
    pub cpu_units: Option<u32>,
    /// Hard limit in MiB; `None`: the definition's.
    pub memory_mib: Option<u64>,
}

/// The definition with these limits. A memoryReservation above the new hard limit comes down to it.
/// Changes of containers that the definition does not have change nothing.
pub fn with_resources(definition: &TaskDefinition, changes: &[ContainerResources]) -> TaskDefinition {
    let mut definition = definition.clone();
    for change in changes {
        let mut containers = definition.container_definitions.iter_mut();
        let Some(container) = containers.find(|c| c.name == change.container) else { continue };
        container.cpu_units = change.cpu_units.unwrap_or(container.cpu_units);
        if let Some(mib) = change.memory_mib {
            container.memory_mib = Some(mib);
            container.memory_reservation_mib =
                container.memory_reservation_mib.map(|reserved| reserved.min(mib));
        }
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::required_resources;

    #[test]
    fn only_what_is_named_changes_and_placement_counts_it() {
        let definition: TaskDefinition = serde_json::from_str(
            r#"{"family":"f","containerDefinitions":[
                {"name":"a","image":"i","cpu":100,"memory":64,"memoryReservation":32},
                {"name":"b","image":"i","cpu":28,"memory":10}]}"#,
        )
        .unwrap();
        let change = |container: &str, cpu_units, memory_mib| ContainerResources {
            container: container.parse().unwrap(),
            cpu_units,
            memory_mib,
        };
        let changed =
            with_resources(&definition, &[change("a", None, Some(16)), change("b", Some(50), None)]);
        let needs = required_resources(&changed);
        assert_eq!((needs.cpu_units, needs.memory_mib), (150, 26));
        assert_eq!(changed.container_definitions[0].memory_mib, Some(16));
        assert_eq!(with_resources(&definition, &[change("none", Some(1), Some(1))]), definition);
    }
}
