//! Root file systems of containers: an overlayfs mount of an image's layers and a writable one.
//! In: attachment key, image, mount point. Out: a mounted directory; the same again for the same key.
//! Owns: `snapshots/<task>/<container>`, whose record is written before the mount is made.
//! Never: pulls, runs anything in the root file system, or follows a path inside it.

mod mount;

use crate::digest::LayerKey;
use crate::pull::PulledImage;
use crate::store::{Inner, hold};
use crate::tree;
use lighter_model::ids::AttachmentKey;
use lighter_model::resources::IdRange;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A mounted root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsMount {
    pub key: AttachmentKey,
    pub path: PathBuf,
}

/// Layers as a user namespace sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedLayers {
    pub ids: IdRange,
    /// Where the store is shown with owners mapped.
    pub store: PathBuf,
}

/// One `snapshots/<task>/<container>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub key: AttachmentKey,
    /// Empty when a crash came before the record.
    pub layers: Vec<LayerKey>,
    pub mountpoint: Option<PathBuf>,
    pub mounted: bool,
}

/// Why a root file system cannot be prepared, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("layer {layer} of {reference} is not in the store; pull the image again")]
    LayerMissing { reference: String, layer: LayerKey },
    #[error("the snapshot of {key} was made from another image or for another directory")]
    Conflict { key: AttachmentKey },
    #[error("{action} {} failed", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this kernel has no overlayfs; load it with: modprobe overlay")]
    NoOverlayfs,
    #[error("the work ended before it was done")]
    Interrupted,
}

/// `snapshot.json`
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    reference: String,
    layers: Vec<LayerKey>,
    mountpoint: PathBuf,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootfsError {
    let path = path.to_owned();
    move |source| RootfsError::Io { action, path, source }
}

pub(crate) fn prepare(
    inner: &Inner,
    key: &AttachmentKey,
    image: &PulledImage,
    dir: &Path,
    mapped: Option<&MappedLayers>,
) -> Result<RootfsMount, RootfsError> {
    let dir = std::path::absolute(dir).map_err(failed("resolving", dir))?;
    let snapshot = inner.layout.snapshot(key);
    let links = record(inner, key, image, &dir, &snapshot)?;
    make_dir(&dir)?;
    if !mount::is_overlay(&dir).map_err(failed("looking at", &dir))? {
        let top = match image.layers.last() {
            Some(layer) => inner.layout.layer(layer).join("diff"),
            None => inner.layout.root().join("empty"),
        };
        // Left by a mount that a reboot took away; overlayfs refuses a volatile one's work directory.
        discard(inner, &snapshot.join("work"))?;
        make_upper(&snapshot, &top, mapped.map(|mapped| mapped.ids))?;
        // The links are of one directory of the store, which is shown mapped as a whole. What the
        // container writes is its own for as long as it lives, and so is not mapped.
        let (base, snapshots) = match mapped {
            None => (inner.layout.links(), "../snapshots".to_owned()),
            Some(mapped) => (mapped.store.join("l"), inner.layout.snapshots().to_string_lossy().into_owned()),
        };
        let options = mount_options(key, &links, &snapshots);
        mount::overlay(&base, &options, &dir).map_err(|source| {
            match source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) {
                true => RootfsError::NoOverlayfs,
                false => RootfsError::Io { action: "mounting overlayfs at", path: dir.clone(), source },
            }
        })?;
    }
    Ok(RootfsMount { key: key.clone(), path: dir })
}

/// Writes the snapshot's record, under the lock that prune takes, and gives the links of the layers.
fn record(
    inner: &Inner,
    key: &AttachmentKey,
    image: &PulledImage,
    dir: &Path,
    snapshot: &Path,
) -> Result<Vec<String>, RootfsError> {
    let record = Record {
        reference: image.reference.clone(),
        layers: image.layers.clone(),
        mountpoint: dir.to_owned(),
    };
    let index = inner.index();
    let mut links = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        let found = index.layer(layer).ok_or_else(|| RootfsError::LayerMissing {
            reference: image.reference.clone(),
            layer: layer.clone(),
        })?;
        links.push(found.link.clone());
    }
    make_dir(snapshot)?;
    let path = snapshot.join("snapshot.json");
    match read_record(snapshot) {
        Some(found) if found.layers != record.layers || found.mountpoint != record.mountpoint => {
            return Err(RootfsError::Conflict { key: key.clone() });
        }
        Some(_) => {}
        None => {
            let bytes = serde_json::to_vec(&record).map_err(|e| failed("writing", &path)(e.into()))?;
            // Not synced: after a power cut the container is gone and only the directory is deleted.
            let temporary = snapshot.join("snapshot.json.new");
            fs::write(&temporary, bytes).map_err(failed("writing", &temporary))?;
            fs::rename(&temporary, &path).map_err(failed("writing", &path))?;
        }
    }
    Ok(links)
}

fn read_record(snapshot: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(snapshot.join("snapshot.json")).ok()?).ok()
}

fn make_dir(path: &Path) -> Result<(), RootfsError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("making", path))
}

