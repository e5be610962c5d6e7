//! The promises of the control plane, checked with every commit and every change of what is shown.
//! In: batches as they become durable, answers, what nodes start. Out: the first broken promise.
//! Owns: an account of its own, decoded from the store's bytes.
//! Never: asks the code under test what is right.

mod care;
mod queue;
mod services;
mod shown;

pub(crate) use services::{Race, Races, goes_on};

use crate::store::Records;
use crate::world::World;
use lighter_control::core::record::{ClientTokenRecord, InstanceRecord, MetaRecord, TaskRecord, decode};
use lighter_control::store::Batch;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::resources::HostPort;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A report with this sequence or a higher one is forged.
pub(crate) const FORGED: u64 = 1_000_000;
/// STOPPED tasks stay at least so long.
const KEPT_MS: u64 = 3_600_000;

/// What the tasks of a node take, counted here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Taken {
    cpu_units: u64,
    memory_mib: u64,
    ports: BTreeMap<HostPort, u32>,
    tasks: BTreeSet<TaskId>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) tasks: BTreeMap<TaskId, TaskRecord>,
    pub(crate) instances: BTreeMap<ContainerInstanceId, InstanceRecord>,
    /// The status, before the present batch, of the nodes that it changes.
    before: BTreeMap<ContainerInstanceId, ContainerInstanceStatus>,
    tokens: BTreeMap<String, Vec<TaskId>>,
    /// The batch that made the tasks of a starter.
    starters: BTreeMap<String, u64>,
    taken: BTreeMap<ContainerInstanceId, Taken>,
    meta: MetaRecord,
    event: u64,
    term: u64,
    /// Tasks whose creation was answered.
    pub(crate) acknowledged: BTreeSet<TaskId>,
    /// Tasks whose stop was answered.
    stops: BTreeSet<TaskId>,
    /// Where each task was placed, ever.
    placed: BTreeMap<TaskId, ContainerInstanceId>,
    /// The node that started it, and how often that had lost its disk.
    started: BTreeMap<TaskId, (usize, u64)>,
    looks: u64,
    /// Of the store.
    incarnation: String,
    /// Those that left the queue in the present batch.
    placed_now: Vec<TaskRecord>,
    stand_ins: crate::lease::Account,
    pub(crate) services: services::Account,
}

impl Model {
    /// Somebody leads from now on.
    pub(crate) fn led(&mut self, world: &World, term: u64) {
        self.incarnation = world.store.incarnation.borrow().clone();
        world.check(term > self.term, || format!("term {term} follows term {}", self.term));
        self.term = self.term.max(term);
    }

    /// The store was set back to these records.
    pub(crate) fn set_back(&mut self, records: &Records) {
        let old = std::mem::take(self);
        (self.placed, self.started, self.term, self.looks) = (old.placed, old.started, old.term, old.looks);
        self.stand_ins = old.stand_ins;
        self.stand_ins.set_back();
        self.services = old.services.set_back();
        for (key, value) in records {
            match key.split('/').next().unwrap() {
                "meta" => self.meta = decode(key, value).unwrap(),
                "instance" => {
                    let record: InstanceRecord = decode(key, value).unwrap();
                    self.instances.insert(record.id.clone(), record);
                }
                "task" => {
                    let record: TaskRecord = decode(key, value).unwrap();
                    self.take(&record);
                    self.starters.extend(record.started_by.clone().map(|starter| (starter, 0)));
                    self.tasks.insert(record.id.clone(), record);
                }
                "client-token" => {
                    let record: ClientTokenRecord = decode(key, value).unwrap();
                    self.tokens.insert(record.token, record.tasks);
                }
                "service" => self.services.restored(decode(key, value).unwrap()),
                _ => {}
            }
        }
        self.event = self.meta.event_sequence;
        self.acknowledged = old.acknowledged.into_iter().filter(|id| self.tasks.contains_key(id)).collect();
        let stopped = |id: &TaskId| self.tasks.get(id).is_some_and(|t| t.desired == DesiredStatus::Stopped);
        self.stops = old.stops.into_iter().filter(stopped).collect();
    }

    /// A batch is durable.
    pub(crate) fn committed(&mut self, world: &World, sequence: u64, batch: &Batch) {
        self.before.clear();
        for (key, value) in batch {
            let kind = key.split('/').next().unwrap();
            match (kind, value) {
                ("meta", Some(value)) => self.meta(world, decode(key, value).unwrap()),
                ("instance", Some(value)) => {
                    self.instance(world, decode(key, value).unwrap());
                }
                ("task", Some(value)) => self.task(world, sequence, decode(key, value).unwrap()),
                ("task", None) => self.task_gone(world, key),
                ("client-token", Some(value)) => {
                    let record: ClientTokenRecord = decode(key, value).unwrap();
                    let before = self.tokens.insert(record.token.clone(), record.tasks.clone());
                    world.check(before.is_none(), || format!("client token {} was used twice", record.token));
                }
                ("event", Some(_)) => self.event(world, key),
                ("service", Some(value)) => self.services.changes(decode(key, value).unwrap()),
                ("service", None) => self.services.gone(key),
                _ => {}
            }
        }
        self.had_room(world);
        self.services_changed(world);
        let told = self.meta.event_sequence;
        world.check(self.event == told, || format!("event {} is the last, meta says {told}", self.event));
    }

