//! The queue: tasks that wait in the store for room, in the order of their turns.
//! In: RunTask with `queue`. Out: entries, which are tasks that are PROVISIONING on no instance; the head of the queue
//! as the scheduler asks for it. Owns: what an entry says beside its task, and how it ends without a place.
//! Never: decides who may pass: `scheduler::pass` does.
//!
//! ```text
//! RunTask ──fits──▶ PENDING on an instance ◀──placed── PROVISIONING, queued ──time limit, StopTask──▶ STOPPED
//!    └─────────────────────fits nowhere───────────────────────▲
//! ```

pub mod tend;
#[cfg(test)]
mod tests;

use crate::core::Settings;
use crate::core::columns::Nodes;
use crate::core::instance::given_up;
use crate::core::mutation::Changes;
use crate::core::record::{DefinitionRecord, TaskRecord, decode, encode};
use crate::core::run_task::Need;
use crate::core::state::State;
use crate::error::ApiError;
use crate::scheduler::choose::Ask;
use crate::scheduler::explain::Unable;
use crate::scheduler::pass::Head;
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::placement::Placement;
use lighter_model::status::{StopCode, TaskStatus};
use lighter_model::wait::{Wait, WaitKind};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::Arc;

/// How long an entry waits when nobody says.
pub const TIME_LIMIT_S: u32 = 86_400;
/// At most.
pub const TIME_LIMIT_MAX_S: u32 = 30 * 86_400;

/// What RunTask's `queue` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueOptions {
    /// 0: `TIME_LIMIT_S`.
    pub time_limit_s: u32,
    /// Higher first.
    pub priority: i32,
}

impl QueueOptions {
    /// Refuses what is too long.
    pub fn check(self) -> Result<(), ApiError> {
        if self.time_limit_s <= TIME_LIMIT_MAX_S {
            return Ok(());
        }
        let problem =
            format!("must be at most {TIME_LIMIT_MAX_S} seconds (30 days), got {}", self.time_limit_s);
        Err(ApiError::invalid("queue.timeLimitS", problem))
    }

    /// In milliseconds.
    pub fn limit_ms(self) -> u64 {
        let limit_s = if self.time_limit_s == 0 { TIME_LIMIT_S } else { self.time_limit_s };
        u64::from(limit_s) * 1_000
    }
}

/// What an entry says beside its task; it waits since the task was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    pub priority: i32,
    /// Cluster time at which it ends without a place.
    pub until_unix_ms: u64,
    /// The store it began to wait in (`store::mark`). In a store that was set back it may have been placed since.
    #[serde(default)]
    pub store: u64,
}

/// Whose turn it is: higher priorities first, within one who came first. Ids of tasks sort by creation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    priority: Reverse<i32>,
    pub task: TaskId,
}

impl Turn {
    /// `None`: it does not wait.
    pub fn of(task: &TaskRecord) -> Option<Self> {
        let queue = task.queue.as_ref()?;
        Some(Self { priority: Reverse(queue.priority), task: task.id.clone() })
    }
}

/// The instance of a task that is on none: no instance has this id.
pub fn nowhere() -> ContainerInstanceId {
    ContainerInstanceId::from_parts(0, 0)
}

/// Refuses to ask the node of a task that is on none.
pub fn require_node(task: &TaskRecord) -> Result<(), ApiError> {
    if task.instance != nowhere() {
        return Ok(());
    }
    Err(ApiError::TaskNotRunning { task: task.id.to_string(), status: task.last.as_str().to_owned() })
}

/// An entry with what it asks of its place.
#[derive(Debug)]
pub struct Waiting {
    pub task: Arc<TaskRecord>,
    pub definition: Arc<DefinitionRecord>,
    pub need: Need,
    pub placement: Placement,
}

impl Waiting {
    /// `None`: it does not wait, or its revision is gone.
    pub fn of(state: &State, id: &TaskId) -> Option<Self> {
        let task = state.tasks.get(id).filter(|task| task.queue.is_some())?.clone();
        let definition = state.definitions.get(&task.definition)?.clone();
        let need = Need::overridden(&definition, &task.overrides, task.silence).ok()?;
        let placement = task.placement();
        Some(Self { task, definition, need, placement })
    }

    /// The head of a cluster's queue: the first that an instance can take once enough has ended.
    pub fn first(state: &State, settings: &Settings, cluster: &ClusterName) -> Option<Self> {
        let nodes = state.columns().of(cluster);
        let mut impossible: Vec<Self> = Vec::new();
        for turn in state.queue_of(cluster) {
            let task = state.tasks.get(&turn.task);
            if task.is_none_or(|task| impossible.iter().any(|other| other.is_like(task))) {
                continue;
            }
            match Self::of(state, &turn.task) {
                Some(waiting) if waiting.is_possible(nodes, settings) => return Some(waiting),
                waiting => impossible.extend(waiting),
            }
        }
        None
    }

