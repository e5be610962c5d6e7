//! One world from its seed to its end.
//! In: a seed. Out: whether all promises held, and a digest of everything that happened.
//! Never: anything that is not drawn from the seed.

use crate::callers::{call, register_all, rival, run_ten};
use crate::executor::Ended;
use crate::faults::{Kind, mend_for_ever, trouble};
use crate::luck::Luck;
use crate::model::Races;
use crate::node::{Node, Speaks};
use crate::plane::{Plane, cluster};
use crate::queue;
use crate::services::{self, races};
use crate::watcher::{Replica, follow};
use crate::world::{Shape, World};
use lighter_control::api::Context;
use lighter_control::core::join::{CreateJoinToken, Join};
use lighter_control::error::ApiError;
use lighter_control::view::Shown;
use lighter_control::wrong_edit::{self, WrongEdit};
use lighter_model::ids::ContainerInstanceId;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How long a world may take to come to rest after the last fault.
const REST_MS: u64 = 600_000;
/// Far beyond what any world needs: something runs in circles.
const STEPS_MAX: u64 = 20_000_000;
/// Every so many seeds a world is a fleet.
const FLEET_EVERY: u64 = 50;
/// Every so many, one of 2,000 nodes with 20,000 tasks.
const LARGE_EVERY: u64 = 1_000;
/// Calls that fill a large fleet, ten tasks each, and how many callers make them.
const FILLING: u32 = 2_000;
const FILLERS: u32 = 16;

/// What came of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) failure: Option<String>,
    pub(crate) digest: u64,
    pub(crate) events: u64,
    pub(crate) polls: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) races: Races,
    pub(crate) lines: Vec<String>,
}

/// The world of a seed: how large, and which kinds of fault; few kinds at a time find more than all.
pub(crate) fn shape(seed: u64) -> Shape {
    let mut luck = Luck::new(seed.rotate_left(32));
    let fleet = seed % FLEET_EVERY == FLEET_EVERY - 1;
    let large = seed % LARGE_EVERY == LARGE_EVERY - 1;
    let kinds = luck.between(1, 7);
    let mut faults: Vec<Kind> = (0..kinds).filter_map(|_| luck.pick(Kind::ALL)).collect();
    faults.dedup();
    Shape {
        nodes: match (large, fleet) {
            (true, _) => 2_000,
            (_, true) => usize::try_from(luck.between(300, 1_000)).unwrap(),
            _ => usize::try_from(luck.between(2, 16)).unwrap(),
        },
        fill: if large { FILLING } else { 0 },
        planes: usize::try_from(luck.between(1, 3)).unwrap(),
        callers: usize::try_from(luck.between(1, 3)).unwrap(),
        heartbeat_ms: if fleet { 15_000 } else { luck.between(2, 15) * 1_000 },
        trouble_ms: match (fleet, races::are_in(seed)) {
            (true, _) => 60_000,
            // A deployment of tasks without a health check takes 40 s at the least.
            (_, true) => luck.between(150, 300) * 1_000,
            _ => luck.between(40, 120) * 1_000,
        },
        faults,
        fault_pause_ms: luck.between(2_000, 15_000),
        think_ms: luck.between(800, 5_000),
        events_kept: usize::try_from(luck.between(50, 2_000)).unwrap(),
        skew_ms: i64::try_from(luck.below(240_000)).unwrap() - 120_000,
        services: services::are_in(seed),
        races: races::are_in(seed),
        checks: services::checks::are_in(seed),
        exclusive: services::exclusive::are_in(seed),
        queue: queue::is_in(seed),
        rivals: if services::are_in(seed) {
            0
        } else if luck.percent(60) {
            usize::try_from(luck.between(2, 5)).unwrap()
        } else {
            0
        },
    }
}

