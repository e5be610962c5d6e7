//! The event loop of a task: one thread, one poll(2) over signals, the agent, sessions, probes, the
//! helpers and the containers' output. In: requests of agents, one after the other or again after a disconnect.
//! Out: helpers started, output logged, exits recorded and told.
//!
//! ```text
//!   Start ─▶ Starting ──helper: Created, Started──▶ Running ──reaped──▶ Exited ──Remove──▶ (gone)
//!                │ helper: Failed, or its end without an answer: processes killed by cgroup
//!                └───────────────────────────────────────────────▶ (gone)
//! ```
//! Never: decides whether a container should run; ends one without being asked, but at the end of the
//! task's lease (`lease`), which it was asked to keep.

mod agent;
mod attach;
mod container;
mod guard;
mod helper;
mod join;
mod lease;
mod probe;
mod requests;
mod session;
mod watch;

use crate::lease::Lease;
use crate::ports::Ports;
use crate::{procfs, record, sys};
use agent::{AgentConnection, AgentListener};
use container::Container;
use guard::Guard;
use lighter_shim_wire::lease::ThawFile;
use lighter_shim_wire::{Event, ShimMessage, ShimRecord, ShimStatus};
use probe::Probe;
use session::Session;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use watch::Watched;

/// What a monitor is for.
pub(crate) struct Settings {
    pub(crate) task: String,
    /// The task's directory; also the working directory.
    pub(crate) directory: String,
    /// Path of lighter-oci.
    pub(crate) helper: String,
}

/// Agents connect one after the other, and sessions say at once what they are.
const STRANGERS_MAX: usize = 16;

/// Ended children nobody has claimed yet, while a container starts: its helper may answer after it has
/// ended. Ten containers, each with an intermediate process and a helper, thrice over.
const UNCLAIMED_MAX: usize = 64;

pub(crate) struct Monitor {
    settings: Settings,
    signals: OwnedFd,
    listener: AgentListener,
    agent: Option<AgentConnection>,
    /// The newest version the agent speaks.
    agent_version: u16,
    lease: Option<Lease>,
    /// Of CLOCK_BOOTTIME, so that a machine that slept past the lease's end ends it when it wakes; made
    /// with the lease.
    lease_timer: Option<OwnedFd>,
    thaw: Option<ThawFile>,
    guard: Option<Guard>,
    /// Connections whose first request has not come.
    strangers: Vec<AgentConnection>,
    sessions: Vec<Session>,
    probes: Vec<Probe>,
    /// Opened by the first process that joins a container.
    host: Option<join::Host>,
    containers: Vec<Container>,
    ports: Ports,
    unclaimed: VecDeque<(i32, sys::ChildEnd)>,
    start_time_ticks: u64,
    ending: bool,
}

impl Monitor {
    /// Writes the record and opens the socket; after this an agent can connect.
    pub(crate) fn open(settings: Settings) -> Result<Self, String> {
        let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
            .map_err(|error| format!("cannot receive signals: {error}"))?;
        let pid = std::process::id() as i32;
        let start_time_ticks = procfs::start_time_ticks(pid);
        let listener = AgentListener::open().map_err(|error| format!("cannot open shim.sock: {error}"))?;
        let this =
            ShimRecord { task: settings.task.clone(), pid, start_time_ticks, boot_id: procfs::boot_id() };
        record::write_atomically("shim.record".as_ref(), &this.to_text())
            .map_err(|error| format!("cannot write shim.record: {error}"))?;
        Ok(Self {
            settings,
            signals,
            listener,
            agent: None,
            agent_version: 0,
            lease: None,
            lease_timer: None,
            thaw: None,
            guard: None,
            strangers: Vec::new(),
            sessions: Vec::new(),
            probes: Vec::new(),
            host: None,
            containers: Vec::new(),
            ports: Ports::default(),
            unclaimed: VecDeque::new(),
            start_time_ticks,
            ending: false,
        })
    }

