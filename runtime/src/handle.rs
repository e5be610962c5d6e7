//! What the agent does with a task's shim: bind ports, start containers, signal, kill, follow.
//! In: typed requests. Out: typed answers; events. A handle is cheap to clone and holds the
//! connection; dropping every handle changes nothing for the containers.
//! Never: retries. A lost connection is `RequestError::Disconnected`; then `Runtime::adopt` says
//! whether the shim is still there.

use crate::bundle::Bundle;
use crate::cgroup::limits::to_kernel_limits;
use crate::cgroup::{CgroupError, CgroupRoot};
use crate::connection::{Ask, Connection};
use crate::exec::profile::Profile;
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::report::KernelLimits;
use lighter_model::task_definition::TransportProtocol;
use lighter_shim_wire::message::{BindFailure, SignalRequest, StartFailure};
use lighter_shim_wire::{
    ContainerPhase, ContainerState, FRAME_BYTES_MAX, FailureKind, PortBind, PortProtocol, Reply, Request,
    ShimStatus, VERSION_SESSIONS, WireExit, WireExitStatus, encode_frame,
};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};

/// A host port that the task shall own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPortBind {
    pub protocol: TransportProtocol,
    pub ip: IpAddr,
    /// 0: the kernel chooses; `bind_ports` returns which.
    pub port: u16,
}

/// What a shim says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShimEvent {
    /// A container has ended; the record of it is on disk.
    Exited { container: ContainerName, exit: ContainerExit },
    /// The task's lease is over: its containers are being ended, agent or no agent.
    LeaseOver,
    /// The connection is lost; the shim may still be there.
    Disconnected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Exited,
}

/// One container as its shim knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    pub name: ContainerName,
    pub phase: Phase,
    /// `None` while the helper has not answered.
    pub pid: Option<i32>,
    /// Field 22 of /proc/pid/stat, in clock ticks since boot.
    pub start_time_ticks: u64,
    pub started_at_unix_ms: u64,
    pub limits: KernelLimits,
    pub exit: Option<ContainerExit>,
    /// Log records that could not be written, since the start.
    pub log_records_dropped: u64,
}

/// All that a shim knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskStatus {
    pub shim_pid: i32,
    pub containers: Vec<ContainerStatus>,
    pub ports: Vec<HostPortBind>,
}

/// A container whose program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub pid: i32,
    pub start_time_ticks: u64,
    pub started_at_unix_ms: u64,
    /// As read from the kernel between create and start.
    pub limits: KernelLimits,
}

/// Why a request has no answer, or not the one it should.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("the connection to the task's shim is lost")]
    Disconnected,
    #[error("the task's shim does not answer (does it wait for a disk?)")]
    NoAnswer,
    #[error("the shim knows no container {0}")]
    NotFound(String),
    #[error("too many probes or sessions run in this task at once")]
    TooMany,
    #[error("not possible while a container runs, or one of that name exists")]
    Busy,
    #[error("container {0} does not run")]
    NotRunning(String),
    #[error("this task's shim is of an older release; exec works after the task is restarted")]
    OldShim,
    #[error("this task's shim is of an older release, which keeps no lease")]
    NoLeases,
    #[error("what container {container} was started with cannot be read")]
    Profile { container: String, source: io::Error },
    /// Sent all the same, it would cost the connection and with it all other requests.
    #[error(
        "the request, with the container's environment in it, has {bytes} bytes; at most {FRAME_BYTES_MAX} can be sent"
    )]
    TooLong { bytes: usize },
    #[error("the shim could not do it")]
    System(#[source] io::Error),
    #[error("the shim gave an answer that does not fit the request")]
    Unexpected,
    #[error("the container's cgroup cannot be removed")]
    Cgroup(#[source] CgroupError),
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
}

/// A host port that could not be bound; none of the list is.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("host port {port}/{} on {ip} cannot be bound", .protocol.as_str())]
    Port { ip: IpAddr, port: u16, protocol: TransportProtocol, errno: i32, source: io::Error },
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a container does not run. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{message}")]
    CannotStart { message: String },
    #[error("{message}")]
    CannotCreate { message: String },
    #[error("{message}")]
    Limits { message: String },
    #[error("{message}")]
    HelperDied { message: String },
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl StartError {
    /// The name ECS gives to such a failure; shown before the message.
    pub fn ecs_name(&self) -> &'static str {
        match self {
            Self::CannotStart { .. } => "CannotStartContainerError",
            Self::CannotCreate { .. } | Self::HelperDied { .. } => "CannotCreateContainerError",
            Self::Limits { .. } => "ResourceInitializationError",
            Self::Request(_) => "ContainerRuntimeError",
        }
    }
}

