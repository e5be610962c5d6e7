//! Applies what a node says of its tasks, each (task, sequence) once.
//! In: reports of one node. Out: which are applied or were before. Owns: the last status of tasks, and
//! what a revision's tags mean.
//! Never: moves a status backward, or lets a node speak of another node's task.

use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::record::{ContainerRecord, DefinitionRecord, ImageDigests, TaskRecord};
use crate::core::service::deployment;
use crate::core::shared::{Rare, SharedText};
use crate::core::state::State;
use crate::core::update_task::settle;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::health::HealthStatus;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::report::{ContainerReport, TaskReport};
use lighter_model::status::{DesiredStatus, StopCode, TaskStatus};
use std::collections::BTreeMap;

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
                && !wrong_edit::is(WrongEdit::ForeignReportTaken)
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
            if report.sequence > task.report_sequence || wrong_edit::is(WrongEdit::SequenceNotCompared) {
                let now = changes.now_ms();
                let pinned = match &task.service {
                    Some(_) => deployment::pin(changes, &task, &report),
                    None => pinned_definition(changes.state(), &task, &report),
                };
                changes.put_task(merge(&task, report, now));
                if let Some(definition) = pinned {
                    changes.put_definition(definition);
                }
            }
        }
        Ok(applied)
    }
}

/// The revision with what this report says its tags mean, if that was not settled yet. The first
/// report wins: all later tasks of the revision run these digests. Source: Amazon ECS API reference,
/// ContainerDefinition, versionConsistency (there for the tasks of a service's deployment).
fn pinned_definition(state: &State, task: &TaskRecord, report: &TaskReport) -> Option<DefinitionRecord> {
    let record = state.definitions.get(&task.definition)?;
    let digests = pinned(record, &record.image_digests, report)?;
    Some(DefinitionRecord { image_digests: digests, ..(**record).clone() })
}

/// What is known of a revision's tags, with what this report adds; `None`: it adds nothing.
pub fn pinned(record: &DefinitionRecord, known: &ImageDigests, report: &TaskReport) -> Option<ImageDigests> {
    let containers = record.definition.container_definitions.iter().filter(|c| c.pins_its_tag());
    let new = containers.filter(|container| !known.contains_key(&container.name)).filter_map(|container| {
        let said = report.containers.iter().find(|said| said.name == container.name)?;
        let digest = said.image_digest.as_ref().filter(|digest| is_digest(digest))?;
        Some((container.name.clone(), SharedText::from(digest.as_str())))
    });
    let new: Vec<_> = new.collect();
    let known = known.iter().map(|(name, digest)| (name.clone(), digest.clone()));
    (!new.is_empty()).then(|| known.chain(new).collect::<BTreeMap<_, _>>().into())
}

/// `sha256:` and 64 lower-case hex digits; what else a node may say pins nothing.
fn is_digest(text: &str) -> bool {
    let hex_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(hex_digit))
}

/// The task after a report that is newer than all before.
pub fn merge(old: &TaskRecord, report: TaskReport, now_ms: u64) -> TaskRecord {
    let mut task = old.clone();
    task.report_sequence = report.sequence;
    if old.last == TaskStatus::Stopped {
        return task;
    }
    task.last = old.last.max(report.status);
    if let Some(service) = task.service.as_mut().filter(|_| task.last == TaskStatus::Running) {
        service.running_since_unix_ms.get_or_insert(now_ms);
    }
    settle(&mut task, &report);
    task.waits = if task.last == TaskStatus::Stopped { Rare::default() } else { report.waits.into() };
    task.waiting_reason =
        report.waiting_reason.map(SharedText::from).filter(|_| task.last < TaskStatus::Running);
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
        // Whatever a node says: what is STOPPED has both.
        task.stop_code.get_or_insert(StopCode::InfrastructureHealth);
        task.stopped_reason.get_or_insert_with(|| "The node gave no reason".to_owned());
        // The node hears that it may forget the task: a change of its assignment.
        task.generation.0 += 1;
    }
    for container in report.containers {
        if let Some(record) = task.containers.iter_mut().find(|record| record.name == container.name) {
            merge_container(record, container);
        }
    }
    let healthy = task.health() == HealthStatus::Healthy;
    if let Some(service) = task.service.as_mut() {
        service.was_healthy |= healthy;
    }
    task
}

fn merge_container(record: &mut ContainerRecord, report: ContainerReport) {
    // Not `max`: a container that is started again waits for it.
    record.status = report.status;
    record.exit = record.exit.take().or(report.exit.map(Box::new));
    record.reason = report.reason.or(record.reason.take());
    record.pid = report.pid;
    record.image_digest = report.image_digest.map(SharedText::from).or(record.image_digest.take());
    record.address = report.address.map(SharedText::from).or(record.address.take());
    record.network_bindings = report.network_bindings;
    record.limits = report.limits;
    record.health = report.health.map(Box::new);
    record.restart_count = report.restart_count;
    record.last_exit = report.last_exit.map(Box::new).or(record.last_exit.take());
    record.devices = report.devices;
}