/// Runs one seed, with a wrong edit or none.
pub(crate) fn run(seed: u64, edit: Option<WrongEdit>, keep_trace: bool) -> Outcome {
    let world = World::new(seed, shape(seed), keep_trace);
    lighter_control::time::install(Some(world.executor.clock()));
    wrong_edit::switch(edit);
    services::watch(&world);
    world.say(format_args!("seed {seed}: {:?}", world.shape));
    let main = live(world.clone());
    world.spawn(main);
    let watched = world.clone();
    let ended = world.executor.run(move || {
        if watched.executor.polls() > STEPS_MAX {
            watched.fail(format!("more than {STEPS_MAX} steps"));
        }
        watched.failed() || watched.done.get()
    });
    match ended {
        Ended::Done => {}
        Ended::Stalled => world.fail("nothing is left to wait for".to_owned()),
        Ended::Panicked(words) => world.fail(format!("panicked: {words}")),
    }
    let outcome = Outcome {
        seed,
        failure: world.failure(),
        digest: world.digest(),
        events: world.events(),
        polls: world.executor.polls(),
        simulated_ms: world.now_ms(),
        races: world.model.borrow().services.races.clone(),
        lines: world.lines(),
    };
    world.executor.clear();
    services::rest_of_watch();
    world.planes.take();
    world.nodes.take();
    wrong_edit::switch(None);
    lighter_control::time::install(None);
    outcome
}

async fn live(world: Rc<World>) {
    let planes: Vec<Rc<Plane>> = (0..world.shape.planes).map(Plane::new).collect();
    *world.planes.borrow_mut() = planes.clone();
    planes.iter().for_each(|plane| plane.start(&world));
    let context = leader(&world).await;
    for index in 0..world.shape.nodes {
        let id = join(&context, index).await;
        let speaks =
            world.luck.borrow_mut().pick(&[Speaks::Before, Speaks::Present, Speaks::Present, Speaks::Next]);
        world.nodes.borrow_mut().push(Node::new(index, id, speaks.unwrap()));
    }
    register_all(&world).await;
    drop(context);
    world.nodes.borrow().iter().for_each(|node| node.start(&world));
    let replica = Rc::new(RefCell::new(Replica::default()));
    world.spawn(follow(world.clone(), replica.clone()));
    for caller in 0..world.shape.callers {
        if world.shape.services {
            world.spawn(services::call(world.clone(), caller));
        } else if world.shape.queue {
            world.spawn(queue::call(world.clone(), caller));
        } else {
            world.spawn(call(world.clone(), caller));
        }
    }
    if world.shape.races {
        races::SERVICES.iter().for_each(|service| drop(world.spawn(races::call(world.clone(), service))));
    }
    fill(&world).await;
    world.spawn(mend_for_ever(world.clone()));
    for number in 0..world.shape.rivals {
        world.spawn(rival(world.clone(), number as u64));
    }
    trouble(world.clone(), replica.clone()).await;
    services::settle(&world).await;
    rest(&world, &replica).await;
    world.done.set(true);
}

/// A large fleet has its tasks before anything goes wrong.
async fn fill(world: &Rc<World>) {
    if world.shape.fill == 0 {
        return;
    }
    while world.nodes.borrow().iter().any(|node| node.session.get().is_none()) {
        world.sleep(1_000).await;
    }
    let left = Rc::new(Cell::new(world.shape.fill));
    let done = Rc::new(Cell::new(0));
    for _ in 0..FILLERS {
        let (world, left, done) = (world.clone(), left.clone(), done.clone());
        world.clone().spawn(async move {
            while let Some(next) = left.get().checked_sub(1) {
                left.set(next);
                run_ten(&world, format!("fill {next}")).await;
                done.set(done.get() + 1);
            }
        });
    }
    while done.get() < world.shape.fill {
        world.sleep(100).await;
    }
    let tasks = world.model.borrow().tasks.len();
    world.say(format_args!("{tasks} tasks"));
}

/// What the plane that leads serves with.
pub(crate) async fn leader(world: &World) -> Context {
    loop {
        let leader = world.store.leader(world.now_ms());
        let plane = leader.and_then(|id| world.planes.borrow().get(id).cloned());
        if let Some(context) = plane.and_then(|plane| plane.context())
            && context.writer.leadership().check().is_ok()
        {
            return context;
        }
        world.sleep(100).await;
    }
}

/// A node's first identity.
async fn join(context: &Context, index: usize) -> ContainerInstanceId {
    spend_token(context, index, 0).await.unwrap()
}

