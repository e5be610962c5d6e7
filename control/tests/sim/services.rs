//! Services in a world: who keeps them, and what of theirs must hold with every decision.
//! In: a world. Out: calls, and the first broken promise. Owns: nothing.
//! Never: asks the service code what is right: it counts the records by itself.

use crate::callers::{deregister, drain, register_as};
use crate::client::{Answer, ask, asker};
use crate::luck::Luck;
use crate::plane::cluster;
use crate::world::World;
use lighter_control::api::{service, task};
use lighter_control::core::record::{InstanceRecord, TaskRecord};
use lighter_control::core::service::control::Action;
use lighter_control::core::service::record::ServiceRecord;
use lighter_control::core::service::witness::{self, Tending};
use lighter_control::core::stop_task::StopTask;
use lighter_model::health::HealthStatus;
use lighter_model::ids::TaskId;
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::{DesiredStatus, TaskStatus};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

pub(crate) mod checks;
pub(crate) mod exclusive;
pub(crate) mod races;
mod rest;
mod steps;

pub(crate) use rest::{restless, settle};

/// A task without a health check is healthy when it is RUNNING for so long (ECS).
const WARM_MS: u64 = 40_000;
const SERVICES: u64 = 3;

/// Whether a seed's world has services: those of 60,000 to 69,999 and a quarter of the seeds of a commit;
/// no other below, so that the older seeds of the fixed set are what they were.
pub(crate) fn are_in(seed: u64) -> bool {
    (60_000..70_000).contains(&seed) || seed >= 70_000 && seed % 4 == 2
}

/// How long a task stays RUNNING.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Life {
    /// Some end by themselves.
    Mixed,
    Good,
    /// Each dies young.
    Poison,
    /// None is ever healthy.
    Sick,
}

impl Life {
    pub(crate) fn of(definition: &str) -> Self {
        match definition {
            name if name.contains("good") || name.contains("checked") => Self::Good,
            name if name.contains("poison") => Self::Poison,
            name if name.contains("sick") => Self::Sick,
            _ => Self::Mixed,
        }
    }

    /// Whether it ends by itself, and after how many milliseconds at most.
    /// A deployment of it never works.
    pub(crate) fn is_bad(self) -> bool {
        matches!(self, Self::Poison | Self::Sick)
    }

    pub(crate) fn short(self, luck: &mut Luck) -> (bool, u64) {
        match self {
            Self::Mixed => (luck.percent(40), 40_000),
            Self::Good => (luck.percent(5), 40_000),
            Self::Poison => (true, 5_000),
            Self::Sick => (false, 1_000),
        }
    }
}

/// Calls until the trouble is over.
pub(crate) async fn call(world: Rc<World>, caller: usize) {
    if caller == 0 {
        for json in checks::definitions(&world) {
            while !register_as(&world, &json).await {
                world.sleep(100).await;
            }
        }
    }
    while !world.over.get() {
        if world.shape.checks && world.luck.borrow_mut().percent(40) {
            checks::protect_some(&world).await;
        }
        let what = world.luck.borrow_mut().below(100);
        match what {
            0..25 => create(&world).await,
            25..60 => update(&world).await,
            60..70 => control(&world).await,
            70..76 => delete(&world).await,
            76..84 => stop(&world).await,
            84..97 => drain(&world).await,
            _ => deregister(&world).await,
        }
        let pause = world.luck.borrow_mut().below(world.shape.think_ms * 2);
        world.sleep(pause).await;
    }
}

fn name(number: u64) -> String {
    // The last one is a DAEMON.
    format!("s{number}")
}

fn some_family(luck: &mut Luck, checks: bool) -> &'static str {
    let family = match luck.below(10) {
        0..5 => "good0",
        5..8 => "good1",
        _ => "poison",
    };
    checks::instead(luck, checks, family)
}

