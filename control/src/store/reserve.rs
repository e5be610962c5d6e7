//! Bytes of the disk that are ours already: a file of zeros beside the store, given back to the disk
//! when nothing else is left on it, and taken again when there is room.
//! In: a path, a size, how much free space counts as little. Out: the room of the disk. Owns: the file.
//! Why both: the free space is everybody's, and others may write between the look and the commit; the
//! file alone would be found out only by a commit that fails. Never: written to after it was made.

use super::Size;
use super::room::{Level, Room, level};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at the disk while nothing is committed.
const LOOK: Duration = Duration::from_millis(250);
const ADVICE: &str = "free space on the disk of the control plane's data directory, or move it to a \
                      larger one; new work is accepted again by itself";

/// How much of the disk is kept back for what runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedbSettings {
    /// Size of the file of zeros; 0: none.
    pub reserve_bytes: u64,
    /// New work is refused while less is free on the disk; 0: never for that.
    pub free_low_bytes: u64,
}

/// The reserve of one store.
#[derive(Debug)]
pub(super) struct Reserve {
    store: PathBuf,
    path: PathBuf,
    settings: RedbSettings,
    room: Room,
    /// Held while the file is made or given back.
    making: Mutex<()>,
}

impl Reserve {
    /// Of the store at that path, looked after until the last owner drops it.
    pub(super) fn new(store: &Path, settings: RedbSettings) -> Arc<Self> {
        let mut path = store.as_os_str().to_owned();
        path.push(".reserve");
        let room = Room::new(ADVICE);
        let (store, path) = (store.to_owned(), path.into());
        let reserve = Arc::new(Self { store, path, settings, room, making: Mutex::new(()) });
        reserve.look();
        if settings != RedbSettings::default() {
            let watched = Arc::downgrade(&reserve);
            std::thread::spawn(move || {
                while let Some(reserve) = watched.upgrade() {
                    reserve.look();
                    drop(reserve);
                    std::thread::park_timeout(LOOK);
                }
            });
        }
        reserve
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// Measures, and makes the file when it is missing and there is room for it.
    pub(super) fn look(&self) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let RedbSettings { reserve_bytes, free_low_bytes } = self.settings;
        let room = self.free() >= reserve_bytes.saturating_add(free_low_bytes);
        if !self.is_held()
            && room
            && let Err(error) = self.make()
        {
            tracing::warn!(%error, path = %self.path.display(), "the store's reserve could not be made");
        }
        self.glance();
    }

    /// Measures only: after a commit.
    pub(super) fn glance(&self) {
        self.measure(if self.is_held() { self.free() } else { 0 });
    }

    /// The last commit found no room.
    pub(super) fn exhausted(&self) {
        self.room.set(Level::Exhausted);
    }

    fn measure(&self, free: u64) {
        // Allocated, not its length: the file has holes.
        let used_bytes = std::fs::metadata(&self.store).map_or(0, |file| file.blocks() * 512);
        self.room.set_size(Size { used_bytes, limit_bytes: used_bytes + free });
        if self.settings != RedbSettings::default() {
            self.room.set(level(self.room.level(), free, self.settings.free_low_bytes.max(1)));
        }
    }

    /// A disk that cannot be asked is taken for one with room: its commits will tell.
    fn free(&self) -> u64 {
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        statvfs(dir).map_or(u64::MAX / 2, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn is_held(&self) -> bool {
        let held =
            || std::fs::metadata(&self.path).is_ok_and(|file| file.len() >= self.settings.reserve_bytes);
        self.settings.reserve_bytes == 0 || held()
    }

    fn make(&self) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        let bytes = self.settings.reserve_bytes;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&mut file, bytes),
            other => other.map_err(io::Error::from),
        };
        made.and_then(|()| file.sync_all()).inspect_err(|_| {
            // Half a reserve is none; it is made anew at the next look.
            let _ = std::fs::remove_file(&self.path);
        })
    }

    /// Gives the file's room to the store; whether there was any.
    pub(super) fn release(&self) -> bool {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.settings.reserve_bytes > 0 && std::fs::remove_file(&self.path).is_ok();
        if held {
            tracing::warn!(
                bytes = self.settings.reserve_bytes,
                "the disk is full: the store lives on its reserve"
            );
            self.room.set(Level::Reserve);
        }
        held
    }
}

fn write_zeros(file: &mut std::fs::File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), file)?;
    file.flush()
}
