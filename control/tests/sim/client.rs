//! A caller's way to a control plane and back, as `identity/layer.rs` and the network have it.
//! In: a call. Out: its answer, if there is one. Never: an answer of a process that is gone.

use crate::plane::{Plane, cluster};
use crate::world::World;
use lighter_control::api::Context;
use lighter_control::core::audit::Asker;
use lighter_control::error::ApiError;
use lighter_control::time::timeout;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How long callers wait for one answer, in milliseconds.
const PATIENCE_MS: [u64; 3] = [1_000, 5_000, 20_000];

pub(crate) fn asker() -> Asker {
    Asker { user: "caller".to_owned(), address: String::new() }
}

pub(crate) fn cluster_text() -> String {
    cluster().to_string()
}

/// A plane to talk to: mostly the one that leads.
fn some_plane(world: &World) -> Option<Rc<Plane>> {
    let planes = world.planes.borrow().clone();
    let leader = world.store.leader(world.now_ms()).and_then(|id| planes.get(id).cloned());
    let stray = world.luck.borrow_mut().percent(40);
    leader.filter(|_| !stray).or_else(|| world.luck.borrow_mut().pick(&planes))
}

/// What came of a call.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    Said(T),
    /// Refused by a rule; nothing was done.
    Refused(ApiError),
    /// Refused for now; nothing was done.
    NotNow,
    /// Refused for want of room; nothing was done.
    Full,
    /// It may have been done.
    Unknown,
}

/// Asks some control plane.
pub(crate) async fn ask<T, F>(world: &Rc<World>, call: impl FnOnce(Context) -> F) -> Answer<T>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let Some((plane, context)) = some_plane(world).and_then(|plane| Some((plane.clone(), plane.context()?)))
    else {
        return Answer::NotNow;
    };
    let run = plane.runs.get();
    let patience = world.luck.borrow_mut().pick(&PATIENCE_MS).unwrap();
    let said = timeout(Duration::from_millis(patience), carry(world, &plane, context, call)).await;
    // A plane that was killed meanwhile answers nobody.
    match said.filter(|_| plane.runs.get() == run && plane.context().is_some()) {
        Some(Ok(answer)) => Answer::Said(answer),
        None | Some(Err(ApiError::OutcomeUnknown | ApiError::ShuttingDown)) => Answer::Unknown,
        Some(Err(ApiError::StoreUnavailable | ApiError::NotLeader { .. })) => Answer::NotNow,
        Some(Err(ApiError::StoreFull { .. })) => Answer::Full,
        Some(Err(error)) => Answer::Refused(error),
    }
}

async fn carry<T, F>(
    world: &Rc<World>,
    plane: &Rc<Plane>,
    context: Context,
    call: impl FnOnce(Context) -> F,
) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let way = world.luck.borrow_mut().between(0, 10);
    world.sleep(way).await;
    world.awake(plane.id).await;
    let leadership = context.writer.leadership().clone();
    let said = leadership.answering(async {
        let said = call(context).await;
        // A process may stand still between any two of its steps.
        world.awake(plane.id).await;
        said
    });
    let said = said.await.and_then(|said| said);
    let back = world.luck.borrow_mut().between(0, 10);
    world.sleep(back).await;
    said
}
