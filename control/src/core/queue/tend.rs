//! Brings the queue of a cluster a step on: ends what waited too long, places what fits, in turn.
//! In: a cluster, and how far an earlier step came. Out: tasks placed or ended, a chunk at a time; how far it came.
//! The head is the first entry that fits nowhere now and somewhere once enough has ended; one that can start nowhere
//! waits for an instance to come, and keeps nobody back.
//! Never: looks at more than `LOOKS` entries in one step, or lets an entry pass the head where that might be delayed.

use super::{Turn, Waiting, ended, lacks, placed};
use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::state::State;
use crate::error::ApiError;
use crate::scheduler::choose::{Ask, choose};
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::status::StopCode;
use std::ops::Bound;

/// Tasks changed by one step, each with its event, to stay within one group.
const CHUNK: usize = 10;
/// Entries looked at in one step; each is one decision of the scheduler.
const LOOKS: usize = 64;

/// Tends the queue of one cluster.
#[derive(Debug, Clone)]
pub struct TendQueue {
    pub cluster: ClusterName,
    /// Go on behind this one.
    pub after: Option<Turn>,
    /// The head as the step before has found it, which is looked at each time.
    pub head: Option<Turn>,
    /// Not where the store has no room for more, or nodes have not said what they hold.
    pub may_start: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tended {
    pub placed: usize,
    pub ended: usize,
    /// More entries are to be looked at: give the command again, behind this one.
    pub next: Option<Turn>,
    /// And with this head.
    pub head: Option<Turn>,
}

impl Command for TendQueue {
    type Answer = Tended;

    fn is_new_work(&self, ahead: &State) -> bool {
        self.may_start && !ahead.queue_of(&self.cluster).is_empty()
    }

