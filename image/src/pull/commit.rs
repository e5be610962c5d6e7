//! Makes staged layers visible, several with one sync: attributes of implicit directories, record,
//! syncfs, rename, fsync of the parent. After a power cut a layer is there whole or not at all.
//! In: staged layers whose lower layers are in place or in the same group, bottom first.
//! Out: layers in the index. Never: makes a layer visible before the one below it.

use super::error::PullError;
use super::layer::Staged;
use super::resolve::Resolved;
use crate::digest::{Digest, LayerKey};
use crate::pull::PulledImage;
use crate::reference::ImageReference;
use crate::store::index::{Layer, image_name};
use crate::store::{CommitStep, Inner, durable, hold};
use crate::unpack::{Target, UnpackError, below, inherit};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PullError {
    let path = path.to_owned();
    move |source| PullError::Store { path, source }
}

/// Commits a group. `lower` are the layers below the group, bottom first; all of them are in place.
pub(crate) fn commit(
    inner: &Inner,
    reference: &str,
    lower: &[LayerKey],
    mut group: Vec<Staged>,
) -> Result<(), PullError> {
    let mut below: Vec<PathBuf> = lower.iter().map(|key| inner.layout.layer(key).join("diff")).collect();
    for index in 0..group.len() {
        let (under, staged) = group.split_at_mut(index);
        let staged = &mut staged[0];
        let diff = staged.dir.path().join("diff");
        inherit_attributes(reference, staged, &diff, &below)?;
        link_below(inner, reference, lower, under, staged)?;
        below.push(diff);
        let record = serde_json::to_vec(&staged.record).map_err(|e| failed(&staged.dir.path())(e.into()))?;
        let path = staged.dir.path().join("layer.json");
        fs::write(&path, record).map_err(failed(&path))?;
    }
    inner.at(CommitStep::LayerUnpacked);
    let layers = inner.layout.layers();
    durable::sync_file_system(&layers).map_err(failed(&layers))?;
    inner.at(CommitStep::LayersSynced);
    for staged in &group {
        let to = inner.layout.layer(&staged.record.key);
        fs::rename(staged.dir.path(), &to).map_err(failed(&to))?;
    }
    inner.at(CommitStep::LayersRenamed);
    durable::sync_dir(&layers).map_err(failed(&layers))?;
    for staged in group {
        show(inner, &staged)?;
    }
    inner.at(CommitStep::LayersVisible);
    Ok(())
}

fn inherit_attributes(
    reference: &str,
    staged: &Staged,
    diff: &Path,
    below: &[PathBuf],
) -> Result<(), PullError> {
    if !inherit::needed(&staged.implicit_dirs, below.len()) {
        return Ok(());
    }
    let unpack = |source| PullError::Unpack {
        reference: reference.to_owned(),
        digest: staged.record.blob.clone(),
        source,
    };
    let top = inherit::open_layer(diff).map_err(unpack)?;
    let mut lower = Vec::with_capacity(below.len());
    for path in below.iter().rev() {
        lower.push(inherit::open_layer(path).map_err(unpack)?);
    }
    inherit::inherit(top.as_fd(), &staged.implicit_dirs, &lower).map_err(unpack)
}

/// Hard links to files of the layers below, which are in place or staged.
fn link_below(
    inner: &Inner,
    reference: &str,
    lower: &[LayerKey],
    under: &[Staged],
    staged: &mut Staged,
) -> Result<(), PullError> {
    let Some(first) = staged.links_below.first() else { return Ok(()) };
    let failure = |source| PullError::Unpack {
        reference: reference.to_owned(),
        digest: staged.record.blob.clone(),
        source,
    };
    let base = inner.layout.root();
    let dir = staged.dir.path();
    let within = |path: &Path| path.strip_prefix(base).unwrap_or(path).display().to_string();
    let mut layers: Vec<String> = under.iter().rev().map(|s| within(&s.dir.path().join("diff"))).collect();
    let index = inner.index();
    let links = lower.iter().rev().filter_map(|key| index.layer(key));
    layers.extend(links.map(|layer| within(&inner.layout.links().join(&layer.link))));
    drop(index);
    if layers.is_empty() {
        let problem = "is a hard link to a file of a layer below, and there is none";
        return Err(failure(UnpackError::hostile(&first.path, problem)));
    }
    let target = Target::open(&dir, inner.config.min_free_bytes).map_err(failed(&dir))?;
    let layers = below::Layers { base, lower: layers, own: within(&dir) };
    let copied = below::link(&layers, &target, &staged.links_below).map_err(failure)?;
    staged.record.unpacked_bytes += copied;
    Ok(())
}

/// The link for mount(2), then the index. A link that a crash loses is made again at open.
fn show(inner: &Inner, staged: &Staged) -> Result<(), PullError> {
    let mut index = inner.index_mut();
    let link = index.new_link();
    let path = inner.layout.links().join(&link);
    let target = format!("../layers/{}/diff", staged.record.key.hex());
    std::os::unix::fs::symlink(target, &path).map_err(failed(&path))?;
    index.insert_layer(Layer { record: staged.record.clone(), link });
    Ok(())
}

/// Records the image: manifest and config first, then what the reference means.
pub(crate) fn record_image(inner: &Inner, resolved: &Resolved, image: &PulledImage) -> Result<(), PullError> {
    let _gate = inner.records_gate();
    let config_digest = &resolved.manifest.config_digest;
    write_blob(inner, &resolved.manifest_digest, &resolved.manifest_bytes)?;
    write_blob(inner, config_digest, &resolved.config_bytes)?;
    inner.at(CommitStep::BlobsWritten);
    keep_predecessor(inner, image)?;
    write_record(inner, image)?;
    inner.at(CommitStep::ImageRecorded);
    Ok(())
}

/// The registry has confirmed an image that came from an archive.
pub(crate) fn note_pulled(inner: &Inner, image: PulledImage) -> Result<(), PullError> {
    let _gate = inner.records_gate();
    write_record(inner, &image)
}

/// What a tag meant before goes on under its digest, so that tasks pinned to it find it here.
fn keep_predecessor(inner: &Inner, image: &PulledImage) -> Result<(), PullError> {
    let Ok(mut reference) = image.reference.parse::<ImageReference>() else { return Ok(()) };
    let Some(mut old) = inner.index().image(&reference, &image.platform) else { return Ok(()) };
    if reference.digest.is_some() || old.resolved_digest == image.resolved_digest {
        return Ok(());
    }
    reference.digest = Some(old.resolved_digest.clone());
    old.reference = reference.to_string();
    write_record(inner, &old)
}

fn write_record(inner: &Inner, image: &PulledImage) -> Result<(), PullError> {
    let dir = inner.layout.images();
    let name = image_name(&image.reference, &image.platform);
    let bytes = serde_json::to_vec_pretty(image).map_err(|e| failed(&dir)(e.into()))?;
    let file = format!("{name}.json");
    durable::write_file(&inner.layout.tmp(), &inner.layout.unique(), &dir, &file, &bytes)
        .map_err(failed(&dir))?;
    inner.index_mut().insert_image(image.clone());
    hold::touch(inner, &name);
    Ok(())
}

fn write_blob(inner: &Inner, digest: &Digest, bytes: &[u8]) -> Result<(), PullError> {
    let dir = inner.layout.blobs();
    if inner.layout.blob(digest).exists() {
        return Ok(());
    }
    durable::write_file(&inner.layout.tmp(), &inner.layout.unique(), &dir, digest.hex(), bytes)
        .map_err(failed(&dir))
}
