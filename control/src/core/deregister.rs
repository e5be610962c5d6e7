//! Takes a container instance out of its cluster.
//! In: `DeregisterInstance`. Out: the instance, INACTIVE or on its way. With force its tasks become
//! orphans: here they are given up, a chunk at a time; on the node they run on, for its session has
//! ended before it could be told to stop them, and no other begins.
//! Never: tells a node to stop what is orphaned.
//! Source: Amazon ECS API reference, DeregisterContainerInstance.

use crate::core::Command;
use crate::core::instance::{find_instance, given_up};
use crate::core::mutation::Changes;
use crate::core::record::{InstanceRecord, InstanceSnapshot, TaskRecord};
use crate::core::run_task::require_cluster;
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::ContainerInstanceStatus;
use std::sync::Arc;

/// Tasks given up by one command.
pub const CHUNK: usize = 5;

/// Deregisters one instance; repeating it changes nothing.
#[derive(Debug, Clone)]
pub struct DeregisterInstance {
    pub cluster: ClusterName,
    /// An id, ARN, name, or unique beginning of an id.
    pub instance: String,
    pub force: bool,
}

impl Command for DeregisterInstance {
    type Answer = InstanceSnapshot;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        let old = find_instance(changes.state(), &self.cluster, &self.instance)?;
        let ended = [ContainerInstanceStatus::Deregistering, ContainerInstanceStatus::Inactive];
        if ended.contains(&old.status) {
            return Ok(changes.state().snapshot(&old));
        }
        let tasks = changes.state().reserved(&old.id).tasks.len();
        if tasks > 0 && !self.force {
            return Err(ApiError::InstanceHasTasks { instance: old.id.to_string(), count: tasks });
        }
        let mut new = (*old).clone();
        new.status = ContainerInstanceStatus::Deregistering;
        new.connected = false;
        new.drain = None;
        new.deregistered_at_unix_ms = Some(changes.now_ms());
        changes.put_instance(new);
        go_on(changes, &old.id);
        let now = changes.state().instances.get(&old.id).cloned().unwrap_or(old);
        Ok(changes.state().snapshot(&now))
    }
}

/// Gives up one chunk of a DEREGISTERING instance's tasks; without any it is INACTIVE.
/// How many were given up.
pub fn go_on(changes: &mut Changes<'_>, instance: &ContainerInstanceId) -> usize {
    let state = changes.state();
    let ids = state.reserved(instance).tasks.iter();
    let tasks: Vec<Arc<TaskRecord>> = ids.filter_map(|id| state.tasks.get(id)).take(CHUNK).cloned().collect();
    for task in &tasks {
        let now = changes.now_ms();
        changes.put_task(given_up(
            task,
            "The container instance was deregistered; the task is an orphan",
            now,
        ));
    }
    let empty = changes.state().reserved(instance).tasks.is_empty();
    if let Some(old) = changes.state().instances.get(instance).cloned().filter(|_| empty) {
        changes.put_instance(InstanceRecord { status: ContainerInstanceStatus::Inactive, ..(*old).clone() });
    }
    tasks.len()
}
