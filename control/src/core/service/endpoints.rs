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

/// One task's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub task: TaskId,
    /// Of the container instance.
    pub address: String,
    pub port: u16,
    pub instance: ContainerInstanceId,
}

/// Which port of the tasks is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub container: ContainerName,
    pub port: u16,
}

/// Finds the port that is meant in the service's newest revision; an empty name or 0 where there is one.
pub fn target(state: &State, key: &ServiceKey, container: &str, port: u32) -> Result<Target, ApiError> {
    let missing = || ApiError::ServiceNotFound { service: key.1.to_string(), cluster: key.0.to_string() };
    let service = state.services.get(key).filter(|s| s.inactive_at_unix_ms.is_none()).ok_or_else(missing)?;
    let definition =
        service.primary().and_then(|d| state.definitions.get(&d.definition)).ok_or_else(missing)?;
    let containers = definition.definition.container_definitions.iter();
    let ports = containers.flat_map(|c| c.port_mappings.iter().map(move |mapping| (&c.name, mapping)));
    let mut ports: Vec<Target> = ports
        .filter(|(name, _)| container.is_empty() || name.as_str() == container)
        .filter(|(_, mapping)| port == 0 || u32::from(mapping.container_port) == port)
        .map(|(name, mapping)| Target { container: name.clone(), port: mapping.container_port })
        .collect();
    match (ports.pop(), ports.len()) {
        (Some(target), 0) => Ok(target),
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
    let container = task.containers.iter().find(|container| container.name == target.container)?;
    let binding = container.network_bindings.iter().find(|b| b.container_port == target.port)?;
    let instance = state.instances.get(&task.instance)?;
    Some(Endpoint {
        task: task.id.clone(),
        address: instance.address?.ip().to_string(),
        port: binding.host_port,
        instance: instance.id.clone(),
    })
}
