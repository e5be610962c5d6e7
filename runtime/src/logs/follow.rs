//! Tells when a log directory changes, by inotify(7). In: a directory. Out: a wake-up for each
//! change or for several at once. Owns one inotify descriptor. Never: says what changed; the
//! reader looks at the files.

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use std::io;
use std::path::Path;
use tokio::net::unix::pipe::Receiver;

pub(super) struct Watch {
    /// An inotify descriptor, which is read like a pipe. tokio's type for any descriptor (AsyncFd)
    /// needs unsafe code.
    inotify: Receiver,
}

impl Watch {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&inotify, directory, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        Ok(Self { inotify: Receiver::from_owned_fd_unchecked(inotify)? })
    }

    /// Returns after a change, at once when one came since the last call.
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            self.inotify.readable().await?;
            let mut buffer = [0; 4096];
            let mut any = false;
            loop {
                match self.inotify.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => any = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if any {
                return Ok(());
            }
        }
    }
}
