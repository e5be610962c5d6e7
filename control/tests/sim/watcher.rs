//! A watcher whose replica, put together of events, must equal the state.
//! In: a world. Out: the first gap or difference. Never: looks at the state but to begin anew.

use crate::world::World;
use lighter_control::api::events::{WatchRequest, watch};
use lighter_control::core::record::{EventRecord, EventSubject, TaskRecord};
use lighter_control::time::timeout;
use lighter_control::view::Shown;
use lighter_model::ids::TaskId;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;

/// What a watcher has put together of events.
#[derive(Default)]
pub(crate) struct Replica {
    last: u64,
    tasks: BTreeMap<TaskId, Arc<TaskRecord>>,
    /// Set when the state has to be listed anew.
    stale: bool,
}

impl Replica {
    fn take(&mut self, world: &World, event: &EventRecord) {
        let (last, next) = (self.last, event.sequence);
        world.check(next == last + 1, || format!("a watcher gets event {next} after {last}"));
        self.last = next;
        if let EventSubject::Task(task) = &event.subject {
            self.tasks.insert(task.id.clone(), task.clone());
        }
    }

    fn list(&mut self, shown: &Shown) {
        self.tasks = shown.state.tasks.clone();
        self.last = shown.state.meta.event_sequence;
        self.stale = false;
    }

    /// Whether it shows what is shown.
    pub(crate) fn equals(&self, shown: &Shown) -> bool {
        self.last == shown.state.meta.event_sequence
            && shown
                .state
                .tasks
                .iter()
                .all(|(id, task)| self.tasks.get(id).is_some_and(|seen| is_same(seen, task)))
    }

    /// The store was set back: numbers are given a second time.
    pub(crate) fn forget(&mut self) {
        self.stale = true;
    }
}

/// That its service has taken note of a task's end is no event: nobody is shown it.
fn is_same(seen: &TaskRecord, kept: &TaskRecord) -> bool {
    let mut seen = seen.clone();
    if let (Some(seen), Some(kept)) = (&mut seen.service, &kept.service) {
        seen.accounted = kept.accounted;
    }
    seen == *kept
}

/// Watches for ever, going on from where it was.
pub(crate) async fn follow(world: Rc<World>, replica: Rc<RefCell<Replica>>) {
    replica.borrow_mut().stale = true;
    loop {
        world.sleep(100).await;
        let leader = world.store.leader(world.now_ms());
        let plane = leader.and_then(|id| world.planes.borrow().get(id).cloned());
        let Some(context) = plane.and_then(|plane| plane.context()) else { continue };
        if replica.borrow().stale || replica.borrow().last == 0 {
            context.view.read(|shown| replica.borrow_mut().list(shown));
        }
        let after = replica.borrow().last;
        let request = WatchRequest { after_sequence: after, from_oldest: after == 0, ..Default::default() };
        let events = match watch(&context, &request) {
            Ok(events) => events,
            Err(error) => {
                world.say(format_args!("the watcher begins anew: {error}"));
                replica.borrow_mut().stale = true;
                continue;
            }
        };
        drop(context);
        let mut events = Box::pin(events.events);
        // A plane that was killed says nothing more: asked again now and then.
        while let Some(Some(Ok(event))) = timeout(Duration::from_secs(30), events.next()).await {
            while world.watcher_rests.get() {
                world.sleep(500).await;
            }
            if replica.borrow().stale {
                break;
            }
            replica.borrow_mut().take(&world, &event);
            world.history.borrow_mut().shows(&world, "state", 0, event.sequence);
        }
    }
}
