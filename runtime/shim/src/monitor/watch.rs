//! Which descriptors the event loop polls, in the order in which they are served: exits first,
//! output last. In: the monitor. Out: pairs of what and pollfd. Never: reads from any of them.

use super::Monitor;
use crate::log::Stream;
use std::os::fd::AsRawFd;

/// What became ready.
pub(super) enum Watched {
    Signals,
    Listener,
    Agent,
    Helper(String),
    Output(String, Stream),
}

pub(super) fn list(monitor: &Monitor) -> (Vec<Watched>, Vec<libc::pollfd>) {
    let mut watched = Vec::new();
    let mut polls = Vec::new();
    let mut add = |what, fd, events| {
        watched.push(what);
        polls.push(libc::pollfd { fd, events, revents: 0 });
    };
    add(Watched::Signals, monitor.signals.as_raw_fd(), libc::POLLIN);
    add(Watched::Listener, monitor.listener.as_raw_fd(), libc::POLLIN);
    if let Some(agent) = &monitor.agent {
        let write = if agent.has_unsent() { libc::POLLOUT } else { 0 };
        add(Watched::Agent, agent.as_raw_fd(), libc::POLLIN | write);
    }
    for container in &monitor.containers {
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
