//! How services must stand when a world has come to rest.
//! In: a world after its last fault. Out: what is not yet as it should be. Owns: nothing.
//! Never: excuses more than what nobody promises: tasks of a revision that cannot run.

use super::{Life, bounds, checks, exclusive};
use crate::client::asker;
use crate::model::goes_on;
use crate::plane::cluster;
use crate::run::leader;
use crate::world::World;
use lighter_control::api::service;
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::control::Action;
use lighter_control::core::service::record::{RolloutState, ServiceRecord};
use lighter_control::view::Shown;
use lighter_model::health::HealthStatus;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Rounds of failures after which a service says that it cannot start its tasks.
const IMPAIRED: u32 = 3;

/// After the last fault: no deployment is paused any more, and no node drains; half of the worlds with races
/// leave nodes as they are, if one is ACTIVE, so that they must become empty.
pub(crate) async fn settle(world: &Rc<World>) {
    if !world.shape.services {
        return;
    }
    // Calls on their way come to their end.
    world.sleep(30_000).await;
    let leave = world.shape.races && world.luck.borrow_mut().percent(50);
    let context = leader(world).await;
    let (draining, paused) = context.view.read(|shown| {
        let of = |status| move |id: &&_| shown.state.instances.get(*id).is_some_and(|i| i.status == status);
        let all = || shown.state.instances.keys();
        let active = all().filter(of(ContainerInstanceStatus::Active)).count();
        let draining = all().filter(of(ContainerInstanceStatus::Draining)).map(ToString::to_string);
        let draining: Vec<String> = draining.filter(|_| !leave || active == 0).collect();
        let paused = shown.state.services.values().filter(|service| service.is_active());
        let paused = paused.filter(|s| s.primary().is_some_and(|d| d.state == RolloutState::Paused));
        (draining, paused.map(|service| service.name.to_string()).collect::<Vec<_>>())
    });
    for instance in draining {
        let command = UpdateInstancesState {
            cluster: cluster(),
            instances: vec![instance],
            draining: false,
            reason: None,
            deadline_unix_ms: None,
            stop_tasks: false,
        };
        let answer = context.writer.submit(command).await;
        world.check(answer.is_ok(), || format!("a node could not be made ACTIVE: {answer:?}"));
    }
    for service in paused {
        let cluster = cluster().to_string();
        let answer = service::control(&context, asker(), &cluster, service, Action::Resume).await;
        world.check(answer.is_ok(), || format!("a deployment could not be resumed: {:?}", answer.err()));
    }
}

/// What of the services is not yet as it should be.
pub(crate) fn restless(world: &World, shown: &Shown) -> Option<String> {
    shown.state.services.values().find_map(|service| {
        let what = of_one(world, shown, service)?;
        let (throttle, told) = (&service.throttle, &service.told);
        Some(format!(
            "service {}: {what}; wanted {} ({} to {} %), {throttle:?}, {told:?}",
            service.name, service.desired, service.minimum_percent, service.maximum_percent
        ))
    })
}

fn of_one(world: &World, shown: &Shown, service: &ServiceRecord) -> Option<String> {
    let running = running(world, service);
    if !service.is_active() {
        let ended = !service.deployments.iter().any(goes_on);
        let over = service.inactive_at_unix_ms.is_some() && running.is_empty() && ended;
        return (!over).then(|| format!("deleted, {} tasks run", running.len()));
    }
    let active = with_status(shown, ContainerInstanceStatus::Active);
    if exclusive::fits_nowhere(shown, service, &active) {
        return None;
    }
    let daemon = service.strategy == SchedulingStrategy::Daemon;
    let desired = if daemon { active.len() as u64 } else { u64::from(service.desired) };
    let (lower, upper) = bounds(service, desired);
    // Nothing may stop before another starts, and nothing may start: it waits for another update, and
    // says so in its events.
    let waits = lower >= desired && upper <= desired && (service.told.blocked || daemon);
    let starting = service.starting();
    let poison = starting.is_some_and(|d| Life::of(d.definition.family.as_ref()).is_bad());
    // Its tasks fail for ever, in ever longer intervals, and its events say so.
    let impaired = poison && service.throttle.rounds >= IMPAIRED && service.told.impaired;
    let alone = impaired && !service.breaker.enable;
    let may_go_on = waits || alone || daemon && waits_for_others(shown, service);
    for (number, deployment) in service.deployments.iter().enumerate() {
        if goes_on(deployment) && !may_go_on {
            return Some(format!("deployment {number} is {:?}", deployment.state));
        }
    }
    if let Some(task) = other_digest(shown, service) {
        return Some(format!("{task} runs another digest than its deployment"));
    }
    let wrong = match service.strategy {
        SchedulingStrategy::Replica => replicas(shown, service, &running, waits),
        SchedulingStrategy::Daemon => daemons(shown, &running, &active),
    };
    let wrong = wrong.or_else(|| ill(world, service))?;
    // Nothing has ever worked: what runs is nobody's promise, but for the maximum.
    let nobody_s = (starting.is_none() || impaired) && running.len() as u64 <= upper;
    (!nobody_s).then_some(wrong)
}

