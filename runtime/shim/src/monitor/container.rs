//! One container as its monitor sees it: the helper that makes it, its pid and pidfd, its output,
//! its exit. In: descriptors' readiness, reports, the end of a child. Out: log records, the exit
//! record. Owns the read ends of the output pipes and the log.
//! Never: reports an exit before the record of it is on disk.

use super::agent::AgentConnection;
use super::attach::{Attacher, Input};
use super::helper::Helper;
use super::join::Ground;
use crate::log::{LineSplitter, LogWriter, Stream};
use crate::sys::ChildEnd;
use crate::{cgroup, procfs, record, sys};
use lighter_shim_wire::exec::{SessionEnd, SessionOpened};
use lighter_shim_wire::helper::HelperCreated;
use lighter_shim_wire::message::Exited;
use lighter_shim_wire::{
    CgroupPaths, CgroupVersion, ContainerPhase, ContainerState, Limits, StartContainer, WireExit,
    WireExitStatus,
};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// People who look at one container at a time.
const ATTACHERS_MAX: usize = 16;

/// 128 and SIGKILL: the exit code of who stands for a killed program.
const KILLED_CODE: i32 = 128 + libc::SIGKILL;

/// As much as a pipe may be made to hold without privilege (pipe(7), pipe-max-size).
const PIPE_BYTES_MAX: usize = 1 << 20;

/// Where exit records are kept, below the task's directory.
const EXITS: &str = "exits";

struct Output {
    pipe: Option<File>,
    splitter: LineSplitter,
}

/// The shim's ends of a container's streams.
pub(super) struct Streams {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    /// Read end, kept until the helper has it, and write end.
    pub(super) stdin: Option<(OwnedFd, OwnedFd)>,
    pub(super) interactive: bool,
}

pub(super) struct Container {
    request: StartContainer,
    /// Id of the agent's request, answered when the helper has.
    pub(super) request_id: u32,
    helper: Option<Helper>,
    phase: ContainerPhase,
    pid: i32,
    pidfd: Option<OwnedFd>,
    /// Of what joined it, for what joins it next.
    pub(super) ground: Option<Ground>,
    start_time_ticks: u64,
    started_at_unix_ms: u64,
    limits: Limits,
    oom_kills_at_start: u64,
    stdout: Output,
    stderr: Output,
    /// Attachers get copies; this one keeps the input open when none is there.
    stdin: Option<OwnedFd>,
    stdin_container: Option<OwnedFd>,
    /// A copy of the terminal's master, for attachers; `stdout` reads the other.
    terminal: Option<OwnedFd>,
    interactive: bool,
    attachers: Vec<Attacher>,
    log: LogWriter,
    exit: Option<WireExit>,
}

