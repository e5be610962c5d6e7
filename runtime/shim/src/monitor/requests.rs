//! What each request of the agent does, and what the reports of a helper lead to.
//! In: requests, reports. Out: replies. A second Start of a name that exists is refused: the
//! answer is in the status. Never: waits.

use super::Monitor;
use super::container::{Container, Streams};
use super::helper::Helper;
use super::probe::Probe;
use crate::sys;
use lighter_shim_wire::exec::StartWith;
use lighter_shim_wire::helper::HelperFailed;
use lighter_shim_wire::message::{HelloReply, StartFailure};
use lighter_shim_wire::{
    FailureKind, HelloRange, HelperReport, HelperRequest, Reply, Request, ShimMessage, VERSION_MAX,
    VERSION_MIN,
};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

impl Monitor {
    pub(super) fn serve_agent(&mut self) {
        let Some(agent) = self.agent.as_mut() else { return };
        agent.flush();
        let requests = agent.receive();
        self.answer_all(requests);
        if self.agent.as_ref().is_some_and(|agent| agent.is_lost()) {
            self.agent = None;
        }
    }

    fn answer_all(&mut self, requests: Vec<(u32, Request)>) {
        for (id, request) in requests {
            if let Some(reply) = self.answer(id, request) {
                self.reply(id, reply);
            }
        }
    }

    /// A connection says what it is: a session, or else the agent.
    pub(super) fn serve_stranger(&mut self, fd: RawFd) {
        let Some(at) = self.strangers.iter().position(|stranger| stranger.as_raw_fd() == fd) else { return };
        let requests = self.strangers[at].receive();
        match requests.first() {
            None if self.strangers[at].is_lost() => drop(self.strangers.swap_remove(at)),
            None => {}
            Some((_, Request::Exec(_) | Request::Attach(_))) => {
                let connection = self.strangers.swap_remove(at);
                // What comes before the answer is nothing that a session could be told.
                if let Some((id, request)) = requests.into_iter().next() {
                    self.open_session(connection, id, request);
                }
            }
            Some(_) => {
                // The newest agent is the agent: an older connection is one that has died.
                self.agent = Some(self.strangers.swap_remove(at));
                self.agent_version = 0;
                self.probes.iter_mut().for_each(Probe::forget_request);
                // Answers to the older one's requests would be taken for answers to this one's.
                self.containers.iter_mut().for_each(|container| container.request_id = 0);
                self.answer_all(requests);
            }
        }
    }

    pub(super) fn reply(&mut self, id: u32, reply: Reply) {
        if let Some(agent) = self.agent.as_mut() {
            agent.send(id, &ShimMessage::Reply(reply));
        }
    }

    /// `None`: the answer comes later.
    fn answer(&mut self, id: u32, request: Request) -> Option<Reply> {
        Some(match request {
            Request::Hello(theirs) => {
                self.agent_version = theirs.max;
                let range = HelloRange { min: VERSION_MIN, max: VERSION_MAX };
                Reply::Hello(HelloReply { range, status: self.status() })
            }
            Request::Status => Reply::Status(self.status()),
            Request::BindPorts(list) => match self.ports.bind(&list) {
                Ok(bound) => Reply::Bound(bound),
                Err(failure) => Reply::BindFailed(failure),
            },
            Request::Start(start) => {
                return self.start(id, StartWith { start, terminal: false, interactive: false });
            }
            Request::StartWith(start) => return self.start(id, start),
            Request::Probe(probe) => return self.probe(id, &probe),
            // Of a connection of their own.
            Request::Exec(_) | Request::Attach(_) | Request::SessionSignal(_) => Reply::Failed(libc::EPROTO),
            Request::Lease(request) => self.lease(request),
            Request::Signal(signal) if self.lease_has_sent(&signal) => Reply::Done,
            Request::Signal(signal) => match self.named(&signal.name) {
                Some(container) => match container.signal(signal.signal) {
                    Ok(()) => Reply::Done,
                    Err(errno) => Reply::Failed(errno),
                },
                None => Reply::NotFound,
            },
            Request::Kill(name) => match self.named(&name) {
                Some(container) => {
                    container.kill_helper();
                    container.kill();
                    Reply::Done
                }
                None => Reply::NotFound,
            },
            Request::Remove(name) => self.remove(&name),
            Request::Shutdown if self.containers.iter().any(Container::is_alive) => Reply::Busy,
            Request::Shutdown => {
                self.ending = true;
                Reply::Done
            }
        })
    }

