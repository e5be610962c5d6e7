//! Manifests, indexes and image configs: parsed, checked, and reduced to what a pull needs.
//! In: bytes whose digest is already checked. Out: `Manifest` (image or index), `ConfigFile`.
//! Source: OCI image spec manifest.md, image-index.md, config.md; Docker image manifest v2 schema 2.
//! Never: fetches anything.

use crate::config::Limits;
use crate::digest::Digest;
use crate::platform::Platform;
use lighter_model::image_config::{ImageConfig, ImageHealthcheck};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Why a manifest, index or config is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{what} is not valid JSON of its kind")]
    Json {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the media type {media_type:?} of {what} is not supported")]
    MediaType { what: String, media_type: String },
    #[error("{what} says {problem}")]
    Invalid { what: String, problem: String },
    #[error("layer {digest} has {size} bytes, more than the {limit} allowed")]
    LayerTooLarge { digest: Digest, size: u64, limit: u64 },
    #[error("the image has {layers} layers, more than the {limit} allowed")]
    TooManyLayers { layers: usize, limit: usize },
}

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerDescriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
}

/// What a manifest address can answer with.
#[derive(Debug)]
pub(crate) enum Manifest {
    Index(Vec<IndexEntry>),
    Image(ImageManifest),
}

#[derive(Debug, Clone)]
pub(crate) struct IndexEntry {
    pub(crate) digest: Digest,
    pub(crate) platform: Platform,
}

#[derive(Debug)]
pub(crate) struct ImageManifest {
    pub(crate) config_digest: Digest,
    pub(crate) config_size: u64,
    pub(crate) layers: Vec<LayerDescriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: Option<u32>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Manifest {
    /// Parses an answer. `content_type` is what the registry called it; the document's own
    /// `mediaType` wins, because only that is covered by the digest.
    pub(crate) fn parse(bytes: &[u8], content_type: &str, limits: &Limits) -> Result<Self, ManifestError> {
        let raw: RawManifest = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "the manifest", source })?;
        let unsupported = |media_type: &str| ManifestError::MediaType {
            what: "the manifest".into(),
            media_type: media_type.to_owned(),
        };
        if raw.schema_version == Some(1) {
            return Err(unsupported("Docker image manifest version 2, schema 1"));
        }
        let named = raw.media_type.as_deref().unwrap_or(content_type);
        let named = named.split(';').next().unwrap_or_default().trim();
        match (named, &raw.manifests, &raw.layers) {
            (OCI_INDEX | DOCKER_LIST, Some(_), None) => Ok(Self::Index(parse_index(raw)?)),
            (OCI_MANIFEST | DOCKER_MANIFEST, None, Some(_)) => Ok(Self::Image(parse_image(raw, limits)?)),
            // Both kinds in one document is how one digest is made to mean two images.
            (OCI_INDEX | DOCKER_LIST | OCI_MANIFEST | DOCKER_MANIFEST, _, _) => Err(ManifestError::Invalid {
                what: "the manifest".into(),
                problem: format!("it is a {named} but is not built like one"),
            }),
            (other, _, _) => Err(unsupported(other)),
        }
    }
}

fn parse_digest(text: &str) -> Result<Digest, ManifestError> {
    text.parse().map_err(|e: crate::digest::InvalidDigest| ManifestError::Invalid {
        what: "the manifest".into(),
        problem: e.to_string(),
    })
}

fn parse_index(raw: RawManifest) -> Result<Vec<IndexEntry>, ManifestError> {
    let mut entries = Vec::new();
    for descriptor in raw.manifests.unwrap_or_default() {
        // Attestations, signatures and nested indexes have no platform or another media type.
        let Some(platform) = descriptor.platform else { continue };
        if !matches!(descriptor.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST) {
            continue;
        }
        let platform = Platform {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant.filter(|v| !v.is_empty()),
        };
        entries.push(IndexEntry { digest: parse_digest(&descriptor.digest)?, platform });
    }
    Ok(entries)
}

