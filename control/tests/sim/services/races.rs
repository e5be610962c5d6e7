//! Races of services that callers meet by luck seldom, brought about on purpose: each waits until one thing
//! is under way, then asks for the other. Whether they met is counted by `model::services`.
//! In: a world, a service that nobody else changes. Out: calls. Owns: nothing.
//! Never: takes it for granted that a call was heard: it looks at what is stored.

mod care;

use super::{Life, checks, order};
use crate::callers::register_as;
use crate::client::{Answer, ask, asker};
use crate::model::goes_on;
use crate::plane::cluster;
use crate::world::World;
use lighter_control::api::{Context, service};
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::service::control::Action;
use lighter_control::core::service::record::{RolloutState, ServiceRecord};
use lighter_control::error::ApiError;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Services of these callers alone.
pub(crate) const SERVICES: [&str; 2] = ["r0", "r1"];
/// How long something that was asked for is waited for; then another race is tried.
const PATIENCE_MS: u64 = 90_000;
const LOOK_MS: u64 = 50;

/// Whether a seed's world has them: of 61,000 to 69,999 all, and an eighth of the seeds of a commit, so that
/// the older seeds of the fixed set are what they were.
pub(crate) fn are_in(seed: u64) -> bool {
    (61_000..70_000).contains(&seed) || seed >= 70_000 && seed % 8 == 2
}

/// What is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    UpdateDuringRollback,
    ScaleDuringDrain,
    DeleteDuringDeployment,
    PoisonAlone,
    Protected,
    Sick,
}

/// One race after another until the trouble is over.
pub(crate) async fn call(world: Rc<World>, name: &'static str) {
    for json in checks::definitions(&world) {
        while !register_as(&world, &json).await {
            world.sleep(100).await;
        }
    }
    let mut scripts = vec![
        Script::UpdateDuringRollback,
        Script::UpdateDuringRollback,
        Script::ScaleDuringDrain,
        Script::ScaleDuringDrain,
        Script::DeleteDuringDeployment,
        Script::PoisonAlone,
    ];
    if world.shape.checks {
        scripts
            .extend([[Script::Protected; 2], [Script::Protected, Script::Sick], [Script::Sick; 2]].concat());
    }
    while !world.over.get() {
        let script = world.luck.borrow_mut().pick(&scripts).unwrap();
        world.say(format_args!("{name}: {script:?}"));
        let done = match script {
            Script::UpdateDuringRollback => update_during_rollback(&world, name).await,
            Script::ScaleDuringDrain => scale_during_drain(&world, name).await,
            Script::DeleteDuringDeployment => delete_during_deployment(&world, name).await,
            Script::PoisonAlone => poison_alone(&world, name).await,
            Script::Protected => care::protected(&world, name).await,
            Script::Sick => care::sick(&world, name).await,
        };
        world.say(format_args!("{name}: {script:?} {}", if done.is_some() { "done" } else { "given up" }));
        // Sometimes the next comes at once.
        let pause = world.luck.borrow_mut().below(world.shape.think_ms * 2);
        world.sleep(pause).await;
    }
}