    /// Whether an instance can take it once enough has ended there.
    fn is_possible(&self, nodes: &Nodes, settings: &Settings) -> bool {
        self.head(nodes, settings).is_possible(nodes)
    }

    /// As those see it that want to pass.
    pub fn head<'a>(&'a self, nodes: &Nodes, settings: &Settings) -> Head<'a> {
        let ask = self.need.ask(settings, &self.task.group, &self.placement, 0);
        Head::new(nodes, &self.task.id, ask)
    }

    /// Whether it asks the same of its place, so that it fits nowhere where the other does not.
    fn is_like(&self, two: &TaskRecord) -> bool {
        let one = &self.task;
        one.definition == two.definition
            && one.group == two.group
            && one.placement == two.placement
            && one.overrides == two.overrides
            && one.silence == two.silence
    }
}

/// An entry on an instance.
pub fn placed(task: &TaskRecord, instance: ContainerInstanceId) -> TaskRecord {
    let mut task = task.clone();
    task.queue = None;
    task.instance = instance;
    task.last = TaskStatus::Pending;
    // Its node hears of it by that.
    task.generation.0 += 1;
    task
}

/// Entries that an instance holds: before this store was set back they were placed there, and there they stay. At most
/// `most` at once; how many it were. One of this store no instance has on its own word.
pub fn take_back<'a>(
    changes: &mut Changes<'_>,
    instance: &ContainerInstanceId,
    held: impl Iterator<Item = &'a TaskId>,
    most: usize,
) -> usize {
    let (state, store) = (changes.state(), changes.settings().store);
    let was_placed = |id| {
        let task: &Arc<TaskRecord> = state.tasks.get(id)?;
        task.queue.is_some_and(|queue| queue.store != store).then(|| placed(task, instance.clone()))
    };
    let there: Vec<TaskRecord> = held.filter_map(was_placed).take(most).collect();
    let count = there.len();
    there.into_iter().for_each(|task| drop(changes.put_task(task)));
    count
}

/// The entries of a store that is moved wait on in the next: nothing was placed meanwhile. What cannot be read stays
/// as it is, for the next store to refuse.
pub fn moved(records: &mut [(String, Vec<u8>)], from: u64, to: u64) {
    for (key, value) in records.iter_mut().filter(|(key, _)| key.starts_with("task/")) {
        let Ok(mut task) = decode::<TaskRecord>(key, value) else { continue };
        if let Some(queue) = task.queue.as_mut().filter(|queue| queue.store == from) {
            queue.store = to;
            if let Ok(bytes) = encode(&task) {
                *value = bytes;
            }
        }
    }
}

/// An entry as STOPPED: it never had an instance.
pub fn ended(task: &TaskRecord, code: StopCode, reason: &str, now_ms: u64) -> TaskRecord {
    let mut task = given_up(&TaskRecord { stop_code: Some(code), ..task.clone() }, reason, now_ms);
    task.queue = None;
    task
}

/// What an entry lacks, in ECS's words.
pub fn lacks(state: &State, settings: &Settings, waiting: &Waiting) -> String {
    let nodes = state.columns().of(&waiting.task.cluster);
    // Nobody behind it keeps it back.
    let is_before = |first: &Waiting| Turn::of(&first.task) < Turn::of(&waiting.task);
    let first = Waiting::first(state, settings, &waiting.task.cluster).filter(is_before);
    let head = first.as_ref().map(|first| first.head(nodes, settings));
    let ask = waiting.need.ask(settings, &waiting.task.group, &waiting.placement, 0);
    Unable::of(nodes, &Ask { head: head.as_ref(), ..ask }, usize::MAX).words()
}

/// What an entry waits for, since when, until when, and what would end it.
pub fn wait(state: &State, settings: &Settings, task: &TaskRecord) -> Option<Wait> {
    let queue = task.queue.as_ref()?;
    let turn = Turn::of(task)?;
    let before = state.queue_of(&task.cluster).range(..turn).count();
    let lacks = Waiting::of(state, &task.id).map(|waiting| lacks(state, settings, &waiting));
    let lacks = lacks.unwrap_or_else(|| "its task definition is gone".to_owned());
    Some(Wait {
        kind: WaitKind::Queue,
        container: None,
        what: format!("room, number {} of the queue, priority {}: {lacks}", before + 1, queue.priority),
        since_unix_ms: task.times.created_at,
        until_unix_ms: Some(queue.until_unix_ms),
        ends_by: "tasks end or container instances come, or lighter stop; at its time limit it fails"
            .to_owned(),
    })
}
