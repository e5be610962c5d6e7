//! What happens to nodes: a session begins, their offer changes, they fall silent.
//! In: what a node says of itself. Out: its record. Owns: status, connection and orphans of instances.
//! Never: changes attributes that a join token bound, or stops a task that a node holds.

use crate::core::Command;
pub use crate::core::cluster::EnsureClusters;
use crate::core::drain::heed_notices;
use crate::core::mutation::Changes;
use crate::core::queue;
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::recovery::{Learned, raise_revisions};
use crate::core::shared::Rare;
use crate::core::state::State;
use crate::core::stop_task::pad;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId, Generation, TaskId};
use lighter_model::node::Notice;
use lighter_model::resources::Resources;
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, StopCode, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// Lost tasks that one command stops, to stay within one group.
const LOST_CHUNK: usize = 10;

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub offered: Resources,
    pub attributes: BTreeMap<String, String>,
    /// What the machine was told of its own end.
    pub notices: Vec<Notice>,
}

/// A session begins.
#[derive(Debug, Clone)]
pub struct NodeConnected {
    pub instance: ContainerInstanceId,
    pub facts: NodeFacts,
    pub agent_version: String,
    pub boot_id: String,
    pub address: Option<SocketAddr>,
    /// Its agent ends exclusive tasks whose lease has run out.
    pub leases: bool,
    /// Every task the node holds, with the generation it has recorded.
    pub held: BTreeMap<TaskId, Generation>,
    /// The node has seen no other incarnation of the store and no later revision than it has.
    pub trusted: bool,
    /// What this store may not know.
    pub learned: Learned,
}

impl Command for NodeConnected {
    /// Whether more lost tasks remain: give the command again.
    type Answer = bool;

    fn decide(self, changes: &mut Changes<'_>) -> Result<bool, ApiError> {
        let old = usable_instance(changes.state(), &self.instance)?;
        // A command of its own, before anything is placed there.
        if raise_revisions(changes, &self.learned.revisions) {
            return Ok(true);
        }
        // Likewise, while nothing of the queue is placed or ended for want of its word.
        if queue::take_back(changes, &self.instance, self.held.keys(), LOST_CHUNK) > 0 {
            return Ok(true);
        }
        let mut new = (*old).clone();
        let notices = self.facts.notices.clone();
        take_facts(changes.state(), &mut new, self.facts);
        new.incarnation = self.learned.incarnation;
        new.status = match old.status {
            ContainerInstanceStatus::Registering | ContainerInstanceStatus::RegistrationFailed => {
                ContainerInstanceStatus::Active
            }
            other => other,
        };
        heed_notices(&mut new, notices, changes.now_ms());
        new.connected = true;
        new.agent_version = self.agent_version;
        new.boot_id = self.boot_id;
        new.leases = self.leases;
        // The port changes with every connection and says nothing.
        new.address = self.address.map(|address| SocketAddr::new(address.ip(), 0));
        new.orphans = orphans(changes.state(), &old, &self.held, self.trusted);
        let mut facts = self.learned.tasks;
        facts.retain(|id, _| new.orphans.contains(id));
        new.orphan_facts = facts;
        if new != *old {
            changes.put_instance(new);
        }
        // A command of its own, to stay within one group.
        if raise_generations(changes, &self.instance, &self.held, self.trusted) {
            return Ok(true);
        }
        stop_lost(changes, &self.instance, &self.held, self.trusted)
    }
}

/// Held tasks that must not be stopped on the word of this store.
fn orphans(
    state: &State,
    old: &InstanceRecord,
    held: &BTreeMap<TaskId, Generation>,
    trusted: bool,
) -> BTreeSet<TaskId> {
    let unknown = held.keys().filter(|id| !state.tasks.contains_key(*id));
    unknown.filter(|id| !trusted || old.orphans.contains(*id)).cloned().collect()
}

/// A store that was set back counts generations from where it stood then, and its node takes no
/// generation that is not newer than what it has recorded: go on from there. Where the node's is of another
/// store, the same number may mean something else. Whether there were any.
fn raise_generations(
    changes: &mut Changes<'_>,
    instance: &ContainerInstanceId,
    held: &BTreeMap<TaskId, Generation>,
    trusted: bool,
) -> bool {
    let behind = held.iter().filter_map(|(id, recorded)| {
        let task = changes.state().tasks.get(id)?;
        let stale = task.generation < *recorded || (!trusted && task.generation == *recorded);
        (task.instance == *instance && stale).then(|| (task.clone(), *recorded))
    });
    let behind: Vec<_> = behind.take(LOST_CHUNK).collect();
    for (task, recorded) in &behind {
        let mut task = TaskRecord::clone(task);
        task.generation = Generation(recorded.0.saturating_add(1));
        changes.put_task(task);
    }
    !behind.is_empty()
}

/// A task that the node reported on once and no longer holds will never be heard of again. When this
/// store was set back, that may be so of any task that the node does not hold: it may have run and
/// been forgotten since, and must not run a second time.
fn stop_lost(
    changes: &mut Changes<'_>,
    instance: &ContainerInstanceId,
    held: &BTreeMap<TaskId, Generation>,
    trusted: bool,
) -> Result<bool, ApiError> {
    let trusted = trusted || wrong_edit::is(WrongEdit::SetBackTaskRunAgain);
    let state = changes.state();
    let tasks = state.reserved(instance).tasks.iter().filter_map(|id| state.tasks.get(id));
    let lost = tasks.filter(|task| (task.report_sequence > 0 || !trusted) && !held.contains_key(&task.id));
    let mut lost: Vec<Arc<TaskRecord>> = lost.take(LOST_CHUNK + 1).cloned().collect();
    let more = lost.len() > LOST_CHUNK;
    lost.truncate(LOST_CHUNK);
    for task in lost {
        let now = changes.now_ms();
        changes.put_task(given_up(&task, "The container instance no longer has the task", now));
    }
    Ok(more)
}

