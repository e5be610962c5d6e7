//! Loads the images of an archive into the store: OCI layout, or what `docker save` writes.
//! In: a file, the platform, a name for an image that brings none. Out: the images, whole and durable.
//! Every config is verified by its digest, every layer by the diff id in its config.
//! Never: touches a registry; leaves a layer half visible; holds a promise of room when it is done.

use super::contents::{Contents, blob_name};
use super::layer::tar_bytes;
use super::save::{self, OCI_LAYER};
use super::{ArchiveError, IMAGE_NAME, REF_NAME};
use crate::digest::{Digest, LayerKey};
use crate::manifest::{Compression, ConfigFile, LayerDescriptor, Manifest, ManifestError, OCI_INDEX, choose};
use crate::platform::Platform;
use crate::pull::PulledImage;
use crate::pull::commit;
use crate::pull::error::PullError;
use crate::pull::layer::{Staged, TempDir};
use crate::pull::resolve::Resolved;
use crate::reference::ImageReference;
use crate::store::Inner;
use crate::store::index::LayerRecord;
use crate::store::space::{Reservation, expected_bytes};
use crate::unpack::{Target, UnpackLimits, Unpacked, pipeline, sniff};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufRead;
use std::sync::Arc;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// One image of the archive: where its parts lie.
struct Found {
    names: Vec<ImageReference>,
    resolved_digest: Option<Digest>,
    /// As the archive has it; for what `docker save` writes one is made.
    manifest: Option<(Digest, Vec<u8>)>,
    config: Vec<u8>,
    config_file: ConfigFile,
    /// Name in the archive and how it is packed, bottom first.
    layers: Vec<(String, Option<Compression>)>,
}

pub(crate) fn load(
    inner: &Arc<Inner>,
    file: File,
    name: Option<&ImageReference>,
    platform: &Platform,
) -> Result<Vec<PulledImage>, ArchiveError> {
    let contents = Contents::read(file, inner.config.limits.max_manifest_bytes)?;
    let loader = Loader { inner, contents: &contents, name, platform };
    let found = if contents.has("index.json") {
        loader.oci()?
    } else if contents.has("manifest.json") {
        loader.docker()?
    } else {
        return Err(ArchiveError::unusable("has neither index.json (OCI) nor manifest.json (docker save)"));
    };
    let mut images = Vec::new();
    for image in found {
        images.extend(loader.take(image)?);
    }
    Ok(images)
}

struct Loader<'a> {
    inner: &'a Arc<Inner>,
    contents: &'a Contents,
    name: Option<&'a ImageReference>,
    platform: &'a Platform,
}

