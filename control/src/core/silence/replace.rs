//! Replaces tasks of silent nodes, a chunk at a time, and sets the brake.
//! In: a look at a cluster's silent nodes. Out: new tasks, each linked with the one it replaces.
//! The lost task keeps its last status and what it takes of its node until the node says that it has
//! stopped, or is deregistered: it may run on there. It is wanted STOPPED from now on.
//! Never: replaces a task twice, a task of a node that was heard since the look, or anything while
//! the brake is on.

use crate::core::Command;
use crate::core::instance::usable_instance;
use crate::core::mutation::Changes;
use crate::core::record::{ClusterRecord, TaskRecord};
use crate::core::run_task;
use crate::core::silence::brake::{self, SilentNode, Step};
use crate::core::state::State;
use crate::core::stop_task::wanted_stopped;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskDefinitionId};
use lighter_model::status::{ContainerInstanceStatus, StopCode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Tasks replaced by one command: two tasks each with their events, to stay within one group.
const CHUNK: usize = 5;

/// A silent node as somebody has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Since anything was heard of it.
    pub silent_ms: u64,
    /// Of its record then; a node that was heard meanwhile has another or none.
    pub fell_at_unix_ms: Option<u64>,
}

/// A look at a cluster: its nodes that say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub cluster: ClusterName,
    pub silent: BTreeMap<ContainerInstanceId, Silence>,
    /// Since when somebody listens without a gap.
    pub watched_ms: u64,
    /// When that began, in cluster time as it was then.
    pub watched_from_unix_ms: u64,
}

/// Sets the brake, and replaces at most so many lost tasks.
#[derive(Debug, Clone)]
pub struct ReplaceLost {
    pub look: Arc<Look>,
    pub most: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub count: usize,
    /// More can be replaced at once: give the command again.
    pub more: bool,
    pub brake: Step,
    /// Of these lost tasks no replacement fits anywhere.
    pub unplaced: BTreeSet<TaskDefinitionId>,
}

impl Command for ReplaceLost {
    type Answer = Replaced;

    /// A replacement is a task more until the lost one is known to have ended.
    fn is_new_work(&self, _ahead: &State) -> bool {
        true
    }

    fn decide(self, changes: &mut Changes<'_>) -> Result<Replaced, ApiError> {
        let look = &self.look;
        let heartbeat_ms = changes.settings().heartbeat_ms;
        let step = brake_step(changes.state(), look, heartbeat_ms, changes.now_ms());
        let mut replaced = Replaced { count: 0, more: false, brake: step, unplaced: BTreeSet::new() };
        let Some(cluster) = changes.state().clusters.get(&look.cluster).cloned() else { return Ok(replaced) };
        match step {
            Step::Keep => {}
            Step::On(record) => {
                drop(changes.put_cluster(ClusterRecord { brake: Some(record), ..(*cluster).clone() }))
            }
            Step::Off => drop(changes.put_cluster(ClusterRecord { brake: None, ..(*cluster).clone() })),
        }
        let most = self.most.min(CHUNK);
        while replaced.count < most {
            let next = due(changes.state(), look, heartbeat_ms)
                .find(|task| !replaced.unplaced.contains(&task.definition))
                .cloned();
            let Some(lost) = next else { return Ok(replaced) };
            if lost.service.is_some() {
                // Its service starts another, within its minimum and maximum.
                give_up(changes, &lost, look);
                replaced.count += 1;
                continue;
            }
            match run_task::instead_of(changes, &lost) {
                Some(task) => {
                    link(changes, &lost, task, look);
                    replaced.count += 1;
                }
                None => drop(replaced.unplaced.insert(lost.definition.clone())),
            }
        }
        replaced.more = self.most > CHUNK;
        Ok(replaced)
    }
}

fn link(changes: &mut Changes<'_>, lost: &TaskRecord, mut task: TaskRecord, look: &Look) {
    task.replaces = Some(Box::new(lost.id.clone()));
    let task = changes.put_task(task);
    let silent_s = look.silent.get(&lost.instance).map_or(0, |silence| silence.silent_ms / 1_000);
    let reason = format!("Its container instance was silent for {silent_s} s; replaced by task {}", task.id);
    let mut lost = wanted_stopped(lost, StopCode::InfrastructureHealth, reason, changes.now_ms());
    lost.replaced_by = Some(Box::new(task.id.clone()));
    changes.put_task(lost);
}

