//! Images that somebody is about to use: neither they nor their layers are cleaned up meanwhile.
//! In: a reference. Out: `HeldImage`, found and held in one step, so that nothing comes in between.
//! Owns: the counts in the index while a `HeldImage` lives; when an image was used last, as the time
//! of its record's file. Never: keeps anything over a restart; then a pull asks again.

use super::Inner;
use super::index::image_name;
use crate::digest::LayerKey;
use crate::platform::Platform;
use crate::pull::PulledImage;
use crate::reference::ImageReference;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A whole image that stays whole until this is dropped; a container's root file system keeps its
/// layers from then on.
pub struct HeldImage {
    pub image: PulledImage,
    inner: Arc<Inner>,
    /// Of the record.
    name: String,
}

impl fmt::Debug for HeldImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldImage").field("image", &self.image).finish_non_exhaustive()
    }
}

impl HeldImage {
    /// The image of a reference, if all of it is here.
    pub(crate) fn find(inner: &Arc<Inner>, reference: &ImageReference, platform: &Platform) -> Option<Self> {
        let mut index = inner.index_mut();
        let (name, image) = index.find(reference, platform)?;
        index.hold(&name, &image.layers);
        drop(index);
        touch(inner, &name);
        Some(Self { image, inner: inner.clone(), name })
    }

    /// An image whose record and layers are in place, and pinned by the caller.
    pub(crate) fn of(inner: &Arc<Inner>, image: PulledImage) -> Self {
        let name = image_name(&image.reference, &image.platform);
        inner.index_mut().hold(&name, &image.layers);
        touch(inner, &name);
        Self { image, inner: inner.clone(), name }
    }
}

impl Drop for HeldImage {
    fn drop(&mut self) {
        self.inner.index_mut().let_go(&self.name, &self.image.layers);
    }
}

/// Notes that the image of a record is used now; the file's time keeps it over a restart.
pub(crate) fn touch(inner: &Inner, name: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    inner.index_mut().used(name, now.as_millis() as u64);
    let time = Timespec { tv_sec: now.as_secs() as _, tv_nsec: now.subsec_nanos().into() };
    let times = Timestamps { last_access: time, last_modification: time };
    let path = inner.layout.images().join(format!("{name}.json"));
    // Lost, the image only counts as older than it is.
    if let Err(error) = rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!(path = %path.display(), %error, "when an image was used last is not noted");
    }
}

/// Notes a use of every image of just these layers.
pub(crate) fn touch_layers(inner: &Inner, layers: &[LayerKey]) {
    let listed = inner.index().listed();
    for found in listed.into_iter().filter(|found| found.image.layers == layers) {
        touch(inner, &found.name);
    }
}