    pub(super) fn named(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.is_named(name))
    }

    fn remove(&mut self, name: &str) -> Reply {
        match self.containers.iter().position(|container| container.is_named(name)) {
            None => Reply::NotFound,
            Some(at) if self.containers[at].is_alive() => Reply::Busy,
            Some(at) => {
                self.containers.remove(at).remove_record();
                Reply::Done
            }
        }
    }

    fn start(&mut self, id: u32, start: StartWith) -> Option<Reply> {
        if self.named(&start.start.name).is_some() {
            return Some(Reply::Busy);
        }
        if let Some(refusal) = self.lease_refuses() {
            return Some(Reply::StartFailed(refusal));
        }
        let guarded = self.guard_lease(Some(&start.start.cgroup));
        match guarded.and_then(|()| self.spawn_helper(id, start)) {
            Ok(container) => {
                self.containers.push(container);
                None
            }
            Err(error) => Some(Reply::StartFailed(StartFailure {
                kind: FailureKind::HelperDied,
                message: format!("cannot start {}, or the guard of the lease: {error}", self.settings.helper),
            })),
        }
    }

    fn spawn_helper(&self, id: u32, with: StartWith) -> io::Result<Container> {
        let StartWith { start, terminal, interactive } = with;
        let (stdout, stdout_container) = sys::pipe()?;
        let (stderr, stderr_container) = sys::pipe()?;
        // The master of a terminal is its input too.
        let stdin = if interactive && !terminal { Some(sys::blocking_pipe()?) } else { None };
        let input = stdin.as_ref().map(|(read, _)| read);
        let request = HelperRequest {
            container_id: start.name.clone(),
            bundle: start.bundle.clone(),
            state_root: start.state_root.clone(),
            cgroup: start.cgroup.clone(),
            expected: start.expected,
            seccomp_filter: start.seccomp_filter.clone(),
        };
        let output = (stdout_container, stderr_container);
        let helper = Helper::spawn(&self.settings.helper, &request, output, input, terminal)?;
        let streams = Streams { stdout, stderr, stdin, interactive };
        Ok(Container::new(start, id, helper, streams))
    }

    pub(super) fn serve_helper(&mut self, name: &str) {
        let Some(at) = self.containers.iter().position(|container| container.is_named(name)) else { return };
        let reports = self.containers[at].helper_mut().map(Helper::receive).unwrap_or_default();
        for report in reports {
            let container = &mut self.containers[at];
            match report {
                HelperReport::Created(created) => container.created(created),
                HelperReport::Terminal => container.take_terminal(),
                HelperReport::Started => {
                    container.started();
                    let (id, state) = (container.request_id, container.state());
                    self.reply(id, Reply::Started(state));
                }
                HelperReport::Failed(HelperFailed { kind, message }) => {
                    self.give_up(at, kind, message);
                    return;
                }
            }
        }
    }

    /// A helper that ended without `Started` or `Failed` may have left a container that only the
    /// cgroup knows.
    pub(super) fn notice_dead_helpers(&mut self) {
        let ended: Vec<(i32, sys::ChildEnd)> = self.unclaimed.iter().copied().collect();
        for (pid, end) in ended {
            let Some(at) = self.containers.iter().position(|c| c.helper_pid() == Some(pid)) else { continue };
            let name = self.containers[at].name().to_owned();
            // Its last words may still be in the socket.
            self.serve_helper(&name);
            let still = self.containers.get(at).is_some_and(|c| c.is_named(&name) && c.is_starting());
            if still {
                // First what has not reached the container's cgroup yet, so that nothing can be
                // forked into it any more; `give_up` then kills by cgroup.
                sys::kill_group(pid);
                let how = match end {
                    sys::ChildEnd::Exited(code) => format!("with code {code}"),
                    sys::ChildEnd::Signaled(signal) => format!("by signal {signal}"),
                };
                self.give_up(
                    at,
                    FailureKind::HelperDied,
                    format!("the runtime helper ended {how} before it had answered"),
                );
            }
        }
    }

    fn give_up(&mut self, at: usize, kind: FailureKind, message: String) {
        let mut container = self.containers.remove(at);
        container.abandon();
        let id = container.request_id;
        self.reply(id, Reply::StartFailed(StartFailure { kind, message }));
    }
}
