//! People and tools of a simulated cluster: callers that repeat what was not answered.
//! In: a world. Out: calls through the product's own handlers. Owns: what each has been told.
//! Never: gives up a call with a client token before it has an answer.

mod rivals;

use crate::client::{Answer, ask, asker};
use crate::faults::Kind;
use crate::lease::STOP_TIMEOUT_S;
use crate::plane::cluster;
use crate::world::World;
use lighter_control::api::{instance, task};
use lighter_control::core::definition::RegisterDefinition;
use lighter_control::core::deregister::DeregisterInstance;
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::core::run_task::RunTask;
use lighter_control::core::stop_task::StopTask;
use lighter_control::core::update_task::{PauseTask, UpdateTask};
use lighter_control::store::Level;
use lighter_model::ids::TaskId;
pub(crate) use rivals::rival;
use std::rc::Rc;

const FAMILIES: u64 = 4;

/// A task definition with a port that only one of its tasks on a node can have.
pub(crate) fn definition(family: &str, cpu: u64, memory: u64, port: Option<u64>) -> String {
    let ports = port.map_or(String::new(), |port| {
        format!(r#","portMappings":[{{"containerPort":80,"hostPort":{port}}}]"#)
    });
    format!(
        r#"{{"family":"{family}","containerDefinitions":[{{"name":"web","image":"registry.test/web:1",
            "cpu":{cpu},"memory":{memory},"essential":true,"stopTimeout":{STOP_TIMEOUT_S}{ports}}}]}}"#
    )
}

/// Calls until the trouble is over.
pub(crate) async fn call(world: Rc<World>, caller: usize) {
    for number in 0.. {
        let pause = world.luck.borrow_mut().below(world.shape.think_ms * 2);
        world.sleep(pause).await;
        if world.over.get() {
            return;
        }
        let what = world.luck.borrow_mut().below(100);
        match what {
            0..50 => run(&world, format!("call {number} of {caller}")).await,
            50..75 => stop(&world).await,
            75..80 => register(&world).await,
            80..85 => drain(&world).await,
            85..87 => deregister(&world).await,
            87..93 => adjust(&world, true).await,
            _ => adjust(&world, false).await,
        }
    }
}

async fn run(world: &Rc<World>, token: String) {
    let (family, count) = {
        let mut luck = world.luck.borrow_mut();
        (luck.below(FAMILIES), luck.between(1, 10))
    };
    let count = u32::try_from(count).unwrap();
    let silence = crate::lease::policy(world, &token);
    run_this(world, RunTask { count, silence, ..request_of(&format!("f{family}"), Some(&token)) }, token)
        .await;
}

/// Until it is answered, now and then once more.
pub(crate) async fn run_this(world: &Rc<World>, request: RunTask, token: String) {
    let again = world.luck.borrow_mut().percent(15);
    let mut answers = 0;
    // No plane has heard of this work before, so a full store has not taken it.
    let mut unheard_of = true;
    while answers < 1 + usize::from(again) && !world.over.get() {
        let (full, changes) = (world.store.level() > Level::Free, world.store.level_changes.get());
        let full = std::mem::replace(&mut unheard_of, false) && full;
        let asked = request.clone();
        match ask(world, |context| async move { task::run(&context, asker(), asked).await }).await {
            Answer::Said(answer) => {
                world.say(format_args!("{token}: {} tasks", answer.tasks.len()));
                let taken = full && changes == world.store.level_changes.get() && !answer.tasks.is_empty();
                world.check(!taken, || format!("{token}: a full store took new work"));
                world.model.borrow_mut().answered(world, Some(&token), &answer.tasks);
                answers += 1;
            }
            Answer::Refused(error) => return world.say(format_args!("{token}: {error}")),
            Answer::NotNow | Answer::Full | Answer::Unknown => {}
        }
        world.sleep(300).await;
    }
}

/// Ten small tasks, made once.
pub(crate) async fn run_ten(world: &Rc<World>, token: String) {
    let request = RunTask { count: 10, ..request_of("f0", Some(&token)) };
    loop {
        let asked = request.clone();
        match ask(world, |context| async move { task::run(&context, asker(), asked).await }).await {
            Answer::Said(answer) => {
                return world.model.borrow_mut().answered(world, Some(&token), &answer.tasks);
            }
            Answer::Refused(error) => return world.fail(format!("{token}: {error}")),
            Answer::NotNow | Answer::Full | Answer::Unknown => world.sleep(100).await,
        }
    }
}

