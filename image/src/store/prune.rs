//! Deletes what no one needs any more: for `lighter system prune`, for the agent's own clean-up, and
//! to make room for a pull. In: the images in use, the rules. Out: what was deleted.
//! Order: records, then layers from the top, then blobs, so that a crash in between leaves only things
//! the next prune deletes. `cleanup` decides; after each image the disk is looked at again.
//! Never: deletes a layer that a snapshot, a running pull or a kept image needs.

use super::Inner;
use super::cleanup::{Candidate, CleanUpRules, Plan, decide};
use super::durable;
use super::index::Layer;
use super::space::Space;
use crate::digest::{Digest, LayerKey};
use crate::pull::PulledImage;
use crate::rootfs::Snapshot;
use crate::tree;
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What must stay: images by the reference made whole (`PulledImage::reference`), or by the digest of
/// the manifest or of what the registry answered.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    pub references: HashSet<String>,
    pub digests: HashSet<Digest>,
}

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// References of the deleted images, the first to go first.
    pub images: Vec<String>,
    pub layers: usize,
    pub blobs: usize,
    pub freed_bytes: u64,
    /// What the marks still ask for when there is nothing more to delete here.
    pub short_bytes: u64,
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
    #[error("{reference} is in use by {by}")]
    InUse { reference: String, by: String },
    #[error("there is no image {reference} here")]
    NotHere { reference: String },
    #[error("the prune ended before its work did")]
    Interrupted,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PruneError {
    let path = path.to_owned();
    move |source| PruneError::Io { action, path, source }
}

/// Deletes as the rules say; nothing to do is success.
pub(super) fn clean_up(inner: &Inner, rules: &CleanUpRules, in_use: &InUse) -> Result<Pruned, PruneError> {
    let mut pruned = Pruned::default();
    let measure = || Space::of(inner.layout.root()).map_err(failed("measuring", inner.layout.root()));
    let space = measure()?;
    let mut to_free = rules.to_free(space);
    let mut plan = plan(inner, rules, in_use, to_free)?;
    if plan.frees_bytes < to_free && rules.over_the_mark(space) < to_free {
        // The pull that waits would still not fit: nobody's cache is spent on it.
        to_free = rules.over_the_mark(space);
        plan = self::plan(inner, rules, in_use, to_free)?;
    }
    if to_free == 0 && rules.maximum_unused.is_none() {
        return Ok(pruned);
    }
    remove_layers(inner, &mut pruned)?;
    for name in plan.images {
        // Sizes of files are not quite what the disk gives back.
        if rules.maximum_unused.is_none() && measure()?.used_bytes.saturating_add(to_free) <= space.used_bytes
        {
            break;
        }
        remove_record(inner, &name, in_use, &mut pruned)?;
        remove_layers(inner, &mut pruned)?;
    }
    remove_blobs(inner, &mut pruned)?;
    pruned.short_bytes = rules.over_the_mark(measure()?);
    Ok(pruned)
}

/// Deletes one image by name, unless it is in use.
pub(super) fn remove_one(
    inner: &Inner,
    reference: &crate::ImageReference,
    in_use: &InUse,
) -> Result<Pruned, PruneError> {
    let snapshots = crate::rootfs::list(inner).map_err(PruneError::Snapshots)?;
    let text = reference.to_string();
    let all = inner.index().listed();
    let found: Vec<_> = all
        .into_iter()
        .filter(|l| l.image.reference == text || reference.digest.as_ref().is_some_and(|d| is(&l.image, d)))
        .collect();
    if found.is_empty() {
        return Err(PruneError::NotHere { reference: text });
    }
    let mut pruned = Pruned::default();
    for listed in found {
        let by =
            |by: &str| PruneError::InUse { reference: listed.image.reference.clone(), by: by.to_owned() };
        if let Some(snapshot) = snapshots.iter().find(|s| s.layers == listed.image.layers) {
            return Err(by(&format!("container {} of task {}", snapshot.key.container, snapshot.key.task)));
        }
        if listed.held || stays(&listed.image, in_use) {
            return Err(by("a task of this node"));
        }
        remove_record(inner, &listed.name, in_use, &mut pruned)?;
    }
    remove_layers(inner, &mut pruned)?;
    remove_blobs(inner, &mut pruned)?;
    Ok(pruned)
}

/// Every image with whether it is in use, every layer, and the layers something stands on.
pub(super) struct Standing {
    pub(super) images: Vec<(PulledImage, Candidate<String, LayerKey>)>,
    pub(super) layers: BTreeMap<LayerKey, u64>,
    pub(super) needed: BTreeSet<LayerKey>,
}

pub(super) fn standing(inner: &Inner, snapshots: Vec<Snapshot>, in_use: &InUse) -> Standing {
    let index = inner.index();
    let images = index.listed().into_iter().map(|listed| {
        let mounted = snapshots.iter().any(|snapshot| snapshot.layers == listed.image.layers);
        let candidate = Candidate {
            name: listed.name,
            layers: listed.image.layers.clone(),
            last_used_unix_ms: listed.last_used_unix_ms,
            in_use: listed.held || mounted || stays(&listed.image, in_use),
        };
        (listed.image, candidate)
    });
    let images = images.collect();
    let layers =
        index.layers().map(|layer| (layer.record.key.clone(), layer.record.unpacked_bytes)).collect();
    let mut needed: BTreeSet<LayerKey> = index.pinned_layers().into_iter().collect();
    needed.extend(snapshots.into_iter().flat_map(|s| s.layers));
    Standing { images, layers, needed }
}

fn plan(
    inner: &Inner,
    rules: &CleanUpRules,
    in_use: &InUse,
    to_free: u64,
) -> Result<Plan<String>, PruneError> {
    let snapshots = crate::rootfs::list(inner).map_err(PruneError::Snapshots)?;
    let standing = standing(inner, snapshots, in_use);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let candidates: Vec<_> = standing.images.into_iter().map(|(_, candidate)| candidate).collect();
    Ok(decide(&candidates, &standing.layers, &standing.needed, rules, to_free, now))
}

fn is(image: &PulledImage, digest: &Digest) -> bool {
    image.resolved_digest == *digest || image.manifest_digest == *digest
}

fn stays(image: &PulledImage, in_use: &InUse) -> bool {
    in_use.references.contains(&image.reference) || in_use.digests.iter().any(|digest| is(image, digest))
}

/// Deletes a record, unless somebody has come to hold its image since it was chosen.
fn remove_record(inner: &Inner, name: &str, in_use: &InUse, pruned: &mut Pruned) -> Result<(), PruneError> {
    let dir = inner.layout.images();
    let path = dir.join(format!("{name}.json"));
    let mut index = inner.index_mut();
    let Some(listed) = index.listed().into_iter().find(|listed| listed.name == name) else { return Ok(()) };
    if index.is_held(name) || stays(&listed.image, in_use) {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("deleting", &path)(e)),
        _ => index.remove_image(name),
    }
    drop(index);
    pruned.images.push(listed.image.reference);
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
