//! One change of the state, and the list of them that a command makes.
//! In: records. Out: the same change for memory (`State::apply`) and for the store (`put_or_delete`).
//! Never: a change of memory that is not a change of the store as well.

use crate::core::record::{
    AuditRecord, ClientTokenRecord, ClusterRecord, DefinitionRecord, EventRecord, EventSubject, FamilyRecord,
    InstanceRecord, JoinTokenRecord, MetaRecord, RecordKind, TaskRecord, encode,
};
use crate::core::service::look;
use crate::core::service::record::{ServiceEventRecord, ServiceKey, ServiceRecord};
use crate::core::state::State;
use crate::core::{Moment, Settings};
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId, Family, TaskDefinitionId, TaskId};
use lighter_model::placement::Placement;
use std::sync::Arc;

/// One record written or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    Meta(MetaRecord),
    Cluster(Arc<ClusterRecord>),
    ClusterGone(ClusterName),
    Family(Arc<FamilyRecord>),
    Definition(Arc<DefinitionRecord>),
    DefinitionGone(TaskDefinitionId),
    Instance(Arc<InstanceRecord>),
    InstanceGone(ContainerInstanceId),
    Task(Arc<TaskRecord>),
    TaskGone(TaskId),
    ClientToken(Arc<ClientTokenRecord>),
    ClientTokenGone(Arc<ClientTokenRecord>),
    JoinToken(Arc<JoinTokenRecord>),
    JoinTokenGone(String),
    Event(Arc<EventRecord>),
    EventGone(u64),
    Audit(Arc<AuditRecord>),
    AuditGone(u64),
    Service(Arc<ServiceRecord>),
    ServiceGone(ServiceKey),
    ServiceEvent(Arc<ServiceEventRecord>),
    ServiceEventGone(ServiceKey, u64),
}

/// Keys of the store, by kind; within a kind they sort by creation where creation has an order.
pub mod key {
    use super::{ClientTokenRecord, ContainerInstanceId, Family, ServiceKey, TaskDefinitionId, TaskId};

    pub const META: &str = "meta";
    pub fn cluster(name: &str) -> String {
        format!("cluster/{name}")
    }
    pub fn family(family: &Family) -> String {
        format!("family/{family}")
    }
    pub fn definition(id: &TaskDefinitionId) -> String {
        format!("definition/{}/{:010}", id.family, id.revision)
    }
    pub fn instance(id: &ContainerInstanceId) -> String {
        format!("instance/{id}")
    }
    pub fn task(id: &TaskId) -> String {
        format!("task/{id}")
    }
    pub fn client_token(record: &ClientTokenRecord) -> String {
        format!("client-token/{:012x}/{}/{}", record.created_at_unix_ms, record.cluster, record.token)
    }
    pub fn join_token(id: &str) -> String {
        format!("join-token/{id}")
    }
    pub fn event(sequence: u64) -> String {
        format!("event/{sequence:016x}")
    }
    pub fn audit(sequence: u64) -> String {
        format!("audit/{sequence:016x}")
    }
    pub fn service((cluster, name): &ServiceKey) -> String {
        format!("service/{cluster}/{name}")
    }
    pub fn service_event((cluster, name): &ServiceKey, number: u64) -> String {
        format!("service-event/{cluster}/{name}/{number:016x}")
    }
}