/// One task, with a client token that also says who started it.
pub(crate) fn request_of(task_definition: &str, token: Option<&str>) -> RunTask {
    RunTask {
        started_by: token.map(ToOwned::to_owned),
        client_token: token.map(ToOwned::to_owned),
        ..RunTask::new(cluster(), task_definition)
    }
}

fn some_task(world: &World) -> Option<TaskId> {
    let known: Vec<TaskId> = world.model.borrow().acknowledged.iter().cloned().collect();
    world.luck.borrow_mut().pick(&known)
}

pub(crate) async fn stop(world: &Rc<World>) {
    let Some(id) = some_task(world) else { return };
    let force = world.luck.borrow_mut().percent(20);
    let request = StopTask { cluster: cluster(), task: id.to_string(), reason: None, force };
    let (reserve, changes) = (world.store.level() < Level::Exhausted, world.store.level_changes.get());
    let answer = ask(world, |context| async move { task::stop(&context, asker(), request).await }).await;
    let refused = matches!(answer, Answer::Full) && reserve && changes == world.store.level_changes.get();
    world.check(!refused, || format!("the stop of {id} was refused while there was a reserve"));
    if matches!(answer, Answer::Said(_)) {
        world.say(format_args!("stop of {id} accepted"));
        world.model.borrow_mut().stop_answered(world, &id);
    }
}

async fn register(world: &Rc<World>) {
    let json = {
        let mut luck = world.luck.borrow_mut();
        let port = luck.percent(40).then(|| luck.between(8_000, 8_002));
        definition(
            &format!("f{}", luck.below(FAMILIES)),
            luck.between(1, 4) * 64,
            luck.between(1, 4) * 64,
            port,
        )
    };
    register_as(world, &json).await;
}

/// Registers every family once.
pub(crate) async fn register_all(world: &Rc<World>) {
    for family in 0..FAMILIES {
        let json = definition(&format!("f{family}"), 64, 64, (family == 1).then_some(8_000));
        while !register_as(world, &json).await {
            world.sleep(100).await;
        }
    }
}

pub(crate) async fn register_as(world: &Rc<World>, json: &str) -> bool {
    let definition = lighter_model::task_definition::input::parse(json).unwrap();
    let command = RegisterDefinition { definition, registered_by: String::new() };
    let answer = ask(world, |context| async move { context.change(asker(), command).await }).await;
    matches!(answer, Answer::Said(_))
}

pub(crate) async fn drain(world: &Rc<World>) {
    let nodes = world.nodes.borrow().clone();
    let Some(node) = world.luck.borrow_mut().pick(&nodes) else { return };
    let (draining, stop_tasks) = {
        let mut luck = world.luck.borrow_mut();
        (luck.percent(40), luck.percent(50))
    };
    let instance = node.id.borrow().to_string();
    let command = UpdateInstancesState {
        cluster: cluster(),
        instances: vec![instance],
        draining,
        reason: None,
        deadline_unix_ms: None,
        stop_tasks: draining && stop_tasks,
    };
    ask(world, |context| async move { context.writer.submit(command).await }).await;
}

/// Mostly refused: nodes have tasks. With force its machine begins anew, see `faults::machine`.
pub(crate) async fn deregister(world: &Rc<World>) {
    let nodes = world.nodes.borrow().clone();
    let Some(node) = world.luck.borrow_mut().pick(&nodes).filter(|node| node.index > 0) else { return };
    let force = world.shape.faults.contains(&Kind::Rejoined) && world.luck.borrow_mut().percent(70);
    let instance = node.id.borrow().to_string();
    let request = DeregisterInstance { cluster: cluster(), instance, force };
    ask(world, |context| async move { instance::deregister(&context, asker(), request).await }).await;
}

async fn adjust(world: &Rc<World>, pause: bool) {
    let Some(id) = some_task(world) else { return };
    let (paused, cpu) = {
        let mut luck = world.luck.borrow_mut();
        (luck.percent(50), luck.between(1, 8) * 32)
    };
    let (asker, task) = (asker(), id.to_string());
    if pause {
        let request = PauseTask { asker, cluster: cluster(), task, paused };
        ask(world, |context| async move { task::pause(&context, request).await }).await;
    } else {
        let cpu_units = Some(u32::try_from(cpu).unwrap());
        let container = String::new();
        let request = UpdateTask { asker, cluster: cluster(), task, container, cpu_units, memory_mib: None };
        ask(world, |context| async move { task::update(&context, request).await }).await;
    }
}