impl Loader<'_> {
    fn oci(&self) -> Result<Vec<Found>, ArchiveError> {
        let index: Index = self.contents.json("index.json")?;
        let mut found = Vec::new();
        let mut offered = Vec::new();
        for descriptor in &index.manifests {
            if let Some(platform) = descriptor.platform.as_ref().filter(|p| self.platform.rank(p).is_none()) {
                offered.push(platform.to_string());
                continue;
            }
            found.push(self.oci_image(descriptor)?);
        }
        match found.is_empty() {
            true => Err(ArchiveError::unusable(format!(
                "has no image for {} (it has {})",
                self.platform,
                if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
            ))),
            false => Ok(found),
        }
    }

    fn oci_image(&self, descriptor: &Descriptor) -> Result<Found, ArchiveError> {
        let top: Digest = descriptor.digest.parse()?;
        let limits = &self.inner.config.limits;
        let parse = |bytes: &[u8], media_type: &str| {
            Manifest::parse(bytes, media_type, limits).map_err(ArchiveError::Manifest)
        };
        let bytes = self.contents.blob(&top)?;
        let (digest, bytes, manifest) = match parse(&bytes, &descriptor.media_type)? {
            Manifest::Image(manifest) => (top.clone(), bytes, manifest),
            Manifest::Index(entries) => {
                let entry = choose(&entries, self.platform)
                    .ok_or_else(|| ArchiveError::unusable(format!("has no image for {}", self.platform)))?;
                let bytes = self.contents.blob(&entry.digest)?;
                match parse(&bytes, OCI_INDEX)? {
                    Manifest::Image(manifest) => (entry.digest.clone(), bytes, manifest),
                    Manifest::Index(_) => {
                        return Err(ArchiveError::unusable("has an index within an index within an index"));
                    }
                }
            }
        };
        let config = self.contents.blob(&manifest.config_digest)?;
        let config_file = self.config(&config, manifest.layers.len())?;
        let layers = manifest.layers.iter().map(|layer| (blob_name(&layer.digest), Some(layer.compression)));
        Ok(Found {
            names: self.names(name_of(&descriptor.annotations)?.into_iter().collect())?,
            resolved_digest: Some(top),
            manifest: Some((digest, bytes)),
            config,
            config_file,
            layers: layers.collect(),
        })
    }

    fn docker(&self) -> Result<Vec<Found>, ArchiveError> {
        let images: Vec<DockerImage> = self.contents.json("manifest.json")?;
        let each = images.into_iter().map(|image| {
            let config = self.contents.bytes(&image.config)?;
            let config_file = self.config(&config, image.layers.len())?;
            let tags = image.repo_tags.unwrap_or_default();
            let names = tags.iter().map(|tag| reference(tag)).collect::<Result<_, _>>()?;
            Ok(Found {
                names: self.names(names)?,
                resolved_digest: None,
                manifest: None,
                config,
                config_file,
                layers: image.layers.into_iter().map(|name| (name, None)).collect(),
            })
        });
        each.collect()
    }

    fn config(&self, bytes: &[u8], layers: usize) -> Result<ConfigFile, ArchiveError> {
        let config = ConfigFile::parse(bytes, layers).map_err(ArchiveError::Manifest)?;
        let offered = &config.platform;
        if !offered.architecture.is_empty() && self.platform.rank(offered).is_none() {
            return Err(ArchiveError::unusable(format!(
                "has an image for {offered}, this node is {}",
                self.platform
            )));
        }
        if layers > self.inner.config.limits.max_layers {
            let limit = self.inner.config.limits.max_layers;
            return Err(ArchiveError::Manifest(ManifestError::TooManyLayers { layers, limit }));
        }
        Ok(config)
    }

    fn names(&self, found: Vec<ImageReference>) -> Result<Vec<ImageReference>, ArchiveError> {
        match self.name {
            Some(name) => Ok(vec![name.clone()]),
            None if found.is_empty() => {
                Err(ArchiveError::unusable("does not say what its image is called; name it with --name"))
            }
            None => Ok(found),
        }
    }

    fn take(&self, found: Found) -> Result<Vec<PulledImage>, ArchiveError> {
        let keys = LayerKey::chain(&found.config_file.diff_ids);
        let room = self.reserve(&found, &keys)?;
        for (index, key) in keys.iter().enumerate() {
            let (name, compression) = &found.layers[index];
            let diff_id = &found.config_file.diff_ids[index];
            self.layer(name, *compression, diff_id, key, &keys[..index])?;
        }
        drop(room);
        let resolved = self.resolved(found, keys)?;
        resolved.1.into_iter().map(|name| self.record(&resolved.0, name)).collect()
    }

    fn reserve(&self, found: &Found, keys: &[LayerKey]) -> Result<Reservation, ArchiveError> {
        let mut need_bytes = 0u64;
        for ((name, compression), key) in found.layers.iter().zip(keys) {
            if self.inner.index().layer(key).is_none() {
                let size = self.contents.size(name)?;
                let compression = compression.unwrap_or(Compression::None);
                let digest = Digest::of(name.as_bytes());
                need_bytes += expected_bytes(&LayerDescriptor { digest, size, compression });
            }
        }
        let root = self.inner.layout.root();
        let made = Reservation::make(self.inner, need_bytes)
            .map_err(|source| ArchiveError::Disk { path: root.to_owned(), source })?;
        made.map_err(|no| {
            ArchiveError::Store(PullError::NoRoom {
                reference: found.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                need_bytes,
                free_bytes: no.free_bytes,
                kept_bytes: self.inner.config.min_free_bytes,
            })
        })
    }

    /// Unpacks one layer and makes it visible, unless it is here.
    fn layer(
        &self,
        name: &str,
        compression: Option<Compression>,
        diff_id: &Digest,
        key: &LayerKey,
        lower: &[LayerKey],
    ) -> Result<(), ArchiveError> {
        let inner = self.inner;
        let lock = inner.making(key).blocking_lock_owned();
        if inner.index().layer(key).is_some() {
            return Ok(());
        }
        let disk = |source| ArchiveError::Disk { path: inner.layout.tmp(), source };
        let dir = TempDir::make(inner).map_err(disk)?;
        let mut target = Target::make(&dir.path()).map_err(disk)?;
        target.min_free_bytes = inner.config.min_free_bytes;
        let mut input = self.contents.open(name)?;
        let compression = match compression {
            Some(compression) => compression,
            None => sniff(input.fill_buf().map_err(ArchiveError::Read)?),
        };
        let limits = UnpackLimits {
            max_bytes: inner.config.limits.max_unpacked_layer_bytes,
            max_entries: inner.config.limits.max_layer_entries,
        };
        let unpacked = pipeline::unpack(input, compression, &target, limits)
            .map_err(|source| ArchiveError::Unpack { layer: diff_id.clone(), source })?;
        if unpacked.diff_id != *diff_id {
            return Err(ArchiveError::WrongDigest { what: name.to_owned(), digest: diff_id.clone() });
        }
        let record = LayerRecord {
            key: key.clone(),
            diff_id: diff_id.clone(),
            blob: diff_id.clone(),
            blob_bytes: self.contents.size(name)?,
            unpacked_bytes: unpacked.bytes,
            entries: unpacked.entries,
        };
        let Unpacked { implicit_dirs, links_below, .. } = unpacked;
        let staged = Staged { dir, record, implicit_dirs, links_below, _places: None, _lock: lock };
        commit::commit(inner, name, lower, vec![staged]).map_err(ArchiveError::Store)
    }

    fn resolved(
        &self,
        found: Found,
        layers: Vec<LayerKey>,
    ) -> Result<(Resolved, Vec<ImageReference>), ArchiveError> {
        let config_digest = Digest::of(&found.config);
        let (manifest_digest, manifest_bytes) = match found.manifest {
            Some(manifest) => manifest,
            None => {
                let sizes = found.config_file.diff_ids.iter().zip(&layers).map(|(diff_id, key)| {
                    let dir = self.inner.layout.layer(key);
                    let bytes = tar_bytes(&dir).map_err(|source| ArchiveError::Disk { path: dir, source })?;
                    Ok((diff_id.clone(), bytes))
                });
                let sizes: Vec<_> = sizes.collect::<Result<_, ArchiveError>>()?;
                let bytes = save::manifest(&config_digest, found.config.len(), &sizes);
                (Digest::of(&bytes), bytes)
            }
        };
        let parsed = Manifest::parse(&manifest_bytes, OCI_LAYER, &self.inner.config.limits);
        let Manifest::Image(manifest) = parsed.map_err(ArchiveError::Manifest)? else {
            return Err(ArchiveError::unusable("has an index where a manifest should be"));
        };
        let resolved = Resolved {
            // Loaded, not fetched.
            _config: None,
            resolved_digest: found.resolved_digest.unwrap_or_else(|| manifest_digest.clone()),
            manifest_digest,
            manifest_bytes,
            manifest,
            config_bytes: found.config,
            config: found.config_file,
            layers,
        };
        Ok((resolved, found.names))
    }

    fn record(&self, resolved: &Resolved, name: ImageReference) -> Result<PulledImage, ArchiveError> {
        let known = self.inner.index().image(&name, self.platform);
        let pulled = known.is_some_and(|k| k.from_registry && k.resolved_digest == resolved.resolved_digest);
        let image = PulledImage {
            reference: name.to_string(),
            platform: self.platform.clone(),
            resolved_digest: resolved.resolved_digest.clone(),
            manifest_digest: resolved.manifest_digest.clone(),
            config_digest: resolved.manifest.config_digest.clone(),
            config: resolved.config.config.clone(),
            layers: resolved.layers.clone(),
            size_bytes: self.inner.index().size_of(&resolved.layers),
            from_registry: pulled,
        };
        commit::record_image(self.inner, resolved, &image).map_err(ArchiveError::Store)?;
        Ok(image)
    }
}

/// What an index calls an image. A mere tag is no name.
fn name_of(annotations: &BTreeMap<String, String>) -> Result<Option<ImageReference>, ArchiveError> {
    let whole = annotations.get(IMAGE_NAME);
    let named = whole.or_else(|| annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])));
    named.map(|name| reference(name)).transpose()
}

fn reference(text: &str) -> Result<ImageReference, ArchiveError> {
    text.parse()
        .map_err(|e: crate::InvalidReference| ArchiveError::unusable(format!("names an image wrongly: {e}")))
}
