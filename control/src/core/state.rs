//! Everything the control plane knows, as ordered maps of shared records, with what follows from them.
//! In: mutations. Out: lookups. Owns: the ledger of reservations, derived from tasks and never stored.
//! Never: changes but through `apply`, so that memory is always what the store gives back.

use crate::core::columns::Columns;
use crate::core::mutation::Mutation;
use crate::core::queue::Turn;
use crate::core::record::{
    AuditRecord, ClientTokenRecord, ClusterRecord, DefinitionRecord, EventRecord, FamilyRecord,
    InstanceRecord, InstanceSnapshot, JoinTokenRecord, MetaRecord, RecordError, TaskRecord, decode,
};
use crate::core::service::place;
use crate::core::service::record::{ServiceEventRecord, ServiceKey, ServiceRecord};
use crate::core::shared::SharedText;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId, ContainerName, Family, TaskDefinitionId, TaskId};
use lighter_model::placement::Placement;
use lighter_model::resources::{HostPort, Resources};
use lighter_model::status::{ContainerInstanceStatus, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state; `PartialEq` compares memory with what a store gives back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub meta: MetaRecord,
    pub clusters: BTreeMap<ClusterName, Arc<ClusterRecord>>,
    pub families: BTreeMap<Family, Arc<FamilyRecord>>,
    pub definitions: BTreeMap<TaskDefinitionId, Arc<DefinitionRecord>>,
    pub instances: BTreeMap<ContainerInstanceId, Arc<InstanceRecord>>,
    pub tasks: BTreeMap<TaskId, Arc<TaskRecord>>,
    pub client_tokens: BTreeMap<(ClusterName, String), Arc<ClientTokenRecord>>,
    pub join_tokens: BTreeMap<String, Arc<JoinTokenRecord>>,
    pub events: BTreeMap<u64, Arc<EventRecord>>,
    pub audit: BTreeMap<u64, Arc<AuditRecord>>,
    pub services: BTreeMap<ServiceKey, Arc<ServiceRecord>>,
    pub service_events: BTreeMap<(ServiceKey, u64), Arc<ServiceEventRecord>>,
    of_service: BTreeMap<ServiceKey, BTreeSet<TaskId>>,
    /// The images of each revision, by container: the text of all its tasks.
    images: BTreeMap<TaskDefinitionId, Vec<(ContainerName, SharedText)>>,
    /// What each service asks of a place, read once for each wording of it.
    placements: BTreeMap<ServiceKey, Placement>,
    /// Instances with orphans: few, and seldom any.
    orphaned: BTreeSet<ContainerInstanceId>,
    ledger: BTreeMap<ContainerInstanceId, Reserved>,
    columns: Columns,
    queue: BTreeMap<ClusterName, BTreeSet<Turn>>,
    stopped: BTreeMap<ClusterName, BTreeSet<(u64, TaskId)>>,
}

/// What the tasks of one instance take; a task counts until it is STOPPED.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserved {
    pub cpu_units: u64,
    pub memory_mib: u64,
    pub host_ports: BTreeSet<HostPort>,
    /// By kind; none of a kind that nobody has.
    pub devices: BTreeMap<String, u32>,
    pub tasks: BTreeSet<TaskId>,
    /// Those that are replaced when it is silent for long enough.
    pub replaceable: BTreeSet<TaskId>,
    pub running: u32,
    pub pending: u32,
    /// The part of it that orphans take, which are no tasks of this store.
    pub orphans: Resources,
}

