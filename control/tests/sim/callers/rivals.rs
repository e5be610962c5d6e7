//! Callers that want the same few things at the same time, writing and reading; what they are told is
//! the history that must have an order.
//! In: a world. Out: calls in its history. Never: repeats a call but RunTask, whose token allows it.

use super::{definition, request_of, some_task};
use crate::client::{Answer, ask, asker, cluster_text};
use crate::history::{CALLS_MAX, Op, Told};
use crate::plane::cluster;
use crate::world::World;
use lighter_control::api::page::PageRequest;
use lighter_control::api::{Context, attribute, state, task, task_definition};
use lighter_control::core::attribute::{DeleteAttributes, PutAttributes, TargetAttribute};
use lighter_control::core::definition::{DeregisterDefinition, RegisterDefinition};
use lighter_control::core::run_task::RunTask;
use lighter_control::error::ApiError;
use lighter_model::status::DesiredStatus;
use std::rc::Rc;

/// Calls of the same token come within so long.
const TOKEN_MS: u64 = 3_000;
/// Attributes of a node at most: half of the quota, each name is used for `CALLS_MAX` calls.
const NAMES: usize = 5;

/// Calls until the trouble is over.
pub(crate) async fn rival(world: Rc<World>, number: u64) {
    for call in 0.. {
        let pause = world.luck.borrow_mut().between(20, 700);
        world.sleep(pause).await;
        if world.over.get() {
            return;
        }
        let what = world.luck.borrow_mut().below(100);
        match what {
            0..40 => value(&world, number << 32 | call).await,
            40..65 => revision(&world).await,
            65..80 => tasks(&world).await,
            80..95 => one_task(&world).await,
            _ => whole_state(&world).await,
        }
    }
}

/// Enters a call into the history, with what `told` makes of its answer.
async fn recorded<T, F>(
    world: &Rc<World>,
    key: &str,
    op: Op,
    call: impl FnOnce(Context) -> F,
    told: impl FnOnce(Result<T, ApiError>) -> Option<Told>,
) where
    F: Future<Output = Result<T, ApiError>>,
{
    let begun = world.history.borrow_mut().begin(key, op);
    let answer = match ask(world, call).await {
        Answer::Said(answer) => Ok(answer),
        // A store that was set back twice has the names of two others, too.
        Answer::Refused(ApiError::QuotaExceeded { .. }) => return world.history.borrow_mut().refused(&begun),
        Answer::Refused(error) => Err(error),
        Answer::NotNow | Answer::Full => return world.history.borrow_mut().refused(&begun),
        Answer::Unknown => return,
    };
    match told(answer) {
        Some(told) => world.history.borrow_mut().end(&begun, told),
        None => world.fail(format!("{key}: an answer that makes no sense to {begun:?}")),
    }
}

/// The first name that may take another call.
fn key(world: &World, prefix: &str, names: usize) -> Option<String> {
    let history = world.history.borrow();
    let names = (0..names).map(|number| format!("{prefix}{}x{number}", history.epoch()));
    names.into_iter().find(|name| history.count(name) < CALLS_MAX)
}

/// An attribute of a node, as a register.
async fn value(world: &Rc<World>, unique: u64) {
    let node = world.nodes.borrow()[0].id.borrow().to_string();
    let Some(key) = key(world, "attribute", NAMES) else { return };
    let name = key.clone();
    let what = world.luck.borrow_mut().below(10);
    let one = |value: String| vec![TargetAttribute { instance: node, name: name.clone(), value }];
    match what {
        0..4 => {
            let request = PutAttributes { cluster: cluster(), attributes: one(unique.to_string()) };
            let call = |context: Context| async move { attribute::put(&context, asker(), request).await };
            recorded(world, &key, Op::Put(unique), call, |said| said.ok().map(|_| Told::Done)).await;
        }
        4 => {
            let request = DeleteAttributes { cluster: cluster(), attributes: one(String::new()) };
            let call = |context: Context| async move { attribute::delete(&context, asker(), request).await };
            let told = |said: Result<_, _>| Some(if said.is_ok() { Told::Done } else { Told::Missing });
            recorded(world, &key, Op::Delete, call, told).await;
        }
        _ => {
            let filter = attribute::Filter { cluster: cluster_text(), name, ..Default::default() };
            let call = |context: Context| async move { attribute::list(&context, &filter) };
            let told = |said: Result<attribute::AttributePage, _>| {
                let value = said.ok()?.attributes.first().map(|found| found.value.parse());
                Some(Told::Value(value.transpose().ok()?))
            };
            recorded(world, &key, Op::Read, call, told).await;
        }
    }
}

