//! What the agent needs of the crates for images, network and runtime, said by the agent: narrow
//! traits that the adapters implement for real and `fakes` for tests.
//! In: values of the model. Out: values, or an error whose text is for people.
//! Every method is idempotent by its key unless it says otherwise; deleting what is not there
//! succeeds. Never: a decision; that is made before one of these is called.

#[cfg(test)]
pub(crate) mod fakes;
mod lost;

use lost::LostShim;

use crate::errors::Cause;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use lighter_model::exit::ContainerExit;
use lighter_model::ids::{AttachmentKey, ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::report::KernelLimits;
use lighter_model::resources::HostPort;
use lighter_model::task_definition::{PullBehavior, TaskDefinition};
use lighter_net::{AttachmentRecord, Traffic};
use lighter_runtime::{
    ContainerStats, ExecError, ExecOrder, ExecSession, LeaseOrder, Leased, MappedIds, Privileges,
    ProbeOutcome, WindowSize,
};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The facilities of one node.
#[derive(Clone)]
pub(crate) struct Facilities {
    pub image: Arc<dyn ImageFacility>,
    pub network: Arc<dyn NetworkFacility>,
    pub runtime: Arc<dyn RuntimeFacility>,
}

/// Answer of a facility.
pub(crate) type Answer<'a, T, E = Cause> = BoxFuture<'a, Result<T, E>>;

/// An image that is whole on this machine.
#[derive(Clone)]
pub(crate) struct Image {
    /// `sha256:…` that the registry answered to the tag, an index or a manifest: the same on every
    /// platform. `None` when the image came from an archive: no other node could pull it by that.
    pub image_digest: Option<String>,
    pub config: ImageConfig,
    /// What the facility itself needs of it.
    pub own: Arc<dyn Any + Send + Sync>,
}

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
#[error("pull image {reference}")]
pub(crate) struct PullFailure {
    pub reference: String,
    /// Trying again may help.
    pub retriable: bool,
    /// The registry knows no such tag or digest.
    pub missing: bool,
    /// It does not fit on the disk: it needs so many bytes.
    pub needs_room: Option<u64>,
    #[source]
    pub source: Cause,
}

/// What is to be pulled, and when the registry is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PullOrder {
    pub reference: String,
    pub behavior: PullBehavior,
}

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PullStep {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub layers_done: u32,
    pub layers_total: u32,
    pub finished: bool,
}

/// Takes the steps of a pull; must not block.
pub(crate) type PullWatcher = Arc<dyn Fn(PullStep) + Send + Sync>;

/// One row of `system df`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UsageRow {
    pub kind: &'static str,
    pub count: u64,
    pub in_use: u64,
    pub bytes: u64,
    pub reclaimable_bytes: u64,
}

/// What a prune removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PrunedImages {
    pub images: u64,
    pub layers: u64,
    pub bytes: u64,
    /// What the disk's marks still ask for when there is nothing more to remove.
    pub short_bytes: u64,
}

/// Images that tasks of this node run, or will: never removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImagesInUse {
    /// As definitions have them.
    pub references: BTreeSet<String>,
    pub digests: BTreeSet<String>,
}

/// An image for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageRow {
    pub reference: String,
    pub image_digest: String,
    pub config_digest: String,
    pub platform: String,
    pub size_bytes: u64,
    pub in_use: bool,
    pub from_registry: bool,
    pub last_used_unix_ms: u64,
}

/// An image with the documents it was made of, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageDocuments {
    pub row: ImageRow,
    pub manifest: String,
    pub config: String,
}

