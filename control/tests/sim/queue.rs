//! The queue in a world: who fills it, and that nobody in it starves.
//! In: a world. Out: calls, and the first broken promise. Owns: nothing. Never: asks the scheduler what is right.

use crate::callers::{definition, drain, register_as, request_of, run_this, stop};
use crate::world::World;
use lighter_control::core::queue::QueueOptions;
use lighter_control::core::record::TaskRecord;
use lighter_control::core::run_task::RunTask;
use lighter_control::view::Shown;
use lighter_model::ids::TaskId;
use std::cmp::Reverse;
use std::rc::Rc;

/// What tasks take, in sixteenths of a node.
const SIZES: [u64; 5] = [1, 4, 8, 12, 16];
/// How long the first in turn may stay although it fits, after the last fault.
const STARVED_MS: u64 = 60_000;

/// Of 50,000 to 59,999 and no other, so that the fixed set and the seeds of a commit are what they were.
pub(crate) fn is_in(seed: u64) -> bool {
    (50_000..60_000).contains(&seed)
}

/// Calls until the trouble is over: more than there is room for, some of it short.
pub(crate) async fn call(world: Rc<World>, caller: usize) {
    if caller == 0 {
        for size in SIZES {
            for family in [format!("q{size}"), format!("poison{size}")] {
                let port = (size == 8).then_some(8_000);
                while !register_as(&world, &definition(&family, size * 256, 64, port)).await {
                    world.sleep(100).await;
                }
            }
        }
    }
    for number in 0.. {
        let pause = world.luck.borrow_mut().below(world.shape.think_ms);
        world.sleep(pause).await;
        if world.over.get() {
            return;
        }
        let what = world.luck.borrow_mut().below(100);
        match what {
            0..75 => run(&world, format!("call {number} of {caller}")).await,
            75..92 => stop(&world).await,
            _ => drain(&world).await,
        }
    }
}

async fn run(world: &Rc<World>, token: String) {
    let (family, count, queue) = {
        let mut luck = world.luck.borrow_mut();
        let size = luck.pick(&SIZES).unwrap();
        let family = if luck.percent(70) { format!("poison{size}") } else { format!("q{size}") };
        let count = u32::try_from(luck.between(1, 4)).unwrap();
        let time_limit_s = u32::try_from(luck.between(5, 300)).unwrap();
        let priority = luck.pick(&[-1, 0, 0, 0, 1]).unwrap();
        (family, count, luck.percent(75).then_some(QueueOptions { time_limit_s, priority }))
    };
    let silence = crate::lease::policy(world, &token);
    run_this(world, RunTask { count, silence, queue, ..request_of(&family, Some(&token)) }, token).await;
}

/// The first in turn for as long as it has fitted somewhere.
#[derive(Default)]
pub(crate) struct Turns {
    first: Option<(TaskId, u64)>,
}

impl Turns {
    /// Looks at a state after the last fault.
    pub(crate) fn look(&mut self, world: &World, shown: &Shown) {
        let turn = |task: &&TaskRecord| (Reverse(task.queue.map(|queue| queue.priority)), task.id.clone());
        let entries = shown.state.tasks.values().map(AsRef::as_ref).filter(|task| task.queue.is_some());
        let first = entries.min_by_key(turn).filter(|task| {
            shown.state.instances.keys().any(|instance| world.model.borrow().fits(task, instance))
        });
        let now = world.now_ms();
        let since =
            |id: &TaskId| self.first.as_ref().filter(|(before, _)| before == id).map(|(_, since)| *since);
        self.first = first.map(|task| (task.id.clone(), since(&task.id).unwrap_or(now)));
        if let Some((id, since)) = &self.first {
            world.check(now - since < STARVED_MS, || {
                format!("{id} is the first of the queue, fits, and waits")
            });
        }
    }
}