    /// Serves until `Shutdown`, or SIGTERM while nothing runs.
    pub(crate) fn run(&mut self) {
        while !self.ending || self.agent.as_ref().is_some_and(AgentConnection::has_unsent) {
            let (watched, mut polls) = watch::list(self);
            if sys::poll(&mut polls, self.milliseconds_to_deadline()).is_err() {
                // Only a wrong argument ends up here; containers go on without a monitor.
                break;
            }
            let ready: Vec<Watched> = watched
                .into_iter()
                .zip(&polls)
                .filter(|(_, poll)| poll.revents != 0)
                .map(|(what, _)| what)
                .collect();
            for what in ready {
                self.serve(&what);
            }
            self.end_late_probes();
            self.finish_exits();
            self.keep_lease();
        }
        self.guard = None;
        let _ = std::fs::remove_file("shim.sock");
        let _ = std::fs::remove_file("shim.record");
    }

    fn serve(&mut self, what: &Watched) {
        match what {
            Watched::Signals => self.serve_signals(),
            Watched::Listener => {
                if let Some(connection) = self.listener.accept() {
                    if self.strangers.len() == STRANGERS_MAX {
                        self.strangers.remove(0);
                    }
                    self.strangers.push(connection);
                }
            }
            Watched::Agent => self.serve_agent(),
            Watched::Helper(name) => self.serve_helper(name),
            Watched::Output(name, stream) => {
                if let Some(container) = self.containers.iter_mut().find(|c| c.is_named(name)) {
                    container.pump(*stream);
                }
            }
            Watched::Attacher(name, fd) => {
                if let Some(container) = self.containers.iter_mut().find(|c| c.is_named(name)) {
                    container.serve_attacher(*fd);
                }
            }
            Watched::Stranger(fd) => self.serve_stranger(*fd),
            Watched::Session(pid) => self.serve_session(*pid),
            Watched::SessionFailure(pid) => self.settle_session(*pid),
            Watched::Probe(pid) => self.serve_probe(*pid),
            // Every turn looks at the lease.
            Watched::LeaseTimer => {}
        }
    }

    fn serve_signals(&mut self) {
        while let Some(signal) = sys::next_signal(&self.signals) {
            // SIGTERM is for whoever stops services; containers are none of its business.
            if signal != libc::SIGCHLD && self.containers.iter().all(|c| !c.is_alive()) {
                self.ending = true;
            }
        }
        while let Some((pid, end)) = sys::reap() {
            if self.claim_probe(pid, end) || self.claim_session(pid, end) {
                continue;
            }
            self.keep_unclaimed(pid, end);
        }
        self.notice_dead_helpers();
    }

    /// With a host's pid namespace any number of strangers come here when their parent ends, so who is
    /// waited for never gives way to one who is not.
    fn keep_unclaimed(&mut self, pid: i32, end: sys::ChildEnd) {
        if !self.expects(pid) {
            if !self.containers.iter().any(Container::is_starting) {
                return;
            }
            let strangers: Vec<i32> =
                self.unclaimed.iter().map(|(pid, _)| *pid).filter(|pid| !self.expects(*pid)).collect();
            if strangers.len() >= UNCLAIMED_MAX {
                self.unclaimed.retain(|(pid, _)| *pid != strangers[0]);
            }
        }
        self.unclaimed.push_back((pid, end));
    }

    fn expects(&self, pid: i32) -> bool {
        self.containers.iter().any(|c| c.awaits(pid) || c.helper_pid() == Some(pid))
    }

    /// Gives ended children to the containers they belong to, records and tells each exit.
    fn finish_exits(&mut self) {
        for container in &mut self.containers {
            let Some(at) = self.unclaimed.iter().position(|(pid, _)| container.awaits(*pid)) else {
                continue;
            };
            let Some((_, end)) = self.unclaimed.remove(at) else { continue };
            let exited = container.finish(end);
            if let Some(agent) = self.agent.as_mut() {
                agent.send(0, &ShimMessage::Event(Event::Exited(exited)));
            }
            sys::trim_heap();
        }
        if !self.containers.iter().any(Container::is_starting) {
            // Nobody will claim these; kept, one could be taken for a later process of the same pid.
            self.unclaimed.clear();
        }
    }

    fn status(&self) -> ShimStatus {
        ShimStatus {
            task: self.settings.task.clone(),
            shim_pid: std::process::id() as i32,
            shim_start_time_ticks: self.start_time_ticks,
            containers: self.containers.iter().map(Container::state).collect(),
            ports: self.ports.list(),
        }
    }
}