/// Images and root file systems.
pub(crate) trait ImageFacility: Send + Sync + 'static {
    /// May be dropped at any await; what was fetched is kept. The image is not cleaned up while the
    /// answer lives.
    fn pull<'a>(&'a self, order: &'a PullOrder, watch: PullWatcher) -> Answer<'a, Image, PullFailure>;
    /// Mounts a writable root file system at `dir`; `mapped` for a task with ids of its own.
    fn prepare_rootfs<'a>(
        &'a self,
        key: &'a AttachmentKey,
        image: &'a Image,
        dir: &'a Path,
        mapped: Option<&'a MappedIds>,
    ) -> Answer<'a, ()>;
    fn remove_rootfs<'a>(&'a self, key: &'a AttachmentKey) -> Answer<'a, ()>;
    fn list_snapshots(&self) -> Answer<'_, Vec<AttachmentKey>>;
    /// Copies what the image has at `container_path`, with owner and mode, into the fresh `dest`.
    fn seed_volume<'a>(
        &'a self,
        rootfs: &'a Path,
        container_path: &'a str,
        dest: &'a Path,
        mapped: Option<&'a MappedIds>,
    ) -> Answer<'a, ()>;
    fn usage<'a>(&'a self, in_use: &'a ImagesInUse) -> Answer<'a, Vec<UsageRow>>;
    /// Removes all images but those in use and those of mounted root file systems.
    fn prune<'a>(&'a self, in_use: &'a ImagesInUse) -> Answer<'a, PrunedImages>;
    /// Removes images as the disk's marks ask for, and for `wanted_bytes` of room besides; the least
    /// recently used first, and none of those that `prune` spares.
    fn clean_up<'a>(&'a self, in_use: &'a ImagesInUse, wanted_bytes: u64) -> Answer<'a, PrunedImages>;
    fn list<'a>(&'a self, in_use: &'a ImagesInUse) -> Answer<'a, Vec<ImageRow>>;
    /// `None`: it is not here.
    fn inspect<'a>(&'a self, image: &'a str, in_use: &'a ImagesInUse) -> Answer<'a, Option<ImageDocuments>>;
    /// Removes one image; an error when it is not here or in use.
    fn remove<'a>(&'a self, image: &'a str, in_use: &'a ImagesInUse) -> Answer<'a, PrunedImages>;
    /// Loads an archive that comes in parts; gives the names of its images.
    fn load<'a>(&'a self, parts: mpsc::Receiver<Vec<u8>>, name: Option<String>) -> Answer<'a, Vec<String>>;
    /// Gives an archive in parts; ends early when nobody takes them.
    fn save<'a>(&'a self, image: &'a str, parts: mpsc::Sender<Vec<u8>>) -> Answer<'a, ()>;
}

/// What a made attachment looks like from inside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// The node's address on the bridge; in bridge mode only.
    pub gateway: Option<Ipv4Addr>,
}

/// One result of the self-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub name: &'static str,
    pub ok: bool,
    pub detail: String,
    /// The command that mends it; empty when there is none.
    pub mend: String,
    /// The agent must not run without it.
    pub vital: bool,
}

/// The node's network. Records come from `lighter_net::plan_attachment` and are stored first.
pub(crate) trait NetworkFacility: Send + Sync + 'static {
    /// Bridge and tables, and exactly the port maps of these records.
    fn restore<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, ()>;
    fn add<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, Attached>;
    fn del<'a>(&'a self, record: &'a AttachmentRecord) -> Answer<'a, ()>;
    /// Removes what the kernel has and no record knows; says what it was.
    fn remove_leftovers<'a>(&'a self, records: &'a [AttachmentRecord]) -> Answer<'a, Vec<String>>;
    /// `nginx (pid 12)`; asked only after a port could not be bound.
    fn port_owner(&self, port: HostPort) -> Option<String>;
    /// What these attachments have sent and received; one without a link is not in the answer.
    fn traffic<'a>(&'a self, records: &'a [AttachmentRecord])
    -> Answer<'a, BTreeMap<AttachmentKey, Traffic>>;
    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>>;
    /// Sends packets; the host's side must be made (`restore`).
    fn probe_forwarding(&self) -> BoxFuture<'_, Probe>;
}

/// A directory or file of the host to be shown in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub source: PathBuf,
    pub destination: String,
    pub read_only: bool,
}

