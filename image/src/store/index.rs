//! What the store holds, in memory: images by reference, layers by chain id, and who needs which.
//! In: records read at open and made by pulls. Out: answers without any I/O.
//! Never: touches the disk; the callers do that first and tell the index afterwards.

use crate::digest::{Digest, LayerKey};
use crate::platform::Platform;
use crate::pull::PulledImage;
use crate::reference::ImageReference;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// `layers/<hex>/layer.json`: written before the layer gets its name, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) key: LayerKey,
    pub(crate) diff_id: Digest,
    pub(crate) blob: Digest,
    pub(crate) blob_bytes: u64,
    /// Sum of the sizes of its files without their holes.
    pub(crate) unpacked_bytes: u64,
    pub(crate) entries: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) record: LayerRecord,
    /// Name of its symlink below `l/`.
    pub(crate) link: String,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    images: HashMap<String, PulledImage>,
    layers: HashMap<LayerKey, Layer>,
    /// How many running pulls and held images count on a layer.
    pins: HashMap<LayerKey, usize>,
    /// How many held images (`store::hold`) stand for a record.
    held: HashMap<String, usize>,
    /// When an image was pulled or last used, by the name of its record.
    used_unix_ms: HashMap<String, u64>,
    next_link: u64,
}

/// An image with what a clean-up asks about it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// The name of its record.
    pub(crate) name: String,
    pub(crate) image: PulledImage,
    pub(crate) last_used_unix_ms: u64,
    pub(crate) held: bool,
}

/// The name of an image record: one for each reference and platform.
pub(crate) fn image_name(reference: &str, platform: &Platform) -> String {
    Digest::of(format!("{reference} {platform}").as_bytes()).hex().to_owned()
}

impl Index {
    /// The image of a reference, if all of it is here.
    pub(crate) fn image(&self, reference: &ImageReference, platform: &Platform) -> Option<PulledImage> {
        Some(self.find(reference, platform)?.1)
    }

    /// The same with the name of its record.
    pub(crate) fn find(
        &self,
        reference: &ImageReference,
        platform: &Platform,
    ) -> Option<(String, PulledImage)> {
        let own = self.images.get_key_value(&image_name(&reference.to_string(), platform));
        let (name, image) =
            own.filter(|(_, i)| self.complete(i)).or_else(|| self.pinned(reference, platform))?;
        let mut image = image.clone();
        image.reference = reference.to_string();
        Some((name.clone(), image))
    }

    /// Any image that is what a digest names, under whatever reference it was pulled.
    fn pinned(&self, reference: &ImageReference, platform: &Platform) -> Option<(&String, &PulledImage)> {
        let digest = reference.digest.as_ref()?;
        self.images.iter().find(|(_, image)| {
            image.platform == *platform
                && (image.resolved_digest == *digest || image.manifest_digest == *digest)
                && self.complete(image)
        })
    }

    /// Layers that were unpacked from this blob, on whatever lies below.
    pub(crate) fn unpacked_from(&self, blob: &Digest, diff_id: &Digest) -> Vec<LayerKey> {
        let same = |record: &&LayerRecord| record.blob == *blob && record.diff_id == *diff_id;
        self.layers.values().map(|layer| &layer.record).filter(same).map(|r| r.key.clone()).collect()
    }

    /// Every image, whole or not, with when it was used last.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let each = self.images.iter().map(|(name, image)| Listed {
            name: name.clone(),
            image: image.clone(),
            last_used_unix_ms: self.used_unix_ms.get(name).copied().unwrap_or(0),
            held: self.held.contains_key(name),
        });
        each.collect()
    }

    /// Notes that an image is used now.
    pub(crate) fn used(&mut self, name: &str, unix_ms: u64) {
        let last = self.used_unix_ms.entry(name.to_owned()).or_default();
        *last = unix_ms.max(*last);
    }

    /// Counts on a record and its layers until `let_go`.
    pub(crate) fn hold(&mut self, name: &str, layers: &[LayerKey]) {
        *self.held.entry(name.to_owned()).or_default() += 1;
        self.pin(layers);
    }

    pub(crate) fn let_go(&mut self, name: &str, layers: &[LayerKey]) {
        if let Some(count) = self.held.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(name);
            }
        }
        self.unpin(layers);
    }

    pub(crate) fn complete(&self, image: &PulledImage) -> bool {
        image.layers.iter().all(|key| self.layers.contains_key(key))
    }

    pub(crate) fn images(&self) -> Vec<PulledImage> {
        let mut images: Vec<_> = self.images.values().filter(|i| self.complete(i)).cloned().collect();
        images.sort_by(|a, b| (&a.reference, &a.manifest_digest).cmp(&(&b.reference, &b.manifest_digest)));
        images
    }

    /// Also those of which layers are missing.
    pub(crate) fn all_images(&self) -> Vec<PulledImage> {
        self.images.values().cloned().collect()
    }

    pub(crate) fn insert_image(&mut self, image: PulledImage) {
        self.images.insert(image_name(&image.reference, &image.platform), image);
    }

    pub(crate) fn remove_image(&mut self, name: &str) {
        self.images.remove(name);
        self.used_unix_ms.remove(name);
    }

    /// Whether somebody holds the image.
    pub(crate) fn is_held(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    pub(crate) fn layer(&self, key: &LayerKey) -> Option<&Layer> {
        self.layers.get(key)
    }

    /// Bytes of the files of these layers.
    pub(crate) fn size_of(&self, keys: &[LayerKey]) -> u64 {
        keys.iter().filter_map(|key| self.layers.get(key)).map(|layer| layer.record.unpacked_bytes).sum()
    }

    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.values()
    }

    pub(crate) fn insert_layer(&mut self, layer: Layer) {
        self.layers.insert(layer.record.key.clone(), layer);
    }

    pub(crate) fn remove_layer(&mut self, key: &LayerKey) -> Option<Layer> {
        self.layers.remove(key)
    }

    /// A short name that no layer has: base 36, so that 127 of them take little of a mount's options.
    pub(crate) fn new_link(&mut self) -> String {
        let number = self.next_link;
        self.next_link += 1;
        base36(number)
    }

    /// Counts on layers until `unpin`: they are not pruned meanwhile.
    pub(crate) fn pin(&mut self, keys: &[LayerKey]) {
        for key in keys {
            *self.pins.entry(key.clone()).or_default() += 1;
        }
    }

    pub(crate) fn unpin(&mut self, keys: &[LayerKey]) {
        for key in keys {
            if let Some(count) = self.pins.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.pins.remove(key);
                }
            }
        }
    }

    pub(crate) fn pinned_layers(&self) -> HashSet<LayerKey> {
        self.pins.keys().cloned().collect()
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = (number % 36) as u32;
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_short_and_distinct() {
        let mut index = Index::default();
        let links: HashSet<String> = (0..2000).map(|_| index.new_link()).collect();
        assert_eq!(links.len(), 2000);
        assert!(links.iter().all(|l| l.len() <= 3));
    }

    #[test]
    fn pins_count() {
        let keys = LayerKey::chain(&[Digest::of(b"a")]);
        let mut index = Index::default();
        index.pin(&keys);
        index.pin(&keys);
        index.unpin(&keys);
        assert!(index.pinned_layers().contains(&keys[0]));
        index.unpin(&keys);
        assert!(index.pinned_layers().is_empty());
    }
}
