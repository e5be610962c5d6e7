//! Moves tasks when nodes came or went, so that zones and instances have about the same number.
//! In: a service at rest. Out: a task started elsewhere and the one it takes the place of, marked.
//! Never: moves more than max(1, 5 %) at a time, stops before the new one is healthy, or moves where the
//! skew would fall by less than 2.
//! Source: Amazon ECS Developer Guide, "Balancing an Amazon ECS service across Availability Zones".

use super::decide::{TaskView, upper};
use super::look::Look;
use super::record::{RolloutState, ServiceRecord};
use super::{digest, events, place};
use crate::core::mutation::Changes;
use crate::core::state::State;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::attribute::AVAILABILITY_ZONE;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::ContainerInstanceStatus;
use std::collections::BTreeMap;

/// Tasks moved at a time.
pub fn most(desired: u32) -> u32 {
    (desired / 20).max(1)
}

/// How many tasks a zone and an instance have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub zone: u32,
    pub in_zone: u32,
    pub on_instance: u32,
}

/// Whether a move from one place to the other lets the skew fall by 2 at least.
pub fn pays(from: Load, to: Load) -> bool {
    let least = if wrong_edit::is(WrongEdit::MovedForNothing) { 1 } else { 2 };
    if from.zone != to.zone {
        return from.in_zone >= to.in_zone + least;
    }
    from.on_instance >= to.on_instance + least
}

fn is_at_rest(service: &ServiceRecord, seen: &Look) -> bool {
    let spread = service.placement.strategies.first().is_none_or(|strategy| strategy.kind == "spread");
    let completed = service.primary().is_some_and(|d| d.state == RolloutState::Completed);
    let view = &seen.view;
    let moving = view.tasks.iter().filter(|task| task.moving).count();
    let quiet = view.tasks.iter().all(|task| !task.occupies() || task.is_healthy());
    service.is_active()
        // Not while it waits after failures, nor in a store that has no room for more.
        && view.may_start
        && service.rebalancing
        && view.most_starts > 0
        && service.strategy == SchedulingStrategy::Replica
        && spread
        && completed
        && quiet
        && (moving as u32) < most(view.desired)
        && view.occupied() < upper(view.desired, view.maximum_percent)
}

/// Counts of each zone and instance; a task that moves counts where it goes.
fn loads(seen: &Look) -> (BTreeMap<u32, u32>, BTreeMap<u32, u32>) {
    let (mut zones, mut instances) = (BTreeMap::new(), BTreeMap::new());
    for task in seen.view.tasks.iter().filter(|task| task.is_kept(false)) {
        *zones.entry(task.zone).or_insert(0) += 1;
        *instances.entry(task.instance).or_insert(0) += 1;
    }
    (zones, instances)
}

fn load_of(task: &TaskView, loads: &(BTreeMap<u32, u32>, BTreeMap<u32, u32>)) -> Load {
    let of = |map: &BTreeMap<u32, u32>, key| map.get(&key).copied().unwrap_or(0);
    let (in_zone, on_instance) = (of(&loads.0, task.zone), of(&loads.1, task.instance));
    Load { zone: task.zone, in_zone, on_instance }
}

/// The task that would go first.
fn victim<'a>(seen: &'a Look, loads: &(BTreeMap<u32, u32>, BTreeMap<u32, u32>)) -> Option<&'a TaskView> {
    let is_left = |task: &TaskView| task.protected && !wrong_edit::is(WrongEdit::ProtectedMoved);
    let movable = seen.view.tasks.iter().filter(|task| task.is_kept(false) && !is_left(task));
    movable.max_by_key(|task| {
        let load = load_of(task, loads);
        (load.in_zone, load.on_instance, task.id.clone())
    })
}

/// What a new task on this instance would stand beside.
fn load_at(state: &State, seen: &Look, instance: &ContainerInstanceId) -> Load {
    let loads = loads(seen);
    let zone_of =
        |id: &ContainerInstanceId| state.instances.get(id).and_then(|i| i.attribute(AVAILABILITY_ZONE));
    let number = seen.instance_ids.iter().position(|id| id == instance);
    let on_instance = number.and_then(|number| loads.1.get(&(number as u32))).copied().unwrap_or(0);
    // A zone without a task of the service has no number in this view.
    let same = |task: &&TaskView| {
        seen.instance_ids.get(task.instance as usize).is_some_and(|id| zone_of(id) == zone_of(instance))
    };
    let zone = seen.view.tasks.iter().find(same).map_or(u32::MAX, |task| task.zone);
    Load { zone, in_zone: loads.0.get(&zone).copied().unwrap_or(0), on_instance }
}

/// Whether there may be something to move, by counts alone: room is found out by trying.
pub fn is_possible(state: &State, service: &ServiceRecord, seen: &Look) -> bool {
    if !is_at_rest(service, seen) {
        return false;
    }
    let all = loads(seen);
    let Some(from) = victim(seen, &all).map(|task| load_of(task, &all)) else { return false };
    if from.in_zone < 2 {
        return false;
    }
    let open = state.instances.values().filter(|instance| {
        let active = instance.status == ContainerInstanceStatus::Active;
        active && instance.connected && instance.cluster == service.cluster
    });
    open.into_iter().any(|instance| pays(from, load_at(state, seen, &instance.id)))
}

/// Starts one task elsewhere and marks the one that goes for it. Whether it did.
pub fn step(changes: &mut Changes<'_>, service: &mut ServiceRecord, seen: &Look) -> bool {
    if !is_possible(changes.state(), service, seen) {
        return false;
    }
    let all = loads(seen);
    let Some(victim) = victim(seen, &all) else { return false };
    let Some(deployment) = service.primary().cloned() else { return false };
    let Ok(task) = place::place(changes, service, &deployment, None) else { return false };
    if !pays(load_of(victim, &all), load_at(changes.state(), seen, &task.instance)) {
        return false;
    }
    let Some(old) = changes.state().tasks.get(&victim.id).cloned() else { return false };
    let mut old = (*old).clone();
    if let Some(of) = old.service.as_mut() {
        of.moving = true;
    }
    changes.put_task(old);
    let id = task.id.clone();
    changes.put_task(task);
    service.told.steady = false;
    events::tell(changes, service, &events::started(&[id]));
    digest::note(changes, service, &seen.hold);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_pays_when_the_skew_falls_by_two() {
        let load = |zone, in_zone, on_instance| Load { zone, in_zone, on_instance };
        assert!(pays(load(0, 3, 1), load(1, 1, 1)) && !pays(load(0, 3, 3), load(1, 2, 0)));
        assert!(pays(load(0, 3, 3), load(0, 3, 1)) && !pays(load(0, 3, 2), load(0, 3, 1)));
        assert_eq!([0, 1, 39, 40, 1_000].map(most), [1, 1, 1, 2, 50]);
    }
}
