//! The socket the agent speaks to: shim.sock, mode 0600; one connection is the agent's, each session
//! has one of its own. In: bytes. Out: whole requests; replies and events as far as the socket takes
//! them.
//! Never: waits for the agent; one that does not read is cut off at 1 MiB of unread answers.

use crate::sys::pass;
use lighter_shim_wire::{FrameBuffer, Request, ShimMessage, encode_frame};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

/// Several hundred of the longest answers; an agent this far behind is stuck.
const UNSENT_BYTES_MAX: usize = 1 << 20;

pub(super) struct AgentListener {
    socket: UnixListener,
}

impl AgentListener {
    /// Binds shim.sock in the working directory; a relative name keeps below the 108 bytes of
    /// sun_path whatever the directory is called (unix(7)).
    pub(super) fn open() -> io::Result<Self> {
        match fs::remove_file("shim.sock") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind("shim.sock")?;
        fs::set_permissions("shim.sock", fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The next connection of the same user; others are closed at once.
    pub(super) fn accept(&self) -> Option<AgentConnection> {
        let (stream, _) = self.socket.accept().ok()?;
        let uid = crate::sys::peer_uid(stream.as_raw_fd()).ok()?;
        if uid != crate::sys::own_uid() {
            return None;
        }
        stream.set_nonblocking(true).ok()?;
        Some(AgentConnection { stream, incoming: FrameBuffer::default(), unsent: Vec::new(), lost: false })
    }
}

impl AsRawFd for AgentListener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

pub(super) struct AgentConnection {
    stream: UnixStream,
    incoming: FrameBuffer,
    unsent: Vec<u8>,
    lost: bool,
}

impl AgentConnection {
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.lost && !self.unsent.is_empty()
    }

    /// Reads what has come and returns the requests that are complete.
    pub(super) fn receive(&mut self) -> Vec<(u32, Request)> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.lost = true;
                    break;
                }
                Ok(count) => self.incoming.push(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.lost = true;
                    break;
                }
            }
        }
        let mut requests = Vec::new();
        loop {
            match self.incoming.next_frame::<Request>() {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => return requests,
                Err(_) => {
                    self.lost = true;
                    return requests;
                }
            }
        }
    }

    pub(super) fn send(&mut self, id: u32, message: &ShimMessage) {
        self.unsent.extend_from_slice(&encode_frame(id, message));
        self.flush();
        if self.unsent.len() > UNSENT_BYTES_MAX {
            self.lost = true;
        }
    }

    /// Sends a frame with descriptors; nothing of a session has been sent that could be waiting.
    pub(super) fn send_with(&mut self, frame: &[u8], descriptors: &[OwnedFd]) {
        let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        if pass::send(self.stream.as_raw_fd(), frame, &numbers).is_err() {
            self.lost = true;
        }
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.lost {
            match self.stream.write(&self.unsent) {
                Ok(count) => {
                    self.unsent.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.lost = true,
            }
        }
        self.unsent = Vec::new();
    }
}

impl AsRawFd for AgentConnection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
