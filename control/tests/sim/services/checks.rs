//! Services whose tasks have health checks, and tasks that are protected: who asks for it, and what must
//! hold of each decision.
//! In: a world, one tending. Out: calls, the first broken promise. Owns: nothing.
//! Never: asks the service code what is right: it counts the records by itself.

use super::{With, live};
use crate::callers::definition;
use crate::client::{Answer, ask, asker};
use crate::health::Check;
use crate::luck::Luck;
use crate::plane::cluster;
use crate::world::World;
use lighter_control::api::service;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::protection::UpdateProtection;
use lighter_control::core::service::witness::Tending;
use lighter_model::health::HealthStatus;
use lighter_model::ids::TaskId;
use lighter_model::status::{DesiredStatus, TaskStatus};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Of a task that is replaced for its health (ECS).
pub(crate) const FAILED_CHECKS: &str = "Task failed container health checks";

/// Whether a seed's world has them: of 62,000 to 69,999 all, and an eighth of the seeds of a commit, so that
/// the older seeds of the fixed set are what they were.
pub(crate) fn are_in(seed: u64) -> bool {
    (62_000..70_000).contains(&seed) || seed >= 70_000 && seed % 8 == 6
}

/// The families of a world and their definitions.
pub(crate) fn definitions(world: &World) -> Vec<String> {
    let plain = ["good0", "good1", "poison"].map(|family| definition(family, 16, 16, None));
    let checked = ["checked0", "checked1", "sick"].map(|family| {
        let check = r#""essential":true,"healthCheck":{"command":["CMD","true"]}"#;
        definition(family, 16, 16, None).replace(r#""essential":true"#, check)
    });
    let all = plain.into_iter().chain(world.shape.checks.then_some(checked).into_iter().flatten());
    all.collect()
}

/// Often a family like this one whose tasks have a health check.
pub(crate) fn instead(luck: &mut Luck, checks: bool, family: &'static str) -> &'static str {
    if !checks || luck.percent(30) {
        return family;
    }
    match family {
        "good0" => "checked0",
        "good1" => "checked1",
        _ => "sick",
    }
}

/// A member of a service's input, or nothing.
pub(crate) fn grace(luck: &mut Luck, checks: bool) -> String {
    if !checks {
        return String::new();
    }
    format!(r#","healthCheckGracePeriodSeconds":{}"#, luck.pick(&[0, 5, 60]).unwrap())
}

pub(crate) fn is_checked(task: &TaskRecord) -> bool {
    Check::of(task.definition.family.as_ref()) != Check::None
}

/// What its node has said of it.
pub(crate) fn judged(task: &TaskRecord) -> HealthStatus {
    let health = task.containers.iter().find_map(|container| container.health.as_ref());
    health.map_or(HealthStatus::Unknown, |health| health.status)
}

pub(crate) fn is_protected(task: &TaskRecord, now_ms: u64) -> bool {
    task.service.as_ref().and_then(|of| of.protected_until_unix_ms).is_some_and(|until| until > now_ms)
}

/// UNHEALTHY, and RUNNING for longer than its service is patient.
fn is_unhealthy(task: &TaskRecord, grace_s: u32, now_ms: u64) -> bool {
    let since = task.service.as_ref().and_then(|of| of.running_since_unix_ms);
    task.last == TaskStatus::Running
        && judged(task) == HealthStatus::Unhealthy
        && since.is_some_and(|since| since + u64::from(grace_s) * 1_000 <= now_ms)
}

/// Somebody protects a few tasks for minutes, or protects them no longer.
pub(crate) async fn protect_some(world: &Rc<World>) {
    let own = |task: &&TaskRecord| task.service.is_some() && task.desired == DesiredStatus::Running;
    let tasks: Vec<TaskId> =
        world.model.borrow().tasks.values().filter(own).map(|task| task.id.clone()).collect();
    let (chosen, minutes) = {
        let mut luck = world.luck.borrow_mut();
        let chosen: Vec<TaskId> = (0..3).filter_map(|_| luck.pick(&tasks)).collect();
        (chosen, if luck.percent(75) { luck.between(1, 3) } else { 0 })
    };
    if !chosen.is_empty() {
        protect(world, &chosen, minutes).await;
    }
}

/// For so many minutes; 0: no longer. Whether it was answered.
pub(crate) async fn protect(world: &Rc<World>, tasks: &[TaskId], minutes: u64) -> bool {
    let request = UpdateProtection {
        cluster: cluster(),
        tasks: tasks.iter().take(10).map(ToString::to_string).collect(),
        enabled: minutes > 0,
        minutes: u32::try_from(minutes).unwrap(),
    };
    let answer =
        ask(world, |context| async move { service::protect(&context, asker(), request).await }).await;
    world.say(format_args!("{tasks:?} are protected for {minutes} minutes: {answer:?}"));
    matches!(answer, Answer::Said(_))
}

/// One decision against the state it was made from.
pub(super) fn look(world: &World, tending: &Tending) {
    let before: BTreeMap<&TaskId, &With> = tending.before.iter().map(|with| (&with.0.id, with)).collect();
    let known = |task: &TaskRecord| before.get(&task.id).map(|with| with.0.clone());
    let (service, now) = (&tending.service, tending.now_ms);
    let is_moving = |task: &TaskRecord| task.service.as_ref().is_some_and(|of| of.moving);
    for (old, new) in tending.after.iter().filter_map(|new| Some((known(new)?, new))) {
        let unhealthy = is_unhealthy(&old, service.grace_s, now);
        let stays = service.is_active() && is_protected(&old, now);
        let goes = live(&old) && !live(new);
        world.check(!stays || !goes || unhealthy, || {
            format!("service {}: {} is protected and goes: {:?}", service.name, old.id, new.stopped_reason)
        });
        let moves = is_moving(new) && !is_moving(&old);
        world.check(!stays || !moves, || {
            format!("service {}: {} is protected and moves", service.name, old.id)
        });
        let for_health = goes && new.stopped_reason.as_deref() == Some(FAILED_CHECKS);
        world.check(!for_health || unhealthy, || {
            format!("service {}: {} is stopped as unhealthy, which it is not", service.name, old.id)
        });
    }
}