impl Reserved {
    const NOTHING: &'static Self = &Self {
        cpu_units: 0,
        memory_mib: 0,
        host_ports: BTreeSet::new(),
        devices: BTreeMap::new(),
        tasks: BTreeSet::new(),
        replaceable: BTreeSet::new(),
        running: 0,
        pending: 0,
        orphans: Resources {
            cpu_units: 0,
            memory_mib: 0,
            host_ports: BTreeSet::new(),
            devices: BTreeMap::new(),
        },
    };

    /// Adds what orphans take.
    fn with_orphans(&mut self, instance: &InstanceRecord) {
        for facts in instance.orphan_facts.values() {
            let (all, own) = (&mut self.orphans, &facts.resources);
            all.cpu_units = all.cpu_units.saturating_add(own.cpu_units);
            all.memory_mib = all.memory_mib.saturating_add(own.memory_mib);
            all.host_ports.extend(own.host_ports.iter().copied());
            for (kind, count) in &own.devices {
                *all.devices.entry(kind.clone()).or_default() += count;
            }
        }
        self.cpu_units += u64::from(self.orphans.cpu_units);
        self.memory_mib += self.orphans.memory_mib;
        self.host_ports.extend(self.orphans.host_ports.iter().copied());
        for (kind, count) in &self.orphans.devices {
            *self.devices.entry(kind.clone()).or_default() += count;
        }
    }

    fn is_nothing(&self) -> bool {
        self.tasks.is_empty() && self.orphans == Self::NOTHING.orphans
    }

    fn add(&mut self, task: &TaskRecord) {
        self.cpu_units += u64::from(task.resources.cpu_units);
        self.memory_mib += task.resources.memory_mib;
        self.host_ports.extend(task.resources.host_ports.iter().copied());
        for (kind, count) in &task.resources.devices {
            *self.devices.entry(kind.clone()).or_default() += count;
        }
        self.tasks.insert(task.id.clone());
        if task.is_replaceable() {
            self.replaceable.insert(task.id.clone());
        }
        self.running += u32::from(task.last == TaskStatus::Running);
        self.pending += u32::from(task.last < TaskStatus::Running);
    }

    fn remove(&mut self, task: &TaskRecord) {
        self.cpu_units -= u64::from(task.resources.cpu_units);
        self.memory_mib -= task.resources.memory_mib;
        // A port that an orphan has as well stays taken.
        for port in task.resources.host_ports.difference(&self.orphans.host_ports) {
            self.host_ports.remove(port);
        }
        for (kind, count) in &task.resources.devices {
            if let Some(held) = self.devices.get_mut(kind) {
                *held = held.saturating_sub(*count);
            }
        }
        self.devices.retain(|_, held| *held > 0);
        self.tasks.remove(&task.id);
        self.replaceable.remove(&task.id);
        self.running -= u32::from(task.last == TaskStatus::Running);
        self.pending -= u32::from(task.last < TaskStatus::Running);
    }
}

/// What is left of each kind of device.
fn left(offered: &BTreeMap<String, u32>, held: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let of = |(kind, count): (&String, &u32)| {
        (kind.clone(), count.saturating_sub(held.get(kind).copied().unwrap_or(0)))
    };
    offered.iter().map(of).collect()
}

