//! Services as they are stored: what may become of a deployment, and which races came about.
//! In: records of services as they become durable. Out: the first broken promise, counts of races.
//! Owns: the services as they were. Never: asks the service code what is right.

use super::Model;
use super::care::Changed;
use crate::services::Life;
use crate::world::World;
use lighter_control::core::record::{InstanceRecord, TaskRecord};
use lighter_control::core::service::record::{DeploymentRecord, RolloutState, ServiceRecord, ServiceTask};
use lighter_model::ids::ContainerInstanceId;
use lighter_model::status::{ContainerInstanceStatus, TaskStatus};
use std::collections::BTreeMap;

/// What happens to a service while something else is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Race {
    /// Another deployment takes the place of a rollback in progress.
    UpdateInRollback,
    /// More are wanted while tasks are on a node that drains.
    ScaleOutInDrain,
    ScaleInInDrain,
    /// Deleted with tasks and a deployment in progress.
    DeleteInDeployment,
    /// A revision that cannot run is given up by the circuit breaker, and gone back from.
    PoisonGivenUp,
    PoisonRolledBack,
    /// The same without a breaker is tried in ever longer intervals.
    PoisonThrottled,
    /// Another deployment takes the place of one whose tasks fail.
    PoisonSuperseded,
    /// Fewer are wanted than are protected.
    ScaleInProtected,
    /// Another deployment begins while tasks are protected.
    DeploymentProtected,
    /// A node that drains waits for a protected task.
    DrainProtected,
    ProtectionRenewed,
    ProtectionRemoved,
    /// A task whose protection has run out is stopped by its service.
    StoppedAfterProtection,
    /// An unhealthy task is replaced.
    Replaced,
    /// … although it is protected.
    ReplacedProtected,
    /// … is healthy again before that.
    Recovered,
    /// … is left alone for now.
    UnhealthyInGrace,
    /// A revision that is never healthy is given up by the circuit breaker.
    SickGivenUp,
}

impl Race {
    pub(crate) const ALL: [Self; 19] = [
        Self::UpdateInRollback,
        Self::ScaleOutInDrain,
        Self::ScaleInInDrain,
        Self::DeleteInDeployment,
        Self::PoisonGivenUp,
        Self::PoisonRolledBack,
        Self::PoisonThrottled,
        Self::PoisonSuperseded,
        Self::ScaleInProtected,
        Self::DeploymentProtected,
        Self::DrainProtected,
        Self::ProtectionRenewed,
        Self::ProtectionRemoved,
        Self::StoppedAfterProtection,
        Self::Replaced,
        Self::ReplacedProtected,
        Self::Recovered,
        Self::UnhealthyInGrace,
        Self::SickGivenUp,
    ];
}

/// How often each came about.
pub(crate) type Races = BTreeMap<Race, u64>;

/// Rounds of failures after which a service says that it cannot start its tasks.
const IMPAIRED: u32 = 3;

/// Tasks of a deployment that are started by the tag, unless its events say that more are.
const BY_TAG_MOST: u32 = 3;

/// The services of a world.
#[derive(Default)]
pub(crate) struct Account {
    known: BTreeMap<String, ServiceRecord>,
    /// Of the present batch.
    changed: Vec<ServiceRecord>,
    pub(super) tasks: Changed,
    /// By deployment, tasks that were started by their image's tag.
    by_tag: BTreeMap<String, u32>,
    pub(crate) races: Races,
}

pub(crate) fn goes_on(deployment: &DeploymentRecord) -> bool {
    matches!(deployment.state, RolloutState::InProgress | RolloutState::Paused)
}

fn is_poison(deployment: &DeploymentRecord) -> bool {
    Life::of(deployment.definition.family.as_ref()).is_bad()
}

impl Account {
    pub(crate) fn get(&self, name: &str) -> Option<&ServiceRecord> {
        self.known.get(name)
    }

    /// As it is after the present batch.
    pub(super) fn newest(&self, name: &str) -> Option<&ServiceRecord> {
        self.changed.iter().find(|service| service.name.as_ref() as &str == name).or_else(|| self.get(name))
    }

    /// What was counted stays so.
    pub(super) fn set_back(self) -> Self {
        Self { races: self.races, ..Self::default() }
    }

    pub(super) fn restored(&mut self, record: ServiceRecord) {
        self.known.insert(record.name.to_string(), record);
    }

    pub(super) fn changes(&mut self, record: ServiceRecord) {
        self.changed.push(record);
    }

    pub(super) fn gone(&mut self, key: &str) {
        self.known.remove(key.rsplit('/').next().unwrap());
    }

    /// A task is made; services of the present batch are looked at after it.
    pub(super) fn starts(&mut self, task: &TaskRecord, broken: &dyn Fn(&str)) {
        let Some(of) = &task.service else { return };
        if task.image_digests.is_empty() {
            *self.by_tag.entry(of.deployment.clone()).or_default() += 1;
        }
        let again = |before: &ServiceRecord| {
            let now = self.changed.iter().find(|now| now.name == before.name);
            now.is_some_and(|now| now.created_at_unix_ms != before.created_at_unix_ms)
        };
        match self.known.get(of.name.as_ref() as &str) {
            Some(before) if !before.is_active() && !again(before) => {
                broken(&format!("is made for {}, which is deleted", of.name));
            }
            _ => {}
        }
    }
}

