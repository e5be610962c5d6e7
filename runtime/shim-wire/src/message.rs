//! What agent and shim say to each other. The agent asks, each `Request` gets one `Reply` with its
//! id; `Event`s come unasked. In: fields. Out: messages of a frame.
//! A shim answers `Hello` with everything it knows, so that a new agent needs nothing else.
//! Never: says how a container is made; that is in the bundle.

use crate::codec::{wire_enum, wire_struct};
use crate::exec::{
    ExecFailure, ExecRequest, ProbeRequest, ProbeResult, SessionEnd, SessionOpened, StartWith,
};
use crate::helper::FailureKind;
use crate::lease::{LeaseRequest, LeaseState};
use crate::limits::{CgroupPaths, Limits};
use std::net::IpAddr;

wire_struct!(
    /// The versions a peer speaks.
    #[derive(Copy)]
    HelloRange { min: u16, max: u16 }
);

wire_enum!(
    #[derive(Copy)]
    PortProtocol { 6 => Tcp, 17 => Udp }
);

wire_struct!(
    /// A host port that the shim binds and holds until it ends. Port 0 lets the kernel choose.
    PortBind { protocol: PortProtocol, ip: IpAddr, port: u16 }
);

wire_struct!(
    /// How a container's output is kept.
    #[derive(Copy)]
    LogPolicy {
        /// A file is closed before it would grow beyond this.
        file_bytes_max: u64,
        /// Files kept, the current one included; at least 1.
        files_max: u32,
    }
);

wire_struct!(
    /// Everything the shim needs to have the helper create and start a container.
    StartContainer {
        /// Name within the task; also libcontainer's id below `state_root`.
        name: String,
        /// Directory with config.json.
        bundle: String,
        /// libcontainer's directory of state directories.
        state_root: String,
        cgroup: CgroupPaths,
        /// What the kernel must show after create, or the start fails.
        expected: Limits,
        /// Compiled seccomp filter that the helper installs right before the program; `None` only
        /// for a privileged container.
        seccomp_filter: Option<String>,
        log_path: String,
        log: LogPolicy,
    }
);

wire_enum!(
    /// How the main process ended, see wait(2).
    #[derive(Copy)]
    WireExitStatus { 1 => Exited(i32), 2 => Signaled(i32) }
);

wire_struct!(
    /// What is known of a container that has ended.
    #[derive(Copy)]
    WireExit { status: WireExitStatus, oom_killed: bool, finished_at_unix_ms: u64 }
);

wire_enum!(
    #[derive(Copy)]
    ContainerPhase {
        /// The helper has not answered yet.
        1 => Starting,
        2 => Running,
        3 => Exited,
    }
);

wire_struct!(
    /// One container as the shim knows it.
    ContainerState {
        name: String,
        phase: ContainerPhase,
        /// 0 while it is not known.
        pid: i32,
        /// Field 22 of /proc/pid/stat, in clock ticks since boot; with the boot id it tells a
        /// process from a later one with the same pid.
        start_time_ticks: u64,
        started_at_unix_ms: u64,
        limits: Limits,
        exit: Option<WireExit>,
        /// Log records that could not be written, since the start.
        log_records_dropped: u64,
    }
);

wire_struct!(
    /// The whole of what a shim knows.
    ShimStatus {
        task: String,
        shim_pid: i32,
        shim_start_time_ticks: u64,
        containers: Vec<ContainerState>,
        ports: Vec<PortBind>,
    }
);

wire_struct!(SignalRequest { name: String, signal: i32 });

wire_enum!(
    /// Agent to shim.
    Request {
        /// First message of a connection.
        1 => Hello(HelloRange),
        2 => Status,
        /// All or none.
        3 => BindPorts(Vec<PortBind>),
        4 => Start(StartContainer),
        5 => Signal(SignalRequest),
        /// SIGKILL to every process of the container.
        6 => Kill(String),
        /// Forget an ended container and its exit record.
        7 => Remove(String),
        /// End the shim, if nothing runs.
        8 => Shutdown,
        // Version 2.
        /// Answered when it has ended.
        9 => Probe(ProbeRequest),
        /// First message of a connection, which is then a session and not the agent's.
        10 => Exec(ExecRequest),
        /// First message of a connection, which is then a session with the main process.
        11 => Attach(String),
        /// On a session: to its process.
        12 => SessionSignal(i32),
        13 => StartWith(StartWith),
        // Version 3.
        14 => Lease(LeaseRequest),
    }
);

wire_struct!(HelloReply { range: HelloRange, status: ShimStatus });
wire_struct!(
    /// Which bind failed and errno(3) of why.
    BindFailure { port: PortBind, errno: i32 }
);
wire_struct!(StartFailure { kind: FailureKind, message: String });

wire_enum!(
    /// Shim to agent, the answer to one request.
    Reply {
        1 => Hello(HelloReply),
        2 => Status(ShimStatus),
        /// The ports in the order asked for, port 0 replaced by the one the kernel chose.
        3 => Bound(Vec<PortBind>),
        4 => BindFailed(BindFailure),
        5 => Started(ContainerState),
        6 => StartFailed(StartFailure),
        7 => Done,
        /// No container of that name.
        8 => NotFound,
        /// Not possible now: a container still runs, or one of that name exists.
        9 => Busy,
        /// errno(3) of a system call.
        10 => Failed(i32),
        // Version 2.
        11 => Probed(ProbeResult),
        12 => CannotExec(ExecFailure),
        /// The container has ended, or has not begun.
        13 => NotRunning,
        14 => Session(SessionOpened),
        // Version 3.
        15 => Leased(LeaseState),
    }
);

wire_struct!(Exited { name: String, exit: WireExit });

wire_enum!(
    /// Shim to agent, unasked. The exit record is on disk before `Exited` is sent.
    Event {
        1 => Exited(Exited),
        /// Version 2, on a session only.
        2 => SessionEnded(SessionEnd),
        /// Version 3: the lease is over, and containers are being ended because of it.
        3 => LeaseOver,
    }
);

wire_enum!(
    /// All that a shim sends.
    ShimMessage { 1 => Reply(Reply), 2 => Event(Event) }
);