/// As `unexpected`, of what runs beside a container.
pub(crate) fn unexpected_beside(reply: Reply, container: &str) -> RequestError {
    match reply {
        Reply::Busy => RequestError::TooMany,
        other => unexpected(other, container),
    }
}

/// A loaded machine is slow; a shim that takes longer does something else than to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Version 1 has no words for either, and would start the container without.
const OLD_SHIM_TERMINAL: &str = "this task's shim is of an older release; pseudoTerminal and interactive work after the task is restarted";

/// A connection to the shim of one task.
#[derive(Clone)]
pub struct ShimHandle {
    task: TaskId,
    task_dir: PathBuf,
    pub(crate) cgroup: CgroupRoot,
    requests: mpsc::Sender<Ask>,
    events: broadcast::Sender<ShimEvent>,
    pub(crate) version: u16,
    /// What running containers were started with; read once for each start, for probes come often.
    profiles: Arc<Mutex<HashMap<ContainerName, Arc<Profile>>>>,
    /// Taken by the first caller of `events`, so that nothing since the connection is missed.
    first_events: Arc<Mutex<Option<broadcast::Receiver<ShimEvent>>>>,
}

impl ShimHandle {
    pub(crate) fn new(task: TaskId, task_dir: PathBuf, cgroup: CgroupRoot, connection: Connection) -> Self {
        Self {
            task,
            task_dir,
            cgroup,
            requests: connection.requests,
            events: connection.events,
            version: connection.version,
            profiles: Arc::default(),
            first_events: Arc::new(Mutex::new(Some(connection.first_events))),
        }
    }

    pub fn task(&self) -> &TaskId {
        &self.task
    }

    /// Events since the connection for the first caller, since now for later ones. A receiver that
    /// lags (64 events) learns the rest from `status`.
    pub fn events(&self) -> broadcast::Receiver<ShimEvent> {
        let mut first = self.first_events.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().unwrap_or_else(|| self.events.subscribe())
    }

    pub(crate) fn task_dir(&self) -> &Path {
        &self.task_dir
    }

    /// Probes, exec, attach, terminals and open standard inputs need a shim of version 2.
    pub(crate) fn speaks_sessions(&self) -> Result<(), RequestError> {
        if self.version < VERSION_SESSIONS { Err(RequestError::OldShim) } else { Ok(()) }
    }