/// Everything a bundle is made of.
#[derive(Clone)]
pub(crate) struct BundleOrder {
    pub task: TaskId,
    pub container: ContainerName,
    pub definition: Arc<TaskDefinition>,
    pub image: ImageConfig,
    pub rootfs: PathBuf,
    /// `None`: the host's network.
    pub netns: Option<PathBuf>,
    pub hostname: String,
    /// Texts of /etc/hosts, /etc/hostname, /etc/resolv.conf.
    pub hosts: String,
    pub hostname_file: String,
    pub resolv_conf: String,
    pub mounts: Vec<Mount>,
    /// `NAME=value` of the node itself; they win over those of image and definition.
    pub environment: Vec<String>,
    /// `NAME=value` of each file of variables, in the definition's order.
    pub environment_files: Vec<Vec<String>>,
    /// Files of the devices that the container was given.
    pub devices: Vec<PathBuf>,
    pub privileges: Privileges,
}

/// A bundle on disk.
#[derive(Clone)]
pub(crate) struct Bundle {
    pub own: Arc<dyn Any + Send + Sync>,
}

/// A started container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Started {
    pub pid: i32,
    pub limits: KernelLimits,
}

/// Which of ECS's errors a failed start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartFault {
    CannotStart,
    CannotCreate,
    Limits,
}

/// A container did not start; nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[error("start container {container}")]
pub(crate) struct StartFailure {
    pub container: ContainerName,
    pub fault: StartFault,
    #[source]
    pub source: Cause,
}

/// Host ports could not be bound; none of them is.
#[derive(Debug, thiserror::Error)]
#[error("bind host port {}/{}", port.port, port.protocol.as_str())]
pub(crate) struct BindFailure {
    pub port: HostPort,
    /// EADDRINUSE.
    pub in_use: bool,
    #[source]
    pub source: Cause,
}

/// What a container is doing, as its shim knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContainerPhase {
    Starting,
    Running(Started),
    Exited(ContainerExit),
}

/// All that a shim knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ShimStatus {
    pub containers: Vec<(ContainerName, ContainerPhase)>,
    /// Ports it holds.
    pub ports: Vec<HostPort>,
}

/// What a shim says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShimEvent {
    Exited {
        container: ContainerName,
        exit: ContainerExit,
    },
    /// The task's lease is over; its containers are being ended by the shim.
    LeaseOver,
    /// The connection is gone; adopt again to see why.
    Disconnected,
}

/// What a shim says to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseAnswer {
    Kept(Leased),
    /// It is of an older release.
    CannotKeep,
}

/// The monitor of one task.
pub(crate) trait Shim: Send + Sync + 'static {
    /// All or none. Not idempotent: a port already held is in use.
    fn bind_ports<'a>(&'a self, ports: &'a [HostPort]) -> Answer<'a, (), BindFailure>;
    /// Not idempotent: a second start of the same name fails.
    fn start<'a>(
        &'a self,
        container: &'a ContainerName,
        bundle: &'a Bundle,
    ) -> Answer<'a, Started, StartFailure>;
    fn signal<'a>(&'a self, container: &'a ContainerName, signal: i32) -> Answer<'a, ()>;
    /// SIGKILL to every process of the container.
    fn kill<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()>;
    /// Runs a program in the container exactly as its own runs, and kills it after `timeout`.
    fn probe<'a>(
        &'a self,
        container: &'a ContainerName,
        argv: &'a [String],
        timeout: Duration,
    ) -> Answer<'a, ProbeOutcome>;
    /// Runs a program in the container with a terminal or pipes.
    fn exec<'a>(
        &'a self,
        container: &'a ContainerName,
        order: &'a ExecOrder,
        terminal: Option<WindowSize>,
        stdin: bool,
    ) -> Answer<'a, ExecSession, ExecError>;
    /// Output and input of the container's main process, from now on.
    fn attach<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ExecSession, ExecError>;
    /// Sets or renews the lease of the task; an earlier end than the known one changes nothing.
    fn lease<'a>(&'a self, order: &'a LeaseOrder) -> Answer<'a, LeaseAnswer>;
    /// Forgets an ended container; its bundle stays, for another start.
    fn remove_container<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()>;
    /// Ends the shim, which gives its ports back; nothing may run.
    fn shutdown(&self) -> Answer<'_, ()>;
}

