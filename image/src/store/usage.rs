//! How much disk the store takes, for `lighter system df`.
//! In: the index and the snapshots. Out: `DiskUsage`.
//! Never: changes anything.

use super::Inner;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Counts and bytes. Layers are counted once, however many images share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    pub images: usize,
    pub layers: usize,
    /// Sum of the file sizes of all layers.
    pub layer_bytes: u64,
    pub blobs: usize,
    pub blob_bytes: u64,
    pub snapshots: usize,
    /// What containers have written, in allocated bytes.
    pub snapshot_bytes: u64,
    /// Bytes that `prune` would free if no image were named as in use.
    pub reclaimable_bytes: u64,
}

pub(super) fn usage(inner: &Inner) -> io::Result<DiskUsage> {
    let snapshots = crate::rootfs::list(inner).map_err(io::Error::other)?;
    let mut usage = DiskUsage { snapshots: snapshots.len(), ..DiskUsage::default() };
    for snapshot in &snapshots {
        usage.snapshot_bytes += allocated(&inner.layout.snapshot(&snapshot.key).join("upper"))?;
    }
    for entry in std::fs::read_dir(inner.layout.blobs())? {
        usage.blobs += 1;
        usage.blob_bytes += entry?.metadata()?.len();
    }
    let needed: std::collections::HashSet<_> = snapshots.into_iter().flat_map(|s| s.layers).collect();
    let index = inner.index();
    usage.images = index.images().len();
    for layer in index.layers() {
        usage.layers += 1;
        usage.layer_bytes += layer.record.unpacked_bytes;
        if !needed.contains(&layer.record.key) {
            usage.reclaimable_bytes += layer.record.unpacked_bytes;
        }
    }
    Ok(usage)
}

/// Allocated bytes below a directory; follows no symlink; what vanishes meanwhile counts nothing.
fn allocated(top: &Path) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut total = 0;
    // A container can nest deeper than descriptors last: what is too deep is not counted.
    let mut open: Vec<Dir> = Vec::new();
    match rustix::fs::open(top, flags, Mode::empty()) {
        Ok(fd) => open.push(Dir::new(fd)?),
        Err(rustix::io::Errno::NOENT) => return Ok(0),
        Err(e) => return Err(e.into()),
    }
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.next() else {
            open.pop();
            continue;
        };
        let Ok(entry) = entry else { continue };
        if entry.file_name() == c"." || entry.file_name() == c".." {
            continue;
        }
        let fd = dir.fd()?;
        if let Ok(stat) = rustix::fs::statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            total += stat.st_blocks as u64 * 512;
        }
        if entry.file_type() == FileType::Directory && open_depth_left(open.len()) {
            let child: Result<OwnedFd, _> =
                rustix::fs::openat(open[open.len() - 1].fd()?, entry.file_name(), flags, Mode::empty());
            if let Ok(child) = child {
                open.push(Dir::new(child)?);
            }
        }
    }
    Ok(total)
}

fn open_depth_left(depth: usize) -> bool {
    depth < 200
}
