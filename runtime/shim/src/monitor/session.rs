//! Exec sessions: a connection of its own, a program that joins a container, its end.
//! In: the first request of a connection, signals, the end of a child. Out: descriptors, the end.
//!
//! ```text
//!   Exec ─▶ joining ──program runs──▶ Session + descriptors ──ends──▶ SessionEnded ─▶ (gone)
//!              └─ failure ─▶ CannotExec ─▶ (gone)
//!   connection lost at any time: SIGHUP to the program's group, its end is waited for in silence
//! ```
//! The shim holds none of the streams: with the agent's descriptors the terminal or the pipes go.
//! Never: carries bytes between agent and program.

use super::agent::AgentConnection;
use super::{Monitor, join};
use crate::sys::join::{FAILURE_BYTES, Joined, Streams, failure_of};
use crate::sys::{self, ChildEnd};
use lighter_shim_wire::exec::{ExecFailure, ExecRequest, SessionEnd, SessionOpened};
use lighter_shim_wire::{Event, Reply, Request, ShimMessage, encode_frame};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// A person or a script each; many more is a script that has gone wrong.
const SESSIONS_MAX: usize = 32;

pub(super) struct Session {
    pub(super) connection: AgentConnection,
    request_id: u32,
    pid: i32,
    /// Until it is known whether the program runs.
    failure: Option<File>,
    opened: SessionOpened,
    /// The agent's ends, until they are sent.
    descriptors: Vec<OwnedFd>,
}

impl Session {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable or closed when it is known whether the program runs.
    pub(super) fn failure_fd(&self) -> Option<RawFd> {
        self.failure.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Tells the agent once whether the program runs; returns why it does not.
    fn settle(&mut self) -> Option<ExecFailure> {
        let bytes = read_failure(self.failure.as_ref()?)?;
        self.failure = None;
        let failure = failure_of(&bytes);
        match failure {
            Some(failure) => self.reply(Reply::CannotExec(failure)),
            None => {
                let frame = encode_frame(self.request_id, &ShimMessage::Reply(Reply::Session(self.opened)));
                self.connection.send_with(&frame, &self.descriptors);
            }
        }
        self.descriptors = Vec::new();
        failure
    }

    fn reply(&mut self, reply: Reply) {
        self.connection.send(self.request_id, &ShimMessage::Reply(reply));
    }

    fn finish(mut self, end: ChildEnd) -> Option<ExecFailure> {
        let failure = self.settle();
        let end = match end {
            ChildEnd::Exited(code) => SessionEnd::Exited(code),
            ChildEnd::Signaled(signal) => SessionEnd::Signaled(signal),
        };
        self.connection.send(0, &ShimMessage::Event(Event::SessionEnded(end)));
        failure
    }

    fn hang_up(&self) {
        sys::signal_group(self.pid, libc::SIGHUP);
        sys::signal_group(self.pid, libc::SIGCONT);
    }
}

/// What the pipe of a joining child says; empty when the program runs, `None` when it is not known.
pub(super) fn read_failure(mut pipe: &File) -> Option<Vec<u8>> {
    let mut bytes = [0; FAILURE_BYTES];
    match pipe.read(&mut bytes) {
        Ok(count) => Some(bytes[..count].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(Vec::new()),
    }
}

/// The container's ends of a session's pipes, and the agent's.
struct Pipes {
    container: [OwnedFd; 3],
    agent: Vec<OwnedFd>,
}

fn pipes(stdin: bool) -> io::Result<Pipes> {
    let (stdout, stdout_container) = sys::pipe()?;
    let (stderr, stderr_container) = sys::pipe()?;
    let mut agent = Vec::new();
    let input = if stdin {
        let (read, write) = sys::blocking_pipe()?;
        agent.push(write);
        read
    } else {
        OwnedFd::from(File::open("/dev/null")?)
    };
    agent.extend([stdout, stderr]);
    Ok(Pipes { container: [input, stdout_container, stderr_container], agent })
}

impl Monitor {
    /// The first request of a connection that wants to be a session.
    pub(super) fn open_session(&mut self, mut connection: AgentConnection, id: u32, request: Request) {
        if connection.is_lost() {
            // Nobody would ever end it.
            return;
        }
        let refusal = match request {
            Request::Exec(exec) => match self.join(&connection, &exec) {
                Ok(joined) => {
                    let Entered { joined, opened, descriptors } = joined;
                    let failure = Some(File::from(joined.failure));
                    let session =
                        Session { connection, request_id: id, pid: joined.pid, failure, opened, descriptors };
                    self.sessions.push(session);
                    return;
                }
                Err(refusal) => *refusal,
            },
            Request::Attach(name) => match self.containers.iter_mut().find(|c| c.is_named(&name)) {
                None => Reply::NotFound,
                Some(container) if !container.is_running() => Reply::NotRunning,
                Some(container) => match container.attach(connection, id) {
                    Ok(()) => return,
                    Err((back, error)) => {
                        connection = back;
                        Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO))
                    }
                },
            },
            // Of this kind of connection nothing else is known.
            _ => Reply::Failed(libc::EPROTO),
        };
        connection.send(id, &ShimMessage::Reply(refusal));
    }