/// A shim and what it says.
pub(crate) struct ShimLink {
    pub shim: Arc<dyn Shim>,
    pub events: mpsc::Receiver<ShimEvent>,
}

impl ShimLink {
    /// To a shim that does not answer: its first event is that the connection is lost.
    pub(crate) fn lost() -> Self {
        Self { shim: Arc::new(LostShim), events: mpsc::channel(1).1 }
    }
}

/// What is left of a task on this node.
pub(crate) enum Found {
    Alive {
        link: ShimLink,
        status: ShimStatus,
    },
    /// The shim is gone; these exits it wrote down.
    Ended {
        exits: Vec<(ContainerName, ContainerExit)>,
    },
    Nothing,
    /// It lives and does not answer. No facility says so; whoever asked has run out of time.
    Silent,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogOrigin {
    Stdout,
    Stderr,
    Marker,
}

/// One line of container output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    pub container: String,
    pub time_unix_ns: i64,
    pub origin: LogOrigin,
    pub line: Vec<u8>,
    pub partial: bool,
}

/// What of a log is wanted.
#[derive(Debug, Clone)]
pub(crate) struct LogQuery {
    pub task: TaskId,
    pub container: ContainerName,
    /// Go on with what comes until this becomes true: the container has ended.
    pub follow_until: Option<watch::Receiver<bool>>,
    pub tail_lines: Option<u32>,
    pub since_unix_ms: u64,
}

/// Shims, bundles, cgroups, logs.
pub(crate) trait RuntimeFacility: Send + Sync + 'static {
    /// Ids of the task's own, before anything else of it is made; again gives the same.
    fn map_ids<'a>(&'a self, task: &'a TaskId) -> Answer<'a, MappedIds>;
    /// A network namespace that belongs to the task's ids; the network makes the rest of it.
    fn make_netns<'a>(&'a self, task: &'a TaskId, path: &'a Path) -> Answer<'a, ()>;
    /// Starts the monitor and makes the task's cgroup. Not idempotent: `adopt` first.
    fn start_shim<'a>(&'a self, task: &'a TaskId, definition: &'a TaskDefinition) -> Answer<'a, ShimLink>;
    fn adopt<'a>(&'a self, task: &'a TaskId) -> Answer<'a, Found>;
    /// Tasks with a directory below /run/lighter/tasks.
    fn list_tasks(&self) -> Answer<'_, Vec<TaskId>>;
    /// Kills what runs, by cgroup, and removes everything of the task but its logs.
    fn remove_task<'a>(&'a self, task: &'a TaskId) -> Answer<'a, ()>;
    /// Freezes every process of the task, or lets them go on; answers when the kernel says so.
    fn set_frozen<'a>(&'a self, task: &'a TaskId, frozen: bool) -> Answer<'a, ()>;
    /// Gives containers that run the limits of `definition`, all or none; answers with the kernel's.
    fn set_limits<'a>(
        &'a self,
        task: &'a TaskId,
        definition: &'a TaskDefinition,
        containers: &'a [ContainerName],
    ) -> Answer<'a, Vec<(ContainerName, KernelLimits)>>;
    fn write_bundle<'a>(&'a self, order: &'a BundleOrder) -> Answer<'a, Bundle>;
    /// The bundle that this agent or an earlier one wrote.
    fn open_bundle<'a>(&'a self, task: &'a TaskId, container: &'a ContainerName) -> Answer<'a, Bundle>;
    /// The signal number that asks a container of this image to stop.
    fn stop_signal(&self, image: &ImageConfig) -> Result<i32, Cause>;
    /// What a container, or with `None` the whole task, has used; `None` when it has no cgroup.
    fn stats<'a>(
        &'a self,
        task: &'a TaskId,
        container: Option<&'a ContainerName>,
    ) -> Answer<'a, Option<ContainerStats>>;
    /// Answers when the log is open; lines that are there then come at once.
    fn read_logs(&self, query: LogQuery) -> Answer<'static, BoxStream<'static, Result<LogLine, Cause>>>;
    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>>;
}
