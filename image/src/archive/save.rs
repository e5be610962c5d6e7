//! Writes an image as an OCI archive that other tools take: OCI layout, and `manifest.json` for older
//! releases of Docker. The same image always gives the same bytes.
//! In: an image of the store, where to write. Out: the archive. Order: index first, blobs after.
//! Never: ends without an error when a layer's bytes are not those its digest promises.

use super::contents::blob_name;
use super::layer::{tar_bytes, write_tar};
use super::{ArchiveError, IMAGE_NAME, REF_NAME};
use crate::digest::{Digest, RunningDigest};
use crate::manifest::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::pull::PulledImage;
use crate::reference::ImageReference;
use crate::store::Inner;
use crate::store::hold::HeldImage;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const BLOCK: usize = 512;

/// A layer as it goes into the archive.
struct Layer {
    dir: PathBuf,
    diff_id: Digest,
    bytes: u64,
}

pub(crate) fn save(
    inner: &Arc<Inner>,
    reference: &ImageReference,
    platform: &Platform,
    out: &mut impl Write,
) -> Result<(), ArchiveError> {
    let held = HeldImage::find(inner, reference, platform)
        .ok_or_else(|| ArchiveError::NotHere { reference: reference.to_string() })?;
    let image = &held.image;
    let layers = layers(inner, image)?;
    let config_path = inner.layout.blob(&image.config_digest);
    let config =
        std::fs::read(&config_path).map_err(|source| ArchiveError::Disk { path: config_path, source })?;
    let sizes: Vec<(Digest, u64)> = layers.iter().map(|layer| (layer.diff_id.clone(), layer.bytes)).collect();
    let manifest = manifest(&image.config_digest, config.len(), &sizes);
    let mut archive = Archive { out };
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.file("index.json", &index(reference, image, &manifest))?;
    archive.file("manifest.json", &docker_manifest(reference, image, &sizes))?;
    archive.file(&blob_name(&Digest::of(&manifest)), &manifest)?;
    archive.file(&blob_name(&image.config_digest), &config)?;
    let mut written = HashSet::new();
    for layer in layers.iter().filter(|layer| written.insert(layer.diff_id.clone())) {
        archive.layer(&image.reference, layer)?;
    }
    archive.end()
}

fn layers(inner: &Inner, image: &PulledImage) -> Result<Vec<Layer>, ArchiveError> {
    let each = image.layers.iter().map(|key| {
        let record = inner.index().layer(key).map(|layer| layer.record.diff_id.clone());
        let reference = || image.reference.clone();
        let diff_id = record.ok_or_else(|| ArchiveError::NotHere { reference: reference() })?;
        let dir = inner.layout.layer(key);
        let bytes = tar_bytes(&dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                ArchiveError::NoRecord { reference: reference(), layer: diff_id.clone() }
            }
            _ => ArchiveError::Layer { reference: reference(), layer: diff_id.clone(), source },
        })?;
        Ok(Layer { dir, diff_id, bytes })
    });
    each.collect()
}

/// The manifest of an image whose layers are not compressed; the same for the same config and layers.
pub(super) fn manifest(config: &Digest, config_bytes: usize, layers: &[(Digest, u64)]) -> Vec<u8> {
    let layers: Vec<Value> = layers
        .iter()
        .map(|(digest, size)| json!({"mediaType": OCI_LAYER, "digest": digest, "size": size}))
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": config_bytes}});
    manifest.to_string().into_bytes()
}

fn index(reference: &ImageReference, image: &PulledImage, manifest: &[u8]) -> Vec<u8> {
    let mut platform = json!({"os": image.platform.os, "architecture": image.platform.architecture});
    if let Some(variant) = &image.platform.variant {
        platform["variant"] = variant.as_str().into();
    }
    let name = reference.to_string();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{
        "mediaType": OCI_MANIFEST, "digest": Digest::of(manifest), "size": manifest.len(),
        "platform": platform, "annotations": {IMAGE_NAME: name, REF_NAME: name}}]});
    index.to_string().into_bytes()
}

fn docker_manifest(reference: &ImageReference, image: &PulledImage, layers: &[(Digest, u64)]) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(|(digest, _)| blob_name(digest)).collect();
    let tags: Vec<String> = reference
        .tag
        .iter()
        .map(|tag| format!("{}/{}:{tag}", reference.host, reference.repository))
        .collect();
    json!([{"Config": blob_name(&image.config_digest), "RepoTags": tags, "Layers": layers}])
        .to_string()
        .into_bytes()
}

struct Archive<'a, W> {
    out: &'a mut W,
}

impl<W: Write> Archive<'_, W> {
    fn header(&mut self, name: &str, bytes: u64) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(ArchiveError::Write)?;
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(ArchiveError::Write)
    }

    fn padding(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        let padding = (BLOCK as u64 - bytes % BLOCK as u64) % BLOCK as u64;
        self.out.write_all(&[0; BLOCK][..padding as usize]).map_err(ArchiveError::Write)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.header(name, bytes.len() as u64)?;
        self.out.write_all(bytes).map_err(ArchiveError::Write)?;
        self.padding(bytes.len() as u64)
    }

    fn layer(&mut self, reference: &str, layer: &Layer) -> Result<(), ArchiveError> {
        self.header(&blob_name(&layer.diff_id), layer.bytes)?;
        let mut hashed = Hashed { out: &mut *self.out, digest: RunningDigest::new(), failed: false };
        let written = write_tar(&layer.dir, &mut hashed);
        let (digest, out_failed) = (hashed.digest.finish(), hashed.failed);
        match written {
            Err(source) if out_failed => return Err(ArchiveError::Write(source)),
            Err(source) => {
                let (reference, layer) = (reference.to_owned(), layer.diff_id.clone());
                return Err(ArchiveError::Layer { reference, layer, source });
            }
            Ok(()) => {}
        }
        if digest != layer.diff_id {
            return Err(ArchiveError::Changed {
                reference: reference.to_owned(),
                layer: layer.diff_id.clone(),
            });
        }
        self.padding(layer.bytes)
    }

    fn end(self) -> Result<(), ArchiveError> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(ArchiveError::Write)?;
        self.out.flush().map_err(ArchiveError::Write)
    }
}

/// Hashes what it passes on, and knows whose fault an error is.
struct Hashed<'a, W> {
    out: &'a mut W,
    digest: RunningDigest,
    failed: bool,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes).inspect_err(|_| self.failed = true)?;
        self.digest.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
