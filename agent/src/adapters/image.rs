//! Images and root file systems by `lighter_image`.
//! In: references, keys. Out: what `ImageFacility` promises. Owns the store's handle.
//! Never: retries; the store does for requests, the task for pulls.

use crate::config::{AgentConfig, ImagesConfig};
use crate::errors::Cause;
use crate::facilities::{
    Answer, Image, ImageDocuments, ImageFacility, ImageRow, ImagesInUse, PrunedImages, PullFailure,
    PullOrder, PullStep, PullWatcher, UsageRow,
};
use lighter_image::{
    CleanUpRules, HeldImage, ImageReference, ImageStore, ImageStoreConfig, InUse, KeptImage, MappedLayers,
    Platform, Pruned, PullOptions, PullPolicy, PullProgress, PulledImage, RegistryHost, Spool,
};
use lighter_model::ids::AttachmentKey;
use lighter_model::task_definition::PullBehavior;
use lighter_runtime::MappedIds;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Where `docker login` of root writes.
const DOCKER_CONFIG: &str = "/root/.docker/config.json";

pub(super) struct ImageAdapter {
    store: ImageStore,
    cleanup: ImagesConfig,
}

impl ImageAdapter {
    /// Blocks.
    pub(super) fn open(config: &AgentConfig) -> Result<Self, Cause> {
        let mut settings = ImageStoreConfig::new(config.images_dir());
        let hosts = config.registries.iter().map(|(host, registry)| {
            let host_settings = RegistryHost {
                ca_pem: registry.ca.clone(),
                mirrors: registry.mirrors.clone(),
                http_allowed: registry.http,
            };
            (host.clone(), host_settings)
        });
        settings.registries.hosts = hosts.collect();
        // Read again at every pull, so that a login made later counts; a file that is not there has none.
        settings.docker_config =
            Some(config.docker_config.clone().unwrap_or_else(|| PathBuf::from(DOCKER_CONFIG)));
        settings.min_free_bytes = config.images.min_free_mib << 20;
        Ok(Self { store: ImageStore::open(settings)?, cleanup: config.images.clone() })
    }
}

fn pulled(image: &Image) -> Result<&PulledImage, Cause> {
    let held = image.own.downcast_ref::<HeldImage>();
    Ok(&held.ok_or_else(|| crate::errors::words("an image of another store"))?.image)
}

/// Adds up the progress of layers.
#[derive(Default)]
struct Counter {
    step: PullStep,
    layers: BTreeMap<usize, (u64, bool)>,
}

impl Counter {
    /// `None` for what a watcher need not know.
    fn take(&mut self, progress: PullProgress) -> Option<PullStep> {
        use lighter_image::LayerPhase::{Done, Present};
        match progress {
            PullProgress::Resolved { layers, layers_present, bytes_to_fetch, .. } => {
                self.step.layers_total = layers as u32;
                self.step.layers_done = layers_present as u32;
                self.step.bytes_total = bytes_to_fetch;
            }
            PullProgress::Layer { phase: Present, .. } => return None,
            PullProgress::Layer { index, phase, bytes_done, .. } => {
                self.layers.insert(index, (bytes_done, phase == Done));
                self.step.bytes_done = self.layers.values().map(|(bytes, _)| bytes).sum();
                let done = self.layers.values().filter(|(_, done)| *done).count() as u32;
                self.step.layers_done = self.step.layers_done.max(done);
            }
            PullProgress::Complete { .. } => {
                self.step.finished = true;
                self.step.layers_done = self.step.layers_total;
            }
            PullProgress::Resolving | PullProgress::Retrying { .. } | PullProgress::UsingCached { .. } => {
                return None;
            }
        }
        Some(self.step.clone())
    }
}