    fn join(&mut self, connection: &AgentConnection, request: &ExecRequest) -> Result<Entered, Box<Reply>> {
        let busy = self.sessions.len() >= SESSIONS_MAX;
        let Some((host, container)) = self.joinable(&request.name) else {
            return Err(Box::new(Reply::NotFound));
        };
        if !container.is_running() {
            return Err(Box::new(Reply::NotRunning));
        }
        if busy {
            return Err(Box::new(Reply::Busy));
        }
        let failed = |error: io::Error| Box::new(Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO)));
        let host = host.map_err(failed)?;
        let opened = SessionOpened { terminal: request.terminal.is_some(), stdin: request.stdin };
        let refused = |failure| Box::new(Reply::CannotExec(failure));
        if let Some(window) = request.terminal {
            let message = encode_frame(0, &ShimMessage::Reply(Reply::Done));
            let streams = Streams::Terminal { session: connection.as_raw_fd(), message, window };
            let joined = join::start(host, container, &request.process, streams, false).map_err(refused)?;
            return Ok(Entered { joined, opened, descriptors: Vec::new() });
        }
        let Pipes { container: ends, agent: descriptors } = pipes(request.stdin).map_err(failed)?;
        let streams = Streams::Descriptors(ends.each_ref().map(AsRawFd::as_raw_fd));
        let joined = join::start(host, container, &request.process, streams, false).map_err(refused)?;
        Ok(Entered { joined, opened, descriptors })
    }

    /// A session's connection is readable or closed.
    pub(super) fn serve_session(&mut self, pid: i32) {
        let Some(session) = self.sessions.iter_mut().find(|session| session.pid == pid) else { return };
        session.connection.flush();
        for (id, request) in session.connection.receive() {
            let reply = match request {
                Request::SessionSignal(signal) => match sys::signal_child(pid, signal) {
                    Ok(()) => Reply::Done,
                    Err(error) => Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
                },
                _ => Reply::Failed(libc::EPROTO),
            };
            session.connection.send(id, &ShimMessage::Reply(reply));
        }
        if session.connection.is_lost() {
            session.hang_up();
        }
    }

    pub(super) fn settle_session(&mut self, pid: i32) {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.pid == pid) {
            let failure = session.settle();
            if session.connection.is_lost() {
                // Before, it may not have led a group of its own yet.
                session.hang_up();
            }
            failure.iter().for_each(|failure| self.distrust(failure));
        }
    }

    /// Whether the ended child was a session's program.
    pub(super) fn claim_session(&mut self, pid: i32, end: ChildEnd) -> bool {
        let Some(at) = self.sessions.iter().position(|session| session.pid == pid) else { return false };
        let failure = self.sessions.swap_remove(at).finish(end);
        failure.iter().for_each(|failure| self.distrust(failure));
        if self.sessions.is_empty() {
            self.sessions = Vec::new();
            sys::trim_heap();
        }
        true
    }
}

/// A child that is joining, and what its session will be.
struct Entered {
    joined: Joined,
    opened: SessionOpened,
    descriptors: Vec<OwnedFd>,
}
