//! Writes that are whole or absent after a power cut.
//! In: directories and bytes. Out: a file under its name, or an error and no file.
//! Never: leaves a name pointing at content that is not on the disk.

use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes `bytes` as `dir/name` by way of `tmp_dir`, which is on the same file system.
pub(crate) fn write_file(
    tmp_dir: &Path,
    unique: &str,
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> io::Result<()> {
    let temporary = tmp_dir.join(format!("{unique}.file"));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(name))
    })();
    if written.is_err() {
        // Best effort: what stays in tmp is swept at the next open.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(dir)
}

/// Makes renames and removals in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(fd)?)
}

/// Brings everything written so far to the file system of `dir` onto the disk.
pub(crate) fn sync_file_system(dir: &Path) -> io::Result<()> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::syncfs(fd)?)
}
