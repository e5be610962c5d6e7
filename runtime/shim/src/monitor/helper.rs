//! A running lighter-oci: how it is started and what it reports.
//! In: a request. Out: reports. Its standard input is the control socket, its output and error are
//! the container's, which the container inherits; a socket of its own number would need unsafe
//! code between fork and exec.
//! Never: waits for the end of the socket: a container that is created and not started keeps it open.

use crate::sys::{self, pass};
use lighter_shim_wire::helper::READ_ONLY_VARIABLE;
use lighter_shim_wire::{FrameBuffer, HelperReport, HelperRequest, encode_frame};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

pub(super) struct Helper {
    pub(super) pid: i32,
    socket: UnixStream,
    incoming: FrameBuffer,
    /// The master that came with `HelperReport::Terminal`.
    pub(super) terminal: Option<OwnedFd>,
    /// The helper's program where a container cannot write to it. A script is read from there by its
    /// interpreter, after the start.
    _program: Option<OwnedFd>,
}

impl Helper {
    pub(super) fn spawn(
        program: &str,
        request: &HelperRequest,
        (stdout, stderr): (OwnedFd, OwnedFd),
        input: Option<&OwnedFd>,
        terminal: bool,
    ) -> io::Result<Self> {
        let (mut ours, theirs) = UnixStream::pair()?;
        // The container's first process is a fork of the helper, so its /proc/self/exe is this file,
        // and the helper does not stay to keep it busy. What fails here the helper does or refuses.
        let sealed = sys::open_read_only(program).ok();
        let mut command = match &sealed {
            Some(sealed) => Command::new(path_of(sealed)),
            None => Command::new(program),
        };
        command.arg0(program);
        if terminal {
            command.arg("--terminal");
        }
        if let Some(input) = input {
            // Opened by the helper before it answers; until then the caller keeps it.
            command.arg("--stdin").arg(path_of(input));
        }
        let child = command
            .env_clear()
            .env(READ_ONLY_VARIABLE, "1")
            // What it forks before the container's own session is found by this group.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .spawn()?;
        // The request is smaller than any socket buffer: this write does not wait. It fails when
        // the helper has ended already; its end then is the answer.
        let _ = ours.write_all(&encode_frame(0, request));
        ours.set_nonblocking(true)?;
        Ok(Self {
            pid: child.id() as i32,
            socket: ours,
            incoming: FrameBuffer::default(),
            terminal: None,
            _program: sealed,
        })
    }

    /// The reports that have come, and nothing when the helper sends rubbish: then its end decides.
    pub(super) fn receive(&mut self) -> Vec<HelperReport> {
        let mut chunk = [0; 4096];
        let mut reports = Vec::new();
        while let Ok((count @ 1.., passed)) = pass::receive(self.socket.as_raw_fd(), &mut chunk) {
            self.incoming.push(&chunk[..count]);
            self.terminal = passed.or(self.terminal.take());
        }
        while let Ok(Some((_, report))) = self.incoming.next_frame() {
            reports.push(report);
        }
        reports
    }
}

/// What a child finds this process's descriptor by.
fn path_of(descriptor: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd())
}

impl AsRawFd for Helper {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