/// A family of task definitions.
async fn revision(world: &Rc<World>) {
    let Some(key) = key(world, "family", usize::MAX) else { return };
    let what = world.luck.borrow_mut().below(10);
    match what {
        0..3 => {
            let json = definition(&key, 64, 64, None);
            let definition = lighter_model::task_definition::input::parse(&json).unwrap();
            let command = RegisterDefinition { definition, registered_by: String::new() };
            let call = |context: Context| async move { context.change(asker(), command).await };
            let told = |said: Result<std::sync::Arc<_>, _>| {
                let record: std::sync::Arc<lighter_control::core::record::DefinitionRecord> = said.ok()?;
                Some(Told::Revision(record.id.revision))
            };
            recorded(world, &key, Op::Register, call, told).await;
        }
        3..5 => {
            let revision = u32::try_from(world.luck.borrow_mut().between(1, 6)).unwrap();
            let task_definition = format!("{key}:{revision}");
            let command = DeregisterDefinition { task_definition };
            let call = |context: Context| async move { context.change(asker(), command).await };
            let told = |said: Result<_, _>| Some(if said.is_ok() { Told::Done } else { Told::Missing });
            recorded(world, &key, Op::Deregister(revision), call, told).await;
        }
        _ => {
            let family = key.clone();
            let call = |context: Context| async move { task_definition::describe(&context, &family) };
            let told = |said: Result<std::sync::Arc<_>, _>| {
                let newest = said.ok();
                let newest: Option<std::sync::Arc<lighter_control::core::record::DefinitionRecord>> = newest;
                Some(Told::Newest(newest.map(|record| record.id.revision)))
            };
            recorded(world, &key, Op::Newest, call, told).await;
        }
    }
}

/// RunTask with a token that others use too, and a list of what it made.
async fn tasks(world: &Rc<World>) {
    let key = format!("token{}x{}", world.history.borrow().epoch(), world.now_ms() / TOKEN_MS);
    if world.history.borrow().count(&key) >= CALLS_MAX {
        return;
    }
    if world.luck.borrow_mut().percent(40) {
        let filter = task::Filter {
            cluster: cluster_text(),
            container_instance: String::new(),
            family: String::new(),
            started_by: key.clone(),
            desired_status: DesiredStatus::Running,
            queued: false,
            page: PageRequest::default(),
        };
        let call = |context: Context| async move { task::list(&context, &filter) };
        let told = |said: Result<lighter_control::api::page::Page, _>| {
            Some(Told::Tasks(said.ok()?.items.into_iter().collect()))
        };
        return recorded(world, &key, Op::List, call, told).await;
    }
    let begun = world.history.borrow_mut().begin(&key, Op::Run);
    while !world.over.get() {
        let request = RunTask { count: 2, ..request_of("f0:1", Some(&key)) };
        match ask(world, |context| async move { task::run(&context, asker(), request).await }).await {
            Answer::Said(answer) => {
                world.model.borrow_mut().answered(world, Some(&key), &answer.tasks);
                let ids = answer.tasks.iter().map(|task| task.id.to_string()).collect();
                return world.history.borrow_mut().end(&begun, Told::Tasks(ids));
            }
            Answer::Refused(error) => return world.fail(format!("{key}: {error}")),
            Answer::NotNow | Answer::Full | Answer::Unknown => world.sleep(100).await,
        }
    }
}

/// A task's version never goes back, whoever is asked.
async fn one_task(world: &Rc<World>) {
    let Some(id) = some_task(world) else { return };
    let key = format!("task {id}");
    let (epoch, floor) = (world.history.borrow().epoch(), world.history.borrow().floor(&key));
    let names = vec![id.to_string()];
    let call = |context: Context| async move { task::describe(&context, &cluster_text(), &names) };
    let Answer::Said(described) = ask(world, call).await else { return };
    if let Some(found) = described.found.first()
        && world.history.borrow().epoch() == epoch
    {
        world.history.borrow_mut().shows(world, &key, floor, found.task.version);
        world.model.borrow().described(world, &found.task);
    }
}

/// The last event of the whole state never goes back, whoever is asked.
async fn whole_state(world: &Rc<World>) {
    let (epoch, floor) = (world.history.borrow().epoch(), world.history.borrow().floor("state"));
    let call = |context: Context| async move { state::state(&context, &cluster_text()) };
    if let Answer::Said(state) = ask(world, call).await
        && world.history.borrow().epoch() == epoch
    {
        world.history.borrow_mut().shows(world, "state", floor, state.sequence);
    }
}
