//! Wants a task stopped: its desired status is STOPPED from now on, its last status is its node's to tell; one that
//! waits in the queue has no node and is STOPPED at once.
//! In: a `StopTask`. Out: the task. Never: takes a stop back, or forgets the first reason given.
//! Source: Amazon ECS API reference, StopTask.

use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::queue::ended;
use crate::core::record::TaskRecord;
use crate::core::run_task::require_cluster;
use crate::core::state::State;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, TaskId};
use lighter_model::status::{DesiredStatus, StopCode, TaskStatus};
use std::sync::Arc;

/// Stops one task.
#[derive(Debug, Clone)]
pub struct StopTask {
    pub cluster: ClusterName,
    /// An id, an ARN, or the beginning of an id that is unique in the cluster.
    pub task: String,
    pub reason: Option<String>,
    /// Without the time that its containers have to end by themselves; also while it is stopping.
    pub force: bool,
}

impl Command for StopTask {
    type Answer = Arc<TaskRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        if self.reason.as_ref().is_some_and(|reason| reason.chars().count() > 255) {
            return Err(ApiError::invalid("reason", "must be at most 255 characters"));
        }
        let task = find_task(changes.state(), &self.cluster, &self.task)?;
        let harder = self.force && !task.stop_force && task.last != TaskStatus::Stopped;
        if task.desired == DesiredStatus::Stopped && !harder {
            return Ok(task);
        }
        let reason = self.reason.unwrap_or_else(|| "Task stopped by user".to_owned());
        let now = changes.now_ms();
        if task.queue.is_some() {
            return Ok(changes.put_task(ended(&task, StopCode::UserInitiated, &reason, now)));
        }
        let mut stopped = wanted_stopped(&task, StopCode::UserInitiated, reason, now);
        stopped.stop_force |= self.force;
        Ok(changes.put_task(stopped))
    }
}

/// The task with desired status STOPPED; its node hears of it by the new generation.
pub fn wanted_stopped(task: &TaskRecord, code: StopCode, reason: String, now_ms: u64) -> TaskRecord {
    let mut task = task.clone();
    task.desired = DesiredStatus::Stopped;
    task.generation.0 += u64::from(!wrong_edit::is(WrongEdit::GenerationNotRaised));
    task.stop_code.get_or_insert(code);
    task.stopped_reason.get_or_insert(reason);
    task.times.stopping_at.get_or_insert(now_ms);
    task
}

/// Finds a task of a cluster by id, ARN or unique beginning of its id.
pub fn find_task(state: &State, cluster: &ClusterName, text: &str) -> Result<Arc<TaskRecord>, ApiError> {
    let digits = text.rsplit('/').next().unwrap_or(text);
    let not_found = || ApiError::TaskNotFound { task: text.to_owned(), cluster: cluster.to_string() };
    let first: TaskId = pad(digits).and_then(|id| id.parse().ok()).ok_or_else(not_found)?;
    let matching = state.tasks.range(first..).take_while(|(id, _)| id.as_str().starts_with(digits));
    let mut matching = matching.map(|(_, task)| task).filter(|task| task.cluster == *cluster);
    let task = matching.next().ok_or_else(not_found)?;
    match matching.count() {
        0 => Ok(task.clone()),
        more => Err(ApiError::AmbiguousPrefix { field: "task", text: text.to_owned(), count: more + 1 }),
    }
}

/// The lowest id that begins so; `None` for what no id begins with.
pub fn pad(digits: &str) -> Option<String> {
    ((1..=32).contains(&digits.len())).then(|| format!("{digits:0<32}"))
}
