//! The records of the store: our own structs, each value with a format version before it.
//! In: records. Out: keys that sort by creation, and bytes; and back.
//! Never: a type of the wire contract; a newer format than ours is refused, not guessed.

use crate::core::queue::QueueRecord;
use crate::core::service::look::ServiceSnapshot;
use crate::core::service::record::{ServiceEventRecord, ServiceTask};
use crate::core::shared::{Rare, SharedText};
use crate::core::silence::brake::BrakeRecord;
use crate::core::silence::policy::SilencePolicy;
use lighter_model::adjust::ContainerResources;
use lighter_model::attribute::is_capability;
use lighter_model::exit::ContainerExit;
use lighter_model::health::{ContainerHealth, HealthStatus, task_health};
use lighter_model::ids::{ClusterName, ContainerInstanceId, ContainerName, Family, Generation};
use lighter_model::ids::{TaskDefinitionId, TaskId};
use lighter_model::node::Notice;
use lighter_model::overrides::TaskOverride;
use lighter_model::placement::{Placement, PlacementText};
use lighter_model::report::{KernelLimits, NetworkBinding};
use lighter_model::resources::{GrantedDevice, Resources};
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, StopCode, TaskStatus};
use lighter_model::tags::Tags;
use lighter_model::task_definition::TaskDefinition;
use lighter_model::trace_context::TraceParent;
use lighter_model::wait::Wait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The first byte of every value.
pub const FORMAT_VERSION: u8 = 1;

/// Why a stored value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(
        "record {key:?} has format {found}, this program knows {FORMAT_VERSION}: it was written by a newer one"
    )]
    Newer { key: String, found: u8 },
    #[error("record {key:?} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("record {key:?} is of no known kind: it was written by a newer program")]
    UnknownKind { key: String },
}

/// What has its default is not written: it is read back as that, by every program of this format.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Turns a record into the bytes of a value.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, serde_json::Error> {
    // Most records are tasks.
    let mut bytes = Vec::with_capacity(1_024);
    bytes.push(FORMAT_VERSION);
    serde_json::to_writer(&mut bytes, record)?;
    Ok(bytes)
}

/// `encode` of a task's event, from the value of the same task: its text is in both.
pub fn encode_task_event(event: &EventRecord, task: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Head<'a> {
        sequence: u64,
        time_unix_ms: u64,
        cluster: &'a str,
    }
    let head = Head { sequence: event.sequence, time_unix_ms: event.time_unix_ms, cluster: &event.cluster };
    let mut bytes = Vec::with_capacity(task.len() + 128);
    bytes.push(FORMAT_VERSION);
    serde_json::to_writer(&mut bytes, &head)?;
    bytes.pop();
    bytes.extend_from_slice(b",\"subject\":{\"task\":");
    bytes.extend_from_slice(task.get(1..).unwrap_or_default());
    bytes.extend_from_slice(b"}}");
    Ok(bytes)
}

/// Reads the bytes of a value.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        Some((&FORMAT_VERSION, json)) => serde_json::from_slice(json)
            .map_err(|source| RecordError::Damaged { key: key.to_owned(), source }),
        Some((&found, _)) => Err(RecordError::Newer { key: key.to_owned(), found }),
        None => Err(RecordError::Newer { key: key.to_owned(), found: 0 }),
    }
}

/// What the whole store counts: written with every group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRecord {
    /// max(last committed cluster time, wall clock); never falls.
    pub cluster_time_ms: u64,
    /// The last event's number.
    pub event_sequence: u64,
    /// The first eight bytes of the SHA-256 of the certificate authority that all control planes of
    /// this store share; 0: none has said yet.
    #[serde(default)]
    pub ca: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    pub name: ClusterName,
    pub created_at_unix_ms: u64,
    /// INACTIVE since then.
    #[serde(default)]
    pub deleted_at_unix_ms: Option<u64>,
    /// New tasks take over the tags of their definition unless the call says otherwise.
    #[serde(default)]
    pub propagate_tags: bool,
    #[serde(default)]
    pub tags: Tags,
    /// Set while too many nodes are silent for their tasks to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<BrakeRecord>,
    /// Nodes that fell silent before do not set the brake again: an operator said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake_released_at_unix_ms: Option<u64>,
}

impl ClusterRecord {
    pub fn is_active(&self) -> bool {
        self.deleted_at_unix_ms.is_none()
    }
}

