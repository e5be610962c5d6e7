//! The course of one pull, from the policy to the record.
//! In: reference, options. Out: `HeldImage`.
//! Owns: the futures of its layers; a commit that has begun finishes even when the pull is dropped.
//! Never: returns an image of which a layer is missing or not yet durable.

use super::commit;
use super::error::PullError;
use super::fetch::{Source, words};
use super::layer::{LayerJob, Made, Staged};
use super::progress::{LayerPhase, PullProgress};
use super::resolve::{Question, Resolved};
use super::{PullOptions, PullPolicy, PulledImage};
use crate::config::RetryConfig;
use crate::digest::LayerKey;
use crate::reference::ImageReference;
use crate::store::Inner;
use crate::store::hold::HeldImage;
use crate::store::space::{Reservation, expected_bytes};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

type Progress<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

pub(crate) async fn pull(
    inner: &Arc<Inner>,
    reference: &str,
    options: &PullOptions,
    progress: Progress<'_>,
) -> Result<HeldImage, PullError> {
    let reference: ImageReference = reference.parse().map_err(PullError::Reference)?;
    let cached = HeldImage::find(inner, &reference, &options.platform);
    if let Some(held) = cached.as_ref().filter(|held| settled(&held.image, &reference, options.policy)) {
        progress(PullProgress::Complete { manifest_digest: held.image.manifest_digest.clone() });
        return cached.ok_or(PullError::Interrupted);
    }
    let limit = Duration::from_millis(inner.config.timeouts.pull_ms);
    let pull = Pull { inner, reference: &reference, options, progress };
    let pulled =
        tokio::time::timeout(limit, pull.run(cached.as_ref().map(|held| &held.image))).await.unwrap_or_else(
            |_| Err(PullError::TooSlow { reference: reference.to_string(), seconds: limit.as_secs() }),
        );
    match (pulled, cached, options.policy) {
        (Err(error), Some(held), PullPolicy::Default | PullPolicy::PreferCached) => {
            progress(PullProgress::UsingCached { cause: words(&error) });
            progress(PullProgress::Complete { manifest_digest: held.image.manifest_digest.clone() });
            Ok(held)
        }
        (pulled, _, _) => pulled,
    }
}

/// Whether nobody has to be asked about an image that is here. A digest means the same for ever, but
/// `always` asks all the same whether the registry still gives it to us.
fn settled(image: &PulledImage, reference: &ImageReference, policy: PullPolicy) -> bool {
    match policy {
        PullPolicy::Default => reference.digest.is_some(),
        PullPolicy::Always => false,
        PullPolicy::Once => image.from_registry,
        PullPolicy::PreferCached => true,
    }
}

struct Pull<'a> {
    inner: &'a Arc<Inner>,
    reference: &'a ImageReference,
    options: &'a PullOptions,
    progress: Progress<'a>,
}

/// Layers that must not be pruned while a pull counts on them.
struct Pinned<'a> {
    inner: &'a Inner,
    layers: Vec<LayerKey>,
}

impl<'a> Pinned<'a> {
    fn new(inner: &'a Inner, layers: Vec<LayerKey>) -> Self {
        inner.index_mut().pin(&layers);
        Self { inner, layers }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.inner.index_mut().unpin(&self.layers);
    }
}

