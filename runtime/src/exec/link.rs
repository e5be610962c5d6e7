//! The connection of one session: opens it, takes the descriptors that come with the answers, then
//! serves the session's control until the program's end. In: the first request. Out: a session.
//! Owns one tokio task for each session; when all controls are dropped it closes the connection,
//! which hangs the program up. Never: the agent's own connection, which answers one thing after another.

use super::descriptor::{reader, writer};
use super::session::{ExecSession, SessionCommand, SessionControl, SessionDriver, SessionError};
use super::{ExecError, WindowSize};
use crate::connection;
use crate::handle::{RequestError, check_length, unexpected_beside};
use lighter_model::exit::ExitStatus;
use lighter_shim_wire::exec::{ExecFailure, SessionEnd, SessionOpened};
use lighter_shim_wire::{Event, FrameBuffer, Reply, Request, ShimMessage, encode_frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// A shim answers at once; the program's start waits for the disk at most.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Input, output, error.
const DESCRIPTORS_MAX: usize = 3;

/// Why a session was not opened.
pub(super) enum Refusal {
    Program(ExecFailure),
    Error(ExecError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Error(ExecError::Connect(error))
    }
}

struct Link {
    stream: UnixStream,
    incoming: FrameBuffer,
    descriptors: VecDeque<OwnedFd>,
}

impl Link {
    /// The next message; `None` at the end. May be dropped at its await.
    async fn next(&mut self) -> io::Result<Option<(u32, ShimMessage)>> {
        loop {
            if let Some(message) = self.incoming.next_frame().map_err(io::Error::other)? {
                return Ok(Some(message));
            }
            self.stream.readable().await?;
            let mut chunk = [0; 4096];
            let descriptors = &mut self.descriptors;
            let received =
                self.stream.try_io(Interest::READABLE, || receive(&self.stream, &mut chunk, descriptors));
            match received {
                Ok(0) => return Ok(None),
                Ok(count) => self.incoming.push(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    Ok(received.bytes)
}

/// Asks for a session on a connection of its own. `shares_output`: output comes through pipes though
/// there is a terminal, as with attach.
pub(super) async fn open(
    task_dir: &Path,
    container: &str,
    request: &Request,
    shares_output: bool,
) -> Result<ExecSession, Refusal> {
    check_length(request).map_err(|error| Refusal::Error(error.into()))?;
    let stream = connection::connect_socket(task_dir).await?;
    let mut link = Link { stream, incoming: FrameBuffer::default(), descriptors: VecDeque::new() };
    link.stream.write_all(&encode_frame(1, request)).await?;
    let opened = match tokio::time::timeout(OPEN_TIMEOUT, answer(&mut link)).await {
        Ok(reply) => match reply? {
            Reply::Session(opened) => opened,
            Reply::CannotExec(failure) => return Err(Refusal::Program(failure)),
            other => {
                return Err(Refusal::Error(unexpected_beside(other, container).into()));
            }
        },
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    };
    Ok(session(link, opened, shares_output)?)
}

async fn answer(link: &mut Link) -> Result<Reply, Refusal> {
    loop {
        match link.next().await? {
            // It only brings the terminal's descriptor.
            Some((0, ShimMessage::Reply(Reply::Done))) => {}
            Some((_, ShimMessage::Reply(reply))) => return Ok(reply),
            Some((_, ShimMessage::Event(_))) => {}
            None => return Err(Refusal::Error(RequestError::Disconnected.into())),
        }
    }
}

fn session(mut link: Link, opened: SessionOpened, shares_output: bool) -> io::Result<ExecSession> {
    let missing = || io::Error::other("the shim sent too few descriptors");
    let mut descriptors = std::mem::take(&mut link.descriptors);
    let mut next = || descriptors.pop_front().ok_or_else(missing);
    let (control, driver) = SessionControl::new(opened.terminal);
    let master = if opened.terminal { Some(next()?) } else { None };
    let input = match &master {
        Some(master) if opened.stdin || !shares_output => Some(master.try_clone()?),
        None if opened.stdin => Some(next()?),
        _ => None,
    };
    let output = match &master {
        Some(master) if !shares_output => master.try_clone()?,
        _ => next()?,
    };
    let errors = if opened.terminal { None } else { Some(next()?) };
    let stdin = match input {
        Some(fd) => Some(Box::new(writer(fd)?) as _),
        None => None,
    };
    let stderr = match errors {
        Some(fd) => Some(Box::new(reader(fd)?) as _),
        None => None,
    };
    let session = ExecSession { stdin, stdout: Box::new(reader(output)?), stderr, control };
    tokio::spawn(serve(link, driver, master));
    Ok(session)
}

/// Until the program ends, the connection does, or nobody holds the control.
async fn serve(mut link: Link, mut driver: SessionDriver, master: Option<OwnedFd>) {
    let end = loop {
        tokio::select! {
            command = driver.next_command() => match command {
                Some(SessionCommand::Resize(size)) => resize(master.as_ref(), size),
                Some(SessionCommand::Signal(signal)) => {
                    let frame = encode_frame(2, &Request::SessionSignal(signal));
                    if link.stream.write_all(&frame).await.is_err() {
                        break Err(SessionError::Disconnected);
                    }
                }
                None => return,
            },
            message = link.next() => match message {
                Ok(Some((_, ShimMessage::Event(Event::SessionEnded(end))))) => break status(end),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break Err(SessionError::Disconnected),
            },
        }
    };
    driver.finish(end);
}

/// The kernel tells the terminal's foreground processes.
fn resize(master: Option<&OwnedFd>, size: WindowSize) {
    let Some(master) = master else { return };
    let window = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal that is gone has no size; its end comes by itself.
    let _ = tcsetwinsize(master, window);
}

fn status(end: SessionEnd) -> Result<ExitStatus, SessionError> {
    match end {
        SessionEnd::Exited(code) => Ok(ExitStatus::Exited(code)),
        SessionEnd::Signaled(signal) => Ok(ExitStatus::Signaled(signal)),
        SessionEnd::TooSlow => Err(SessionError::TooSlow),
    }
}