    fn meta(&mut self, world: &World, new: MetaRecord) {
        let old = self.meta;
        world.check(new.cluster_time_ms >= old.cluster_time_ms, || {
            format!("cluster time fell from {} to {}", old.cluster_time_ms, new.cluster_time_ms)
        });
        self.meta = new;
    }

    fn instance(&mut self, world: &World, new: InstanceRecord) {
        use ContainerInstanceStatus::{Deregistering, Inactive};
        if let Some(old) = self.instances.insert(new.id.clone(), new.clone()) {
            let gone = (old.status == Inactive && new.status != Inactive)
                || (old.status == Deregistering && ![Deregistering, Inactive].contains(&new.status));
            world.check(!gone, || format!("node {} went from {} to {}", new.id, old.status, new.status));
            self.before.insert(old.id.clone(), old.status);
        }
    }

    fn event(&mut self, world: &World, key: &str) {
        let number = key.split('/').nth(1).unwrap();
        let (last, next) = (self.event, u64::from_str_radix(number, 16).unwrap());
        world.check(next == last + 1, || format!("event {next} follows event {last}"));
        self.event = next;
    }

    fn task(&mut self, world: &World, sequence: u64, new: TaskRecord) {
        let broken = |what: &str| world.fail(format!("task {}: {what}", new.id));
        match self.tasks.get(&new.id).cloned() {
            Some(old) => {
                compare(&old, &new, &broken);
                self.release(&old);
                if world.shape.checks && new.service.is_some() {
                    self.services.tasks.push((old.clone(), new.clone()));
                }
                if old.queue.is_some() && new.queue.is_none() {
                    self.left_the_queue(&old, &new, &broken);
                }
            }
            None => {
                if new.replaces.is_some() {
                    crate::lease::braked(world, &self.instances);
                }
                self.created(sequence, &new, &broken);
            }
        }
        if new.last == TaskStatus::Stopped && (new.stop_code.is_none() || new.stopped_reason.is_none()) {
            broken("STOPPED without stop code and reason");
        }
        if new.last == TaskStatus::Stopped && new.desired != DesiredStatus::Stopped {
            broken("STOPPED but wanted RUNNING");
        }
        if new.report_sequence >= FORGED {
            broken("a forged report was applied");
        }
        self.take(&new);
        for port in &new.resources.host_ports {
            let taken = self.taken.get(&new.instance);
            if taken.and_then(|taken| taken.ports.get(port)).is_some_and(|count| *count > 1) {
                broken(&format!("host port {} of its node is held twice", port.port));
            }
        }
        self.tasks.insert(new.id.clone(), new);
    }

    fn created(&mut self, sequence: u64, new: &TaskRecord, broken: &dyn Fn(&str)) {
        if new.queue.is_none() && self.placed.insert(new.id.clone(), new.instance.clone()).is_some() {
            broken("made twice");
        }
        let lost = new.replaces.as_ref().and_then(|lost| self.tasks.get(lost));
        self.stand_ins.made(new, lost, broken);
        if let Some(starter) = &new.started_by
            && new.replaces.is_none()
            && new.service.is_none()
            && *self.starters.entry(starter.clone()).or_insert(sequence) != sequence
        {
            broken(&format!("one client token, {starter}, has two sets of tasks"));
        }
        if new.queue.is_none() {
            self.has_room(new, broken);
        }
        self.services.starts(new, broken);
    }

    fn has_room(&self, new: &TaskRecord, broken: &dyn Fn(&str)) {
        let Some(instance) = self.instances.get(&new.instance) else { return broken("placed nowhere") };
        // Within one batch the task may have come before the change.
        let before = self.before.get(&new.instance).copied().unwrap_or(instance.status);
        if ![instance.status, before].contains(&ContainerInstanceStatus::Active) {
            broken(&format!("placed on a node that is {}", instance.status));
        }
        let nothing = Taken::default();
        let taken = self.taken.get(&new.instance).unwrap_or(&nothing);
        let offered = &instance.offered;
        if taken.cpu_units + u64::from(new.resources.cpu_units) > u64::from(offered.cpu_units)
            || taken.memory_mib + new.resources.memory_mib > offered.memory_mib
        {
            broken("placed where there is no room");
        }
    }

    fn take(&mut self, task: &TaskRecord) {
        if task.last == TaskStatus::Stopped || task.queue.is_some() {
            return;
        }
        let taken = self.taken.entry(task.instance.clone()).or_default();
        taken.cpu_units += u64::from(task.resources.cpu_units);
        taken.memory_mib += task.resources.memory_mib;
        taken.tasks.insert(task.id.clone());
        for port in &task.resources.host_ports {
            *taken.ports.entry(*port).or_default() += 1;
        }
    }

