//! Attachers of one container: each gets what the container writes from now on, through pipes of its
//! own, and with an open input or a terminal a descriptor to write to.
//! In: bytes as the container wrote them. Out: copies; the container's end.
//! Never: waits for an attacher: one whose pipe is full is told so and dropped; the log goes on.

use super::agent::AgentConnection;
use crate::log::Stream;
use crate::sys;
use lighter_shim_wire::exec::{SessionEnd, SessionOpened};
use lighter_shim_wire::{Event, Reply, Request, ShimMessage, encode_frame};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Four rounds of the event loop at full speed; whoever is further behind does not read. What a pipe
/// may have without being asked for more (fs.pipe-max-size).
const PIPE_BYTES: i32 = 1 << 20;

pub(super) struct Attacher {
    connection: AgentConnection,
    stdout: File,
    stderr: Option<File>,
}

/// What an attacher may have besides output.
pub(super) struct Input {
    /// The terminal's master, or the write end of the standard input.
    pub(super) descriptor: Option<OwnedFd>,
    pub(super) opened: SessionOpened,
}

fn output_pipe() -> io::Result<(OwnedFd, File)> {
    let (read, write) = sys::pipe()?;
    sys::set_nonblocking(write.as_raw_fd())?;
    sys::enlarge_pipe(&write, PIPE_BYTES);
    Ok((read, File::from(write)))
}

impl Attacher {
    /// Opens the session; the connection comes back when that is not possible.
    pub(super) fn open(
        mut connection: AgentConnection,
        id: u32,
        input: Input,
    ) -> Result<Self, (AgentConnection, io::Error)> {
        let pipes = output_pipe().and_then(|out| {
            let err = if input.opened.terminal { None } else { Some(output_pipe()?) };
            Ok((out, err))
        });
        let ((read, stdout), err) = match pipes {
            Ok(pipes) => pipes,
            Err(error) => return Err((connection, error)),
        };
        let (read_err, stderr) = err.unzip();
        let descriptors: Vec<OwnedFd> = input.descriptor.into_iter().chain([read]).chain(read_err).collect();
        let frame = encode_frame(id, &ShimMessage::Reply(Reply::Session(input.opened)));
        connection.send_with(&frame, &descriptors);
        Ok(Self { connection, stdout, stderr })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.connection.as_raw_fd()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.connection.is_lost()
    }

    /// Whether it is still there.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => self.stderr.as_mut().unwrap_or(&mut self.stdout),
        };
        match pipe.write_all(bytes) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.tell(SessionEnd::TooSlow);
                false
            }
            // Its reader is gone.
            Err(_) => false,
        }
    }

    pub(super) fn tell(&mut self, end: SessionEnd) {
        self.connection.send(0, &ShimMessage::Event(Event::SessionEnded(end)));
    }

    /// Answers with what `signal` does to the main process.
    pub(super) fn serve(&mut self, signal: &dyn Fn(i32) -> Result<(), i32>) {
        self.connection.flush();
        for (id, request) in self.connection.receive() {
            let reply = match request {
                Request::SessionSignal(number) => match signal(number) {
                    Ok(()) => Reply::Done,
                    Err(errno) => Reply::Failed(errno),
                },
                _ => Reply::Failed(libc::EPROTO),
            };
            self.connection.send(id, &ShimMessage::Reply(reply));
        }
    }
}