impl Pull<'_> {
    async fn run(&self, cached: Option<&PulledImage>) -> Result<HeldImage, PullError> {
        (self.progress)(PullProgress::Resolving);
        let registries = &self.inner.registries;
        let logins = registries.logins().map_err(PullError::Login)?;
        // With a copy at hand a start must not wait for a registry that is down.
        let hurried = RetryConfig { attempts: 1, ..self.inner.config.retry.clone() };
        let may_fall_back = cached.is_some() && self.options.policy == PullPolicy::Default;
        let source = Source {
            registries,
            repository: &self.reference.repository,
            logins: &logins,
            endpoints: registries.endpoints(&self.reference.host),
            retry: if may_fall_back { hurried } else { self.inner.config.retry.clone() },
            progress: self.progress,
        };
        if let Some(image) = cached
            && self.unchanged(&source, image).await?
        {
            return self.complete(self.pulled_again(image).await?);
        }
        let flight = self.inner.pulling.join(&(self.reference.clone(), self.options.platform.clone()));
        let mut landed = flight.lock().await;
        if let Some(image) = landed.clone() {
            // Pulled while this one waited; what it was asked for then is what it means now. Its
            // record may be gone again only if a clean-up was very quick: then it is pulled anew.
            let held = HeldImage::find(self.inner, self.reference, &self.options.platform);
            if let Some(held) = held.filter(|held| held.image.manifest_digest == image.manifest_digest) {
                return self.complete(held);
            }
        }
        let held = self.fetch(source).await?;
        *landed = Some(held.image.clone());
        self.complete(held)
    }

    fn complete(&self, held: HeldImage) -> Result<HeldImage, PullError> {
        (self.progress)(PullProgress::Complete { manifest_digest: held.image.manifest_digest.clone() });
        Ok(held)
    }

    /// The registry has confirmed an image that is here: from now on it counts as pulled.
    async fn pulled_again(&self, image: &PulledImage) -> Result<HeldImage, PullError> {
        let find = || HeldImage::find(self.inner, self.reference, &self.options.platform);
        let held = find().ok_or(PullError::Interrupted)?;
        if image.from_registry {
            return Ok(held);
        }
        let (inner, image) = (self.inner.clone(), PulledImage { from_registry: true, ..image.clone() });
        blocking(move || commit::note_pulled(&inner, image)).await?;
        Ok(held)
    }

    async fn fetch(&self, mut source: Source<'_>) -> Result<HeldImage, PullError> {
        let question = Question {
            reference: self.reference,
            platform: &self.options.platform,
            limits: &self.inner.config.limits,
            layout: &self.inner.layout,
            configs: &self.inner.configs,
        };
        let resolved = question.resolve(&source).await?;
        source.retry = self.inner.config.retry.clone();
        let _pinned = Pinned::new(self.inner, resolved.layers.clone());
        self.report_resolved(&resolved);
        let room = self.reserve(&resolved)?;
        self.layers(&source, &resolved, &room).await?;
        self.record(resolved).await
    }

    /// Room for what is missing, before any of it is fetched.
    fn reserve(&self, resolved: &Resolved) -> Result<Reservation, PullError> {
        let index = self.inner.index();
        let missing = resolved.layers.iter().zip(&resolved.manifest.layers);
        let missing = missing.filter(|(key, _)| index.layer(key).is_none());
        let need_bytes = missing.map(|(_, layer)| expected_bytes(layer)).sum();
        drop(index);
        let root = self.inner.layout.root();
        let made = Reservation::make(self.inner, need_bytes)
            .map_err(|source| PullError::Store { path: root.to_owned(), source })?;
        made.map_err(|no| PullError::NoRoom {
            reference: self.reference.to_string(),
            need_bytes,
            free_bytes: no.free_bytes,
            kept_bytes: self.inner.config.min_free_bytes,
        })
    }

    /// Whether the tag still means what it meant; a HEAD costs no registry's pull quota.
    async fn unchanged(&self, source: &Source<'_>, image: &PulledImage) -> Result<bool, PullError> {
        let registries = source.registries;
        let name = self.reference.manifest_name();
        match source.ask("the tag", |ask| registries.head_manifest(ask, name)).await {
            Ok(digest) => Ok(digest.as_ref() == Some(&image.resolved_digest)),
            Err(error) if error.unreachable() => {
                Err(PullError::Resolve { reference: self.reference.to_string(), source: Box::new(error) })
            }
            // Some registries know no HEAD; what a refusal means, the GET that follows will say.
            Err(_) => Ok(false),
        }
    }

    fn report_resolved(&self, resolved: &Resolved) {
        let index = self.inner.index();
        let present = |key: &LayerKey| index.layer(key).is_some();
        let layers_present = resolved.layers.iter().filter(|k| present(k)).count();
        let missing = resolved.layers.iter().zip(&resolved.manifest.layers).filter(|(k, _)| !present(k));
        let bytes_to_fetch = missing.map(|(_, layer)| layer.size).sum();
        drop(index);
        (self.progress)(PullProgress::Resolved {
            manifest_digest: resolved.manifest_digest.clone(),
            layers: resolved.layers.len(),
            layers_present,
            bytes_to_fetch,
        });
    }

    /// All layers at once, committed from the bottom up in groups while the others go on.
    async fn layers(
        &self,
        source: &Source<'_>,
        resolved: &Resolved,
        room: &Reservation,
    ) -> Result<(), PullError> {
        let reference = self.reference.to_string();
        let jobs: Vec<LayerJob<'_>> = resolved
            .layers
            .iter()
            .enumerate()
            .map(|(index, key)| LayerJob {
                index,
                descriptor: &resolved.manifest.layers[index],
                diff_id: &resolved.config.diff_ids[index],
                key,
                room,
            })
            .collect();
        let mut running: FuturesUnordered<_> = jobs
            .iter()
            .map(|job| {
                let reference = &reference;
                async move { (job.index, job.make(self.inner, source, reference).await) }
            })
            .collect();
        let mut queue = CommitQueue::new(self, resolved, jobs.len());
        while !queue.finished() {
            queue.start(&reference);
            tokio::select! {
                Some((index, made)) = running.next() => queue.made[index] = Some(made?),
                // Polled by reference: an arm that loses leaves the commit running.
                committed = queue.committed() => committed?,
            }
        }
        Ok(())
    }

    async fn record(&self, resolved: Resolved) -> Result<HeldImage, PullError> {
        let size_bytes = self.inner.index().size_of(&resolved.layers);
        let image = PulledImage {
            reference: self.reference.to_string(),
            platform: self.options.platform.clone(),
            resolved_digest: resolved.resolved_digest.clone(),
            manifest_digest: resolved.manifest_digest.clone(),
            config_digest: resolved.manifest.config_digest.clone(),
            config: resolved.config.config.clone(),
            layers: resolved.layers.clone(),
            size_bytes,
            from_registry: true,
        };
        let inner = self.inner.clone();
        blocking(move || {
            commit::record_image(&inner, &resolved, &image)?;
            Ok(HeldImage::of(&inner, image))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullError> + Send + 'static,
) -> Result<T, PullError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PullError::Interrupted))
}

