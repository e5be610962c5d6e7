//! One layer: wait for whoever makes it already, download and unpack at once, stage it for commit.
//! In: a descriptor, diff id and chain id. Out: `Made`: in place already, or staged and verified.
//! Owns: a directory below `tmp/` until it is renamed, and the lock under which the layer is made.
//! A blob that is unpacked already, on other layers, is not fetched again (`super::twin`).
//! Never: makes a layer visible.

use super::error::PullError;
use super::fetch::{Download, Ended, Source};
use super::progress::{LayerPhase, PullProgress};
use super::twin;
use crate::digest::{Digest, LayerKey};
use crate::manifest::LayerDescriptor;
use crate::registry::error::RegistryError;
use crate::store::Inner;
use crate::store::flight::Flight;
use crate::store::index::LayerRecord;
use crate::store::space::{Reservation, expected_bytes};
use crate::tree;
use crate::unpack::below::LinkBelow;
use crate::unpack::pipeline::{self, Chunk, ChunkReader};
use crate::unpack::{Target, UnpackError, UnpackLimits, Unpacked};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// Chunks on the way from the network to the inflating thread: about 1 MiB.
const CHUNKS: usize = 16;
/// Between two reports of one layer.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What is to be made.
pub(crate) struct LayerJob<'a> {
    pub(crate) index: usize,
    pub(crate) descriptor: &'a LayerDescriptor,
    pub(crate) diff_id: &'a Digest,
    pub(crate) key: &'a LayerKey,
    /// Of the whole pull.
    pub(crate) room: &'a Reservation,
}

/// What came of it.
pub(crate) enum Made {
    Present,
    Staged(Box<Staged>),
}

/// A layer that is unpacked and verified below `tmp/`.
pub(crate) struct Staged {
    pub(crate) dir: TempDir,
    pub(crate) record: LayerRecord,
    pub(crate) implicit_dirs: Vec<Vec<u8>>,
    pub(crate) links_below: Vec<LinkBelow>,
    /// Where others who want the same blob on other layers find it unpacked meanwhile.
    pub(crate) _places: Option<Flight<Vec<PathBuf>>>,
    /// Others who want this layer wait until it is in place, or given up.
    pub(crate) _lock: OwnedMutexGuard<()>,
}

/// A directory below `tmp/`, deleted when dropped.
pub(crate) struct TempDir {
    tmp: PathBuf,
    name: String,
}

impl TempDir {
    pub(crate) fn make(inner: &Inner) -> io::Result<Self> {
        let made = Self { tmp: inner.layout.tmp(), name: inner.layout.unique() };
        std::fs::create_dir(made.path())?;
        Ok(made)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.tmp.join(&self.name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // After the commit it is gone from here, which is success.
        let (tmp, name) = (std::mem::take(&mut self.tmp), std::mem::take(&mut self.name));
        let delete = move || {
            if let Err(error) = delete(&tmp, &name) {
                // Swept at the next start.
                tracing::warn!(path = %tmp.join(name).display(), %error, "deleting an unfinished layer failed");
            }
        };
        // Large trees take long, and this may be dropped where nothing may block.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }
}

fn delete(tmp: &Path, name: &str) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(tmp, flags, Mode::empty())?;
    tree::remove(fd.as_fd(), &std::ffi::CString::new(name)?, fd.as_fd())
}

/// Reports of one layer, thinned out.
struct Reporter<'a> {
    progress: &'a (dyn Fn(PullProgress) + Send + Sync),
    index: usize,
    digest: &'a Digest,
    total: u64,
    done: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl Reporter<'_> {
    fn phase(&self, phase: LayerPhase) {
        (self.progress)(PullProgress::Layer {
            index: self.index,
            digest: self.digest.clone(),
            phase,
            bytes_done: self.done.load(Ordering::Relaxed),
            bytes_total: self.total,
        });
    }

    fn bytes(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            *last = Some(Instant::now());
            drop(last);
            self.phase(LayerPhase::Downloading);
        }
    }
}

