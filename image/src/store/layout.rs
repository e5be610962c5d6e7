//! Names on disk, all below the store's root (mode 0700, because layers hold suid programs and devices):
//! ```text
//! version                      1
//! lock                         held by the process that uses the store
//! blobs/sha256/<hex>           manifests and image configs; layers are kept unpacked only
//! layers/<chain id hex>/diff   a layer as overlayfs wants it; layer.json beside it is its record
//! l/<short>                    symlinks to layers/<hex>/diff, so that 127 fit into one mount call
//! images/<hex>.json            what a reference meant when it was pulled last
//! snapshots/<task>/<container> upper, work and snapshot.json of one container
//! empty/                       the lower layer of an image that has none
//! tmp/ trash/ damaged/         being made; being deleted; set aside
//! ```
//! In: ids. Out: paths. Never: touches the disk.

use crate::digest::{Digest, LayerKey};
use lighter_model::ids::AttachmentKey;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    next: AtomicU64,
}

/// The only version of this layout so far.
pub(crate) const VERSION: &str = "1";

/// Every directory of the store, in the order they are made.
pub(crate) const DIRECTORIES: [&str; 10] =
    ["blobs", "blobs/sha256", "layers", "l", "images", "snapshots", "empty", "tmp", "trash", "damaged"];

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), next: AtomicU64::new(0) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    pub(crate) fn layer(&self, key: &LayerKey) -> PathBuf {
        self.layers().join(key.hex())
    }
    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("l")
    }
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }
    pub(crate) fn snapshot(&self, key: &AttachmentKey) -> PathBuf {
        self.snapshots().join(key.task.as_str()).join(key.container.as_str())
    }
    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
    pub(crate) fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// A name no one else uses; `tmp` and `trash` are empty when a process starts.
    pub(crate) fn unique(&self) -> String {
        format!("{:x}", self.next.fetch_add(1, Ordering::Relaxed))
    }
}
