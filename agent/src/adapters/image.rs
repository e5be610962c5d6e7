//! Images and root file systems by `lighter_image`.
//! In: references, keys. Out: what `ImageFacility` promises. Owns the store's handle.
//! Never: retries; the store does for requests, the task for pulls.

use crate::config::AgentConfig;
use crate::errors::Cause;
use crate::facilities::{
    Answer, Image, ImageFacility, PrunedImages, PullFailure, PullStep, PullWatcher, UsageRow,
};
use lighter_image::{
    ImageStore, ImageStoreConfig, InUse, PullOptions, PullPolicy, PullProgress, PulledImage, RegistryHost,
};
use lighter_model::ids::AttachmentKey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where `docker login` of root writes.
const DOCKER_CONFIG: &str = "/root/.docker/config.json";

pub(super) struct ImageAdapter {
    store: ImageStore,
}

impl ImageAdapter {
    /// Blocks.
    pub(super) fn open(config: &AgentConfig) -> Result<Self, Cause> {
        let mut settings = ImageStoreConfig::new(config.data_dir.join("images"));
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
        Ok(Self { store: ImageStore::open(settings)? })
    }
}

fn pulled(image: &Image) -> Result<&PulledImage, Cause> {
    image.own.downcast_ref::<PulledImage>().ok_or_else(|| crate::errors::words("an image of another store"))
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
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        cached: bool,
        watch: PullWatcher,
    ) -> Answer<'a, Image, PullFailure> {
        Box::pin(async move {
            let policy = if cached { PullPolicy::PreferCached } else { PullPolicy::Default };
            let options = PullOptions { policy, ..PullOptions::default() };
            let counter = Mutex::new(Counter::default());
            let progress = move |progress: PullProgress| {
                if let PullProgress::Retrying { what, cause, .. } = &progress {
                    tracing::info!(%what, %cause, "a request to a registry is tried again");
                }
                let step = counter.lock().unwrap_or_else(PoisonError::into_inner).take(progress);
                if let Some(step) = step {
                    watch(step);
                }
            };
            match self.store.resolve_and_pull(reference, &options, progress).await {
                Ok(image) => Ok(Image {
                    manifest_digest: image.manifest_digest.to_string(),
                    config: image.config.clone(),
                    own: Arc::new(image),
                }),
                Err(error) => {
                    let retriable = error.retriable();
                    Err(PullFailure { reference: reference.to_owned(), retriable, source: error.into() })
                }
            }
        })
    }

    fn prepare_rootfs<'a>(
        &'a self,
        key: &'a AttachmentKey,
        image: &'a Image,
        dir: &'a Path,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            self.store.prepare_rootfs(key, pulled(image)?, dir).await?;
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
    ) -> Answer<'a, ()> {
        let (rootfs, path, dest) = (rootfs.to_path_buf(), container_path.to_owned(), dest.to_path_buf());
        Box::pin(super::blocking(move || {
            lighter_image::seed_volume(&rootfs, &path, &dest)?;
            Ok(())
        }))
    }

    fn usage(&self) -> Answer<'_, Vec<UsageRow>> {
        Box::pin(async move {
            let usage = self.store.usage().await?;
            let snapshots = usage.snapshots as u64;
            let row = |kind, count, in_use, bytes, reclaimable_bytes| UsageRow {
                kind,
                count,
                in_use,
                bytes,
                reclaimable_bytes,
            };
            Ok(vec![
                row("images", usage.images as u64, 0, usage.blob_bytes, 0),
                row("layers", usage.layers as u64, 0, usage.layer_bytes, usage.reclaimable_bytes),
                row("snapshots", snapshots, snapshots, usage.snapshot_bytes, 0),
            ])
        })
    }

    fn prune<'a>(&'a self, references: &'a [String]) -> Answer<'a, PrunedImages> {
        Box::pin(async move {
            // The store names images whole (docker.io/library/nginx:latest), tasks as people write them.
            let whole = references
                .iter()
                .filter_map(|r| Some(r.parse::<lighter_image::ImageReference>().ok()?.to_string()));
            let in_use =
                InUse { references: whole.chain(references.iter().cloned()).collect(), ..InUse::default() };
            let pruned = self.store.prune(&in_use).await?;
            Ok(PrunedImages {
                images: pruned.images.len() as u64,
                layers: pruned.layers as u64,
                bytes: pruned.freed_bytes,
            })
        })
    }
}
