//! Where the healthy tasks of a service are reached.
//! In: the state, a service, which container and port. Out: the list, by task id. Pure.
//! A task is on the list when it is RUNNING, wanted, not on its way out, and HEALTHY if it has a
//! health check. That its node is silent takes nobody off: it may well serve.

use super::look::is_checked;
use super::record::ServiceKey;
use crate::core::record::TaskRecord;
use crate::core::state::State;
use crate::error::ApiError;
use lighter_model::health::HealthStatus;
use lighter_model::ids::{ContainerInstanceId, ContainerName, TaskId};
use lighter_model::status::{DesiredStatus, TaskStatus};
use lighter_model::task_definition::TaskDefinition;

/// One task's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub task: TaskId,
    /// Of the container instance.
    pub address: String,
    pub port: u16,
    pub instance: ContainerInstanceId,
}

/// A port mapping of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    container: ContainerName,
    port: u16,
}

/// Which port of the tasks is meant: what was asked for, an empty name or 0 where there is one. Each task
/// has it where its own revision has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    container: String,
    port: u32,
    /// Where the newest revision had it; meant as well in revisions with several.
    first: Port,
}

impl Target {
    fn ports(container: &str, port: u32, definition: &TaskDefinition) -> Vec<Port> {
        let containers = definition.container_definitions.iter();
        let ports = containers.flat_map(|c| c.port_mappings.iter().map(move |mapping| (&c.name, mapping)));
        ports
            .filter(|(name, _)| container.is_empty() || name.as_str() == container)
            .filter(|(_, mapping)| port == 0 || u32::from(mapping.container_port) == port)
            .map(|(name, mapping)| Port { container: name.clone(), port: mapping.container_port })
            .collect()
    }

    fn of(&self, definition: &TaskDefinition) -> Option<Port> {
        let mut ports = Self::ports(&self.container, self.port, definition);
        match ports.iter().position(|port| *port == self.first) {
            Some(place) => Some(ports.swap_remove(place)),
            None => ports.pop().filter(|_| ports.is_empty()),
        }
    }
}

/// What is meant; the service's newest revision must have it once.
pub fn target(state: &State, key: &ServiceKey, container: &str, port: u32) -> Result<Target, ApiError> {
    let missing = || ApiError::ServiceNotFound { service: key.1.to_string(), cluster: key.0.to_string() };
    let service = state.services.get(key).filter(|s| s.inactive_at_unix_ms.is_none()).ok_or_else(missing)?;
    let definition =
        service.primary().and_then(|d| state.definitions.get(&d.definition)).ok_or_else(missing)?;
    let mut ports = Target::ports(container, port, &definition.definition);
    match (ports.pop(), ports.len()) {
        (Some(first), 0) => Ok(Target { container: container.to_owned(), port, first }),
        (Some(_), _) => Err(ApiError::invalid("containerPort", "the service has several ports; name one")),
        (None, _) => Err(ApiError::invalid("containerPort", "the service has no such port mapping")),
    }
}

/// The list.
pub fn endpoints(state: &State, key: &ServiceKey, target: &Target) -> Vec<Endpoint> {
    state.tasks_of_service(key).filter_map(|task| endpoint(state, task, target)).collect()
}

fn endpoint(state: &State, task: &TaskRecord, target: &Target) -> Option<Endpoint> {
    let leaving = task.service.as_ref().is_none_or(|of| of.leaving_since_unix_ms.is_some());
    let serves = task.desired == DesiredStatus::Running && task.last == TaskStatus::Running && !leaving;
    let healthy = !is_checked(state, task) || task.health() == HealthStatus::Healthy;
    if !serves || !healthy {
        return None;
    }
    let meant = match state.definitions.get(&task.definition) {
        Some(record) => target.of(&record.definition)?,
        None => target.first.clone(),
    };
    let container = task.containers.iter().find(|container| container.name == meant.container)?;
    let binding = container.network_bindings.iter().find(|b| b.container_port == meant.port)?;
    let instance = state.instances.get(&task.instance)?;
    Some(Endpoint {
        task: task.id.clone(),
        address: instance.address?.ip().to_string(),
        port: binding.host_port,
        instance: instance.id.clone(),
    })
}