async fn update_during_rollback(world: &Rc<World>, name: &str) -> Option<()> {
    begin(world, name).await?;
    let by_hand = world.luck.borrow_mut().percent(30);
    let (minimum, maximum, count) = {
        let mut luck = world.luck.borrow_mut();
        // Often so that the rollback has tasks to start anew, and takes its time.
        let (minimum, maximum) = luck.pick(&[(0, 100), (0, 100), (50, 100), (100, 200)]).unwrap();
        (minimum, maximum, luck.between(1, 5))
    };
    let members = format!(
        r#""taskDefinition":"poison","desiredCount":{count},{}"#,
        bounds(minimum, maximum, Some(true))
    );
    update(world, name, &members).await?;
    until(world, name, |s| s.primary().is_some_and(|d| d.definition.family.as_ref() == "poison")).await?;
    if by_hand {
        order(world, name.to_owned(), Action::Rollback).await;
    }
    let rolls_back = |s: &ServiceRecord| s.primary().is_some_and(|d| goes_on(d) && d.rollback_of.is_some());
    until(world, name, rolls_back).await?;
    let pause = world.luck.borrow_mut().pick(&[0, 0, 100, 2_000, 20_000]).unwrap();
    world.sleep(pause).await;
    let next = world.luck.borrow_mut().pick(&["good1", "good1", "good0", "poison"]).unwrap();
    update(world, name, &format!(r#""taskDefinition":"{next}","forceNewDeployment":true"#)).await
}

async fn scale_during_drain(world: &Rc<World>, name: &str) -> Option<()> {
    let wanted = begin(world, name).await?.desired;
    let (minimum, maximum, count) = {
        let mut luck = world.luck.borrow_mut();
        let (minimum, maximum) = luck.pick(&[(100, 200), (100, 150), (50, 100), (67, 134)]).unwrap();
        (minimum, maximum, luck.between(2, 6))
    };
    let members = format!(r#""desiredCount":{count},{}"#, bounds(minimum, maximum, Some(true)));
    if wanted < 2 {
        update(world, name, &members).await?;
    }
    until(world, name, |s| s.desired > 0).await?;
    let on = wait(world, || instances_of(world, name)).await?;
    let instance = world.luck.borrow_mut().pick(&on)?;
    let stop_tasks = world.luck.borrow_mut().percent(50);
    set_draining(world, &instance, true, stop_tasks).await;
    let drains = || {
        let model = world.model.borrow();
        let status = model.instances.get(&instance)?.status;
        (status == ContainerInstanceStatus::Draining).then_some(())
    };
    wait(world, drains).await?;
    let wanted = world.model.borrow().services.get(name).map(|service| service.desired)?;
    let (more, fewer) = {
        let mut luck = world.luck.borrow_mut();
        (u64::from(wanted) + luck.between(1, 3), luck.below(u64::from(wanted)))
    };
    let count = world.luck.borrow_mut().pick(&[more, fewer]).unwrap();
    update(world, name, &format!(r#""desiredCount":{count}"#)).await?;
    let (again, pause) = {
        let mut luck = world.luck.borrow_mut();
        (luck.percent(50), luck.between(0, 30_000))
    };
    if again {
        // The node comes back while the service goes on with both.
        world.sleep(pause).await;
        set_draining(world, &instance, false, false).await;
    }
    Some(())
}

async fn delete_during_deployment(world: &Rc<World>, name: &str) -> Option<()> {
    begin(world, name).await?;
    let (next, count) = {
        let mut luck = world.luck.borrow_mut();
        (luck.pick(&["good1", "poison"]).unwrap(), luck.between(1, 5))
    };
    let members = format!(r#""taskDefinition":"{next}","desiredCount":{count},"forceNewDeployment":true"#);
    update(world, name, &members).await?;
    let under_way = || {
        let model = world.model.borrow();
        let service = model.services.get(name).filter(|service| service.is_active())?;
        let primary = service.primary().filter(|deployment| goes_on(deployment))?;
        let of_it = |task: &TaskRecord| task.service.as_ref().is_some_and(|of| of.deployment == primary.id);
        model.tasks.values().any(of_it).then_some(())
    };
    wait(world, under_way).await?;
    let pause = world.luck.borrow_mut().pick(&[0, 0, 500, 5_000]).unwrap();
    world.sleep(pause).await;
    delete(world, name).await
}

/// Nobody asked for a breaker: it is tried until somebody does something, if anybody does.
async fn poison_alone(world: &Rc<World>, name: &str) -> Option<()> {
    begin(world, name).await?;
    let count = world.luck.borrow_mut().between(1, 4);
    let members = format!(r#""taskDefinition":"poison","desiredCount":{count},{}"#, bounds(100, 200, None));
    update(world, name, &members).await?;
    until(world, name, |s| s.throttle.rounds >= 3).await?;
    let what = world.luck.borrow_mut().below(5);
    match what {
        0 => update(world, name, r#""taskDefinition":"good1""#).await,
        1 => {
            order(world, name.to_owned(), Action::Rollback).await;
            Some(())
        }
        2 => delete(world, name).await,
        3 => update(world, name, &bounds(100, 200, Some(false))).await,
        _ => {
            while !world.over.get() {
                world.sleep(1_000).await;
            }
            Some(())
        }
    }
}

fn bounds(minimum: u32, maximum: u32, breaker: Option<bool>) -> String {
    let (enable, rollback) = (breaker.is_some(), breaker == Some(true));
    format!(
        r#""deploymentConfiguration":{{"minimumHealthyPercent":{minimum},"maximumPercent":{maximum},
            "deploymentCircuitBreaker":{{"enable":{enable},"rollback":{rollback}}}}}"#
    )
}

/// The service as it is when its last deployment was completed, with a revision that works.
async fn begin(world: &Rc<World>, name: &str) -> Option<ServiceRecord> {
    let family = checks::instead(&mut world.luck.borrow_mut(), world.shape.checks, "good0");
    let service = world.model.borrow().services.get(name).cloned();
    match service.filter(ServiceRecord::is_active) {
        Some(service) => {
            let primary = service.primary()?;
            let stands = primary.state == RolloutState::Completed;
            if !stands || Life::of(primary.definition.family.as_ref()).is_bad() {
                let members = format!(r#""taskDefinition":"{family}",{}"#, bounds(50, 200, Some(true)));
                update(world, name, &members).await?;
            }
        }
        None => {
            // With nothing wanted a deployment is completed at once.
            let count = world.luck.borrow_mut().pick(&[0, 0, 2, 4]).unwrap();
            let json = format!(
                r#"{{"serviceName":"{name}","taskDefinition":"{family}","desiredCount":{count},{}}}"#,
                bounds(50, 200, Some(true))
            );
            let call = |context: Context| {
                let json = json.clone();
                async move { service::create(&context, asker(), &json).await }
            };
            said(world, call).await?;
        }
    }
    let completed = |s: &ServiceRecord| s.primary().is_some_and(|d| d.state == RolloutState::Completed);
    until(world, name, completed).await
}

async fn update(world: &Rc<World>, name: &str, members: &str) -> Option<()> {
    let json = format!(r#"{{"service":"{name}",{members}}}"#);
    let asked = lighter_model::service::parse_update(&json).unwrap();
    let call = |context: Context| {
        let json = json.clone();
        async move { service::update(&context, asker(), &json, 0).await }
    };
    let service = said(world, call).await?.snapshot.service;
    let primary = service.primary()?;
    let family = primary.definition.family.as_ref();
    let done = asked.desired_count.is_none_or(|count| count == service.desired)
        && asked.task_definition.is_none_or(|definition| definition == family)
        && (!asked.force_new_deployment || goes_on(primary) && primary.rollback_of.is_none());
    world.check(done, || format!("the answer to {json} is {} of {family}", service.desired));
    Some(())
}

async fn delete(world: &Rc<World>, name: &str) -> Option<()> {
    let call = |context: Context| {
        let name = name.to_owned();
        async move { service::delete(&context, asker(), cluster().as_ref(), name, true).await }
    };
    let service = said(world, call).await?.snapshot.service;
    world.check(!service.is_active(), || format!("service {name} is ACTIVE after its deletion"));
    Some(())
}

async fn set_draining(world: &Rc<World>, instance: &ContainerInstanceId, draining: bool, stop_tasks: bool) {
    let command = UpdateInstancesState {
        cluster: cluster(),
        instances: vec![instance.to_string()],
        draining,
        reason: None,
        deadline_unix_ms: None,
        stop_tasks: draining && stop_tasks,
    };
    ask(world, |context| async move { context.writer.submit(command).await }).await;
}

/// Until it is answered; `None`: refused, or the trouble is over.
async fn said<T, F>(world: &Rc<World>, call: impl Fn(Context) -> F) -> Option<T>
where
    F: Future<Output = Result<T, ApiError>>,
{
    while !world.over.get() {
        match ask(world, &call).await {
            Answer::Said(said) => return Some(said),
            Answer::Refused(error) => {
                world.say(format_args!("a race is refused: {error}"));
                return None;
            }
            Answer::NotNow | Answer::Full | Answer::Unknown => world.sleep(200).await,
        }
    }
    None
}

/// Until this holds of the service as it is stored.
async fn until(
    world: &Rc<World>,
    name: &str,
    holds: impl Fn(&ServiceRecord) -> bool,
) -> Option<ServiceRecord> {
    let look = || {
        let model = world.model.borrow();
        model.services.get(name).filter(|service| service.is_active() && holds(service)).cloned()
    };
    wait(world, look).await
}

/// `None`: in vain, or the trouble is over.
async fn wait<T>(world: &Rc<World>, look: impl Fn() -> Option<T>) -> Option<T> {
    let until = world.now_ms() + PATIENCE_MS;
    while !world.over.get() && world.now_ms() < until {
        if let Some(found) = look() {
            return Some(found);
        }
        world.sleep(LOOK_MS).await;
    }
    None
}

/// Where tasks of the service run.
fn instances_of(world: &World, name: &str) -> Option<Vec<ContainerInstanceId>> {
    let model = world.model.borrow();
    let own = |task: &&TaskRecord| task.service.as_ref().is_some_and(|of| of.name.as_ref() == name);
    let runs =
        |task: &&TaskRecord| task.desired == DesiredStatus::Running && task.last == TaskStatus::Running;
    let tasks = model.tasks.values().filter(own).filter(runs);
    let on: BTreeSet<_> = tasks.map(|task| task.instance.clone()).collect();
    (!on.is_empty()).then(|| on.into_iter().collect())
}