    fn release(&mut self, task: &TaskRecord) {
        let Some(taken) = self.taken.get_mut(&task.instance) else { return };
        if task.last == TaskStatus::Stopped || task.queue.is_some() || !taken.tasks.remove(&task.id) {
            return;
        }
        taken.cpu_units -= u64::from(task.resources.cpu_units);
        taken.memory_mib -= task.resources.memory_mib;
        for port in &task.resources.host_ports {
            taken.ports.entry(*port).and_modify(|count| *count -= 1);
        }
        taken.ports.retain(|_, count| *count > 0);
    }

    fn task_gone(&mut self, world: &World, key: &str) {
        let id: TaskId = key.split('/').nth(1).unwrap().parse().unwrap();
        let now = self.meta.cluster_time_ms;
        if let Some(old) = self.tasks.remove(&id) {
            let settled = old.times.settled_at.unwrap_or(u64::MAX);
            let old_enough = old.last == TaskStatus::Stopped && settled.saturating_add(KEPT_MS) <= now;
            world.check(old_enough, || format!("task {id} was removed too early"));
            self.release(&old);
            self.acknowledged.remove(&id);
        }
    }

    /// A call was answered with these tasks.
    pub(crate) fn answered(&mut self, world: &World, token: Option<&str>, tasks: &[Arc<TaskRecord>]) {
        for task in tasks {
            let stored = self.tasks.contains_key(&task.id);
            world.check(stored, || format!("task {} was acknowledged and is not stored", task.id));
            self.acknowledged.insert(task.id.clone());
        }
        if let Some(token) = token
            && !tasks.is_empty()
        {
            let ids: Vec<TaskId> = tasks.iter().map(|task| task.id.clone()).collect();
            let stored = self.tokens.get(token).is_some_and(|known| ids.iter().all(|id| known.contains(id)));
            world
                .check(stored, || format!("the answer to client token {token} is not what is stored for it"));
            let missing = self.tokens.get(token).into_iter().flatten();
            let missing = missing.filter(|id| !ids.contains(id) && self.tasks.contains_key(id)).count();
            world.check(missing == 0, || format!("the answer to client token {token} lacks {missing} tasks"));
        }
    }

    /// A task was shown to a caller.
    pub(crate) fn described(&self, world: &World, shown: &TaskRecord) {
        let Some(stored) = self.tasks.get(&shown.id) else { return };
        world.check(shown.version <= stored.version, || format!("task {} is shown too early", shown.id));
        if shown.version == stored.version && stored != shown {
            world.fail(format!("task {} is shown otherwise than it is stored", shown.id));
        }
    }

    /// The stop of a task was answered.
    pub(crate) fn stop_answered(&mut self, world: &World, id: &TaskId) {
        let wanted = self.tasks.get(id).is_none_or(|task| task.desired == DesiredStatus::Stopped);
        world.check(wanted, || format!("the stop of task {id} was acknowledged and is not stored"));
        self.stops.insert(id.clone());
    }

    /// A node starts a task.
    pub(crate) fn starts(&mut self, world: &World, id: &TaskId, node: usize, wiped: u64) {
        world.check(self.placed.contains_key(id), || format!("task {id} runs and was never committed"));
        self.stand_ins.starts(world, id, &self.started);
        if let Some((before, disk)) = self.started.insert(id.clone(), (node, wiped)) {
            let again = before == node && wiped > disk;
            world.check(again, || format!("task {id} runs a second time: on node {before}, now on {node}"));
        }
    }
}

/// What may become of a task.
fn compare(old: &TaskRecord, new: &TaskRecord, broken: &dyn Fn(&str)) {
    let finds_its_place = old.queue.is_some() && new.queue.is_none() && new.last != TaskStatus::Stopped;
    if new.instance != old.instance && !finds_its_place {
        broken("assigned to a second node");
    }
    if new.desired < old.desired {
        broken("desired status went from STOPPED to RUNNING");
    }
    if new.last < old.last {
        broken(&format!("last status went from {} to {}", old.last, new.last));
    }
    if new.report_sequence < old.report_sequence {
        broken(&format!("report {} was applied after {}", new.report_sequence, old.report_sequence));
    }
    if new.version < old.version || new.generation < old.generation {
        broken("version or generation fell");
    }
    let told = new.desired != old.desired || new.stop_force != old.stop_force || new.paused != old.paused;
    // What its node itself has brought about it need not be told.
    let by_node = new.report_sequence > old.report_sequence;
    if told && !by_node && new.generation == old.generation {
        broken("its node is not told of a change: the generation stayed");
    }
    if old.stop_code.is_some() && new.stop_code != old.stop_code {
        broken("the first stop code was replaced");
    }
}
