//! Tells when files of log directories change, by inotify(7). In: directories. Out: for each change,
//! or for several at once, in which directory it was. Owns one inotify descriptor: a user may have
//! 128 (fs.inotify.max_user_instances), so whoever watches many directories does so with one.
//! Never: says what changed; the reader looks at the files.

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init, remove_watch};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use tokio::net::unix::pipe::Receiver;

/// Watches directories.
pub struct LogWatch {
    /// An inotify descriptor, which is read like a pipe. tokio's type for any descriptor (AsyncFd)
    /// needs unsafe code.
    inotify: Receiver,
}

/// What changed since the last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// The numbers that `add` gave.
    pub directories: BTreeSet<i32>,
    /// The kernel has dropped notices: anything may have changed.
    pub overflow: bool,
}

/// The fixed part of an inotify_event: wd, mask, cookie, and the length of the name behind it.
const EVENT_BYTES: usize = 16;
const IN_Q_OVERFLOW: u32 = 0x4000;

impl LogWatch {
    pub fn new() -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify: Receiver::from_owned_fd_unchecked(inotify)? })
    }

    pub(super) fn of(directory: &Path) -> io::Result<Self> {
        let watch = Self::new()?;
        watch.add(directory)?;
        Ok(watch)
    }

    /// Watches one more; a directory that is watched already has the same number.
    pub fn add(&self, directory: &Path) -> io::Result<i32> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        Ok(add_watch(&self.inotify, directory, flags)?)
    }

    /// Watches it no more. One that is gone is gone.
    pub fn remove(&self, directory: i32) {
        let _ = remove_watch(&self.inotify, directory);
    }

    /// Returns after a change, at once when one came since the last call. Cancel safe: a change is
    /// told by this call or the next.
    pub async fn changed(&mut self) -> io::Result<Changed> {
        loop {
            self.inotify.readable().await?;
            let mut changed = Changed::default();
            let mut buffer = [0; 4096];
            loop {
                match self.inotify.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => note(&buffer[..count], &mut changed),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if changed != Changed::default() {
                return Ok(changed);
            }
        }
    }
}

/// Adds the directories of the events in `bytes`; a read gives whole events only.
fn note(mut bytes: &[u8], changed: &mut Changed) {
    while let Some((event, rest)) = bytes.split_first_chunk::<EVENT_BYTES>() {
        let word = |at: usize| [event[at], event[at + 1], event[at + 2], event[at + 3]];
        if u32::from_ne_bytes(word(4)) & IN_Q_OVERFLOW != 0 {
            changed.overflow = true;
        } else {
            changed.directories.insert(i32::from_ne_bytes(word(0)));
        }
        bytes = rest.get(u32::from_ne_bytes(word(12)) as usize..).unwrap_or_default();
    }
}