/// A new identity under a node's name.
pub(crate) async fn spend_token(
    context: &Context,
    index: usize,
    wiped: u64,
) -> Result<ContainerInstanceId, ApiError> {
    let secret_sha256 = "00".to_owned();
    let create = CreateJoinToken {
        cluster: cluster(),
        time_to_live_s: 3_600,
        attributes: BTreeMap::new(),
        secret_sha256: secret_sha256.clone(),
    };
    let token_id = context.writer.submit(create).await?.id.clone();
    let public_key_sha256 = format!("{index} {wiped}");
    let join = Join { token_id, secret_sha256, public_key_sha256, name: format!("n{index}") };
    Ok(context.writer.submit(join).await?.id.clone())
}

/// Waits until the world has come to rest as it should, and looks at everything once more.
async fn rest(world: &Rc<World>, replica: &Rc<RefCell<Replica>>) {
    let until = world.now_ms() + REST_MS;
    let mut turns = queue::Turns::default();
    loop {
        world.sleep(2_000).await;
        let context = leader(world).await;
        context.view.read(|shown| turns.look(world, shown));
        let missing = context.view.read(|shown| restless(world, &replica.borrow(), shown));
        let Some(missing) = missing else {
            let plane = world.store.leader(world.now_ms()).unwrap_or_default();
            context.view.read(|shown| world.model.borrow().at_the_end(world, plane, shown));
            world.history.borrow_mut().check(world);
            return world.say(format_args!("at rest"));
        };
        if world.now_ms() > until {
            return world.fail(format!("not at rest ten minutes after the last fault: {missing}"));
        }
    }
}

/// What is not yet as it should be.
fn restless(world: &World, replica: &Replica, shown: &Shown) -> Option<String> {
    let state = &shown.state;
    if shown.sequence < world.store.sequence.get() {
        return Some("the newest group is not shown yet".to_owned());
    }
    let own: BTreeSet<ContainerInstanceId> =
        world.nodes.borrow().iter().map(|node| node.id.borrow().clone()).collect();
    if let Some(entry) = state.tasks.values().find(|task| task.queue.is_some()) {
        return Some(format!("{} waits in the queue", entry.id));
    }
    let left = state.tasks.values().find(|t| t.last != TaskStatus::Stopped && !own.contains(&t.instance));
    if let Some(task) = left {
        return Some(format!("{} is left on {}, which no machine is any more", task.id, task.instance));
    }
    for node in world.nodes.borrow().iter() {
        if node.joining.get() {
            return Some(format!("node {} has no identity", node.index));
        }
        let Some(instance) = state.instances.get(&node.id.borrow()) else {
            return Some(format!("node {} is not known", node.index));
        };
        if instance.status == ContainerInstanceStatus::Registering || !instance.connected {
            return Some(format!("node {} is not connected", node.index));
        }
        if node.session.get().is_none() {
            return Some(format!("node {} has no session", node.index));
        }
        for id in node.disk.borrow().holds().filter(|id| !instance.orphans.contains(*id)) {
            match state.tasks.get(id) {
                None => return Some(format!("node {} holds {id}, which is unknown", node.index)),
                Some(task) if task.last == TaskStatus::Stopped => {
                    return Some(format!("node {} holds {id}, which is STOPPED", node.index));
                }
                Some(_) => {}
            }
        }
        for id in &state.reserved(&node.id.borrow()).tasks {
            let task = &state.tasks[id];
            if task.desired == DesiredStatus::Stopped {
                return Some(format!("{id} on node {} is to stop", node.index));
            }
            if task.last != TaskStatus::Running || !node.running(id) {
                let there =
                    node.disk.borrow().tasks.get(id).map(|task| (task.status, task.sequence, task.applied));
                let here = (task.last, task.report_sequence);
                return Some(format!(
                    "{id} does not run on node {}: {here:?} here, {there:?} there",
                    node.index
                ));
            }
        }
    }
    if let Some(service) = services::restless(world, shown) {
        return Some(service);
    }
    (!replica.equals(shown)).then(|| "the watcher's replica is not the state".to_owned())
}
