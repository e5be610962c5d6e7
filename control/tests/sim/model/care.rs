//! Health and protection of services' tasks as they are stored: what must hold, and what came about.
//! In: records of tasks as they become durable. Out: the first broken promise, counts of races.
//! Owns: the changes of the present batch. Never: asks the service code what is right.

use super::Model;
use super::services::{Race, goes_on};
use crate::services::checks::{FAILED_CHECKS, is_checked, is_protected, judged};
use crate::world::World;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::record::{RolloutState, ServiceRecord};
use lighter_model::health::HealthStatus;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, StopCode, TaskStatus};

/// Tasks of services that the present batch changes, each as it was and is.
pub(super) type Changed = Vec<(TaskRecord, TaskRecord)>;

fn is_stopped_by_service(old: &TaskRecord, new: &TaskRecord) -> bool {
    old.desired == DesiredStatus::Running
        && new.desired == DesiredStatus::Stopped
        && new.stop_code == Some(StopCode::ServiceSchedulerInitiated)
}

impl Model {
    /// Before the services of the batch are taken over.
    pub(super) fn cared_for(&mut self, world: &World) {
        let now = self.meta.cluster_time_ms;
        let mut came = Vec::new();
        for (old, new) in std::mem::take(&mut self.services.tasks) {
            let Some(service) = new.service.as_ref().and_then(|of| self.services.newest(of.name.as_ref()))
            else {
                continue;
            };
            let protected = is_protected(&old, now);
            if is_stopped_by_service(&old, &new) && service.is_active() && protected {
                let why = new.stopped_reason.as_deref();
                world.check(why == Some(FAILED_CHECKS), || {
                    format!("task {} is protected and stopped by its service: {why:?}", new.id)
                });
            }
            for race in of_task(&old, &new, service, now) {
                came.push((race, new.id.clone()));
            }
        }
        came.into_iter().for_each(|(race, of)| self.came(world, race, &of));
    }

    /// Races that a change of a service is.
    pub(super) fn care_races(&self, old: &ServiceRecord, new: &ServiceRecord) -> Vec<Race> {
        let now = self.meta.cluster_time_ms;
        let of_it = |task: &&TaskRecord| task.service.as_ref().is_some_and(|of| of.name == new.name);
        let live =
            |task: &&TaskRecord| task.last == TaskStatus::Running && task.desired == DesiredStatus::Running;
        let tasks: Vec<&TaskRecord> = self.tasks.values().filter(of_it).filter(live).collect();
        let protected = || tasks.iter().filter(|task| is_protected(task, now));
        let (Some(was), Some(is)) = (old.primary(), new.primary()) else { return Vec::new() };
        let drains = |task: &&&TaskRecord| {
            let instance = self.instances.get(&task.instance);
            instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining)
        };
        let ended = find_state(new, &was.id) == Some(RolloutState::Failed);
        let came = [
            (Race::ScaleInProtected, new.desired < old.desired && protected().count() > new.desired as usize),
            (Race::DeploymentProtected, was.id != is.id && new.is_active() && protected().count() > 0),
            (
                Race::DrainProtected,
                old.told.protected.is_empty()
                    && protected().filter(drains).count() > 0
                    && !new.told.protected.is_empty(),
            ),
            (Race::SickGivenUp, goes_on(was) && ended && was.definition.family.as_ref() == "sick"),
        ];
        came.into_iter().filter_map(|(race, came)| came.then_some(race)).collect()
    }
}

fn find_state(service: &ServiceRecord, id: &str) -> Option<RolloutState> {
    service.deployments.iter().find(|deployment| deployment.id == id).map(|deployment| deployment.state)
}

/// The races that a change of a task is.
fn of_task(old: &TaskRecord, new: &TaskRecord, service: &ServiceRecord, now_ms: u64) -> Vec<Race> {
    use HealthStatus::{Healthy, Unhealthy};
    let until = |task: &TaskRecord| task.service.as_ref().and_then(|of| of.protected_until_unix_ms);
    let (was, is) = (until(old), until(new));
    let stopped = is_stopped_by_service(old, new);
    let for_health = stopped && new.stopped_reason.as_deref() == Some(FAILED_CHECKS);
    let (before, after) = (judged(old), judged(new));
    let since = new.service.as_ref().and_then(|of| of.running_since_unix_ms).unwrap_or(now_ms);
    let in_grace = since + u64::from(service.grace_s) * 1_000 > now_ms;
    let fails = is_checked(new) && before != Unhealthy && after == Unhealthy;
    let came = [
        (Race::Replaced, for_health),
        (Race::ReplacedProtected, for_health && is_protected(old, now_ms)),
        (Race::Recovered, before == Unhealthy && after == Healthy),
        (Race::UnhealthyInGrace, fails && in_grace),
        (Race::ProtectionRenewed, is_protected(old, now_ms) && is > was),
        (Race::ProtectionRemoved, is_protected(old, now_ms) && is.is_none()),
        (
            Race::StoppedAfterProtection,
            stopped && was.is_some_and(|until| until <= now_ms) && service.is_active(),
        ),
    ];
    came.into_iter().filter_map(|(race, came)| came.then_some(race)).collect()
}
