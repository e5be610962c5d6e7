//! The event list of a service, in ECS's words.
//! In: what happened. Out: lines. Never: more than 100 of a service; the oldest go.
//! Source: Amazon ECS Developer Guide, "Viewing Amazon ECS service event messages".

use super::record::{ServiceEventRecord, ServiceRecord};
use crate::core::mutation::{Changes, Mutation};
use crate::scheduler::explain::Unable;
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

/// Why no more tasks are started.
pub fn held(id: &TaskId) -> String {
    format!("waits for the image digest of (task {id}) before it starts others.")
}

/// Nobody has found out what the tags mean.
pub fn unpinned(deployment: &str, tasks: u32) -> String {
    format!(
        "(deployment {deployment}) {tasks} tasks ended or run without the digest of their images; the others \
         start by their tags."
    )
}

pub const STEADY: &str = "has reached a steady state.";
pub const IMPAIRED: &str = "is unable to consistently start tasks successfully.";
pub const BLOCKED: &str = "was unable to stop or start tasks during a deployment because of the service \
    deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again.";

/// Why no task can be placed.
pub fn unplaced(unable: &Unable) -> String {
    format!("was unable to place a task because {}", unable.event())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::explain::Lack;
    use lighter_model::ids::ContainerInstanceId;

    #[test]
    fn why_nothing_can_be_placed_is_told_exactly_as_ecs_tells_it() {
        let id = ContainerInstanceId::from_parts(1, 2);
        let (wanted, left) = (9, 1);
        let table = [
            (Lack::Agent, r#"encountered error "AGENT""#),
            (
                Lack::Attributes { missing: vec!["gpu".into()] },
                "is missing an attribute required by your task",
            ),
            (Lack::MemberOf { expression: "x".into() }, "is missing an attribute required by your task"),
            (Lack::DistinctInstance { group: "g".into() }, "is missing an attribute required by your task"),
            (Lack::Cpu { wanted, left }, "has insufficient CPU units available"),
            (Lack::Memory { wanted, left }, "has insufficient memory available"),
            (Lack::Ports { taken: vec!["80/tcp".into()] }, "is already using a port required by your task"),
            (Lack::Kept { task: "t".into() }, r#"encountered error "QUEUE""#),
        ];
        let begin = "was unable to place a task because no container instance met all of its requirements.";
        for (lack, words) in table {
            let told = unplaced(&Unable::Closest(id.clone(), lack));
            assert_eq!(told, format!("{begin} The closest matching (container-instance {id}) {words}."));
        }
        let none = format!("{begin} Reason: No Container Instances were found in your cluster.");
        assert_eq!(unplaced(&Unable::NoInstances), none);
    }
}