impl State {
    /// Applies one change; the only way the state changes.
    pub fn apply(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::Meta(record) => self.meta = *record,
            Mutation::Cluster(record) => put(&mut self.clusters, record.name.clone(), record),
            Mutation::ClusterGone(name) => {
                self.clusters.remove(name);
            }
            Mutation::Family(record) => put(&mut self.families, record.family.clone(), record),
            Mutation::Definition(record) => self.put_definition(record),
            Mutation::DefinitionGone(id) => {
                self.definitions.remove(id);
                self.images.remove(id);
            }
            Mutation::Instance(record) => self.put_instance(record),
            Mutation::InstanceGone(id) => {
                if let Some(old) = self.instances.remove(id) {
                    self.columns.remove(&old);
                }
                self.orphaned.remove(id);
                self.reserve_orphans(id);
            }
            Mutation::Task(record) => self.put_task(record),
            Mutation::TaskGone(id) => {
                if let Some(old) = self.tasks.remove(id) {
                    self.columns.count(Some(&old), None);
                    self.take_turn(&old, false);
                    self.list_of_service(&old, true);
                    self.unaccount(&old);
                    self.write_row(&old);
                }
            }
            Mutation::ClientToken(record) => {
                put(&mut self.client_tokens, (record.cluster.clone(), record.token.clone()), record);
            }
            Mutation::ClientTokenGone(record) => {
                self.client_tokens.remove(&(record.cluster.clone(), record.token.clone()));
            }
            Mutation::JoinToken(record) => put(&mut self.join_tokens, record.id.clone(), record),
            Mutation::JoinTokenGone(id) => {
                self.join_tokens.remove(id);
            }
            Mutation::Event(record) => put(&mut self.events, record.sequence, record),
            Mutation::EventGone(sequence) => {
                self.events.remove(sequence);
            }
            Mutation::Audit(record) => put(&mut self.audit, record.sequence, record),
            Mutation::AuditGone(sequence) => {
                self.audit.remove(sequence);
            }
            Mutation::Service(record) => self.put_service(record),
            Mutation::ServiceGone(key) => {
                self.services.remove(key);
                self.placements.remove(key);
            }
            Mutation::ServiceEvent(record) => {
                let key = (record.cluster.clone(), record.service.clone());
                put(&mut self.service_events, (key, record.number), record);
            }
            Mutation::ServiceEventGone(key, number) => {
                self.service_events.remove(&(key.clone(), *number));
            }
        }
    }

    fn put_definition(&mut self, record: &Arc<DefinitionRecord>) {
        put(&mut self.definitions, record.id.clone(), record);
        // A revision keeps its images.
        self.images.entry(record.id.clone()).or_insert_with(|| {
            let containers = record.definition.container_definitions.iter();
            containers.map(|c| (c.name.clone(), c.image.as_str().into())).collect()
        });
    }

    fn put_instance(&mut self, record: &Arc<InstanceRecord>) {
        let old = self.instances.insert(record.id.clone(), record.clone());
        if let Some(old) = old.as_ref().filter(|old| old.cluster != record.cluster) {
            self.columns.remove(old);
        }
        if old.is_none_or(|old| old.orphan_facts != record.orphan_facts) {
            self.reserve_orphans(&record.id);
            match record.orphan_facts.is_empty() {
                true => self.orphaned.remove(&record.id),
                false => self.orphaned.insert(record.id.clone()),
            };
        }
        let reserved = self.ledger.get(&record.id).unwrap_or(Reserved::NOTHING);
        let tasks = reserved.tasks.iter().filter_map(|id| self.tasks.get(id));
        self.columns.put(record, reserved, tasks);
    }

    fn put_service(&mut self, record: &Arc<ServiceRecord>) {
        let key = record.key();
        let old = self.services.insert(key.clone(), record.clone());
        let same =
            |old: Arc<ServiceRecord>| old.placement == record.placement && old.strategy == record.strategy;
        if !old.is_some_and(same) {
            self.placements.insert(key, place::read(record));
        }
    }

    /// What a service asks of a place.
    pub fn placement_of(&self, service: &ServiceKey) -> Placement {
        self.placements.get(service).cloned().unwrap_or_default()
    }

    fn put_task(&mut self, record: &Arc<TaskRecord>) {
        let old = self.tasks.insert(record.id.clone(), record.clone());
        self.columns.count(old.as_deref(), Some(record));
        if let Some(old) = old {
            self.unaccount(&old);
            self.take_turn(&old, false);
            if old.instance != record.instance {
                self.write_row(&old);
            }
        }
        self.list_of_service(record, false);
        if record.last == TaskStatus::Stopped {
            let of_cluster = self.stopped.entry(record.cluster.clone()).or_default();
            of_cluster.insert((stopped_at(record), record.id.clone()));
        } else if record.queue.is_none() {
            self.ledger.entry(record.instance.clone()).or_default().add(record);
        }
        self.take_turn(record, true);
        self.write_row(record);
    }

    /// Keeps the order of those that wait.
    fn take_turn(&mut self, task: &TaskRecord, waits: bool) {
        let Some(turn) = Turn::of(task) else { return };
        if waits {
            self.queue.entry(task.cluster.clone()).or_default().insert(turn);
        } else if let Some(turns) = self.queue.get_mut(&task.cluster) {
            turns.remove(&turn);
            if turns.is_empty() {
                self.queue.remove(&task.cluster);
            }
        }
    }

    /// Those of each cluster that wait for room, in the order in which it is their turn.
    pub fn queue(&self) -> &BTreeMap<ClusterName, BTreeSet<Turn>> {
        &self.queue
    }

    /// Those of one cluster.
    pub fn queue_of(&self, cluster: &ClusterName) -> &BTreeSet<Turn> {
        static NONE: BTreeSet<Turn> = BTreeSet::new();
        self.queue.get(cluster).unwrap_or(&NONE)
    }

    /// Keeps the list of a service's tasks: those that are not STOPPED, or that it has not taken note of.
    fn list_of_service(&mut self, task: &TaskRecord, gone: bool) {
        let Some(service) = &task.service else { return };
        let key = (task.cluster.clone(), service.name.clone());
        if !gone && (task.last != TaskStatus::Stopped || !service.accounted) {
            self.of_service.entry(key).or_default().insert(task.id.clone());
        } else if let Some(tasks) = self.of_service.get_mut(&key) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.of_service.remove(&key);
            }
        }
    }

    /// Tasks of a service that are not STOPPED, and those it has not taken note of, oldest first.
    pub fn tasks_of_service<'a>(
        &'a self,
        key: &ServiceKey,
    ) -> impl Iterator<Item = &'a Arc<TaskRecord>> + use<'a> {
        let ids = self.of_service.get(key).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id))
    }

    /// The service that tasks of this group are of, if it is not deleted.
    pub fn service_of_group(&self, cluster: &ClusterName, group: &str) -> Option<&Arc<ServiceRecord>> {
        let name = group.split_once(':').and_then(|(_, name)| name.parse().ok())?;
        let service = self.services.get(&(cluster.clone(), name))?;
        (service.is_active() && service.group() == group).then_some(service)
    }

    /// Where orphans of a cluster run that are of this group.
    pub fn orphans_of_group<'a>(
        &'a self,
        cluster: &'a ClusterName,
        group: &'a str,
    ) -> impl Iterator<Item = &'a ContainerInstanceId> {
        let instances = self.orphaned.iter().filter_map(|id| self.instances.get(id));
        let present = [ContainerInstanceStatus::Active, ContainerInstanceStatus::Draining];
        let own = instances.filter(move |i| i.cluster == *cluster && present.contains(&i.status));
        own.flat_map(move |instance| {
            let facts = instance.orphan_facts.values();
            let running = facts.filter(|facts| facts.last.is_none_or(|last| last <= TaskStatus::Running));
            running.filter(move |facts| facts.group == group).map(move |_| &instance.id)
        })
    }

    /// Brings the row of a task's instance up to the ledger.
    fn write_row(&mut self, task: &TaskRecord) {
        let reserved = self.ledger.get(&task.instance).unwrap_or(Reserved::NOTHING);
        self.columns.reserve(&task.cluster, &task.instance, reserved);
    }

    fn unaccount(&mut self, old: &TaskRecord) {
        if old.last == TaskStatus::Stopped {
            if let Some(of_cluster) = self.stopped.get_mut(&old.cluster) {
                of_cluster.remove(&(stopped_at(old), old.id.clone()));
                if of_cluster.is_empty() {
                    self.stopped.remove(&old.cluster);
                }
            }
        } else if old.queue.is_some() {
            // It has taken nothing yet.
        } else if wrong_edit::is(WrongEdit::LedgerNotReleased)
            && self.tasks.get(&old.id).is_some_and(|task| task.last == TaskStatus::Stopped)
        {
            // Kept.
        } else if let Some(reserved) = self.ledger.get_mut(&old.instance) {
            reserved.remove(old);
            if reserved.is_nothing() {
                self.ledger.remove(&old.instance);
            }
        }
    }

    /// Counts an instance anew: rare, and both a task and an orphan may have had a port.
    fn reserve_orphans(&mut self, instance: &ContainerInstanceId) {
        let before = self.ledger.remove(instance).unwrap_or_default();
        let mut now = Reserved::default();
        before.tasks.iter().filter_map(|id| self.tasks.get(id)).for_each(|task| now.add(task));
        self.instances.get(instance).into_iter().for_each(|record| now.with_orphans(record));
        if !now.is_nothing() {
            self.ledger.insert(instance.clone(), now);
        }
    }

    /// What the tasks and orphans of an instance take.
    pub fn reserved(&self, instance: &ContainerInstanceId) -> &Reserved {
        self.ledger.get(instance).unwrap_or(Reserved::NOTHING)
    }

    /// Prepares what a placement asks of the instances of a cluster; changes no answer, but makes it faster.
    pub fn warm(&mut self, cluster: &ClusterName, placement: &Placement) {
        self.columns.warm(cluster, placement);
    }

    /// What placement looks at.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The ledger counted anew from the tasks; a test compares it with the one kept.
    pub fn recount(&self) -> BTreeMap<ContainerInstanceId, Reserved> {
        let mut ledger: BTreeMap<ContainerInstanceId, Reserved> = BTreeMap::new();
        for task in
            self.tasks.values().filter(|task| task.last != TaskStatus::Stopped && task.queue.is_none())
        {
            ledger.entry(task.instance.clone()).or_default().add(task);
        }
        for instance in self.instances.values().filter(|instance| !instance.orphan_facts.is_empty()) {
            ledger.entry(instance.id.clone()).or_default().with_orphans(instance);
        }
        ledger.retain(|_, reserved| !reserved.is_nothing());
        ledger
    }

    /// The ledger as kept.
    pub fn ledger(&self) -> &BTreeMap<ContainerInstanceId, Reserved> {
        &self.ledger
    }

    /// STOPPED tasks of each cluster with the time they stopped, oldest first.
    pub fn stopped(&self) -> &BTreeMap<ClusterName, BTreeSet<(u64, TaskId)>> {
        &self.stopped
    }

    /// An instance with what is left of it.
    pub fn snapshot(&self, instance: &Arc<InstanceRecord>) -> InstanceSnapshot {
        let reserved = self.reserved(&instance.id);
        let offered = &instance.offered;
        let small = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
        InstanceSnapshot {
            instance: instance.clone(),
            remaining: Resources {
                cpu_units: offered.cpu_units.saturating_sub(small(reserved.cpu_units)),
                memory_mib: offered.memory_mib.saturating_sub(reserved.memory_mib),
                host_ports: offered.host_ports.union(&reserved.host_ports).copied().collect(),
                devices: left(&offered.devices, &reserved.devices),
            },
            running_tasks: reserved.running,
            pending_tasks: reserved.pending,
        }
    }

    /// The instance of this name that is not INACTIVE; names are unique among those of a cluster.
    pub fn instance_by_name(&self, cluster: &ClusterName, name: &str) -> Option<&Arc<InstanceRecord>> {
        self.instances.values().find(|instance| {
            instance.cluster == *cluster
                && instance.name == name
                && instance.status != ContainerInstanceStatus::Inactive
        })
    }

    /// The newest ACTIVE revision of a family.
    pub fn newest_active(&self, family: &Family) -> Option<&Arc<DefinitionRecord>> {
        let id = |revision| TaskDefinitionId { family: family.clone(), revision };
        let revisions = self.definitions.range(id(0)..=id(u32::MAX)).rev();
        let mut records = revisions.map(|(_, record)| record);
        records.find(|record| record.is_active())
    }

    /// Builds the state from all records of a store. Nodes are connected as they were: what watchers were
    /// told last; who counts as seen since is not of the state.
    pub fn from_records(records: Vec<(String, Vec<u8>)>) -> Result<Self, RecordError> {
        let mut state = Self::default();
        for (key, value) in records {
            let mutation = match read(&key, &value)? {
                Mutation::Task(mut task) => {
                    state.share(Arc::make_mut(&mut task));
                    Mutation::Task(task)
                }
                other => other,
            };
            state.apply(&mutation);
        }
        Ok(state)
    }

    /// Gives a task the texts that others of its revision or deployment have, where they are the same, in place
    /// of its own.
    pub fn share(&self, task: &mut TaskRecord) {
        let service = task.service.as_ref();
        let service = service.and_then(|of| self.services.get(&(task.cluster.clone(), of.name.clone())));
        let deployments = service.into_iter().flat_map(|service| &service.deployments);
        let definition = self.definitions.get(&task.definition).map(|definition| &definition.image_digests);
        let mut known = deployments.map(|deployment| &deployment.image_digests).chain(definition);
        if let Some(same) = known.find(|known| **known == task.image_digests) {
            task.image_digests = same.clone();
        }
        let images = self.images.get(&task.definition).map_or(&[][..], Vec::as_slice);
        for container in &mut task.containers {
            for (_, image) in images.iter().filter(|(name, _)| *name == container.name) {
                container.image.share(image);
            }
            let Some(digest) = &mut container.image_digest else { continue };
            // A task from before the digests were known has none of its own.
            let known = [Some(&task.image_digests), definition].into_iter().flatten();
            let mut known = known.filter_map(|digests| digests.get(&container.name));
            known.any(|known| digest.share(known));
        }
    }
}