/// Remembers the highest revision, so that none is used twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyRecord {
    pub family: Family,
    pub last_revision: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionRecord {
    pub id: TaskDefinitionId,
    pub definition: TaskDefinition,
    pub registered_by: String,
    pub registered_at_unix_ms: u64,
    /// INACTIVE since then.
    pub deregistered_at_unix_ms: Option<u64>,
    /// What each container's tag means for all tasks of this revision: `sha256:…`, as the first
    /// task that pulled it reported; set once, never changed.
    #[serde(default)]
    pub image_digests: ImageDigests,
    /// DELETE_IN_PROGRESS since then.
    #[serde(default)]
    pub deleted_at_unix_ms: Option<u64>,
    #[serde(default)]
    pub tags: Tags,
}

/// Which image the tag of each container means. One map serves all tasks of a revision or a deployment:
/// there may be 100,000 of them, and each report copies its task's record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDigests(Arc<BTreeMap<ContainerName, SharedText>>);

impl From<BTreeMap<ContainerName, SharedText>> for ImageDigests {
    fn from(digests: BTreeMap<ContainerName, SharedText>) -> Self {
        Self(Arc::new(digests))
    }
}

impl From<BTreeMap<ContainerName, String>> for ImageDigests {
    fn from(digests: BTreeMap<ContainerName, String>) -> Self {
        let shared = digests.into_iter().map(|(name, digest)| (name, digest.into()));
        shared.collect::<BTreeMap<_, SharedText>>().into()
    }
}

impl std::ops::Deref for ImageDigests {
    type Target = BTreeMap<ContainerName, SharedText>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Serialize for ImageDigests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ImageDigests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<ContainerName, SharedText>::deserialize(deserializer).map(Self::from)
    }
}

impl DefinitionRecord {
    pub fn is_active(&self) -> bool {
        self.deregistered_at_unix_ms.is_none()
    }
}

/// A node. `connected` is the last transition seen; a start changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    pub id: ContainerInstanceId,
    pub cluster: ClusterName,
    pub name: String,
    pub status: ContainerInstanceStatus,
    pub connected: bool,
    pub agent_version: String,
    pub boot_id: String,
    pub address: Option<SocketAddr>,
    /// What the node offers, its own reserve taken off; ports are those it keeps for itself.
    pub offered: Resources,
    /// Bound by the join token; the node cannot change them.
    pub token_attributes: BTreeMap<String, String>,
    pub node_attributes: BTreeMap<String, String>,
    pub registered_at_unix_ms: u64,
    /// Tasks the node held that this store did not know when the store had changed or gone back:
    /// never stopped on the store's word.
    pub orphans: BTreeSet<TaskId>,
    /// What its node says of each of them; they take what they take until somebody decides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orphan_facts: BTreeMap<TaskId, OrphanFacts>,
    /// Of the store that greeted the node last.
    #[serde(default)]
    pub incarnation: String,
    /// Why and until when it is DRAINING.
    #[serde(default)]
    pub drain: Option<DrainRecord>,
    /// What the machine was told of its own end, as last heard.
    #[serde(default)]
    pub notices: Vec<Notice>,
    /// Set by people; they win over what the node says and what its token bound.
    #[serde(default)]
    pub operator_attributes: BTreeMap<String, String>,
    #[serde(default)]
    pub tags: Tags,
    /// DEREGISTERING or INACTIVE since then.
    #[serde(default)]
    pub deregistered_at_unix_ms: Option<u64>,
    /// Unless connected: when it was taken for silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since_unix_ms: Option<u64>,
    /// Its agent ends exclusive tasks whose lease has run out.
    #[serde(default)]
    pub leases: bool,
}

/// An orphan as its node tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanFacts {
    /// `family:revision` as it was known to the store that ran it; may be another definition here.
    pub definition: Option<TaskDefinitionId>,
    pub last: Option<TaskStatus>,
    pub resources: Resources,
    /// Empty of an agent that does not tell it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
}

/// Who says that an instance has an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeSource {
    Node,
    Token,
    Operator,
}

/// Why a node gets no new tasks, and what becomes of those it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    pub reason: String,
    pub since_unix_ms: u64,
    /// By when it shall be empty.
    pub deadline_unix_ms: Option<u64>,
    /// Stop what still runs at the deadline, at once without one.
    pub stop_tasks: bool,
    /// Of the tasks stopped so.
    pub stop_code: StopCode,
    /// The notice that drains it; `None`: a person.
    pub notice: Option<String>,
    /// What a person had asked for, while a notice presses more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Box<DrainRecord>>,
    /// Less pressing notices, which drain it when this one is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