fn parse_image(raw: RawManifest, limits: &Limits) -> Result<ImageManifest, ManifestError> {
    let config = raw.config.ok_or_else(|| ManifestError::Invalid {
        what: "the manifest".into(),
        problem: "nothing about a config".into(),
    })?;
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        let media_type = raw.artifact_type.unwrap_or(config.media_type);
        return Err(ManifestError::MediaType { what: "what is not a container image".into(), media_type });
    }
    if config.size > limits.max_manifest_bytes {
        let problem = format!(
            "its config has {} bytes, more than the {} allowed",
            config.size, limits.max_manifest_bytes
        );
        return Err(ManifestError::Invalid { what: "the manifest".into(), problem });
    }
    let raw_layers = raw.layers.unwrap_or_default();
    if raw_layers.len() > limits.max_layers {
        return Err(ManifestError::TooManyLayers { layers: raw_layers.len(), limit: limits.max_layers });
    }
    let mut layers = Vec::with_capacity(raw_layers.len());
    for layer in raw_layers {
        let digest = parse_digest(&layer.digest)?;
        let compression = compression_of(&layer.media_type).ok_or_else(|| ManifestError::MediaType {
            what: format!("layer {digest}"),
            media_type: layer.media_type.clone(),
        })?;
        if layer.size > limits.max_layer_bytes {
            return Err(ManifestError::LayerTooLarge {
                digest,
                size: layer.size,
                limit: limits.max_layer_bytes,
            });
        }
        layers.push(LayerDescriptor { digest, size: layer.size, compression });
    }
    Ok(ImageManifest { config_digest: parse_digest(&config.digest)?, config_size: config.size, layers })
}

fn compression_of(media_type: &str) -> Option<Compression> {
    match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Some(Compression::None),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Compression::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// The best entry of an index for a machine.
pub(crate) fn choose<'a>(entries: &'a [IndexEntry], wanted: &Platform) -> Option<&'a IndexEntry> {
    // The first of equals wins, as in every other client.
    let mut best: Option<(u32, &IndexEntry)> = None;
    for entry in entries {
        if let Some(rank) = wanted.rank(&entry.platform)
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

/// An image config: what the container needs, and the digests its layers must unpack to.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfigFile {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
    rootfs: Option<RawRootfs>,
    config: Option<RawConfig>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<String>>,
}

// Builders write null for empty lists and maps, hence the options.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    retries: u32,
}

impl From<RawHealthcheck> for ImageHealthcheck {
    fn from(raw: RawHealthcheck) -> Self {
        Self {
            test: raw.test.unwrap_or_default(),
            interval_ns: raw.interval,
            timeout_ns: raw.timeout,
            start_period_ns: raw.start_period,
            retries: raw.retries,
        }
    }
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<Self, ManifestError> {
        let raw: RawConfigFile = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Json { what: "the image config", source })?;
        let invalid = |problem: String| ManifestError::Invalid { what: "the image config".into(), problem };
        let texts = raw.rootfs.and_then(|r| r.diff_ids).unwrap_or_default();
        if texts.len() != layers {
            return Err(invalid(format!("{} diff ids, the manifest has {layers} layers", texts.len())));
        }
        let diff_ids: Vec<Digest> = texts
            .iter()
            .map(|t| t.parse().map_err(|e: crate::digest::InvalidDigest| invalid(e.to_string())))
            .collect::<Result<_, _>>()?;
        let c = raw.config.unwrap_or_default();
        let volumes: BTreeSet<String> = c.volumes.unwrap_or_default().into_keys().collect();
        Ok(Self {
            config: ImageConfig {
                user: c.user.unwrap_or_default(),
                env: c.env.unwrap_or_default(),
                entrypoint: c.entrypoint.unwrap_or_default(),
                cmd: c.cmd.unwrap_or_default(),
                working_dir: c.working_dir.unwrap_or_default(),
                stop_signal: c.stop_signal.filter(|s| !s.is_empty()),
                volumes,
                labels: c.labels.unwrap_or_default(),
                healthcheck: c.healthcheck.map(ImageHealthcheck::from),
            },
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant.filter(|v| !v.is_empty()),
            },
            diff_ids,
        })
    }
}

#[cfg(test)]
mod tests;