impl Mutation {
    /// The key, with the value to put there or `None` to delete it.
    pub fn put_or_delete(&self) -> Result<(String, Option<Vec<u8>>), serde_json::Error> {
        Ok(match self {
            Self::Meta(record) => (key::META.to_owned(), Some(encode(record)?)),
            Self::Cluster(record) => (key::cluster(record.name.as_str()), Some(encode(record)?)),
            Self::ClusterGone(name) => (key::cluster(name.as_str()), None),
            Self::Family(record) => (key::family(&record.family), Some(encode(record)?)),
            Self::Definition(record) => (key::definition(&record.id), Some(encode(record)?)),
            Self::DefinitionGone(id) => (key::definition(id), None),
            Self::Instance(record) => (key::instance(&record.id), Some(encode(record)?)),
            Self::InstanceGone(id) => (key::instance(id), None),
            Self::Task(record) => (key::task(&record.id), Some(encode(record)?)),
            Self::TaskGone(id) => (key::task(id), None),
            Self::ClientToken(record) => (key::client_token(record), Some(encode(record)?)),
            Self::ClientTokenGone(record) => (key::client_token(record), None),
            Self::JoinToken(record) => (key::join_token(&record.id), Some(encode(record)?)),
            Self::JoinTokenGone(id) => (key::join_token(id), None),
            Self::Event(record) => (key::event(record.sequence), Some(encode(record)?)),
            Self::EventGone(sequence) => (key::event(*sequence), None),
            Self::Audit(record) => (key::audit(record.sequence), Some(encode(record)?)),
            Self::AuditGone(sequence) => (key::audit(*sequence), None),
            Self::Service(record) => (key::service(&record.key()), Some(encode(record)?)),
            Self::ServiceGone(key) => (key::service(key), None),
            Self::ServiceEvent(record) => {
                let service = (record.cluster.clone(), record.service.clone());
                (key::service_event(&service, record.number), Some(encode(record)?))
            }
            Self::ServiceEventGone(key, number) => (key::service_event(key, *number), None),
        })
    }
}

/// Milliseconds and random digits of an id.
pub(crate) fn id_parts(id: &str) -> Option<(u64, u128)> {
    let (ms, digits) = id.split_at_checked(12)?;
    Some((u64::from_str_radix(ms, 16).ok()?, u128::from_str_radix(digits, 16).ok()?))
}

/// The state ahead, with what one command has changed of it so far.
#[derive(Debug)]
pub struct Changes<'a> {
    state: &'a mut State,
    settings: &'a Settings,
    moment: Moment,
    log: Vec<Mutation>,
}

impl<'a> Changes<'a> {
    /// Opens the state for one command; cluster time is max(what was, the wall clock).
    pub fn new(state: &'a mut State, settings: &'a Settings, moment: Moment) -> Self {
        Self { state, settings, moment, log: Vec::new() }
    }

    pub fn state(&self) -> &State {
        self.state
    }
    pub fn settings(&self) -> &Settings {
        self.settings
    }
    /// Prepares what a placement asks of the instances of a cluster, before it is decided.
    pub fn warm(&mut self, cluster: &ClusterName, placement: &Placement) {
        self.state.warm(cluster, placement);
    }
    /// Random bits for the next lot that is drawn; another after each change.
    pub fn luck(&self) -> u128 {
        self.moment.random ^ (self.log.len() as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
    /// How many records it has written or removed so far.
    pub fn count(&self) -> usize {
        self.log.len()
    }
    pub fn moment(&self) -> Moment {
        self.moment
    }
    /// Cluster time in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        if wrong_edit::is(WrongEdit::ClusterTimeFalls) {
            return self.moment.wall_unix_ms;
        }
        self.state.meta.cluster_time_ms.max(self.moment.wall_unix_ms)
    }

    /// Milliseconds and random digits for the next id of a kind, so that ids sort by creation: an
    /// id of the same millisecond as the last one adds a random step to it. Steps are large, so that
    /// neighbours differ early; some 170 fit into a millisecond before the next one is borrowed.
    pub fn next_id(&self, last: Option<&str>) -> (u64, u128) {
        const STEP: u128 = 1 << 72;
        const START: u128 = 1 << 76;
        let random = self.moment.random;
        let (last_ms, last_digits) = last.and_then(id_parts).unwrap_or_default();
        if self.now_ms() > last_ms {
            return (self.now_ms(), random % START);
        }
        let digits = last_digits + STEP + random % (STEP / 2);
        if digits < 1 << 80 { (last_ms, digits) } else { (last_ms + 1, random % START) }
    }

    /// Applies a mutation to the state ahead and keeps it for the store.
    pub fn record(&mut self, mutation: Mutation) {
        self.state.apply(&mutation);
        self.log.push(mutation);
    }

    /// Writes a task and tells watchers of it.
    pub fn put_task(&mut self, mut task: TaskRecord) -> Arc<TaskRecord> {
        task.version += 1;
        self.state.share(&mut task);
        let task = Arc::new(task);
        self.record(Mutation::Task(task.clone()));
        self.event(task.cluster.to_string(), EventSubject::Task(task.clone()));
        task
    }