impl InstanceRecord {
    /// The node's attributes, with the token's and then the operator's laid over them.
    pub fn attributes(&self) -> BTreeMap<&str, (&str, AttributeSource)> {
        let layers = [
            (&self.node_attributes, AttributeSource::Node),
            (&self.token_attributes, AttributeSource::Token),
            (&self.operator_attributes, AttributeSource::Operator),
        ];
        let all = layers.into_iter().flat_map(|(layer, source)| {
            layer.iter().map(move |(name, value)| (name.as_str(), (value.as_str(), source)))
        });
        all.collect()
    }

    /// One attribute, by the same order.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let layers = [&self.operator_attributes, &self.token_attributes, &self.node_attributes];
        layers.into_iter().find_map(|layer| layer.get(name)).map(String::as_str)
    }

    /// Whether the node can do all of this. A node that names no capability at all is of an agent
    /// that does not know them, and is asked nothing.
    pub fn is_capable(&self, required: &BTreeSet<String>) -> bool {
        let own = &self.node_attributes;
        required.iter().all(|name| own.contains_key(name)) || !own.keys().any(|name| is_capability(name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub name: ContainerName,
    pub image: SharedText,
    pub essential: bool,
    pub status: ContainerStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Box<ContainerExit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<SharedText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SharedText>,
    pub network_bindings: Vec<NetworkBinding>,
    pub limits: KernelLimits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Box<ContainerHealth>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart_count: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Box<ContainerExit>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub devices: Vec<GrantedDevice>,
}

/// When what happened to a task, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskTimes {
    pub created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<u64>,
    /// Cluster time at which STOPPED was applied; what the task is kept for counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    pub id: TaskId,
    pub cluster: ClusterName,
    pub definition: TaskDefinitionId,
    pub instance: ContainerInstanceId,
    pub desired: DesiredStatus,
    pub last: TaskStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<StopCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_reason: Option<SharedText>,
    /// What its node last said it waits for.
    #[serde(default, skip_serializing_if = "Rare::is_nothing")]
    pub waits: Rare<Vec<Wait>>,
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    pub containers: Vec<ContainerRecord>,
    /// Grows with every event of the task.
    pub version: u64,
    /// Grows with every change the node has to hear of.
    pub generation: Generation,
    /// The last report applied.
    pub report_sequence: u64,
    /// What it takes of its node until it is STOPPED.
    pub resources: Resources,
    pub times: TaskTimes,
    /// Its containers have no time to end by themselves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_force: bool,
    /// No process of it is to run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused: bool,
    /// Of the last change of pause or limits that is in force on the node, or was refused there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settled: Generation,
    /// Why that one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<SharedText>,
    /// Limits in place of the definition's.
    #[serde(default, skip_serializing_if = "Rare::is_nothing")]
    pub container_resources: Rare<Vec<ContainerResources>>,
    /// No process of it runs: its node says so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused_on_node: bool,
    /// A change of limits that its node has not settled. Boxed, for it is large and few tasks have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Box<ResizeRecord>>,
    /// The revision's `image_digests` when the task was made; they do not change afterwards.
    #[serde(default, skip_serializing_if = "is_default")]
    pub image_digests: ImageDigests,
    /// The span of the call that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<TraceParent>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
    /// What becomes of it when its node falls silent; nothing without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence: Option<SilencePolicy>,
    /// The lost task in whose place it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Box<TaskId>>,
    /// The task that runs in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<Box<TaskId>>,
    /// As it was asked for; a replacement is placed by the same.
    #[serde(default, skip_serializing_if = "Rare::is_nothing")]
    pub placement: Rare<PlacementText>,
    /// Made by a service, which keeps it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Box<ServiceTask>>,
    /// What differs from its definition.
    #[serde(default, skip_serializing_if = "Rare::is_nothing")]
    pub overrides: Rare<TaskOverride>,
    /// It waits for room: it is PROVISIONING, and its instance is none (`queue::nowhere`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueRecord>,
}

/// What to go back to when the node refuses, and what the task takes when it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeRecord {
    /// Settled when the node has settled this generation of the task.
    pub generation: Generation,
    pub before: Rare<Vec<ContainerResources>>,
    pub resources_before: Resources,
    pub resources_after: Resources,
}

