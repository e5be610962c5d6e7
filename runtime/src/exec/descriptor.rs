//! A pipe end or a terminal's master as tokio reads and writes it. In: a descriptor. Out: bytes.
//! tokio's type for any descriptor (AsyncFd) is unsafe or deprecated; those for pipes read and write
//! whatever can be polled. Owns the descriptor. Never: blocks.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

pub(super) fn writer(fd: OwnedFd) -> io::Result<Sender> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Sender::from_owned_fd_unchecked(fd)
}

/// What a session's program writes.
pub(super) struct Output(Receiver);

pub(super) fn reader(fd: OwnedFd) -> io::Result<Output> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Output(Receiver::from_owned_fd_unchecked(fd)?))
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(context, buffer) {
            // A terminal without a process is at its end (pty(7)).
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EIO) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}