fn configuration(luck: &mut Luck, daemon: bool) -> String {
    let minimum = luck.pick(&[0, 50, 67, 100]).unwrap();
    let maximum = if daemon { 100 } else { luck.pick(&[100, 134, 150, 200]).unwrap() };
    let rollback = luck.percent(60);
    format!(
        r#""deploymentConfiguration":{{"minimumHealthyPercent":{minimum},"maximumPercent":{maximum},
            "deploymentCircuitBreaker":{{"enable":true,"rollback":{rollback}}}}}"#
    )
}

async fn create(world: &Rc<World>) {
    let json = {
        let mut luck = world.luck.borrow_mut();
        let number = luck.below(SERVICES);
        let daemon = number == SERVICES - 1;
        let count = luck.between(0, 6);
        let kind = if daemon {
            r#""schedulingStrategy":"DAEMON""#.to_owned()
        } else {
            format!(r#""desiredCount":{count}"#)
        };
        let delay = luck.pick(&[0, 5, 20]).unwrap();
        let family = some_family(&mut luck, world.shape.checks);
        let members = configuration(&mut luck, daemon)
            + &checks::grace(&mut luck, world.shape.checks)
            + &exclusive::policy(world, number);
        format!(
            r#"{{"serviceName":"{}","taskDefinition":"{family}",{kind},"deregistrationDelaySeconds":{delay},{members}}}"#,
            name(number)
        )
    };
    let answer = ask(world, |context| async move { service::create(&context, asker(), &json).await }).await;
    if let Answer::Said(made) = answer {
        world.say(format_args!("service {} is made", made.snapshot.service.name));
    }
}

async fn update(world: &Rc<World>) {
    let json = {
        let mut luck = world.luck.borrow_mut();
        let number = luck.below(SERVICES);
        let daemon = number == SERVICES - 1;
        let mut members = vec![format!(r#""service":"{}""#, name(number))];
        if !daemon && luck.percent(50) {
            members.push(format!(r#""desiredCount":{}"#, luck.between(0, 8)));
        }
        if luck.percent(50) {
            members.push(format!(r#""taskDefinition":"{}""#, some_family(&mut luck, world.shape.checks)));
        }
        if luck.percent(20) {
            members.push(configuration(&mut luck, daemon));
        }
        members.push(format!(r#""forceNewDeployment":{}"#, luck.percent(20)));
        format!("{{{}}}", members.join(","))
    };
    let said = json.clone();
    let answer =
        ask(world, |context| async move { service::update(&context, asker(), &json, 0).await }).await;
    match answer {
        Answer::Said(_) => world.say(format_args!("update {said}")),
        Answer::Refused(error) => world.say(format_args!("update {said}: {error}")),
        _ => {}
    }
}

async fn control(world: &Rc<World>) {
    let (service, action) = {
        let mut luck = world.luck.borrow_mut();
        let actions = [Action::Pause, Action::Resume, Action::Resume, Action::Rollback, Action::Rollback];
        (name(luck.below(SERVICES)), luck.pick(&actions).unwrap())
    };
    order(world, service, action).await;
}

async fn order(world: &Rc<World>, service: String, action: Action) {
    let cluster = cluster().to_string();
    world.say(format_args!("{} of {service}", action.as_str()));
    ask(world, |context| async move { service::control(&context, asker(), &cluster, service, action).await })
        .await;
}

async fn delete(world: &Rc<World>) {
    let service = name(world.luck.borrow_mut().below(SERVICES));
    let cluster = cluster().to_string();
    world.say(format_args!("deletion of {service}"));
    ask(world, |context| async move { service::delete(&context, asker(), &cluster, service, true).await })
        .await;
}

/// Somebody stops a task of a service by hand.
async fn stop(world: &Rc<World>) {
    let own = |task: &&TaskRecord| task.service.is_some() && task.desired == DesiredStatus::Running;
    let tasks: Vec<TaskId> =
        world.model.borrow().tasks.values().filter(own).map(|task| task.id.clone()).collect();
    let Some(id) = world.luck.borrow_mut().pick(&tasks) else { return };
    let request = StopTask { cluster: cluster(), task: id.to_string(), reason: None, force: false };
    ask(world, |context| async move { task::stop(&context, asker(), request).await }).await;
}

/// Looks at every decision of this world.
pub(crate) fn watch(world: &Rc<World>) {
    let world: Weak<World> = Rc::downgrade(world);
    witness::watch(Some(Box::new(move |tending| {
        if let Some(world) = world.upgrade() {
            look(&world, tending);
            steps::look(&world, tending);
            checks::look(&world, tending);
        }
    })));
}

/// Nobody looks any more.
pub(crate) fn rest_of_watch() {
    witness::watch(None);
}

type With = (std::sync::Arc<TaskRecord>, Option<std::sync::Arc<InstanceRecord>>);

fn live(task: &TaskRecord) -> bool {
    let leaving = task.service.as_ref().is_some_and(|of| of.leaving_since_unix_ms.is_some());
    task.desired == DesiredStatus::Running && task.last <= TaskStatus::Running && !leaving
}

fn healthy((task, instance): &With, now_ms: u64) -> bool {
    let since = task.service.as_ref().and_then(|of| of.running_since_unix_ms);
    live(task)
        && task.last == TaskStatus::Running
        && instance.as_ref().is_some_and(|instance| instance.connected)
        && match checks::is_checked(task) {
            true => checks::judged(task) == HealthStatus::Healthy,
            false => since.is_some_and(|since| since + WARM_MS <= now_ms),
        }
}

/// PENDING or RUNNING; but what was given up on a node that is away.
fn occupies((task, instance): &With) -> bool {
    let there = instance.as_ref().is_some_and(|instance| instance.connected);
    task.last <= TaskStatus::Running && (task.desired == DesiredStatus::Running || there)
}

/// ceil(min) and floor(max).
fn bounds(service: &ServiceRecord, desired: u64) -> (u64, u64) {
    let lower = (desired * u64::from(service.minimum_percent)).div_ceil(100);
    (lower, desired * u64::from(service.maximum_percent) / 100)
}

/// One decision against the state it was made from.
fn look(world: &World, tending: &Tending) {
    let Tending { service, now_ms, before, after, .. } = tending;
    let known: BTreeMap<&TaskId, &With> = before.iter().map(|with| (&with.0.id, with)).collect();
    let started: Vec<_> = after.iter().filter(|task| !known.contains_key(&task.id)).collect();
    let gone = after.iter().filter(|task| !live(task));
    let gone = gone.filter_map(|task| known.get(&task.id)).filter(|with| live(&with.0));
    let lost = gone.filter(|with| healthy(with, *now_ms)).count() as u64;
    let of = |what: String| format!("service {}: {what}", service.name);
    if service.strategy == SchedulingStrategy::Daemon {
        for task in &started {
            let there = before
                .iter()
                .any(|(other, _)| other.instance == task.instance && other.last != TaskStatus::Stopped);
            world.check(!there, || of(format!("{} is a second one on its node", task.id)));
        }
        return;
    }
    let (lower, upper) = bounds(service, u64::from(service.desired));
    let healthy = before.iter().filter(|with| healthy(with, *now_ms)).count() as u64;
    let counts = |with: &&With| occupies(with) || exclusive::runs(world, &with.0);
    let occupied = before.iter().filter(counts).count() as u64;
    if service.is_active() && lost > 0 {
        world.check(healthy.saturating_sub(lost) >= lower, || {
            of(format!("{lost} of {healthy} healthy tasks go, the minimum is {lower}"))
        });
    }
    if !started.is_empty() {
        let started = started.len() as u64;
        world.check(occupied + started <= upper, || {
            of(format!("{started} start beside {occupied}, the maximum is {upper}"))
        });
    }
}
