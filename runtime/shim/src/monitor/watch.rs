//! Which descriptors the event loop polls, in the order in which they are served: exits first,
//! output last. In: the monitor. Out: pairs of what and pollfd. Never: reads from any of them.

use super::Monitor;
use crate::log::Stream;
use std::os::fd::{AsRawFd, RawFd};

/// What became ready.
pub(super) enum Watched {
    Signals,
    Listener,
    Agent,
    Helper(String),
    Output(String, Stream),
    /// An attacher, by the number of its connection.
    Attacher(String, RawFd),
    /// A connection that has not said what it is.
    Stranger(RawFd),
    /// By the pid of their programs, which are unreaped and so keep it.
    Session(i32),
    SessionFailure(i32),
    Probe(i32),
    LeaseTimer,
}

pub(super) fn list(monitor: &Monitor) -> (Vec<Watched>, Vec<libc::pollfd>) {
    let mut watched = Vec::new();
    let mut polls = Vec::new();
    let mut add = |what, fd, events| {
        watched.push(what);
        polls.push(libc::pollfd { fd, events, revents: 0 });
    };
    add(Watched::Signals, monitor.signals.as_raw_fd(), libc::POLLIN);
    if let Some(timer) = &monitor.lease_timer {
        add(Watched::LeaseTimer, timer.as_raw_fd(), libc::POLLIN);
    }
    add(Watched::Listener, monitor.listener.as_raw_fd(), libc::POLLIN);
    if let Some(agent) = &monitor.agent {
        let write = if agent.has_unsent() { libc::POLLOUT } else { 0 };
        add(Watched::Agent, agent.as_raw_fd(), libc::POLLIN | write);
    }
    for stranger in &monitor.strangers {
        add(Watched::Stranger(stranger.as_raw_fd()), stranger.as_raw_fd(), libc::POLLIN);
    }
    for session in &monitor.sessions {
        // A lost one would be ready for ever.
        if !session.connection.is_lost() {
            add(Watched::Session(session.pid()), session.connection.as_raw_fd(), libc::POLLIN);
        }
        if let Some(fd) = session.failure_fd() {
            add(Watched::SessionFailure(session.pid()), fd, libc::POLLIN);
        }
    }
    for probe in &monitor.probes {
        if let Some(fd) = probe.output_fd() {
            add(Watched::Probe(probe.pid()), fd, libc::POLLIN);
        }
    }
    for container in &monitor.containers {
        for fd in container.attacher_fds() {
            add(Watched::Attacher(container.name().to_owned(), fd), fd, libc::POLLIN);
        }
        if let Some(fd) = container.helper_fd() {
            add(Watched::Helper(container.name().to_owned()), fd, libc::POLLIN);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(fd) = container.output_fd(stream) {
                add(Watched::Output(container.name().to_owned(), stream), fd, libc::POLLIN);
            }
        }
    }
    (watched, polls)
}
