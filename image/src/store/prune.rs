//! Deletes what no one needs any more, for `lighter system prune` and the agent's own clean-up.
//! In: the images in use. Out: what was deleted. Order: records, then layers from the top, then blobs,
//! so that a crash in between leaves only things the next prune deletes.
//! Never: deletes a layer that a snapshot, a running pull or a kept image needs.

use super::Inner;
use super::durable;
use super::index::{Layer, image_name};
use crate::digest::{Digest, LayerKey};
use crate::pull::PulledImage;
use crate::tree;
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What must stay: images by the reference made whole (`PulledImage::reference`) or manifest digest.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    pub references: HashSet<String>,
    pub manifest_digests: HashSet<Digest>,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// References of the deleted images.
    pub images: Vec<String>,
    pub layers: usize,
    pub blobs: usize,
    pub freed_bytes: u64,
}

/// Why pruning stopped; what was deleted before stays deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error("{action} {} failed", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the snapshots cannot be listed")]
    Snapshots(#[source] crate::rootfs::RootfsError),
    #[error("the prune ended before its work did")]
    Interrupted,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PruneError {
    let path = path.to_owned();
    move |source| PruneError::Io { action, path, source }
}

pub(super) fn prune(inner: &Inner, in_use: &InUse) -> Result<Pruned, PruneError> {
    let mut pruned = Pruned::default();
    remove_images(inner, in_use, &mut pruned)?;
    remove_layers(inner, &mut pruned)?;
    remove_blobs(inner, &mut pruned)?;
    Ok(pruned)
}

fn stays(image: &PulledImage, in_use: &InUse) -> bool {
    in_use.references.contains(&image.reference) || in_use.manifest_digests.contains(&image.manifest_digest)
}

fn remove_images(inner: &Inner, in_use: &InUse, pruned: &mut Pruned) -> Result<(), PruneError> {
    let dir = inner.layout.images();
    let all = inner.index().all_images();
    for image in all.into_iter().filter(|i| !stays(i, in_use)) {
        let path = dir.join(format!("{}.json", image_name(&image.reference, &image.platform)));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("deleting", &path)(e)),
            _ => inner.index_mut().remove_image(&image),
        }
        pruned.images.push(image.reference);
    }
    pruned.images.sort();
    durable::sync_dir(&dir).map_err(failed("syncing", &dir))
}

/// Takes unneeded layers out of sight under the lock, by one rename each, and deletes them after.
fn remove_layers(inner: &Inner, pruned: &mut Pruned) -> Result<(), PruneError> {
    let layout = &inner.layout;
    let trash_path = layout.trash();
    let mut trashed: Vec<CString> = Vec::new();
    {
        let mut index = inner.index_mut();
        // Listed under the lock: `prepare_rootfs` records its snapshot under the same lock.
        let snapshots = crate::rootfs::list(inner).map_err(PruneError::Snapshots)?;
        let mut needed: HashSet<LayerKey> = index.pinned_layers();
        needed.extend(snapshots.into_iter().flat_map(|s| s.layers));
        needed.extend(index.all_images().into_iter().flat_map(|i| i.layers));
        let doomed: Vec<Layer> =
            index.layers().filter(|l| !needed.contains(&l.record.key)).cloned().collect();
        for layer in doomed {
            let from = layout.layer(&layer.record.key);
            let name = layout.unique();
            fs::rename(&from, trash_path.join(&name)).map_err(failed("deleting", &from))?;
            index.remove_layer(&layer.record.key);
            let _ = fs::remove_file(layout.links().join(&layer.link));
            pruned.layers += 1;
            pruned.freed_bytes += layer.record.unpacked_bytes;
            trashed.extend(CString::new(name));
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let trash = rustix::fs::open(&trash_path, flags, Mode::empty())
        .map_err(|e| failed("opening", &trash_path)(e.into()))?;
    for name in trashed {
        tree::remove(trash.as_fd(), &name, trash.as_fd()).map_err(failed("emptying", &trash_path))?;
    }
    Ok(())
}

fn remove_blobs(inner: &Inner, pruned: &mut Pruned) -> Result<(), PruneError> {
    let dir = inner.layout.blobs();
    let _gate = inner.records_gate();
    let needed: HashSet<String> = inner
        .index()
        .all_images()
        .into_iter()
        .flat_map(|i| [i.manifest_digest.hex().to_owned(), i.config_digest.hex().to_owned()])
        .collect();
    for entry in fs::read_dir(&dir).map_err(failed("listing", &dir))? {
        let entry = entry.map_err(failed("listing", &dir))?;
        if needed.contains(entry.file_name().to_string_lossy().as_ref()) {
            continue;
        }
        let bytes = entry.metadata().map(|m| m.len()).unwrap_or(0);
        fs::remove_file(entry.path()).map_err(failed("deleting", &entry.path()))?;
        pruned.blobs += 1;
        pruned.freed_bytes += bytes;
    }
    durable::sync_dir(&dir).map_err(failed("syncing", &dir))
}