impl Container {
    pub(super) fn new(request: StartContainer, request_id: u32, helper: Helper, streams: Streams) -> Self {
        let (stdin_container, stdin) = streams.stdin.unzip();
        let log = LogWriter::new(PathBuf::from(&request.log_path), request.log);
        let output =
            |pipe: OwnedFd| Output { pipe: Some(File::from(pipe)), splitter: LineSplitter::default() };
        Self {
            request,
            request_id,
            helper: Some(helper),
            phase: ContainerPhase::Starting,
            pid: 0,
            pidfd: None,
            ground: None,
            start_time_ticks: 0,
            started_at_unix_ms: 0,
            limits: Limits::default(),
            oom_kills_at_start: 0,
            stdout: output(streams.stdout),
            stderr: output(streams.stderr),
            stdin,
            stdin_container,
            terminal: None,
            interactive: streams.interactive,
            attachers: Vec::new(),
            log,
            exit: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.request.name
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.request.name == name
    }

    pub(super) fn is_alive(&self) -> bool {
        self.phase != ContainerPhase::Exited
    }

    pub(super) fn is_starting(&self) -> bool {
        self.phase == ContainerPhase::Starting
    }

    pub(super) fn is_running(&self) -> bool {
        self.phase == ContainerPhase::Running
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn pidfd(&self) -> Option<&OwnedFd> {
        self.pidfd.as_ref()
    }

    pub(super) fn seccomp_filter(&self) -> Option<&str> {
        self.request.seccomp_filter.as_deref()
    }

    pub(super) fn cgroup(&self) -> &CgroupPaths {
        &self.request.cgroup
    }

    pub(super) fn cgroup_version(&self) -> CgroupVersion {
        self.request.cgroup.version
    }

    /// Whether this pid is its main process, and its end can be recorded now.
    pub(super) fn awaits(&self, pid: i32) -> bool {
        self.phase == ContainerPhase::Running && self.pid == pid
    }

    pub(super) fn helper_fd(&self) -> Option<RawFd> {
        self.helper.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(super) fn helper_pid(&self) -> Option<i32> {
        self.helper.as_ref().map(|helper| helper.pid)
    }

    pub(super) fn helper_mut(&mut self) -> Option<&mut Helper> {
        self.helper.as_mut()
    }

    pub(super) fn output_fd(&self, stream: Stream) -> Option<RawFd> {
        let output = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        output.pipe.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The container exists and waits to be started.
    pub(super) fn created(&mut self, report: HelperCreated) {
        self.pid = report.pid;
        self.pidfd = sys::pidfd_open(report.pid).ok();
        self.start_time_ticks = procfs::start_time_ticks(report.pid);
        self.limits = report.limits;
        self.oom_kills_at_start = cgroup::oom_kills(&self.request.cgroup);
        // The container has it; only so does closing all other ends mean the end to a reader.
        self.stdin_container = None;
    }

    /// The main process writes to its terminal from now on.
    pub(super) fn take_terminal(&mut self) {
        let Some(master) = self.helper.as_mut().and_then(|helper| helper.terminal.take()) else { return };
        let _ = sys::set_nonblocking(master.as_raw_fd());
        self.terminal = master.try_clone().ok();
        // What the helper itself has written before the program is in the old pipe.
        self.pump(Stream::Stdout);
        self.stdout.pipe = Some(File::from(master));
    }

    pub(super) fn attacher_fds(&self) -> impl Iterator<Item = RawFd> {
        self.attachers.iter().map(Attacher::fd)
    }

    /// Gives the connection back when it cannot be one of an attacher.
    pub(super) fn attach(
        &mut self,
        connection: AgentConnection,
        id: u32,
    ) -> Result<(), (AgentConnection, io::Error)> {
        if self.attachers.len() == ATTACHERS_MAX {
            return Err((connection, io::Error::from_raw_os_error(libc::EMFILE)));
        }
        let opened = SessionOpened { terminal: self.terminal.is_some(), stdin: self.interactive };
        let descriptor = match self.terminal.as_ref().or(self.stdin.as_ref()).map(OwnedFd::try_clone) {
            Some(Err(error)) => return Err((connection, error)),
            Some(Ok(descriptor)) => Some(descriptor),
            None => None,
        };
        let attacher = Attacher::open(connection, id, Input { descriptor, opened })?;
        self.attachers.push(attacher);
        Ok(())
    }

    pub(super) fn serve_attacher(&mut self, fd: RawFd) {
        let Some(at) = self.attachers.iter().position(|attacher| attacher.fd() == fd) else { return };
        let mut attacher = self.attachers.swap_remove(at);
        attacher.serve(&|signal| self.signal(signal));
        if !attacher.is_lost() {
            self.attachers.push(attacher);
        }
    }

    /// Its program runs.
    pub(super) fn started(&mut self) {
        self.phase = ContainerPhase::Running;
        self.started_at_unix_ms = procfs::now_unix_ms();
        self.helper = None;
    }

    /// Reads what is there and logs it; closes the stream at its end.
    pub(super) fn pump(&mut self, stream: Stream) {
        // On the stack, so that an idle shim keeps nothing.
        let mut chunk = [0; 16 * 1024];
        // Bounded, so that one noisy container does not keep exits and requests waiting.
        for _ in 0..16 {
            if !self.pump_once(stream, &mut chunk) {
                return;
            }
        }
    }

    /// Whether there may be more.
    fn pump_once(&mut self, stream: Stream, chunk: &mut [u8]) -> bool {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = output.pipe.as_mut() else { return false };
        match pipe.read(chunk) {
            Ok(count @ 1..) => {
                self.log.output(stream, &mut output.splitter, &chunk[..count]);
                self.attachers.retain_mut(|attacher| attacher.write(stream, &chunk[..count]));
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            // A terminal that no process has open any more is an error (EIO), not an end.
            Ok(_) | Err(_) => {
                output.pipe = None;
                self.log.end_of_stream(stream, &mut output.splitter);
                false
            }
        }
    }

    /// The main process has ended: the rest of its output, the OOM count, the record on disk.
    pub(super) fn finish(&mut self, end: ChildEnd) -> Exited {
        // What it left in a pid namespace that it shares with other containers; nothing else is left.
        let _ = cgroup::kill_all(&self.request.cgroup);
        let mut chunk = [0; 16 * 1024];
        for stream in [Stream::Stdout, Stream::Stderr] {
            // What the pipe held; whoever else has it open and goes on writing is not waited for.
            for _ in 0..PIPE_BYTES_MAX.div_ceil(chunk.len()) {
                if !self.pump_once(stream, &mut chunk) {
                    break;
                }
            }
        }
        self.close_output();
        let status = match end {
            ChildEnd::Exited(code) => WireExitStatus::Exited(code),
            ChildEnd::Signaled(signal) => WireExitStatus::Signaled(signal),
        };
        // An init of ours, or a shell, ends with this code when its program was killed.
        let killed = matches!(end, ChildEnd::Signaled(libc::SIGKILL) | ChildEnd::Exited(KILLED_CODE));
        let oom_killed = killed && cgroup::oom_kills(&self.request.cgroup) > self.oom_kills_at_start;
        let exit = WireExit { status, oom_killed, finished_at_unix_ms: procfs::now_unix_ms() };
        let _ = std::fs::create_dir(EXITS);
        // When the disk of /run is full the exit still lives in this process and its status.
        let _ = record::write_atomically(&self.record_path(), &exit.to_text());
        self.end_attachers(end);
        self.exit = Some(exit);
        self.phase = ContainerPhase::Exited;
        (self.pidfd, self.ground) = (None, None);
        Exited { name: self.request.name.clone(), exit }
    }

    fn end_attachers(&mut self, end: ChildEnd) {
        let end = match end {
            ChildEnd::Exited(code) => SessionEnd::Exited(code),
            ChildEnd::Signaled(signal) => SessionEnd::Signaled(signal),
        };
        for mut attacher in std::mem::take(&mut self.attachers) {
            attacher.tell(end);
        }
        (self.stdin, self.terminal) = (None, None);
    }

    fn close_output(&mut self) {
        for (stream, output) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if output.pipe.take().is_some() {
                self.log.end_of_stream(stream, &mut output.splitter);
            }
        }
    }

    /// A start that failed: what the failed program said is logged, what it left is killed.
    pub(super) fn abandon(&mut self) {
        self.kill();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.pump(stream);
        }
        self.close_output();
    }

    pub(super) fn signal(&self, signal: i32) -> Result<(), i32> {
        match &self.pidfd {
            Some(pidfd) => sys::pidfd_send_signal(pidfd, signal)
                .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
            None => Err(libc::ESRCH),
        }
    }

    /// Ends a start that hangs: its helper is killed, and what the helper has made with it.
    pub(super) fn kill_helper(&self) {
        if let Some(helper) = &self.helper {
            sys::kill_group(helper.pid);
        }
    }

    /// SIGKILL to the main process and everything in the cgroup. Already gone is success.
    pub(super) fn kill(&self) {
        let _ = self.signal(libc::SIGKILL);
        let _ = cgroup::kill_all(&self.request.cgroup);
    }

    pub(super) fn remove_record(&self) {
        let _ = std::fs::remove_file(self.record_path());
    }

    fn record_path(&self) -> PathBuf {
        PathBuf::from(EXITS).join(&self.request.name)
    }

    pub(super) fn state(&self) -> ContainerState {
        ContainerState {
            name: self.request.name.clone(),
            phase: self.phase,
            pid: self.pid,
            start_time_ticks: self.start_time_ticks,
            started_at_unix_ms: self.started_at_unix_ms,
            limits: self.limits,
            exit: self.exit,
            log_records_dropped: self.log.dropped,
        }
    }
}