    /// What the container was started with. Blocks for well under a millisecond, once.
    pub(crate) fn profile(&self, container: &ContainerName) -> Result<Arc<Profile>, RequestError> {
        let mut profiles = self.profiles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(profile) = profiles.get(container) {
            return Ok(Arc::clone(profile));
        }
        let bundle = self.task_dir.join("bundles").join(container.as_str());
        let profile = match Profile::read(&bundle) {
            Ok(profile) => Arc::new(profile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RequestError::NotFound(container.to_string()));
            }
            Err(source) => return Err(RequestError::Profile { container: container.to_string(), source }),
        };
        profiles.insert(container.clone(), Arc::clone(&profile));
        Ok(profile)
    }

    fn forget_profile(&self, container: &ContainerName) {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Reply, RequestError> {
        check_length(&request)?;
        let (answer, reply) = oneshot::channel();
        self.requests.send(Ask { request, answer }).await.map_err(|_| RequestError::Disconnected)?;
        reply.await.map_err(|_| RequestError::Disconnected)
    }

    /// As `ask`, for what a shim answers at once. One that waits for a disk, or stands still, does not:
    /// whoever stops a task must get on without it.
    pub(crate) async fn ask_soon(&self, request: Request) -> Result<Reply, RequestError> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.ask(request)).await.unwrap_or(Err(RequestError::NoAnswer))
    }

    /// Binds every port of the list or none, and holds them until the shim ends. A port that this
    /// task already holds is no error. Returns the list with the ports the kernel chose.
    pub async fn bind_ports(&self, ports: &[HostPortBind]) -> Result<Vec<HostPortBind>, BindError> {
        match self.ask_soon(Request::BindPorts(ports.iter().map(to_wire_port).collect())).await? {
            Reply::Bound(bound) => Ok(bound.iter().map(from_wire_port).collect()),
            Reply::BindFailed(BindFailure { port, errno }) => {
                let HostPortBind { protocol, ip, port } = from_wire_port(&port);
                Err(BindError::Port {
                    ip,
                    port,
                    protocol,
                    errno,
                    source: io::Error::from_raw_os_error(errno),
                })
            }
            other => Err(unexpected(other, "").into()),
        }
    }

    /// Creates the container, checks the limits the kernel has against those of the bundle, and
    /// starts its program; returns when the program has been executed.
    pub async fn start_container(&self, bundle: &Bundle) -> Result<Started, StartError> {
        self.forget_profile(&bundle.container);
        let with = bundle.start_request();
        let request = match (with.terminal || with.interactive, self.speaks_sessions()) {
            (true, Err(_)) => return Err(StartError::CannotCreate { message: OLD_SHIM_TERMINAL.to_owned() }),
            (true, Ok(())) => Request::StartWith(with),
            (false, _) => Request::Start(with.start),
        };
        match self.ask(request).await? {
            Reply::Started(state) => Ok(Started {
                pid: state.pid,
                start_time_ticks: state.start_time_ticks,
                started_at_unix_ms: state.started_at_unix_ms,
                limits: to_kernel_limits(&state.limits),
            }),
            Reply::StartFailed(StartFailure { kind, message }) => Err(match kind {
                FailureKind::CannotStart => StartError::CannotStart { message },
                FailureKind::CannotCreate => StartError::CannotCreate { message },
                FailureKind::Limits => StartError::Limits { message },
                FailureKind::HelperDied => StartError::HelperDied { message },
            }),
            other => Err(unexpected(other, bundle.container.as_str()).into()),
        }
    }

    /// Sends a signal to the main process, by pidfd. One that has ended is an error (ESRCH).
    pub async fn signal(&self, container: &ContainerName, signal: i32) -> Result<(), RequestError> {
        let request = SignalRequest { name: container.to_string(), signal };
        done(self.ask_soon(Request::Signal(request)).await?, container.as_str())
    }

    /// SIGKILL to every process of the container. Success when it has ended already.
    pub async fn kill(&self, container: &ContainerName) -> Result<(), RequestError> {
        done(self.ask_soon(Request::Kill(container.to_string())).await?, container.as_str())
    }

    pub async fn status(&self) -> Result<TaskStatus, RequestError> {
        match self.ask_soon(Request::Status).await? {
            Reply::Status(status) => Ok(status_of(&status)),
            other => Err(unexpected(other, "")),
        }
    }

    /// Forgets an ended container: its cgroup, libcontainer's state, its exit record. Its bundle stays,
    /// for another start, until the task is removed.
    /// Missing parts are no error; a running container is (`Busy`).
    pub async fn remove_container(&self, container: &ContainerName) -> Result<(), RequestError> {
        match done(self.ask_soon(Request::Remove(container.to_string())).await?, container.as_str()) {
            Ok(()) | Err(RequestError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.forget_profile(container);
        let this = self.clone();
        let container = container.clone();
        let removed = tokio::task::spawn_blocking(move || this.remove_files(&container)).await;
        removed.unwrap_or(Err(RequestError::Unexpected))
    }

    fn remove_files(&self, container: &ContainerName) -> Result<(), RequestError> {
        self.cgroup.remove_container(&self.task, container).map_err(RequestError::Cgroup)?;
        let path = self.task_dir.join("oci").join(container.as_str());
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RequestError::Remove { path, source })
            }
            _ => Ok(()),
        }
    }

    /// Ends the shim and gives the ports back; `Busy` while a container runs.
    pub async fn shutdown(&self) -> Result<(), RequestError> {
        done(self.ask_soon(Request::Shutdown).await?, "")
    }
}