fn stopped_at(task: &TaskRecord) -> u64 {
    task.times.settled_at.unwrap_or(task.times.created_at)
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, Arc<V>>, key: K, record: &Arc<V>) {
    map.insert(key, record.clone());
}

fn read(key: &str, value: &[u8]) -> Result<Mutation, RecordError> {
    let kind = key.split('/').next().unwrap_or(key);
    Ok(match kind {
        "meta" => Mutation::Meta(decode(key, value)?),
        "cluster" => Mutation::Cluster(Arc::new(decode(key, value)?)),
        "family" => Mutation::Family(Arc::new(decode(key, value)?)),
        "definition" => Mutation::Definition(Arc::new(decode(key, value)?)),
        "instance" => Mutation::Instance(Arc::new(decode(key, value)?)),
        "task" => Mutation::Task(Arc::new(decode(key, value)?)),
        "client-token" => Mutation::ClientToken(Arc::new(decode(key, value)?)),
        "join-token" => Mutation::JoinToken(Arc::new(decode(key, value)?)),
        "event" => Mutation::Event(Arc::new(decode(key, value)?)),
        "audit" => Mutation::Audit(Arc::new(decode(key, value)?)),
        "service" => Mutation::Service(Arc::new(decode(key, value)?)),
        "service-event" => Mutation::ServiceEvent(Arc::new(decode(key, value)?)),
        _ => return Err(RecordError::UnknownKind { key: key.to_owned() }),
    })
}