/// Which layers are made, which are in place, and the one commit under way.
struct CommitQueue<'a> {
    pull: &'a Pull<'a>,
    resolved: &'a Resolved,
    made: Vec<Option<Made>>,
    /// All layers before this one are in place.
    next: usize,
    commit: Option<(usize, JoinHandle<Result<(), PullError>>)>,
}

impl<'a> CommitQueue<'a> {
    fn new(pull: &'a Pull<'a>, resolved: &'a Resolved, layers: usize) -> Self {
        Self { pull, resolved, made: (0..layers).map(|_| None).collect(), next: 0, commit: None }
    }

    fn finished(&self) -> bool {
        self.next == self.made.len()
    }

    /// Starts a commit of every staged layer whose lower ones are in place, if none is running.
    fn start(&mut self, reference: &str) {
        if self.commit.is_some() {
            return;
        }
        let mut group: Vec<Staged> = Vec::new();
        let mut until = self.next;
        while let Some(made) = self.made.get_mut(until) {
            match made.take() {
                None => break,
                Some(Made::Staged(staged)) => group.push(*staged),
                // One that is in place ends the group: it may be what the next inherits from.
                Some(Made::Present) if group.is_empty() => self.next = until + 1,
                Some(present @ Made::Present) => {
                    *made = Some(present);
                    break;
                }
            }
            until += 1;
        }
        if group.is_empty() {
            return;
        }
        let lower = self.resolved.layers[..self.next].to_vec();
        let (inner, reference) = (self.pull.inner.clone(), reference.to_owned());
        let commit = tokio::task::spawn_blocking(move || commit::commit(&inner, &reference, &lower, group));
        self.commit = Some((until, commit));
    }

    /// Waits for the commit under way; for ever when there is none.
    async fn committed(&mut self) -> Result<(), PullError> {
        let Some((until, commit)) = &mut self.commit else {
            if self.finished() {
                return Ok(());
            }
            return std::future::pending().await;
        };
        let result = commit.await.map_err(|_| PullError::Interrupted)?;
        let until = *until;
        self.commit = None;
        result?;
        for index in self.next..until {
            let descriptor = &self.resolved.manifest.layers[index];
            (self.pull.progress)(PullProgress::Layer {
                index,
                digest: descriptor.digest.clone(),
                phase: LayerPhase::Done,
                bytes_done: descriptor.size,
                bytes_total: descriptor.size,
            });
        }
        self.next = until;
        Ok(())
    }
}
