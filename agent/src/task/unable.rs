//! Containers of a task that cannot be made, and that it does without: the image is not to be had, or
//! the container cannot be created, and it is not essential. As in ECS it counts as stopped, with the
//! reason; what depends on it can never start, which ends the task by name (`order`).
//! In: what a step came to for each container. Out: what it made for the others. Owns the reasons.
//! Never: does without an essential container.
//! Source: the ECS agent's engine, which moves such a container to STOPPED and goes on.

use super::prepare::Failure;
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::TaskDefinition;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why, by container, in ECS's words.
#[derive(Debug, Default)]
pub(super) struct Unable(BTreeMap<ContainerName, String>);

impl Unable {
    pub(super) fn has(&self, name: &ContainerName) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn reasons(&self) -> impl Iterator<Item = (&ContainerName, &String)> {
        self.0.iter()
    }

    /// What a step made, for those it could; the failure of a container that the task needs.
    pub(super) fn keep<T>(
        &mut self,
        definition: &TaskDefinition,
        results: impl IntoIterator<Item = (ContainerName, Result<T, Failure>)>,
    ) -> Result<BTreeMap<ContainerName, T>, Failure> {
        let mut made = BTreeMap::new();
        for (name, result) in results {
            match result {
                Ok(value) => drop(made.insert(name, value)),
                Err(Failure::Words(reason)) if is_spare(definition, &name) => {
                    tracing::warn!(container = %name, %reason, "the task goes on without this container");
                    self.0.insert(name, reason);
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(made)
    }

    /// The definition without them.
    pub(super) fn without(&self, definition: &Arc<TaskDefinition>) -> Arc<TaskDefinition> {
        if self.0.is_empty() {
            return definition.clone();
        }
        let mut rest = TaskDefinition::clone(definition);
        rest.container_definitions.retain(|container| !self.has(&container.name));
        Arc::new(rest)
    }
}

fn is_spare(definition: &TaskDefinition, name: &ContainerName) -> bool {
    definition.container_definitions.iter().any(|container| container.name == *name && !container.essential)
}