impl Model {
    pub(super) fn services_changed(&mut self, world: &World) {
        self.cared_for(world);
        for new in std::mem::take(&mut self.services.changed) {
            let broken = |what: String| world.fail(format!("service {}: {what}", new.name));
            let old = self.services.known.get(new.name.as_ref() as &str);
            let old = old.filter(|old| {
                let same = old.created_at_unix_ms == new.created_at_unix_ms;
                // One commit may have its end and its new beginning, of which the last is stored.
                if !same && (old.is_active() || self.has_tasks_of_before(&new)) {
                    broken("is made anew before it was INACTIVE".to_owned());
                }
                same
            });
            stands(&new, &broken);
            for deployment in new.deployments.iter().filter(|d| !d.unpinned) {
                let by_tag = self.services.by_tag.get(&deployment.id).copied().unwrap_or(0);
                if by_tag > BY_TAG_MOST {
                    broken(format!("{by_tag} tasks of {} start by the tag", deployment.id));
                }
            }
            let tasks: Vec<&TaskRecord> = self
                .tasks
                .values()
                .filter(|task| task.last != TaskStatus::Stopped)
                .filter(|task| task.service.as_ref().is_some_and(|of| of.name == new.name))
                .collect();
            let mut races = Vec::new();
            if let Some(old) = old {
                compare(old, &new, &broken);
                if old.inactive_at_unix_ms.is_none() && new.inactive_at_unix_ms.is_some() && !tasks.is_empty()
                {
                    broken(format!("is INACTIVE with {} tasks", tasks.len()));
                }
                races = of_change(old, &new, &tasks, &self.instances);
                races.extend(self.care_races(old, &new));
            }
            for race in races {
                self.came(world, race, &new.name);
            }
            self.services.known.insert(new.name.to_string(), new);
        }
    }
}

impl Model {
    /// Of a service of the same name that was there before.
    fn has_tasks_of_before(&self, new: &ServiceRecord) -> bool {
        let own = |of: &ServiceTask| new.deployments.iter().any(|deployment| deployment.id == of.deployment);
        let live = self.tasks.values().filter(|task| task.last != TaskStatus::Stopped);
        live.filter_map(|task| task.service.as_deref()).any(|of| of.name == new.name && !own(of))
    }

    pub(super) fn came(&mut self, world: &World, race: Race, of: &dyn std::fmt::Display) {
        *self.services.races.entry(race).or_default() += 1;
        if world.shape.races {
            world.say(format_args!("race of {of}: {race:?}"));
        }
    }
}

/// What holds of each record by itself.
fn stands(service: &ServiceRecord, broken: &dyn Fn(String)) {
    for (number, deployment) in service.deployments.iter().enumerate() {
        if goes_on(deployment) && (number > 0 || !service.is_active()) {
            broken(format!("deployment {number} is {:?}", deployment.state));
        }
    }
    if service.inactive_at_unix_ms.is_some() && service.is_active() {
        broken("INACTIVE and never deleted".to_owned());
    }
}

/// What may become of a service.
fn compare(old: &ServiceRecord, new: &ServiceRecord, broken: &dyn Fn(String)) {
    if new.version < old.version || new.event_number < old.event_number {
        broken(format!("went back to version {}, event {}", new.version, new.event_number));
    }
    if !old.is_active() && new.is_active() || old.inactive_at_unix_ms.is_some() && old != new {
        broken("changes after its end".to_owned());
    }
    if old.desired != new.desired && old.version == new.version {
        broken(format!("{} are wanted, {} before, at the same version", new.desired, old.desired));
    }
    for (was, is) in old.deployments.iter().filter_map(|was| Some((was, find(new, &was.id)?))) {
        if !goes_on(was) && was.state != is.state {
            broken(format!("deployment {} went from {:?} to {:?}", was.id, was.state, is.state));
        }
        if was.definition != is.definition || was.rollback_of != is.rollback_of {
            broken(format!("deployment {} rolls out something else", was.id));
        }
        if was.image_digests.iter().any(|(name, digest)| is.image_digests.get(name) != Some(digest)) {
            broken(format!("deployment {} runs another digest", was.id));
        }
    }
}

fn find<'a>(service: &'a ServiceRecord, id: &str) -> Option<&'a DeploymentRecord> {
    service.deployments.iter().find(|deployment| deployment.id == id)
}

/// The races that a change is.
fn of_change(
    old: &ServiceRecord,
    new: &ServiceRecord,
    tasks: &[&TaskRecord],
    instances: &BTreeMap<ContainerInstanceId, InstanceRecord>,
) -> Vec<Race> {
    let (Some(was), Some(primary)) = (old.primary(), new.primary()) else { return Vec::new() };
    let drains = |id| instances.get(id).is_some_and(|i| i.status == ContainerInstanceStatus::Draining);
    let draining = tasks.iter().any(|task| drains(&task.instance));
    let now = find(new, &was.id).map(|deployment| deployment.state);
    let superseded = goes_on(was) && now == Some(RolloutState::Superseded);
    let failed = is_poison(was) && goes_on(was) && now == Some(RolloutState::Failed);
    let rounds = |service: &ServiceRecord| service.throttle.rounds >= IMPAIRED;
    let alone = is_poison(primary) && !new.breaker.enable;
    let deleted = old.is_active() && !new.is_active();
    let came = [
        (Race::UpdateInRollback, was.rollback_of.is_some() && superseded && !deleted),
        (Race::ScaleOutInDrain, draining && new.desired > old.desired),
        (Race::ScaleInInDrain, draining && new.desired < old.desired && !deleted),
        (Race::DeleteInDeployment, deleted && superseded && !tasks.is_empty()),
        (Race::PoisonGivenUp, failed),
        (Race::PoisonRolledBack, failed && primary.rollback_of.as_ref() == Some(&was.id)),
        (Race::PoisonThrottled, alone && rounds(new) && !rounds(old)),
        (Race::PoisonSuperseded, is_poison(was) && superseded && was.failed_tasks > 0 && !deleted),
    ];
    came.into_iter().filter_map(|(race, came)| came.then_some(race)).collect()
}