/// Only what carries an environment can be too long for a frame.
pub(crate) fn check_length(request: &Request) -> Result<(), RequestError> {
    let bytes = match request {
        Request::Probe(_) | Request::Exec(_) => encode_frame(0, request).len(),
        _ => 0,
    };
    if bytes > FRAME_BYTES_MAX { Err(RequestError::TooLong { bytes }) } else { Ok(()) }
}

fn done(reply: Reply, container: &str) -> Result<(), RequestError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other, container)),
    }
}

pub(crate) fn unexpected(reply: Reply, container: &str) -> RequestError {
    match reply {
        Reply::NotRunning => RequestError::NotRunning(container.to_owned()),
        Reply::NotFound => RequestError::NotFound(container.to_owned()),
        Reply::Busy => RequestError::Busy,
        Reply::Failed(errno) => RequestError::System(io::Error::from_raw_os_error(errno)),
        _ => RequestError::Unexpected,
    }
}

pub(crate) fn exit_of(exit: WireExit) -> ContainerExit {
    let status = match exit.status {
        WireExitStatus::Exited(code) => ExitStatus::Exited(code),
        WireExitStatus::Signaled(signal) => ExitStatus::Signaled(signal),
    };
    ContainerExit { status, oom_killed: exit.oom_killed, finished_at_unix_ms: exit.finished_at_unix_ms }
}

pub(crate) fn status_of(status: &ShimStatus) -> TaskStatus {
    TaskStatus {
        shim_pid: status.shim_pid,
        containers: status.containers.iter().filter_map(container_of).collect(),
        ports: status.ports.iter().map(from_wire_port).collect(),
    }
}

/// `None` for a name that is none; the agent only ever sends valid ones.
fn container_of(state: &ContainerState) -> Option<ContainerStatus> {
    Some(ContainerStatus {
        name: state.name.parse().ok()?,
        phase: match state.phase {
            ContainerPhase::Starting => Phase::Starting,
            ContainerPhase::Running => Phase::Running,
            ContainerPhase::Exited => Phase::Exited,
        },
        pid: (state.pid != 0).then_some(state.pid),
        start_time_ticks: state.start_time_ticks,
        started_at_unix_ms: state.started_at_unix_ms,
        limits: to_kernel_limits(&state.limits),
        exit: state.exit.map(exit_of),
        log_records_dropped: state.log_records_dropped,
    })
}

fn to_wire_port(port: &HostPortBind) -> PortBind {
    let protocol = match port.protocol {
        TransportProtocol::Tcp => PortProtocol::Tcp,
        TransportProtocol::Udp => PortProtocol::Udp,
    };
    PortBind { protocol, ip: port.ip, port: port.port }
}

fn from_wire_port(port: &PortBind) -> HostPortBind {
    let protocol = match port.protocol {
        PortProtocol::Tcp => TransportProtocol::Tcp,
        PortProtocol::Udp => TransportProtocol::Udp,
    };
    HostPortBind { protocol, ip: port.ip, port: port.port }
}
