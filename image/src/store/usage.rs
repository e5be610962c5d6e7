//! What the store holds and how much disk it takes, for `lighter system df` and `lighter image ls`.
//! In: the index and the snapshots. Out: `DiskUsage`.
//! Never: changes anything.

use super::Inner;
use super::cleanup::Candidate;
use super::prune::{self, InUse};
use crate::platform::Platform;
use crate::pull::PulledImage;
use crate::reference::ImageReference;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Counts and bytes. Layers are counted once, however many images share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    pub images: usize,
    /// Of them, those that tasks, containers or running pulls use.
    pub images_in_use: usize,
    pub layers: usize,
    /// Of them, those that an image in use, a container or a running pull stands on.
    pub layers_in_use: usize,
    /// Sum of the file sizes of all layers.
    pub layer_bytes: u64,
    pub blobs: usize,
    pub blob_bytes: u64,
    pub snapshots: usize,
    /// What containers have written, in allocated bytes.
    pub snapshot_bytes: u64,
    /// Bytes of layers that `prune` would free with the same `InUse`.
    pub reclaimable_bytes: u64,
    /// The same of manifests and configs.
    pub reclaimable_blob_bytes: u64,
}

pub(super) fn usage(inner: &Inner, in_use: &InUse) -> io::Result<DiskUsage> {
    let snapshots = crate::rootfs::list(inner).map_err(io::Error::other)?;
    let mut usage = DiskUsage { snapshots: snapshots.len(), ..DiskUsage::default() };
    for snapshot in &snapshots {
        usage.snapshot_bytes += allocated(&inner.layout.snapshot(&snapshot.key).join("upper"))?;
    }
    let mut standing = prune::standing(inner, snapshots, in_use);
    let used = |(_, candidate): &&(_, Candidate<_, _>)| candidate.in_use;
    let mut blobs_in_use = HashSet::new();
    for (image, candidate) in standing.images.iter().filter(used) {
        usage.images_in_use += 1;
        standing.needed.extend(candidate.layers.iter().cloned());
        blobs_in_use.extend([image.manifest_digest.hex().to_owned(), image.config_digest.hex().to_owned()]);
    }
    for entry in std::fs::read_dir(inner.layout.blobs())? {
        let entry = entry?;
        let bytes = entry.metadata()?.len();
        usage.blobs += 1;
        usage.blob_bytes += bytes;
        if !blobs_in_use.contains(entry.file_name().to_string_lossy().as_ref()) {
            usage.reclaimable_blob_bytes += bytes;
        }
    }
    usage.images = standing.images.len();
    for (layer, bytes) in &standing.layers {
        usage.layers += 1;
        usage.layer_bytes += bytes;
        if standing.needed.contains(layer) {
            usage.layers_in_use += 1;
        } else {
            usage.reclaimable_bytes += bytes;
        }
    }
    Ok(usage)
}

/// One image for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptImage {
    pub image: PulledImage,
    pub in_use: bool,
    pub last_used_unix_ms: u64,
}

pub(super) fn list(inner: &Inner, in_use: &InUse) -> io::Result<Vec<KeptImage>> {
    let snapshots = crate::rootfs::list(inner).map_err(io::Error::other)?;
    let standing = prune::standing(inner, snapshots, in_use);
    let each = standing.images.into_iter().map(|(image, candidate)| KeptImage {
        image,
        in_use: candidate.in_use,
        last_used_unix_ms: candidate.last_used_unix_ms,
    });
    let mut all: Vec<KeptImage> = each.collect();
    all.sort_by(|a, b| a.image.reference.cmp(&b.image.reference));
    Ok(all)
}

/// An image with the documents it was made of, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    pub image: PulledImage,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
}

pub(super) fn inspect(
    inner: &Inner,
    reference: &ImageReference,
    platform: &Platform,
) -> io::Result<Option<Inspected>> {
    let Some(image) = inner.index().image(reference, platform) else { return Ok(None) };
    let manifest = std::fs::read(inner.layout.blob(&image.manifest_digest))?;
    let config = std::fs::read(inner.layout.blob(&image.config_digest))?;
    Ok(Some(Inspected { image, manifest, config }))
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
