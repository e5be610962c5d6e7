//! Nodes that shall get no new tasks: told so by a person, or by a notice of the machine's end.
//! In: `UpdateInstancesState`, notices of nodes, the cluster's time. Out: instances DRAINING or
//! ACTIVE, tasks wanted STOPPED. Owns: why and until when an instance drains.
//! Draining alone stops no task (ECS: standalone tasks are left alone); `stop_tasks` does, at once
//! or at the deadline, daemon tasks last.
//! Never: stops a task of an instance that does not drain; heeds the same notice twice.
//! Source: Amazon ECS API reference, UpdateContainerInstancesState; Developer Guide, "Draining".

use crate::core::Command;
use crate::core::instance::find_instance;
use crate::core::mutation::Changes;
use crate::core::named;
use crate::core::record::{DrainRecord, InstanceRecord, InstanceSnapshot, PlacementFailure, TaskRecord};
use crate::core::run_task::require_cluster;
use crate::core::state::State;
use crate::core::stop_task::wanted_stopped;
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::node::{Notice, NoticeKind, is_daemon, next_to_stop};
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, StopCode};
use std::sync::Arc;

/// ECS's most instances of one call.
const MAX_INSTANCES: usize = 10;
/// Tasks that one command stops, to stay within one group.
const CHUNK: usize = 10;
const DEFAULT_REASON: &str = "Drained by a user";

/// Drains instances, or gives them tasks again.
#[derive(Debug, Clone)]
pub struct UpdateInstancesState {
    pub cluster: ClusterName,
    /// 1 to 10 ids, ARNs, names or unique beginnings of ids.
    pub instances: Vec<String>,
    /// DRAINING, else ACTIVE.
    pub draining: bool,
    pub reason: Option<String>,
    /// By when it shall be empty, in milliseconds since the Unix epoch.
    pub deadline_unix_ms: Option<u64>,
    /// Stop what still runs at the deadline; at once without one.
    pub stop_tasks: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct UpdatedInstances {
    pub instances: Vec<InstanceSnapshot>,
    pub failures: Vec<PlacementFailure>,
}

impl Command for UpdateInstancesState {
    type Answer = UpdatedInstances;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        self.check()?;
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        let found = |name: &str| find_instance(changes.state(), &self.cluster, name);
        for (name, old) in named::each(&self.instances, found)? {
            let old = match old {
                Ok(old) => old,
                Err(error) => {
                    failures.push(failure(name, "MISSING", error.to_string()));
                    continue;
                }
            };
            // What is on its way out stays so.
            let ended = [ContainerInstanceStatus::Deregistering, ContainerInstanceStatus::Inactive];
            if ended.contains(&old.status) {
                failures.push(failure(name, old.status.as_str(), String::new()));
                continue;
            }
            let new = self.applied(&old, changes.now_ms());
            let now = if new == *old { old } else { changes.put_instance(new) };
            instances.push(changes.state().snapshot(&now));
        }
        Ok(UpdatedInstances { instances, failures })
    }
}

impl UpdateInstancesState {
    fn check(&self) -> Result<(), ApiError> {
        if self.instances.is_empty() || self.instances.len() > MAX_INSTANCES {
            let message = format!("name 1 to {MAX_INSTANCES}, got {}", self.instances.len());
            return Err(ApiError::invalid("containerInstances", message));
        }
        if self.reason.as_ref().is_some_and(|reason| reason.chars().count() > 255) {
            return Err(ApiError::invalid("reason", "must be at most 255 characters"));
        }
        if !self.draining && (self.stop_tasks || self.deadline_unix_ms.is_some()) {
            return Err(ApiError::invalid("stopTasks", "stopTasks and deadline are for DRAINING only"));
        }
        Ok(())
    }

    fn applied(&self, old: &InstanceRecord, now_ms: u64) -> InstanceRecord {
        let mut new = old.clone();
        if !self.draining {
            new.drain = None;
            if old.status == ContainerInstanceStatus::Draining {
                new.status = ContainerInstanceStatus::Active;
            }
            return new;
        }
        new.status = ContainerInstanceStatus::Draining;
        new.drain = Some(DrainRecord {
            reason: self.reason.clone().unwrap_or_else(|| DEFAULT_REASON.to_owned()),
            // Asked again, it drains since the first time.
            since_unix_ms: old.drain.as_ref().map_or(now_ms, |drain| drain.since_unix_ms),
            deadline_unix_ms: self.deadline_unix_ms,
            stop_tasks: self.stop_tasks,
            stop_code: StopCode::UserInitiated,
            notice: None,
            person: None,
            others: Vec::new(),
        });
        new
    }
}

fn failure(id: &str, reason: &str, detail: String) -> PlacementFailure {
    PlacementFailure { id: id.to_owned(), reason: reason.to_owned(), detail }
}