impl ImageFacility for ImageAdapter {
    fn pull<'a>(&'a self, order: &'a PullOrder, watch: PullWatcher) -> Answer<'a, Image, PullFailure> {
        Box::pin(async move {
            let policy = match order.behavior {
                PullBehavior::Default => PullPolicy::Default,
                PullBehavior::Always => PullPolicy::Always,
                PullBehavior::Once => PullPolicy::Once,
                PullBehavior::PreferCached => PullPolicy::PreferCached,
            };
            let options = PullOptions { policy, ..PullOptions::default() };
            let counter = Mutex::new(Counter::default());
            let progress = move |progress: PullProgress| {
                match &progress {
                    PullProgress::Retrying { what, cause, .. } => {
                        tracing::info!(%what, %cause, "a request to a registry is tried again");
                    }
                    PullProgress::UsingCached { cause } => {
                        tracing::warn!(image = %order.reference, %cause, "the pull failed; the image that is here is used");
                    }
                    _ => {}
                }
                let step = counter.lock().unwrap_or_else(PoisonError::into_inner).take(progress);
                if let Some(step) = step {
                    watch(step);
                }
            };
            match self.store.pull_and_hold(&order.reference, &options, progress).await {
                Ok(held) => Ok(Image {
                    image_digest: held.image.from_registry.then(|| held.image.resolved_digest.to_string()),
                    config: held.image.config.clone(),
                    own: Arc::new(held),
                }),
                Err(error) => {
                    let (retriable, missing) = (error.retriable(), error.missing());
                    let (reference, needs_room) = (order.reference.clone(), error.needs_room());
                    Err(PullFailure { reference, retriable, missing, needs_room, source: error.into() })
                }
            }
        })
    }

    fn prepare_rootfs<'a>(
        &'a self,
        key: &'a AttachmentKey,
        image: &'a Image,
        dir: &'a Path,
        mapped: Option<&'a MappedIds>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let mapped = mapped.map(|own| MappedLayers { ids: own.ids, store: own.layers.clone() });
            self.store.prepare_rootfs_mapped(key, pulled(image)?, dir, mapped).await?;
            Ok(())
        })
    }

    fn remove_rootfs<'a>(&'a self, key: &'a AttachmentKey) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.store.remove_rootfs(key).await?) })
    }

    fn list_snapshots(&self) -> Answer<'_, Vec<AttachmentKey>> {
        Box::pin(async move {
            let snapshots = self.store.list_snapshots().await?;
            Ok(snapshots.into_iter().map(|snapshot| snapshot.key).collect())
        })
    }

    fn seed_volume<'a>(
        &'a self,
        rootfs: &'a Path,
        container_path: &'a str,
        dest: &'a Path,
        mapped: Option<&'a MappedIds>,
    ) -> Answer<'a, ()> {
        let ids = mapped.map(|mapped| mapped.ids);
        let (rootfs, path, dest) = (rootfs.to_path_buf(), container_path.to_owned(), dest.to_path_buf());
        Box::pin(super::blocking(move || {
            lighter_image::seed_volume_mapped(&rootfs, &path, &dest, ids)?;
            Ok(())
        }))
    }

    fn usage<'a>(&'a self, used: &'a ImagesInUse) -> Answer<'a, Vec<UsageRow>> {
        Box::pin(async move {
            let usage = self.store.usage(&in_use(used)).await?;
            let row = |kind, count: usize, in_use: usize, bytes, reclaimable_bytes| UsageRow {
                kind,
                count: count as u64,
                in_use: in_use as u64,
                bytes,
                reclaimable_bytes,
            };
            let (blobs, layers) = (usage.blob_bytes, usage.layer_bytes);
            Ok(vec![
                row("images", usage.images, usage.images_in_use, blobs, usage.reclaimable_blob_bytes),
                row("layers", usage.layers, usage.layers_in_use, layers, usage.reclaimable_bytes),
                row("snapshots", usage.snapshots, usage.snapshots, usage.snapshot_bytes, 0),
            ])
        })
    }

    fn prune<'a>(&'a self, used: &'a ImagesInUse) -> Answer<'a, PrunedImages> {
        Box::pin(async move { Ok(counted(self.store.prune(&in_use(used)).await?)) })
    }

    fn clean_up<'a>(&'a self, used: &'a ImagesInUse, wanted_bytes: u64) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            let config = &self.cleanup;
            let hours = config.maximum_unused_hours;
            let rules = CleanUpRules {
                high_percent: config.high_percent,
                low_percent: config.low_percent,
                min_free_bytes: config.min_free_mib << 20,
                wanted_bytes,
                minimum_age: Duration::from_secs(config.minimum_cleanup_age_s),
                maximum_unused: (hours > 0).then(|| Duration::from_secs(hours.saturating_mul(3600))),
            };
            Ok(counted(self.store.clean_up(&rules, &in_use(used)).await?))
        })
    }

    fn list<'a>(&'a self, used: &'a ImagesInUse) -> Answer<'a, Vec<ImageRow>> {
        Box::pin(async move { Ok(self.store.list(&in_use(used)).await?.iter().map(row).collect()) })
    }

    fn inspect<'a>(&'a self, image: &'a str, used: &'a ImagesInUse) -> Answer<'a, Option<ImageDocuments>> {
        Box::pin(async move {
            let Some(found) = self.store.inspect(&image.parse()?, &Platform::host()).await? else {
                return Ok(None);
            };
            let kept = self.store.list(&in_use(used)).await?.into_iter();
            let mut kept = kept.filter(|kept| kept.image.resolved_digest == found.image.resolved_digest);
            let kept =
                kept.next().unwrap_or(KeptImage { image: found.image, in_use: false, last_used_unix_ms: 0 });
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (manifest, config) = (text(&found.manifest), text(&found.config));
            Ok(Some(ImageDocuments { row: row(&kept), manifest, config }))
        })
    }

    fn remove<'a>(&'a self, image: &'a str, used: &'a ImagesInUse) -> Answer<'a, PrunedImages> {
        Box::pin(async move { Ok(counted(self.store.remove(&image.parse()?, &in_use(used)).await?)) })
    }

    fn load<'a>(&'a self, parts: mpsc::Receiver<Vec<u8>>, name: Option<String>) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let name = name.map(|name| name.parse::<ImageReference>()).transpose()?;
            let store = self.store.clone();
            let spool = super::blocking(move || spooled(&store, parts)).await?;
            let images = self.store.load(spool, name.as_ref(), &Platform::host()).await?;
            Ok(images.into_iter().map(|image| image.reference).collect())
        })
    }

    fn save<'a>(&'a self, image: &'a str, parts: mpsc::Sender<Vec<u8>>) -> Answer<'a, ()> {
        Box::pin(async move {
            let reference: ImageReference = image.parse()?;
            let store = self.store.clone();
            let write = move || {
                let mut out = BufWriter::with_capacity(PART_BYTES, Parts(parts));
                store.save(&reference, &Platform::host(), &mut out)?;
                Ok(out.flush()?)
            };
            super::blocking(write).await
        })
    }
}