impl LayerJob<'_> {
    /// Makes the layer, or finds it made.
    pub(crate) async fn make(
        &self,
        inner: &Arc<Inner>,
        source: &Source<'_>,
        reference: &str,
    ) -> Result<Made, PullError> {
        let reporter = Reporter {
            progress: source.progress,
            index: self.index,
            digest: &self.descriptor.digest,
            total: self.descriptor.size,
            done: AtomicU64::new(0),
            last: Mutex::new(None),
        };
        reporter.phase(LayerPhase::Waiting);
        // First the layer's lock, then the blob's, then a permit: who holds a permit waits for no one
        // else's layer, and who holds a blob's lock does not wait for layers below.
        let lock = inner.making(self.key).lock_owned().await;
        if inner.index().layer(self.key).is_some() {
            self.room.release(expected_bytes(self.descriptor));
            reporter.phase(LayerPhase::Present);
            return Ok(Made::Present);
        }
        let flight = inner.unpacking.join(&self.descriptor.digest);
        let mut places = flight.lock().await;
        let permit = inner.permits.acquire().await.map_err(|_| PullError::Interrupted)?;
        let (dir, unpacked) = match twin::find(inner, &places, self.descriptor, self.diff_id).await {
            Some(found) => found,
            None => self.download(inner, source, reference, &reporter).await?,
        };
        drop(permit);
        places.extend([dir.path(), inner.layout.layer(self.key)]);
        drop(places);
        self.room.release(expected_bytes(self.descriptor));
        reporter.phase(LayerPhase::Committing);
        if unpacked.diff_id != *self.diff_id {
            return Err(PullError::WrongDiffId {
                reference: reference.to_owned(),
                digest: self.descriptor.digest.clone(),
                expected: self.diff_id.clone(),
                actual: unpacked.diff_id,
            });
        }
        let record = LayerRecord {
            key: self.key.clone(),
            diff_id: self.diff_id.clone(),
            blob: self.descriptor.digest.clone(),
            blob_bytes: self.descriptor.size,
            unpacked_bytes: unpacked.bytes,
            entries: unpacked.entries,
        };
        let Unpacked { implicit_dirs, links_below, .. } = unpacked;
        let staged = Staged { dir, record, implicit_dirs, links_below, _places: Some(flight), _lock: lock };
        Ok(Made::Staged(Box::new(staged)))
    }

    /// Downloads and unpacks; when an endpoint sent other content, the remaining ones get a chance.
    async fn download(
        &self,
        inner: &Arc<Inner>,
        source: &Source<'_>,
        reference: &str,
        reporter: &Reporter<'_>,
    ) -> Result<(TempDir, Unpacked), PullError> {
        let mut endpoints = source.endpoints.clone();
        loop {
            let narrowed = source.with_endpoints(endpoints.clone());
            let mut download = Download::new(&narrowed, self.descriptor);
            let result = self.attempt(inner, &mut download, reference, reporter).await;
            let wrong = match &result {
                Err(PullError::Layer { source, .. }) if endpoints.len() > 1 => source,
                _ => return result,
            };
            if !matches!(**wrong, RegistryError::WrongDigest { .. }) {
                return result;
            }
            tracing::warn!(error = %wrong, "the other endpoints are asked");
            let endpoint = download.endpoint().clone();
            endpoints.retain(|e| *e != endpoint);
        }
    }

    async fn attempt(
        &self,
        inner: &Arc<Inner>,
        download: &mut Download<'_>,
        reference: &str,
        reporter: &Reporter<'_>,
    ) -> Result<(TempDir, Unpacked), PullError> {
        let (to, from) = tokio::sync::mpsc::channel(CHUNKS);
        let unpacking = self.spawn_unpack(inner, from);
        let report = |done| reporter.bytes(done);
        let downloaded = download.run(Some(&to), &report).await;
        drop(to);
        let unpacked = unpacking.await.map_err(|_| PullError::Interrupted)?;
        let layer_failed = |source| PullError::Layer {
            reference: reference.to_owned(),
            digest: self.descriptor.digest.clone(),
            source: Box::new(source),
        };
        let ended = downloaded.map_err(layer_failed)?;
        match unpacked {
            Ok(done) => Ok(done),
            Err(Failure::Disk(path, source)) => Err(PullError::Store { path, source }),
            Err(Failure::Unpack(error)) => {
                let garbled = matches!(error, UnpackError::Decompress(_) | UnpackError::Format { .. });
                if garbled && ended == Ended::NotWanted {
                    // Is the archive itself broken, or did it change on the way? The digest tells.
                    download.run(None, &report).await.map_err(layer_failed)?;
                }
                Err(PullError::Unpack {
                    reference: reference.to_owned(),
                    digest: self.descriptor.digest.clone(),
                    source: error,
                })
            }
        }
    }

    fn spawn_unpack(
        &self,
        inner: &Arc<Inner>,
        from: tokio::sync::mpsc::Receiver<Chunk>,
    ) -> tokio::task::JoinHandle<Result<(TempDir, Unpacked), Failure>> {
        let (inner, compression) = (inner.clone(), self.descriptor.compression);
        tokio::task::spawn_blocking(move || {
            let limits = UnpackLimits {
                max_bytes: inner.config.limits.max_unpacked_layer_bytes,
                max_entries: inner.config.limits.max_layer_entries,
            };
            let disk = |e| Failure::Disk(inner.layout.tmp(), e);
            let dir = TempDir::make(&inner).map_err(disk)?;
            let mut target = Target::make(&dir.path()).map_err(disk)?;
            target.min_free_bytes = inner.config.min_free_bytes;
            let unpacked = pipeline::unpack(ChunkReader::new(from), compression, &target, limits)
                .map_err(Failure::Unpack)?;
            Ok((dir, unpacked))
        })
    }
}

enum Failure {
    Disk(PathBuf, io::Error),
    Unpack(UnpackError),
}