/// The merged root shows the upper directory's own owner and mode: take those of the top layer.
fn make_upper(snapshot: &Path, top: &Path, ids: Option<IdRange>) -> Result<(), RootfsError> {
    let upper = snapshot.join("upper");
    make_dir(&upper)?;
    make_dir(&snapshot.join("work"))?;
    let meta = fs::metadata(top).map_err(failed("looking at", top))?;
    let mode = if top.ends_with("empty") { 0o755 } else { meta.mode() & 0o7777 };
    let owner = |id: u32| ids.map_or(Some(id), |ids| ids.on_host(id)).unwrap_or(id);
    std::os::unix::fs::chown(&upper, Some(owner(meta.uid())), Some(owner(meta.gid())))
        .map_err(failed("chown of", &upper))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(mode)).map_err(failed("chmod of", &upper))
}

/// Paths are relative to `l/`, so that 127 layers fit into the one page mount(2) takes.
/// `volatile`: without it every unmount syncs the whole file system the store is on, and a container's
/// fsync waits for a disk that keeps the file for no one: a snapshot does not outlive its container,
/// and no container outlives a power cut. What has to last is in volumes, which overlayfs is not under.
fn mount_options(key: &AttachmentKey, links_bottom_first: &[String], snapshots: &str) -> String {
    let mut lower: Vec<&str> = links_bottom_first.iter().rev().map(String::as_str).collect();
    if lower.is_empty() {
        lower.push("../empty");
    }
    let snapshot = format!("{snapshots}/{}/{}", key.task, key.container);
    format!("lowerdir={},upperdir={snapshot}/upper,workdir={snapshot}/work,volatile", lower.join(":"))
}

pub(crate) fn remove(inner: &Inner, key: &AttachmentKey) -> Result<(), RootfsError> {
    let snapshot = inner.layout.snapshot(key);
    if !snapshot.exists() {
        return Ok(());
    }
    let mountpoint = match read_record(&snapshot) {
        Some(record) => {
            // Until now it was in use.
            hold::touch_layers(inner, &record.layers);
            Some(record.mountpoint)
        }
        // A record that was lost does not lose the mount: the kernel knows its upper directory.
        None => mount::find_by_upper(&format!("snapshots/{}/{}/upper", key.task, key.container))
            .map_err(failed("searching the mounts for", &snapshot))?,
    };
    if let Some(dir) = mountpoint {
        mount::unmount_overlay(&dir).map_err(failed("unmounting", &dir))?;
        match fs::remove_dir(&dir) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(failed("deleting", &dir)(e));
            }
            _ => {}
        }
    }
    discard(inner, &snapshot)?;
    if let Some(task) = snapshot.parent() {
        // Fails while other containers of the task have snapshots, which is right.
        let _ = fs::remove_dir(task);
    }
    Ok(())
}

/// One rename takes a directory out of sight; deleting it may then be cut short by a crash.
fn discard(inner: &Inner, snapshot: &Path) -> Result<(), RootfsError> {
    let name = inner.layout.unique();
    let trash = inner.layout.trash();
    match fs::rename(snapshot, trash.join(&name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("deleting", snapshot))?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd: OwnedFd =
        rustix::fs::open(&trash, flags, Mode::empty()).map_err(|e| failed("opening", &trash)(e.into()))?;
    let name = std::ffi::CString::new(name).map_err(|e| failed("deleting", snapshot)(e.into()))?;
    tree::remove(fd.as_fd(), &name, fd.as_fd()).map_err(failed("emptying", &trash))
}

pub(crate) fn list(inner: &Inner) -> Result<Vec<Snapshot>, RootfsError> {
    let mut snapshots = Vec::new();
    let top = inner.layout.snapshots();
    for task in names(&top)? {
        for container in names(&top.join(&task))? {
            let (Ok(task_id), Ok(container)) = (task.parse(), container.parse()) else { continue };
            let key = AttachmentKey { task: task_id, container };
            let found = read_record(&inner.layout.snapshot(&key));
            let (layers, mountpoint) = match found {
                Some(record) => (record.layers, Some(record.mountpoint)),
                None => (Vec::new(), None),
            };
            let mounted = match &mountpoint {
                Some(dir) => mount::is_overlay(dir).map_err(failed("looking at", dir))?,
                None => false,
            };
            snapshots.push(Snapshot { key, layers, mountpoint, mounted });
        }
    }
    Ok(snapshots)
}

/// Sorted names in a directory; a directory that has just gone has none.
fn names(dir: &Path) -> Result<Vec<String>, RootfsError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("listing", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("listing", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_127_layers_and_the_longest_names_fit_into_a_page() {
        let key = AttachmentKey {
            task: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            container: "c".repeat(255).parse().unwrap(),
        };
        let links = vec!["zzzzz".to_owned(); 127];
        assert!(mount_options(&key, &links, "../snapshots").len() < 4096);
        assert!(mount_options(&key, &[], "../snapshots").starts_with("lowerdir=../empty,"));
        let two = ["bottom".to_owned(), "top".to_owned()];
        assert!(mount_options(&key, &two, "../snapshots").starts_with("lowerdir=top:bottom,"));
    }
}