/// One message of an archive on its way to a client.
const PART_BYTES: usize = 256 << 10;

/// Sends what is written, and waits for whoever takes it.
struct Parts(mpsc::Sender<Vec<u8>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks until the last part has come.
fn spooled(store: &ImageStore, mut parts: mpsc::Receiver<Vec<u8>>) -> Result<Spool, Cause> {
    let mut spool = store.spool()?;
    while let Some(part) = parts.blocking_recv() {
        spool.write_all(&part)?;
    }
    Ok(spool)
}

fn row(kept: &KeptImage) -> ImageRow {
    ImageRow {
        reference: kept.image.reference.clone(),
        image_digest: kept.image.resolved_digest.to_string(),
        config_digest: kept.image.config_digest.to_string(),
        platform: kept.image.platform.to_string(),
        size_bytes: kept.image.size_bytes,
        in_use: kept.in_use,
        from_registry: kept.image.from_registry,
        last_used_unix_ms: kept.last_used_unix_ms,
    }
}

/// The store names images whole (docker.io/library/nginx:latest), tasks as people write them.
fn in_use(used: &ImagesInUse) -> InUse {
    let whole = used.references.iter().filter_map(|r| Some(r.parse::<ImageReference>().ok()?.to_string()));
    let digests = used.digests.iter().filter_map(|digest| digest.parse().ok());
    InUse { references: whole.collect(), digests: digests.collect() }
}

fn counted(pruned: Pruned) -> PrunedImages {
    PrunedImages {
        images: pruned.images.len() as u64,
        layers: pruned.layers as u64,
        bytes: pruned.freed_bytes,
        short_bytes: pruned.short_bytes,
    }
}