    fn decide(self, changes: &mut Changes<'_>) -> Result<Tended, ApiError> {
        let mut tended = Tended { ended: end_overdue(changes, &self.cluster), ..Tended::default() };
        if tended.ended == CHUNK {
            tended.next = changes.state().queue_of(&self.cluster).first().cloned();
            tended.head.clone_from(&tended.next);
        } else if self.may_start {
            place_in_turn(changes, &self, &mut tended);
        }
        Ok(tended)
    }
}

/// The first in turn from there.
fn turn_from(state: &State, cluster: &ClusterName, from: Bound<&Turn>) -> Option<Turn> {
    let mut turns = state.queue_of(cluster).range((from, Bound::Unbounded));
    let next = if wrong_edit::is(WrongEdit::QueueOvertaken) { turns.next_back() } else { turns.next() };
    next.cloned()
}

fn place_in_turn(changes: &mut Changes<'_>, step: &TendQueue, tended: &mut Tended) {
    let mut head: Option<Waiting> = None;
    let mut unplaced: Vec<Waiting> = Vec::new();
    let mut looks = 0;
    let mut from = match (&step.head, &step.after) {
        (Some(head), _) => Bound::Included(head.clone()),
        // Before it nothing waits that can start anywhere.
        (None, Some(after)) => Bound::Excluded(after.clone()),
        (None, None) => Bound::Unbounded,
    };
    while let Some(turn) = turn_from(changes.state(), &step.cluster, from.as_ref()) {
        if let Bound::Excluded(at) = &from
            && (looks == LOOKS || tended.placed + tended.ended >= CHUNK)
        {
            tended.next = Some(at.clone());
            tended.head = head.as_ref().and_then(|head| Turn::of(&head.task));
            return;
        }
        looks += 1;
        from = Bound::Excluded(turn.clone());
        let waiting = match can_wait(changes, &turn.task) {
            Ok(waiting) => waiting,
            Err(reason) => {
                tended.ended += usize::from(end(changes, &turn.task, reason));
                continue;
            }
        };
        if unplaced.iter().any(|other| other.is_like(&waiting.task))
            || (head.is_some() && step.after.is_some())
                && has_its_like_before(changes.state(), &waiting, &turn)
        {
            continue;
        }
        let starves = head.is_none() && wrong_edit::is(WrongEdit::QueueHeadStarves);
        match place(changes, &waiting, head.as_ref()).filter(|_| !starves) {
            Some(instance) => {
                let mut task = placed(&waiting.task, instance);
                // What its tags mean may have been settled meanwhile.
                task.image_digests = waiting.definition.image_digests.clone();
                changes.put_task(task);
                tended.placed += 1;
                // It may be what another asks to be near to.
                unplaced.clear();
            }
            None if head.is_none() && is_possible(changes, &waiting) => {
                head = Some(waiting);
                from = Bound::Excluded(step.after.clone().map_or(turn.clone(), |after| after.max(turn)));
            }
            None => unplaced.push(waiting),
        }
    }
}

fn is_possible(changes: &Changes<'_>, waiting: &Waiting) -> bool {
    waiting.is_possible(changes.state().columns().of(&waiting.task.cluster), changes.settings())
}

/// Whether one that asks the same waits before it: an earlier step has found no room for that one, and what room has
/// come since is not for this one.
fn has_its_like_before(state: &State, waiting: &Waiting, turn: &Turn) -> bool {
    let mut before = state.queue_of(&waiting.task.cluster).range(..turn);
    before.any(|turn| state.tasks.get(&turn.task).is_some_and(|task| waiting.is_like(task)))
}

/// The instance for an entry, which must not delay the head.
fn place(
    changes: &mut Changes<'_>,
    waiting: &Waiting,
    head: Option<&Waiting>,
) -> Option<ContainerInstanceId> {
    let task = &waiting.task;
    changes.warm(&task.cluster, &waiting.placement);
    let (settings, luck) = (changes.settings(), changes.luck());
    let nodes = changes.state().columns().of(&task.cluster);
    let head = head.map(|head| head.head(nodes, settings));
    let ask = waiting.need.ask(settings, &task.group, &waiting.placement, luck);
    let row = choose(nodes, &Ask { head: head.as_ref(), ..ask })?;
    Some(nodes.id(row).clone())
}

/// An entry, or why it must not wait any longer.
fn can_wait(changes: &Changes<'_>, id: &TaskId) -> Result<Waiting, &'static str> {
    let waiting = Waiting::of(changes.state(), id).ok_or("Its task definition is gone")?;
    // By now every node has said what it holds: it runs nowhere, but it may have run.
    let is_own = waiting.task.queue.is_some_and(|queue| queue.store == changes.settings().store);
    let is_own = is_own || wrong_edit::is(WrongEdit::SetBackQueueRunAgain);
    is_own.then_some(waiting).ok_or("The store was set back: the task may have run since then")
}

fn end(changes: &mut Changes<'_>, id: &TaskId, reason: &str) -> bool {
    let Some(task) = changes.state().tasks.get(id).cloned() else { return false };
    changes.put_task(ended(&task, StopCode::TaskFailedToStart, reason, changes.now_ms()));
    true
}

/// Those whose time is over, as many as one step takes.
fn end_overdue(changes: &mut Changes<'_>, cluster: &ClusterName) -> usize {
    let (state, now, store) = (changes.state(), changes.now_ms(), changes.settings().store);
    let over = state.queue_of(cluster).iter().filter(|turn| {
        let queue = state.tasks.get(&turn.task).and_then(|task| task.queue);
        queue.is_some_and(|queue| queue.until_unix_ms <= now && queue.store == store)
    });
    let over: Vec<TaskId> = over.take(CHUNK).map(|turn| turn.task.clone()).collect();
    for id in &over {
        let (state, settings) = (changes.state(), changes.settings());
        let Some(task) = state.tasks.get(id).cloned() else { continue };
        let why = Waiting::of(state, id).map(|waiting| lacks(state, settings, &waiting)).unwrap_or_default();
        let waited_s = now.saturating_sub(task.times.created_at) / 1_000;
        let reason = format!("Timeout waiting for room in the queue after {waited_s} s: {why}");
        changes.put_task(ended(&task, StopCode::TaskFailedToStart, &reason, now));
    }
    over.len()
}