/// A task of it that is checked and not HEALTHY.
fn ill(world: &World, service: &ServiceRecord) -> Option<String> {
    let model = world.model.borrow();
    let ill = model.tasks.values().find(|task| {
        let own = task.service.as_ref().is_some_and(|of| of.name == service.name);
        let runs = task.last == TaskStatus::Running && task.desired == DesiredStatus::Running;
        own && runs && checks::is_checked(task) && checks::judged(task) != HealthStatus::Healthy
    });
    ill.map(|task| format!("{} is {:?}", task.id, checks::judged(task)))
}

/// A task that found something else under its tag than its deployment runs.
fn other_digest(shown: &Shown, service: &ServiceRecord) -> Option<TaskId> {
    let other = |task: &&std::sync::Arc<TaskRecord>| {
        let deployment = task.service.as_ref().map(|of| &of.deployment);
        let deployment = service.deployments.iter().find(|d| Some(&d.id) == deployment && !d.unpinned);
        let runs = task.containers.iter().filter_map(|c| Some((&c.name, c.image_digest.as_ref()?)));
        let settled = |name| deployment.and_then(|deployment| deployment.image_digests.get(name));
        let mut others = runs.filter(|(name, runs)| settled(*name).is_some_and(|settled| settled != *runs));
        others.next().is_some()
    };
    let tasks = shown.state.tasks_of_service(&service.key());
    let mut tasks = tasks.filter(|task| task.last != TaskStatus::Stopped);
    tasks.find(other).map(|task| task.id.clone())
}

/// The instances of its tasks that run in the simulated world.
fn running(world: &World, service: &ServiceRecord) -> Vec<ContainerInstanceId> {
    let own = |task: &&TaskRecord| task.service.as_ref().is_some_and(|of| of.name == service.name);
    let (model, nodes) = (world.model.borrow(), world.nodes.borrow());
    let running = model.tasks.values().filter(own);
    let running = running.filter(|task| nodes.iter().any(|node| node.running(&task.id)));
    running.map(|task| task.instance.clone()).collect()
}

fn with_status(shown: &Shown, status: ContainerInstanceStatus) -> BTreeSet<ContainerInstanceId> {
    let found = shown.state.instances.values().filter(|instance| instance.status == status);
    found.map(|instance| instance.id.clone()).collect()
}

fn replicas(
    shown: &Shown,
    service: &ServiceRecord,
    running: &[ContainerInstanceId],
    waits: bool,
) -> Option<String> {
    if running.len() != service.desired as usize {
        return Some(format!("{} run, wanted {}", running.len(), service.desired));
    }
    let draining = with_status(shown, ContainerInstanceStatus::Draining);
    let left = running.iter().filter(|instance| draining.contains(*instance)).count();
    (left > 0 && !waits).then(|| format!("{left} run on nodes that drain"))
}

/// Tasks that are no daemons' are left on it.
fn is_used(shown: &Shown, instance: &ContainerInstanceId) -> bool {
    let others = shown.state.tasks.values().filter(|task| task.instance == *instance);
    let mut others = others.filter(|task| task.last != TaskStatus::Stopped);
    others.any(|task| !task.group.starts_with("daemon:"))
}

/// A task of the DAEMON is on a node that drains until the last other one has left: no deployment of it is
/// completed before.
fn waits_for_others(shown: &Shown, service: &ServiceRecord) -> bool {
    let draining = with_status(shown, ContainerInstanceStatus::Draining);
    let tasks = shown.state.tasks_of_service(&service.key());
    let mut tasks = tasks.filter(|task| task.last != TaskStatus::Stopped);
    tasks.any(|task| draining.contains(&task.instance) && is_used(shown, &task.instance))
}

/// One on each ACTIVE node; on one that drains until no other task is left there.
fn daemons(
    shown: &Shown,
    running: &[ContainerInstanceId],
    active: &BTreeSet<ContainerInstanceId>,
) -> Option<String> {
    let on: BTreeSet<_> = running.iter().cloned().collect();
    let draining = with_status(shown, ContainerInstanceStatus::Draining);
    let is_used = |instance: &ContainerInstanceId| is_used(shown, instance);
    let mut beyond = on.difference(active);
    let right = running.len() == on.len()
        && on.is_superset(active)
        && beyond.all(|instance| draining.contains(instance) && is_used(instance));
    (!right).then(|| format!("{} run on {} nodes", running.len(), active.len()))
}