fn give_up(changes: &mut Changes<'_>, lost: &TaskRecord, look: &Look) {
    let silent_s = look.silent.get(&lost.instance).map_or(0, |silence| silence.silent_ms / 1_000);
    let reason = format!("Its container instance was silent for {silent_s} s; its service replaces it");
    let mut lost = wanted_stopped(lost, StopCode::InfrastructureHealth, reason, changes.now_ms());
    if let Some(of) = lost.service.as_mut() {
        of.lost = true;
    }
    changes.put_task(lost);
}

/// Whether giving the command would change anything, but for what fits nowhere.
pub fn is_needed(state: &State, look: &Look, heartbeat_ms: u64, now_unix_ms: u64) -> bool {
    brake_step(state, look, heartbeat_ms, now_unix_ms) != Step::Keep
        || due(state, look, heartbeat_ms).next().is_some()
}

/// A node that counts: it has or may get tasks.
pub fn counts(status: ContainerInstanceStatus) -> bool {
    matches!(status, ContainerInstanceStatus::Active | ContainerInstanceStatus::Draining)
}

fn brake_step(state: &State, look: &Look, heartbeat_ms: u64, now_unix_ms: u64) -> Step {
    let Some(cluster) = state.clusters.get(&look.cluster) else { return Step::Keep };
    let known = look.silent.iter().filter_map(|(id, silence)| {
        let instance = state.instances.get(id).filter(|instance| counts(instance.status))?;
        let marked = instance.silent_since_unix_ms.filter(|_| !instance.connected);
        Some(SilentNode { silent_ms: silence.silent_ms, fell_at_unix_ms: marked.unwrap_or(now_unix_ms) })
    });
    let silent: Vec<SilentNode> = known.collect();
    if silent.is_empty() && cluster.brake.is_none() {
        return Step::Keep;
    }
    let own = state.instances.values().filter(|i| i.cluster == look.cluster && counts(i.status));
    let sight = brake::Sight {
        silent: &silent,
        nodes: own.count(),
        watched_ms: look.watched_ms,
        watched_from_unix_ms: look.watched_from_unix_ms,
        heartbeat_ms,
        released_at_unix_ms: cluster.brake_released_at_unix_ms,
    };
    brake::step(cluster.brake.as_ref(), &sight, now_unix_ms)
}

/// Tasks to be replaced now, in the order of their nodes and their own; none while the brake is on.
fn due<'a>(
    state: &'a State,
    look: &'a Look,
    heartbeat_ms: u64,
) -> impl Iterator<Item = &'a Arc<TaskRecord>> + 'a {
    let free = state
        .clusters
        .get(&look.cluster)
        .is_some_and(|c| (c.brake.is_none() || wrong_edit::is(WrongEdit::BrakeIgnored)) && c.is_active());
    let lost = look.silent.iter().filter(move |(id, silence)| {
        free && usable_instance(state, id).is_ok_and(|instance| {
            !instance.connected && instance.silent_since_unix_ms == silence.fell_at_unix_ms
        })
    });
    let tasks = lost.flat_map(move |(id, silence)| {
        let tasks = state.reserved(id).replaceable.iter().filter_map(|id| state.tasks.get(id));
        tasks.filter(move |task| task.lost_after_ms(heartbeat_ms).is_some_and(|ms| silence.silent_ms >= ms))
    });
    // An orphan may be the replacement that a store which was set back has forgotten.
    let mut orphans = None;
    tasks.filter(move |task| {
        let exclusive = task.silence.is_some_and(|policy| policy.exclusive);
        !exclusive || !*orphans.get_or_insert_with(|| has_orphans(state, &look.cluster))
    })
}

/// Whether a node of the cluster holds tasks that this store does not know.
fn has_orphans(state: &State, cluster: &ClusterName) -> bool {
    state.instances.values().any(|i| i.cluster == *cluster && !i.orphans.is_empty())
}
