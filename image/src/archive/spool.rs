//! Where an archive waits while it comes in: a file without a name on the images' file system, because
//! its index may be the last thing in it.
//! In: bytes. Out: the file. Owns: the file; it is gone when dropped, also after a crash.
//! Never: takes the room that is kept for running tasks.

use crate::store::Inner;
use crate::store::space::Space;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Between two looks at the disk.
const MEASURE_EVERY_BYTES: u64 = 8 << 20;

/// An archive on its way in.
#[derive(Debug)]
pub struct Spool {
    pub(crate) file: File,
    dir: PathBuf,
    min_free_bytes: u64,
    unmeasured_bytes: u64,
}

impl Spool {
    pub(crate) fn make(inner: &Inner) -> io::Result<Self> {
        let dir = inner.layout.tmp();
        let path = dir.join(format!("{}.spool", inner.layout.unique()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::from(0o600))?);
        std::fs::remove_file(&path)?;
        let min_free_bytes = inner.config.min_free_bytes;
        Ok(Self { file, dir, min_free_bytes, unmeasured_bytes: MEASURE_EVERY_BYTES })
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unmeasured_bytes >= MEASURE_EVERY_BYTES {
            self.unmeasured_bytes = 0;
            if Space::of(&self.dir)?.available_bytes < self.min_free_bytes {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "the disk of the images has only what is kept free for running tasks",
                ));
            }
        }
        let written = self.file.write(bytes)?;
        self.unmeasured_bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
