//! People and tools of a simulated cluster: callers that repeat what was not answered.
//! In: a world. Out: calls through the product's own handlers. Owns: what each has been told.
//! Never: gives up a call with a client token before it has an answer.

use crate::plane::{Plane, cluster};
use crate::world::World;
use lighter_control::api::Context;
use lighter_control::api::task;
use lighter_control::core::audit::Asker;
use lighter_control::core::definition::RegisterDefinition;
use lighter_control::core::drain::UpdateInstancesState;
use lighter_control::core::run_task::RunTask;
use lighter_control::core::stop_task::StopTask;
use lighter_control::core::update_task::{PauseTask, UpdateTask};
use lighter_control::error::ApiError;
use lighter_control::time::timeout;
use lighter_model::ids::TaskId;
use std::rc::Rc;
use std::time::Duration;

/// How long a caller waits for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
const FAMILIES: u64 = 4;

/// A plane to talk to: mostly the one that leads.
fn some_plane(world: &World) -> Option<(Rc<Plane>, Context)> {
    let planes = world.planes.borrow().clone();
    let leader = world.store.leader(world.now_ms()).and_then(|id| planes.get(id).cloned());
    let stray = world.luck.borrow_mut().percent(20);
    let plane = leader.filter(|_| !stray).or_else(|| world.luck.borrow_mut().pick(&planes))?;
    let context = plane.context()?;
    Some((plane, context))
}

fn asker() -> Asker {
    Asker { user: "caller".to_owned(), address: String::new() }
}

/// A task definition with a port that only one of its tasks on a node can have.
fn definition(family: u64, cpu: u64, memory: u64, port: Option<u64>) -> String {
    let ports = port.map_or(String::new(), |port| {
        format!(r#","portMappings":[{{"containerPort":80,"hostPort":{port}}}]"#)
    });
    format!(
        r#"{{"family":"f{family}","containerDefinitions":[{{"name":"web","image":"registry.test/web:1",
            "cpu":{cpu},"memory":{memory},"essential":true{ports}}}]}}"#
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
            85..93 => adjust(&world, true).await,
            _ => adjust(&world, false).await,
        }
    }
}

async fn run(world: &Rc<World>, token: String) {
    let (family, count) = {
        let mut luck = world.luck.borrow_mut();
        (luck.below(FAMILIES), luck.between(1, 10))
    };
    let request = RunTask {
        cluster: cluster(),
        task_definition: format!("f{family}"),
        count: u32::try_from(count).unwrap(),
        group: None,
        started_by: Some(token.clone()),
        client_token: Some(token.clone()),
        trace_parent: None,
        tags: Default::default(),
        propagate_tags: Default::default(),
    };
    let again = world.luck.borrow_mut().percent(15);
    let mut answers = 0;
    while answers < 1 + usize::from(again) && !world.over.get() {
        if let Some((plane, context)) = some_plane(world) {
            let answer = timeout(PATIENCE, task::run(&context, asker(), request.clone())).await;
            // A plane that was killed meanwhile answers nobody.
            if plane.context().is_none() {
                continue;
            }
            match answer {
                Some(Ok(answer)) => {
                    world.say(format_args!("{token}: {} tasks", answer.tasks.len()));
                    world.model.borrow_mut().answered(world, Some(&token), &answer.tasks);
                    answers += 1;
                }
                None | Some(Err(ApiError::OutcomeUnknown | ApiError::StoreUnavailable)) => {}
                Some(Err(ApiError::ShuttingDown)) => {}
                Some(Err(_)) if context.writer.leadership().check().is_err() => {}
                Some(Err(error)) => return world.say(format_args!("{token}: {error}")),
            }
        }
        world.sleep(300).await;
    }
}

fn some_task(world: &World) -> Option<TaskId> {
    let known: Vec<TaskId> = world.model.borrow().acknowledged.iter().cloned().collect();
    world.luck.borrow_mut().pick(&known)
}

async fn stop(world: &Rc<World>) {
    let (Some(id), Some((plane, context))) = (some_task(world), some_plane(world)) else { return };
    let force = world.luck.borrow_mut().percent(20);
    let request = StopTask { cluster: cluster(), task: id.to_string(), reason: None, force };
    let answer = timeout(PATIENCE, task::stop(&context, asker(), request)).await;
    if plane.context().is_some() && matches!(answer, Some(Ok(_))) {
        world.say(format_args!("stop of {id} accepted"));
        world.model.borrow_mut().stop_answered(world, &id);
    }
}

async fn register(world: &Rc<World>) {
    let json = {
        let mut luck = world.luck.borrow_mut();
        let port = luck.percent(40).then(|| luck.between(8_000, 8_002));
        definition(luck.below(FAMILIES), luck.between(1, 4) * 64, luck.between(1, 4) * 64, port)
    };
    register_as(world, &json).await;
}

/// Registers every family once.
pub(crate) async fn register_all(world: &Rc<World>) {
    for family in 0..FAMILIES {
        let json = definition(family, 64, 64, (family == 1).then_some(8_000));
        while !register_as(world, &json).await {
            world.sleep(100).await;
        }
    }
}

async fn register_as(world: &Rc<World>, json: &str) -> bool {
    let Some((_, context)) = some_plane(world) else { return false };
    let definition = lighter_model::task_definition::input::parse(json).unwrap();
    let command = RegisterDefinition { definition, registered_by: String::new() };
    matches!(timeout(PATIENCE, context.writer.submit(command)).await, Some(Ok(_)))
}

async fn drain(world: &Rc<World>) {
    let nodes = world.nodes.borrow().clone();
    let Some(node) = world.luck.borrow_mut().pick(&nodes) else { return };
    let Some((_, context)) = some_plane(world) else { return };
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
    let _ = timeout(PATIENCE, context.writer.submit(command)).await;
}

async fn adjust(world: &Rc<World>, pause: bool) {
    let (Some(id), Some((_, context))) = (some_task(world), some_plane(world)) else { return };
    let asker = asker();
    let (paused, cpu) = {
        let mut luck = world.luck.borrow_mut();
        (luck.percent(50), luck.between(1, 8) * 32)
    };
    let task = id.to_string();
    if pause {
        let request = PauseTask { asker, cluster: cluster(), task, paused };
        let _ = timeout(PATIENCE, task::pause(&context, request)).await;
    } else {
        let cpu_units = Some(u32::try_from(cpu).unwrap());
        let container = String::new();
        let request = UpdateTask { asker, cluster: cluster(), task, container, cpu_units, memory_mib: None };
        let _ = timeout(PATIENCE, task::update(&context, request)).await;
    }
}
