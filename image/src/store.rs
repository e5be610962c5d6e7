//! The store of images on this machine: what is here, and the one handle to everything about it.
//! In: `ImageStoreConfig`, then calls. Out: images, mounts, what the disk holds.
//! Owns: the directory `images/`, locked for one process; the index of it in memory.
//! Never: holds its lock over a system call that can take long, or across an await.

pub(crate) mod cleanup;
pub(crate) mod durable;
pub(crate) mod flight;
pub(crate) mod hold;
pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod open;
pub(crate) mod prune;
pub(crate) mod space;
pub(crate) mod usage;

use crate::archive::ArchiveError;
use crate::archive::spool::Spool;
use crate::config::{ImageStoreConfig, InvalidConfig};
use crate::digest::{Digest, LayerKey};
use crate::platform::Platform;
use crate::pull::error::PullError;
use crate::pull::{PullOptions, PulledImage};
use crate::reference::ImageReference;
use crate::registry::Registries;
use crate::rootfs::{MappedLayers, RootfsError, RootfsMount, Snapshot};
use flight::{Flight, Flights};
use index::Index;
use layout::Layout;
use lighter_model::ids::AttachmentKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use cleanup::CleanUpRules;
pub use hold::HeldImage;
pub use prune::{InUse, PruneError, Pruned};
pub use space::Space;
pub use usage::{DiskUsage, Inspected, KeptImage};

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
    /// One for each layer being made; held by the pull that makes it.
    making: Flights<LayerKey, ()>,
    /// One for each blob being unpacked, with the directories in which it is.
    pub(crate) unpacking: Flights<Digest, Vec<PathBuf>>,
    /// One for each reference being pulled, with the image that came of it.
    pub(crate) pulling: Flights<(ImageReference, Platform), Option<PulledImage>>,
    /// One for each image config being fetched, with its bytes.
    pub(crate) configs: Flights<Digest, Option<Arc<Vec<u8>>>>,
    /// Room promised to running pulls.
    pub(crate) promised: space::Promised,
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
            making: Flights::new(),
            unpacking: Flights::new(),
            pulling: Flights::new(),
            configs: Flights::new(),
            promised: space::Promised::default(),
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
        Ok(self.pull_and_hold(reference, options, progress).await?.image.clone())
    }

    /// The same; nothing of the image is cleaned up while the answer lives.
    pub async fn pull_and_hold(
        &self,
        reference: &str,
        options: &PullOptions,
        progress: impl Fn(crate::PullProgress) + Send + Sync,
    ) -> Result<HeldImage, PullError> {
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
        self.prepare_rootfs_mapped(key, image, dir, None).await
    }

    /// As `prepare_rootfs`, for a container whose ids are others on this machine.
    pub async fn prepare_rootfs_mapped(
        &self,
        key: &AttachmentKey,
        image: &PulledImage,
        dir: &Path,
        mapped: Option<MappedLayers>,
    ) -> Result<RootfsMount, RootfsError> {
        let (inner, key, image, dir) = (self.inner.clone(), key.clone(), image.clone(), dir.to_owned());
        blocking(move || crate::rootfs::prepare(&inner, &key, &image, &dir, mapped.as_ref())).await
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

    /// What the store holds and how many bytes of disk it takes; `in_use` as for `prune`.
    pub async fn usage(&self, in_use: &InUse) -> io::Result<DiskUsage> {
        let (inner, in_use) = (self.inner.clone(), in_use.clone());
        tokio::task::spawn_blocking(move || usage::usage(&inner, &in_use)).await.map_err(io::Error::other)?
    }

    /// The file system the images are on.
    pub fn space(&self) -> io::Result<Space> {
        Space::of(self.inner.layout.root())
    }

    /// Deletes images that are not in `in_use`, and every layer and blob no image needs any more.
    /// What a snapshot or a running pull uses is kept whatever `in_use` says.
    pub async fn prune(&self, in_use: &InUse) -> Result<Pruned, PruneError> {
        self.clean_up(&CleanUpRules::everything(), in_use).await
    }

    /// Deletes as much as the rules ask for, the least recently used images first.
    pub async fn clean_up(&self, rules: &CleanUpRules, in_use: &InUse) -> Result<Pruned, PruneError> {
        let (inner, rules, in_use) = (self.inner.clone(), rules.clone(), in_use.clone());
        let work = tokio::task::spawn_blocking(move || prune::clean_up(&inner, &rules, &in_use));
        work.await.unwrap_or(Err(PruneError::Interrupted))
    }

    /// Every image with whether somebody uses it and when it was used last.
    pub async fn list(&self, in_use: &InUse) -> io::Result<Vec<KeptImage>> {
        let (inner, in_use) = (self.inner.clone(), in_use.clone());
        tokio::task::spawn_blocking(move || usage::list(&inner, &in_use)).await.map_err(io::Error::other)?
    }

    /// An image with its documents, if it is whole here.
    pub async fn inspect(
        &self,
        reference: &ImageReference,
        platform: &Platform,
    ) -> io::Result<Option<Inspected>> {
        let (inner, reference, platform) = (self.inner.clone(), reference.clone(), platform.clone());
        let work = tokio::task::spawn_blocking(move || usage::inspect(&inner, &reference, &platform));
        work.await.map_err(io::Error::other)?
    }

    /// Writes an image as an OCI archive. Blocks.
    pub fn save(
        &self,
        reference: &ImageReference,
        platform: &Platform,
        out: &mut impl io::Write,
    ) -> Result<(), ArchiveError> {
        crate::archive::save::save(&self.inner, reference, platform, out)
    }

    /// A place on the images' file system for an archive that comes in.
    pub fn spool(&self) -> io::Result<Spool> {
        Spool::make(&self.inner)
    }

    /// Loads the images of an archive; `name` is given to one that brings no name, or another.
    pub async fn load(
        &self,
        archive: Spool,
        name: Option<&ImageReference>,
        platform: &Platform,
    ) -> Result<Vec<PulledImage>, ArchiveError> {
        let (inner, name, platform) = (self.inner.clone(), name.cloned(), platform.clone());
        let work = tokio::task::spawn_blocking(move || {
            crate::archive::load::load(&inner, archive.file, name.as_ref(), &platform)
        });
        work.await.unwrap_or(Err(ArchiveError::Interrupted))
    }

    /// Deletes the image of a reference, unless it is in use.
    pub async fn remove(&self, reference: &ImageReference, in_use: &InUse) -> Result<Pruned, PruneError> {
        let (inner, reference, in_use) = (self.inner.clone(), reference.clone(), in_use.clone());
        let work = tokio::task::spawn_blocking(move || prune::remove_one(&inner, &reference, &in_use));
        work.await.unwrap_or(Err(PruneError::Interrupted))
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
    pub(crate) fn making(&self, key: &LayerKey) -> Flight<()> {
        self.making.join(key)
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
