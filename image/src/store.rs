//! The store of images on this machine: what is here, and the one handle to everything about it.
//! In: `ImageStoreConfig`, then calls. Out: images, mounts, what the disk holds.
//! Owns: the directory `images/`, locked for one process; the index of it in memory.
//! Never: holds its lock over a system call that can take long, or across an await.

pub(crate) mod durable;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod open;
pub(crate) mod prune;
pub(crate) mod usage;

use crate::config::{ImageStoreConfig, InvalidConfig};
use crate::digest::LayerKey;
use crate::platform::Platform;
use crate::pull::error::PullError;
use crate::pull::{PullOptions, PulledImage};
use crate::reference::ImageReference;
use crate::registry::Registries;
use crate::rootfs::{RootfsError, RootfsMount, Snapshot};
use index::Index;
use layout::Layout;
use lighter_model::ids::AttachmentKey;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

pub use prune::{InUse, PruneError, Pruned};
pub use usage::DiskUsage;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the image store's settings are wrong")]
    Config(#[source] InvalidConfig),
    #[error("{} is in use by another process", path.display())]
    InUse { path: PathBuf },
    #[error("{action} {} failed", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Points of a commit at which a test may stop the process; see `ImageStore::open_with_hook`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStep {
    /// A layer is unpacked and verified in its temporary directory; nothing is synced.
    LayerUnpacked,
    /// Layers are on the disk under their temporary names.
    LayersSynced,
    /// Layers have their names; their parent is not yet synced.
    LayersRenamed,
    /// Layers are in place; manifest, config and the image's record are not written.
    LayersVisible,
    /// Manifest and config are in place; the record is not.
    BlobsWritten,
    /// The image is recorded.
    ImageRecorded,
}

/// Called at every `CommitStep`, on the thread that commits.
pub type CommitHook = Arc<dyn Fn(CommitStep) + Send + Sync>;

/// The handle; clones share one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ImageStoreConfig,
    pub(crate) layout: Layout,
    pub(crate) registries: Registries,
    /// Downloads at once.
    pub(crate) permits: tokio::sync::Semaphore,
    pub(crate) hook: Option<CommitHook>,
    index: RwLock<Index>,
    /// Held while blobs and the record that needs them are written, and while unneeded blobs go.
    records: Mutex<()>,
    /// One lock for each layer being made; held by the pull that makes it.
    making: Mutex<HashMap<LayerKey, Weak<tokio::sync::Mutex<()>>>>,
    /// Keeps other processes out for as long as the store lives.
    _lock: std::os::fd::OwnedFd,
}

impl ImageStore {
    /// Opens the store, making it when it is not there: sweeps what a crash left, sets damaged
    /// records aside, reads the rest into memory.
    pub fn open(config: ImageStoreConfig) -> Result<Self, OpenError> {
        Self::open_with_hook(config, None)
    }

    /// `open` for tests that stop the process at a given point of a commit.
    #[doc(hidden)]
    pub fn open_with_hook(config: ImageStoreConfig, hook: Option<CommitHook>) -> Result<Self, OpenError> {
        config.validate().map_err(OpenError::Config)?;
        let opened = open::open(&config.root)?;
        let inner = Inner {
            registries: Registries::new(&config),
            permits: tokio::sync::Semaphore::new(config.max_concurrent_downloads),
            config,
            layout: opened.layout,
            hook,
            index: RwLock::new(opened.index),
            records: Mutex::new(()),
            making: Mutex::new(HashMap::new()),
            _lock: opened.lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Finds out what `reference` means and brings all of it here; returns when every layer is in
    /// place and durable. Dropping the future stops the pull and leaves nothing half-visible.
    pub async fn resolve_and_pull(
        &self,
        reference: &str,
        options: &PullOptions,
        progress: impl Fn(crate::PullProgress) + Send + Sync,
    ) -> Result<PulledImage, PullError> {
        crate::pull::run::pull(&self.inner, reference, options, &progress).await
    }

    /// The image that `reference` meant when it was last pulled, if it is whole here. Asks nobody.
    pub fn lookup(&self, reference: &str, platform: &Platform) -> Option<PulledImage> {
        let reference: ImageReference = reference.parse().ok()?;
        self.inner.index().image(&reference, platform)
    }

    /// Every image that is whole here.
    pub fn images(&self) -> Vec<PulledImage> {
        self.inner.index().images()
    }

    /// Mounts `image` with a writable layer of its own at `dir`, which is made when missing.
    /// Calling it again with the same key gives the same mount, also after a restart.
    /// The mount is writable even for readonlyRootFilesystem: the runtime has to make mount points
    /// in it and makes it read-only afterwards (`root.readonly` of the runtime specification).
    pub async fn prepare_rootfs(
        &self,
        key: &AttachmentKey,
        image: &PulledImage,
        dir: &Path,
    ) -> Result<RootfsMount, RootfsError> {
        let (inner, key, image, dir) = (self.inner.clone(), key.clone(), image.clone(), dir.to_owned());
        blocking(move || crate::rootfs::prepare(&inner, &key, &image, &dir)).await
    }

    /// Unmounts and deletes what `prepare_rootfs` made for the key; nothing there is success.
    pub async fn remove_rootfs(&self, key: &AttachmentKey) -> Result<(), RootfsError> {
        let (inner, key) = (self.inner.clone(), key.clone());
        blocking(move || crate::rootfs::remove(&inner, &key)).await
    }

    /// Every snapshot there is, mounted or not: for recovery and for the search for leaks.
    pub async fn list_snapshots(&self) -> Result<Vec<Snapshot>, RootfsError> {
        let inner = self.inner.clone();
        blocking(move || crate::rootfs::list(&inner)).await
    }

    /// What the store holds and how many bytes of disk it takes.
    pub async fn usage(&self) -> io::Result<DiskUsage> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || usage::usage(&inner)).await.map_err(io::Error::other)?
    }

    /// Deletes images that are not in `in_use`, and every layer and blob no image needs any more.
    /// What a snapshot or a running pull uses is kept whatever `in_use` says.
    pub async fn prune(&self, in_use: &InUse) -> Result<Pruned, PruneError> {
        let (inner, in_use) = (self.inner.clone(), in_use.clone());
        match tokio::task::spawn_blocking(move || prune::prune(&inner, &in_use)).await {
            Ok(result) => result,
            Err(_) => Err(PruneError::Interrupted),
        }
    }
}

impl Inner {
    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        // A panic while the lock was held cannot leave the index torn: each change is one insert or remove.
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn records_gate(&self) -> MutexGuard<'_, ()> {
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock under which a layer is made.
    pub(crate) fn making(&self, key: &LayerKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        making.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = making.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        making.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }

    pub(crate) fn at(&self, step: CommitStep) {
        if let Some(hook) = &self.hook {
            hook(step);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RootfsError> + Send + 'static,
) -> Result<T, RootfsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(RootfsError::Interrupted),
    }
}
