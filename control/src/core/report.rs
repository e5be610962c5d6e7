//! Applies what a node says of its tasks, each (task, sequence) once.
//! In: reports of one node. Out: which are applied or were before. Owns: the last status of tasks.
//! Never: moves a status backward, or lets a node speak of another node's task.

use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::record::{ContainerRecord, TaskRecord};
use crate::core::update_task::settle;
use crate::error::ApiError;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::report::{ContainerReport, TaskReport};
use lighter_model::status::{DesiredStatus, TaskStatus};

/// Reports of one command; with task, event and trimmed event each it stays within one group.
pub const MAX_REPORTS: usize = 10;

/// Applies a node's reports, at most `MAX_REPORTS`.
#[derive(Debug, Clone)]
pub struct ApplyReports {
    pub instance: ContainerInstanceId,
    pub reports: Vec<TaskReport>,
}

impl Command for ApplyReports {
    /// Every report given, in order: the node may forget them all.
    type Answer = Vec<(TaskId, u64)>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        for report in &self.reports {
            if let Some(task) = changes.state().tasks.get(&report.task)
                && task.instance != self.instance
            {
                let (task, instance) = (task.id.to_string(), self.instance.to_string());
                return Err(ApiError::ForeignTask { task, instance });
            }
        }
        let mut applied = Vec::with_capacity(self.reports.len());
        for report in self.reports {
            applied.push((report.task.clone(), report.sequence));
            // A task that is no longer known was STOPPED long ago or belonged to another store.
            let Some(task) = changes.state().tasks.get(&report.task).cloned() else { continue };
            if report.sequence > task.report_sequence {
                let now = changes.now_ms();
                changes.put_task(merge(&task, report, now));
            }
        }
        Ok(applied)
    }
}

/// The task after a report that is newer than all before.
fn merge(old: &TaskRecord, report: TaskReport, now_ms: u64) -> TaskRecord {
    let mut task = old.clone();
    task.report_sequence = report.sequence;
    if old.last == TaskStatus::Stopped {
        return task;
    }
    task.last = old.last.max(report.status);
    settle(&mut task, &report);
    task.waits = if task.last == TaskStatus::Stopped { Vec::new() } else { report.waits };
    task.waiting_reason = report.waiting_reason.filter(|_| task.last < TaskStatus::Running);
    if task.last >= TaskStatus::Deactivating {
        task.desired = DesiredStatus::Stopped;
    }
    task.stop_code = old.stop_code.or(report.stop_code);
    task.stopped_reason = old.stopped_reason.clone().or(report.stopped_reason);
    let times = &mut task.times;
    times.pull_started_at = report.pull_started_at_unix_ms.or(times.pull_started_at);
    times.pull_stopped_at = report.pull_stopped_at_unix_ms.or(times.pull_stopped_at);
    times.started_at = report.started_at_unix_ms.or(times.started_at);
    times.stopping_at = times.stopping_at.or(report.stopping_at_unix_ms);
    times.execution_stopped_at = report.execution_stopped_at_unix_ms.or(times.execution_stopped_at);
    if task.last == TaskStatus::Stopped {
        times.stopped_at = Some(report.stopped_at_unix_ms.unwrap_or(now_ms));
        times.settled_at = Some(now_ms);
        // The node hears that it may forget the task: a change of its assignment.
        task.generation.0 += 1;
    }
    for container in report.containers {
        if let Some(record) = task.containers.iter_mut().find(|record| record.name == container.name) {
            merge_container(record, container);
        }
    }
    task
}

fn merge_container(record: &mut ContainerRecord, report: ContainerReport) {
    // Not `max`: a container that is started again waits for it.
    record.status = report.status;
    record.exit = record.exit.take().or(report.exit);
    record.reason = report.reason.or(record.reason.take());
    record.pid = report.pid;
    record.image_digest = report.image_digest.or(record.image_digest.take());
    record.address = report.address.or(record.address.take());
    record.network_bindings = report.network_bindings;
    record.limits = report.limits;
    record.health = report.health;
    record.restart_count = report.restart_count;
    record.last_exit = report.last_exit.or(record.last_exit.take());
}