/// The task as STOPPED without its node's word.
pub fn given_up(task: &TaskRecord, reason: &str, now_ms: u64) -> TaskRecord {
    let mut task = task.clone();
    task.desired = DesiredStatus::Stopped;
    task.last = TaskStatus::Stopped;
    task.generation.0 += 1;
    task.waiting_reason = None;
    task.waits = Rare::default();
    task.stop_code.get_or_insert(StopCode::InfrastructureHealth);
    task.stopped_reason.get_or_insert_with(|| reason.to_owned());
    task.times.stopping_at.get_or_insert(now_ms);
    task.times.stopped_at.get_or_insert(now_ms);
    task.times.settled_at = Some(now_ms);
    for container in &mut task.containers {
        container.status = ContainerStatus::Stopped;
    }
    task
}

/// The node's offer changed within a session.
#[derive(Debug, Clone)]
pub struct NodeStateChanged {
    pub instance: ContainerInstanceId,
    pub facts: NodeFacts,
}

impl Command for NodeStateChanged {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let old = usable_instance(changes.state(), &self.instance)?;
        let mut new = (*old).clone();
        let notices = self.facts.notices.clone();
        take_facts(changes.state(), &mut new, self.facts);
        heed_notices(&mut new, notices, changes.now_ms());
        if new != *old {
            changes.put_instance(new);
        }
        Ok(())
    }
}

fn take_facts(state: &State, instance: &mut InstanceRecord, facts: NodeFacts) {
    instance.offered = facts.offered;
    instance.node_attributes = facts.attributes;
    // The name given when joining stays; without one the node may name itself while the name is free.
    let unnamed = instance.name == instance.id.as_str();
    if unnamed && !facts.name.is_empty() && state.instance_by_name(&instance.cluster, &facts.name).is_none() {
        instance.name = facts.name;
    }
}

/// Three heartbeats were missed.
#[derive(Debug, Clone)]
pub struct NodeSilent {
    pub instance: ContainerInstanceId,
}

impl Command for NodeSilent {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        if let Some(old) = changes.state().instances.get(&self.instance).cloned()
            && old.connected
        {
            let silent_since_unix_ms = Some(changes.now_ms());
            changes.put_instance(InstanceRecord { connected: false, silent_since_unix_ms, ..(*old).clone() });
        }
        Ok(())
    }
}

/// The first session of a node that has just joined was refused.
#[derive(Debug, Clone)]
pub struct RegistrationFailed {
    pub instance: ContainerInstanceId,
}

impl Command for RegistrationFailed {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        if let Some(old) = changes.state().instances.get(&self.instance).cloned()
            && old.status == ContainerInstanceStatus::Registering
        {
            let status = ContainerInstanceStatus::RegistrationFailed;
            changes.put_instance(InstanceRecord { status, ..(*old).clone() });
        }
        Ok(())
    }
}

/// An instance that may have a session.
pub fn usable_instance(state: &State, id: &ContainerInstanceId) -> Result<Arc<InstanceRecord>, ApiError> {
    let refused =
        |status: &str| ApiError::InstanceNotActive { instance: id.to_string(), status: status.to_owned() };
    let instance = state.instances.get(id).ok_or_else(|| refused("unknown here"))?;
    match instance.status {
        status @ (ContainerInstanceStatus::Inactive | ContainerInstanceStatus::Deregistering) => {
            Err(refused(status.as_str()))
        }
        _ => Ok(instance.clone()),
    }
}

/// Finds an instance of a cluster by id, ARN, name, or unique beginning of its id.
pub fn find_instance(
    state: &State,
    cluster: &ClusterName,
    text: &str,
) -> Result<Arc<InstanceRecord>, ApiError> {
    let name = text.rsplit('/').next().unwrap_or(text);
    // Nobody else can be meant by a whole id.
    let whole = name.parse().ok().and_then(|id: ContainerInstanceId| state.instances.get(&id));
    if let Some(instance) = whole.filter(|found| found.cluster == *cluster) {
        return Ok(instance.clone());
    }
    if let Some(instance) = state.instance_by_name(cluster, name) {
        return Ok(instance.clone());
    }
    let not_found =
        || ApiError::ContainerInstanceNotFound { name: text.to_owned(), cluster: cluster.to_string() };
    let first: ContainerInstanceId = pad(name).and_then(|id| id.parse().ok()).ok_or_else(not_found)?;
    let matching = state.instances.range(first..).take_while(|(id, _)| id.as_str().starts_with(name));
    let mut matching = matching.map(|(_, instance)| instance).filter(|found| found.cluster == *cluster);
    let instance = matching.next().ok_or_else(not_found)?;
    match matching.count() {
        0 => Ok(instance.clone()),
        more => Err(ApiError::AmbiguousPrefix {
            field: "containerInstance",
            text: text.to_owned(),
            count: more + 1,
        }),
    }
}
