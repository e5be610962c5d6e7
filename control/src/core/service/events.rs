//! The event list of a service, in ECS's words.
//! In: what happened. Out: lines. Never: more than 100 of a service; the oldest go.
//! Source: Amazon ECS Developer Guide, "Viewing Amazon ECS service event messages".

use super::record::{ServiceEventRecord, ServiceRecord};
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::PlacementFailure;
use crate::scheduler::placement::NO_INSTANCES;
use lighter_model::ids::TaskId;

/// Lines kept of each service.
pub const KEPT: u64 = 100;

/// Adds a line; `rest` goes on from the service's name.
pub fn tell(changes: &mut Changes<'_>, service: &mut ServiceRecord, rest: &str) {
    service.event_number += 1;
    let record = ServiceEventRecord {
        cluster: service.cluster.clone(),
        service: service.name.clone(),
        number: service.event_number,
        created_at_unix_ms: changes.now_ms(),
        message: format!("(service {}) {rest}", service.name),
    };
    changes.put_service_event(record);
    if let Some(old) = service.event_number.checked_sub(KEPT).filter(|old| *old > 0) {
        changes.record(Mutation::ServiceEventGone(service.key(), old));
    }
}

fn tasks(ids: &[TaskId]) -> String {
    ids.iter().map(|id| format!("(task {id})")).collect::<Vec<_>>().join(" ")
}

pub fn started(ids: &[TaskId]) -> String {
    format!("has started {} tasks: {}.", ids.len(), tasks(ids))
}

pub fn stopped(ids: &[TaskId]) -> String {
    format!("has stopped {} running tasks: {}.", ids.len(), tasks(ids))
}

pub fn draining(ids: &[TaskId]) -> String {
    format!("has begun draining connections on {} tasks: {}.", ids.len(), tasks(ids))
}

pub fn unhealthy(id: &TaskId) -> String {
    format!("(task {id}) failed container health checks.")
}

pub fn protected(id: &TaskId) -> String {
    format!("(task {id}) is protected; its container instance waits to drain until the protection ends.")
}

pub const STEADY: &str = "has reached a steady state.";
pub const IMPAIRED: &str = "is unable to consistently start tasks successfully.";
pub const BLOCKED: &str = "was unable to stop or start tasks during a deployment because of the service \
    deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again.";

/// Why no task can be placed; empty: no failure was told.
pub fn unplaced(failures: &[PlacementFailure]) -> String {
    let Some(closest) = failures.first() else { return String::new() };
    let begin = "was unable to place a task because no container instance met all of its requirements.";
    if closest.reason == NO_INSTANCES {
        return format!("{begin} Reason: {NO_INSTANCES}");
    }
    let lack = match closest.reason.as_str() {
        "RESOURCE:CPU" => "has insufficient CPU units available".to_owned(),
        "RESOURCE:MEMORY" => "has insufficient memory available".to_owned(),
        "RESOURCE:PORTS" => "is already using a port required by your task".to_owned(),
        "ATTRIBUTE" => "is missing an attribute required by your task".to_owned(),
        other => format!("encountered error \"{other}\""),
    };
    format!("{begin} The closest matching (container-instance {}) {lack}.", closest.id)
}
