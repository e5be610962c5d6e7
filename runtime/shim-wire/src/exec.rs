//! Messages of version 2: probes, sessions (exec and attach), containers with a terminal or an open
//! standard input. The agent resolves everything (user, environment, capabilities, paths to try);
//! the shim only applies it. In: fields. Out: messages of a frame.
//! Never: carries the streams of a session; those are descriptors (SCM_RIGHTS, unix(7)).

use crate::codec::{wire_enum, wire_struct};
use crate::message::StartContainer;

wire_struct!(
    /// The size of a terminal, in characters.
    #[derive(Copy)]
    WireWindow { rows: u16, columns: u16 }
);

wire_struct!(
    /// Bit n is capability n of capabilities(7).
    #[derive(Copy, Default)]
    Capabilities { bounding: u64, effective: u64, permitted: u64, inheritable: u64, ambient: u64 }
);

wire_struct!(
    /// As prlimit(2) takes it.
    #[derive(Copy)]
    ResourceLimit { resource: u32, soft: u64, hard: u64 }
);

wire_struct!(
    /// A process beside the main one of a container. Namespaces, cgroup and seccomp filter are the
    /// container's own, which the shim knows.
    ExecProcess {
        /// Paths inside the container, tried in order.
        programs: Vec<String>,
        arguments: Vec<String>,
        /// `KEY=value`.
        environment: Vec<String>,
        working_directory: String,
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
        capabilities: Capabilities,
        no_new_privileges: bool,
        apparmor_profile: Option<String>,
        oom_score_adj: Option<i32>,
        umask: Option<u32>,
        limits: Vec<ResourceLimit>,
    }
);

wire_struct!(
    /// Run it, keep the first 4 KiB of its output, kill it and what it started after the timeout.
    ProbeRequest { name: String, process: ExecProcess, timeout_ms: u32 }
);

wire_struct!(
    /// Run it with streams of its own; the connection this comes on is then the session.
    ExecRequest {
        name: String,
        process: ExecProcess,
        /// `Some`: a terminal of the container's own devpts.
        terminal: Option<WireWindow>,
        /// Whether there is anything to read; else /dev/null. With a terminal there always is.
        stdin: bool,
    }
);

wire_struct!(
    /// A start that version 1 cannot say.
    StartWith {
        start: StartContainer,
        /// The main process has a terminal; what it writes there is logged as standard output.
        terminal: bool,
        /// Its standard input stays open, for attachers.
        interactive: bool,
    }
);

wire_enum!(
    /// Where between fork and the program it went wrong.
    #[derive(Copy)]
    ExecStep {
        1 => Fork,
        2 => JoinCgroup,
        3 => SetLimits,
        4 => JoinNamespaces,
        5 => OpenTerminal,
        6 => ChangeDirectory,
        7 => SetUser,
        8 => SetCapabilities,
        9 => Confine,
        10 => Execute,
    }
);

wire_struct!(
    /// The program does not run; errno(3) of why.
    #[derive(Copy)]
    ExecFailure { step: ExecStep, errno: i32 }
);

wire_enum!(
    #[derive(Copy)]
    ProbeEnd { 1 => Exited(i32), 2 => Signaled(i32), 3 => TimedOut, 4 => CannotStart(ExecFailure) }
);

wire_struct!(ProbeResult { end: ProbeEnd, output: Vec<u8> });

wire_struct!(
    /// A session is open. The descriptors came before: with a terminal its master alone; else
    /// standard input where there is one, output, error.
    #[derive(Copy)]
    SessionOpened { terminal: bool, stdin: bool }
);

wire_enum!(
    /// The last message of a session.
    #[derive(Copy)]
    SessionEnd {
        1 => Exited(i32),
        2 => Signaled(i32),
        /// An attacher that did not read.
        3 => TooSlow,
    }
);
