//! What must hold of how a service goes from deployment to deployment and from task to task.
//! In: one tending. Out: the first broken promise. Owns: nothing.
//! Never: asks the service code what is right: it counts the records by itself.

use super::checks::{is_checked, judged};
use super::{With, healthy, live, occupies};
use crate::world::World;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::record::{DeploymentRecord, RolloutState, ServiceRecord};
use lighter_control::core::service::witness::Tending;
use lighter_model::health::HealthStatus;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::{DesiredStatus, StopCode, TaskStatus};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Deployments that are shown at the least.
const SHOWN: usize = 10;

/// One decision against the state it was made from.
pub(super) fn look(world: &World, tending: &Tending) {
    let before: BTreeMap<&TaskId, &With> = tending.before.iter().map(|with| (&with.0.id, with)).collect();
    let started: Vec<_> = tending.after.iter().filter(|task| !before.contains_key(&task.id)).collect();
    let broken = completed(tending)
        .or_else(|| rolled_back(&tending.service))
        .or_else(|| throttled(tending, &started))
        .or_else(|| deregistered(tending, &before))
        .or_else(|| moved(tending, &before, &started))
        .or_else(|| digests(tending, &started));
    world.check(broken.is_none(), || {
        format!("service {}: {}", tending.service.name, broken.unwrap_or_default())
    });
}

/// A deployment is completed when its tasks, all healthy, are the only ones.
fn completed(tending: &Tending) -> Option<String> {
    let (old, new) = (tending.old.as_ref()?.primary()?, tending.service.primary()?);
    if old.state == RolloutState::Completed || new.state != RolloutState::Completed || old.id != new.id {
        return None;
    }
    let counted: Vec<&With> = tending.before.iter().filter(|with| occupies(with)).collect();
    let right = counted.iter().filter(|with| with.0.definition == new.definition);
    let right = right.filter(|with| healthy(with, tending.now_ms)).count();
    let replica = tending.service.strategy == SchedulingStrategy::Replica;
    let enough = !replica || right == tending.service.desired as usize;
    let of = |number| format!("completed with {right} healthy tasks of its revision of {number}");
    (right != counted.len() || !enough).then(|| of(counted.len()))
}

/// A rollback goes to the last that was completed before the one that failed.
fn rolled_back(service: &ServiceRecord) -> Option<String> {
    let primary = service.primary().filter(|deployment| deployment.rollback_of.is_some())?;
    let is_completed = |deployment: &&DeploymentRecord| deployment.state == RolloutState::Completed;
    let last = service.deployments.iter().skip(2).find(is_completed);
    let right = match last {
        Some(last) => last.definition == primary.definition,
        None => service.deployments.len() >= SHOWN,
    };
    (!right).then(|| format!("goes back to {}, which did not work", primary.definition))
}

/// While it waits after failures nothing is started.
fn throttled(tending: &Tending, started: &[&Arc<TaskRecord>]) -> Option<String> {
    let until = tending.service.throttle.until_unix_ms;
    let of = || format!("{} start {} ms too early", started.len(), until.saturating_sub(tending.now_ms));
    (!started.is_empty() && until > tending.now_ms).then(of)
}

/// Who sends requests has heard that a task leaves before it is stopped.
fn deregistered(tending: &Tending, before: &BTreeMap<&TaskId, &With>) -> Option<String> {
    let delay_ms = u64::from(tending.service.deregistration_delay_s) * 1_000;
    let early = tending.after.iter().find(|task| {
        // What is checked and not HEALTHY is not on the list.
        let listed = |old: &TaskRecord| !is_checked(old) || judged(old) == HealthStatus::Healthy;
        let served = before.get(&task.id).is_some_and(|(old, _)| {
            old.desired == DesiredStatus::Running && old.last == TaskStatus::Running && listed(old)
        });
        let by_service = task.stop_code == Some(StopCode::ServiceSchedulerInitiated);
        let since = task.service.as_ref().and_then(|of| of.leaving_since_unix_ms);
        let told = delay_ms == 0 || since.is_some_and(|since| since + delay_ms <= tending.now_ms);
        served && by_service && task.desired == DesiredStatus::Stopped && !told
    });
    early.map(|task| format!("{} is stopped before it has left the list of endpoints", task.id))
}

/// A task is moved only where that brings two instances nearer to each other by two.
fn moved(
    tending: &Tending,
    before: &BTreeMap<&TaskId, &With>,
    started: &[&Arc<TaskRecord>],
) -> Option<String> {
    let is_moving = |task: &TaskRecord| task.service.as_ref().is_some_and(|of| of.moving);
    let moves = |task: &&Arc<TaskRecord>| {
        is_moving(task) && before.get(&task.id).is_some_and(|(old, _)| !is_moving(old))
    };
    let (from, to) = (tending.after.iter().find(moves)?, started.first()?);
    let on = |instance: &ContainerInstanceId| {
        let there = tending.before.iter().filter(|(task, _)| live(task) && task.instance == *instance);
        there.count()
    };
    let (from, to) = (on(&from.instance), on(&to.instance));
    (from < to + 2).then(|| format!("a task is moved from among {from} to {to}"))
}

/// How long a task that is to find out what its tags mean is waited for.
const DIGEST_MS: u64 = 600_000;

/// What starts runs the digest of its deployment; where that is not known, one alone starts to find out.
fn digests(tending: &Tending, started: &[&Arc<TaskRecord>]) -> Option<String> {
    let old = tending.old.as_ref()?;
    let id = &started.first()?.service.as_ref()?.deployment;
    let own = |task: &TaskRecord| task.service.as_ref().is_some_and(|of| of.deployment == *id);
    let of = |service: &ServiceRecord| service.deployments.iter().find(|d| d.id == *id).cloned();
    let deployment = of(&tending.service)?;
    let known = of(old).unwrap_or(deployment.clone()).image_digests;
    if let Some(task) = started.iter().find(|task| *task.image_digests != *known) {
        return Some(format!("{} runs {:?}, its deployment {known:?}", task.id, task.image_digests));
    }
    let finds_out = |(task, instance): &&With| {
        let there = instance.as_ref().is_some_and(|instance| instance.connected);
        let young = task.times.created_at + DIGEST_MS > tending.now_ms;
        own(task) && there && young && task.last < TaskStatus::Running
    };
    let before = tending.before.iter().filter(finds_out).count();
    let too_many = known.is_empty() && !deployment.unpinned && before + started.len() > 1;
    too_many.then(|| format!("{} start by the tag beside {before}", started.len()))
}