/// Takes over what a node was told of its end. A notice that is new drains it, and of those that do the most
/// pressing counts; a person's drain it may only tighten, and when it is gone that is back as it was. Without one
/// the instance gets tasks again. In: the instance, changed. Pure.
pub fn heed_notices(instance: &mut InstanceRecord, notices: Vec<Notice>, now_ms: u64) {
    let before = instance.drain.take();
    // One that is neither new nor drains it a person has overruled.
    let counts = |notice: &&Notice| {
        let drains = |drain: &DrainRecord| {
            drain.notice.as_ref() == Some(&notice.id) || drain.others.contains(&notice.id)
        };
        !instance.notices.contains(notice) || before.as_ref().is_some_and(drains)
    };
    let since = before.as_ref().map_or(now_ms, |drain| drain.since_unix_ms);
    let mut drains: Vec<_> = notices.iter().filter(counts).map(|notice| drain_of(notice, since)).collect();
    drains.sort_by_key(urgency);
    instance.notices = notices;
    let was_drained = before.is_some();
    let person = before.and_then(|drain| match drain.notice {
        None => Some(Box::new(drain)),
        Some(_) => drain.person,
    });
    let others = drains.iter().skip(1).filter_map(|drain| drain.notice.clone()).collect();
    let first = drains.into_iter().next();
    let pressing = first.filter(|drain| person.as_ref().is_none_or(|own| urgency(drain) < urgency(own)));
    if let Some(drain) = pressing {
        instance.status = ContainerInstanceStatus::Draining;
        instance.drain = Some(DrainRecord { person, others, ..drain });
    } else if let Some(person) = person {
        instance.drain = Some(*person);
    } else if was_drained {
        instance.status = ContainerInstanceStatus::Active;
    }
}

/// When its tasks stop, then when it shall be empty; the least is the most pressing.
fn urgency(drain: &DrainRecord) -> (u64, u64) {
    let stops = drain.stop_tasks.then(|| drain.deadline_unix_ms.unwrap_or(0));
    (stops.unwrap_or(u64::MAX), drain.deadline_unix_ms.unwrap_or(u64::MAX))
}

fn drain_of(notice: &Notice, now_ms: u64) -> DrainRecord {
    let detail = if notice.detail.is_empty() { String::new() } else { format!(": {}", notice.detail) };
    let going = (notice.at_unix_ms > 0).then_some(notice.at_unix_ms);
    DrainRecord {
        reason: format!("Notice of {}{detail}", notice.kind.as_str()),
        since_unix_ms: now_ms,
        deadline_unix_ms: notice.stop_tasks_at_unix_ms.or(going),
        stop_tasks: notice.stop_tasks_at_unix_ms.is_some(),
        stop_code: match notice.kind {
            NoticeKind::SpotInterruption => StopCode::SpotInterruption,
            NoticeKind::Maintenance => StopCode::TerminationNotice,
        },
        notice: Some(notice.id.clone()),
        person: None,
        others: Vec::new(),
    }
}

/// Instances whose tasks are to be stopped now and that have some which are not told.
pub fn due(state: &State, now_ms: u64) -> Vec<ContainerInstanceId> {
    let instances = state.instances.values().filter(|instance| is_due(instance, now_ms));
    instances.filter(|instance| !to_stop(state, &instance.id).is_empty()).map(|i| i.id.clone()).collect()
}

fn is_due(instance: &InstanceRecord, now_ms: u64) -> bool {
    let drain = instance.drain.as_ref().filter(|_| instance.status == ContainerInstanceStatus::Draining);
    drain.is_some_and(|drain| drain.stop_tasks && drain.deadline_unix_ms.is_none_or(|at| at <= now_ms))
}

fn to_stop(state: &State, instance: &ContainerInstanceId) -> Vec<Arc<TaskRecord>> {
    let tasks = state.reserved(instance).tasks.iter().filter_map(|id| state.tasks.get(id));
    let now = next_to_stop(tasks.map(|task| (task.clone(), is_daemon(&task.group))));
    now.into_iter().filter(|task| task.desired == DesiredStatus::Running).collect()
}

/// Stops tasks of drained instances whose time has come, one chunk.
#[derive(Debug, Clone, Copy)]
pub struct StopDrained;

impl Command for StopDrained {
    /// Whether more is left: give the command again.
    type Answer = bool;

    fn decide(self, changes: &mut Changes<'_>) -> Result<bool, ApiError> {
        let now = changes.now_ms();
        let mut tasks: Vec<(Arc<TaskRecord>, DrainRecord)> = Vec::new();
        for id in due(changes.state(), now) {
            let state = changes.state();
            let Some(drain) = state.instances.get(&id).and_then(|instance| instance.drain.clone()) else {
                continue;
            };
            tasks.extend(to_stop(state, &id).into_iter().map(|task| (task, drain.clone())));
            if tasks.len() > CHUNK {
                break;
            }
        }
        let more = tasks.len() > CHUNK;
        for (task, drain) in tasks.into_iter().take(CHUNK) {
            let reason = format!("Container instance is draining: {}", drain.reason);
            changes.put_task(wanted_stopped(&task, drain.stop_code, reason, now));
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests;