/// Who changed something, or looked into a running task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    pub sequence: u64,
    pub user: String,
    /// Where the user called from.
    pub address: String,
    /// exec, attach, copy-in, copy-out, stats, pause, unpause, update; else the name of the method.
    pub action: String,
    /// Empty: of no cluster, like a task definition.
    pub cluster: String,
    /// Empty: every task of the cluster, or none.
    pub task: String,
    pub container: String,
    pub instance: String,
    pub command: Vec<String>,
    pub started_at_unix_ms: u64,
    /// Nothing while it goes on.
    pub outcome: Option<AuditOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditOutcome {
    pub ended_at_unix_ms: u64,
    /// `exited 0`, `signaled 9`, `done`, `failed: …`, `cut off: …`.
    pub result: String,
    /// To the container.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl TaskRecord {
    /// Read again. What this program cannot read, because a newer one wrote it, asks for nothing.
    pub fn placement(&self) -> Placement {
        Placement::read(PlacementText::clone(&self.placement)).unwrap_or_default()
    }

    /// It gets a replacement when its node is silent for long enough.
    pub fn is_replaceable(&self) -> bool {
        if self.ends() {
            return self.is_awaited();
        }
        self.replaced_by.is_none() && self.silence.is_some_and(|policy| policy.replace)
    }

    /// How long its node is silent by then.
    pub fn lost_after_ms(&self, heartbeat_ms: u64) -> Option<u64> {
        let policy = self.silence.filter(|_| self.is_replaceable())?;
        Some(if self.ends() { policy.ended_ms(heartbeat_ms) } else { policy.due_ms(heartbeat_ms) })
    }

    fn ends(&self) -> bool {
        self.desired == DesiredStatus::Stopped || self.last >= TaskStatus::Deactivating
    }

    /// Its service starts no other before it is STOPPED or lost.
    fn is_awaited(&self) -> bool {
        let held = self.service.as_ref().is_some_and(|of| !of.lost);
        held && self.last < TaskStatus::Stopped && self.silence.is_some_and(|policy| policy.exclusive)
    }

    /// The worst of the essential containers that have a health check.
    pub fn health(&self) -> HealthStatus {
        let containers = self.containers.iter();
        task_health(containers.map(|c| (c.essential, c.health.as_deref().map(|health| health.status))))
    }
}

/// Why one of several tasks was not placed; the words of `reason` are ECS's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementFailure {
    /// The container instance that was looked at, or the cluster.
    pub id: String,
    pub reason: String,
    pub detail: String,
}

/// What a client token was used for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientTokenRecord {
    pub cluster: ClusterName,
    pub token: String,
    /// SHA-256 of the request, in hex.
    pub fingerprint: String,
    pub tasks: Vec<TaskId>,
    pub failures: Vec<PlacementFailure>,
    pub created_at_unix_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// 32 hex digits that sort by creation.
    pub id: String,
    /// SHA-256 of the secret, in hex; the secret itself is nowhere.
    pub secret_sha256: String,
    pub cluster: ClusterName,
    pub attributes: BTreeMap<String, String>,
    /// Wall clock.
    pub expires_at_unix_ms: u64,
    pub used: Option<JoinTokenUse>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenUse {
    pub instance: ContainerInstanceId,
    /// SHA-256 of the public key certified, in hex: the same key may ask again for a lost answer.
    pub public_key_sha256: String,
}

/// An instance with what its tasks take, as of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSnapshot {
    pub instance: Arc<InstanceRecord>,
    pub remaining: Resources,
    pub running_tasks: u32,
    pub pending_tasks: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSubject {
    Task(Arc<TaskRecord>),
    Instance(Arc<InstanceSnapshot>),
    Definition(Arc<DefinitionRecord>),
    Cluster(Arc<ClusterRecord>),
    Service(Arc<ServiceSnapshot>),
    /// A line of a service's event list.
    ServiceAction(Arc<ServiceEventRecord>),
    /// A record that is no longer kept.
    Deleted {
        kind: RecordKind,
        id: String,
    },
}

/// What kind of record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    Task,
    Instance,
    Definition,
    Cluster,
    Service,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    pub sequence: u64,
    pub time_unix_ms: u64,
    /// Empty for task definitions, which belong to no cluster.
    pub cluster: String,
    pub subject: EventSubject,
}