    /// Writes a container instance and tells watchers of it.
    pub fn put_instance(&mut self, instance: InstanceRecord) -> Arc<InstanceRecord> {
        let instance = Arc::new(instance);
        self.record(Mutation::Instance(instance.clone()));
        let snapshot = self.state.snapshot(&instance);
        self.event(instance.cluster.to_string(), EventSubject::Instance(Arc::new(snapshot)));
        instance
    }

    /// Writes a task definition and tells watchers of it.
    pub fn put_definition(&mut self, definition: DefinitionRecord) -> Arc<DefinitionRecord> {
        let definition = Arc::new(definition);
        self.record(Mutation::Definition(definition.clone()));
        self.event(String::new(), EventSubject::Definition(definition.clone()));
        definition
    }

    /// Writes a cluster and tells watchers of it.
    pub fn put_cluster(&mut self, cluster: ClusterRecord) -> Arc<ClusterRecord> {
        let cluster = Arc::new(cluster);
        self.record(Mutation::Cluster(cluster.clone()));
        self.event(cluster.name.to_string(), EventSubject::Cluster(cluster.clone()));
        cluster
    }

    /// Writes a service and tells watchers of it.
    pub fn put_service(&mut self, service: ServiceRecord) -> Arc<ServiceRecord> {
        let service = Arc::new(service);
        self.record(Mutation::Service(service.clone()));
        let snapshot = look::snapshot(self.state, &service, self.now_ms());
        self.event(service.cluster.to_string(), EventSubject::Service(Arc::new(snapshot)));
        service
    }

    /// Adds a line to a service's event list and tells watchers of it.
    pub fn put_service_event(&mut self, record: ServiceEventRecord) {
        let record = Arc::new(record);
        self.record(Mutation::ServiceEvent(record.clone()));
        self.event(record.cluster.to_string(), EventSubject::ServiceAction(record));
    }

    /// Removes a task, an instance, a definition, a cluster or a service and tells watchers of it.
    pub fn remove(&mut self, mutation: Mutation) {
        let state = &self.state;
        let (kind, id, cluster) = match &mutation {
            Mutation::TaskGone(id) => {
                let cluster = state.tasks.get(id).map(|task| task.cluster.to_string());
                (RecordKind::Task, id.to_string(), cluster)
            }
            Mutation::InstanceGone(id) => {
                let cluster = state.instances.get(id).map(|instance| instance.cluster.to_string());
                (RecordKind::Instance, id.to_string(), cluster)
            }
            Mutation::ClusterGone(name) => (RecordKind::Cluster, name.to_string(), Some(name.to_string())),
            Mutation::DefinitionGone(id) => (RecordKind::Definition, id.to_string(), None),
            Mutation::ServiceGone((cluster, name)) => {
                (RecordKind::Service, name.to_string(), Some(cluster.to_string()))
            }
            _ => return self.record(mutation),
        };
        self.record(mutation);
        self.event(cluster.unwrap_or_default(), EventSubject::Deleted { kind, id });
    }

    fn event(&mut self, cluster: String, subject: EventSubject) {
        let sequence = self.state.meta.event_sequence + 1;
        let time_unix_ms = self.now_ms();
        let event = EventRecord { sequence, time_unix_ms, cluster, subject };
        self.record(Mutation::Meta(MetaRecord {
            cluster_time_ms: time_unix_ms,
            event_sequence: sequence,
            ..self.state.meta
        }));
        self.record(Mutation::Event(Arc::new(event)));
        while self.state.events.len() > self.settings.events_kept {
            match self.state.events.first_key_value() {
                Some((&oldest, _)) => self.record(Mutation::EventGone(oldest)),
                None => break,
            }
        }
    }

    /// What the command changed; cluster time goes along with every change.
    pub fn finish(mut self) -> Vec<Mutation> {
        if !self.log.is_empty() {
            let meta = MetaRecord { cluster_time_ms: self.now_ms(), ..self.state.meta };
            if meta != self.state.meta || !self.log.iter().any(|m| matches!(m, Mutation::Meta(_))) {
                self.record(Mutation::Meta(meta));
            }
        }
        self.log
    }
}
