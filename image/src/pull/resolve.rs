//! From a reference to the manifest and config of one platform, all verified by digest.
//! In: a reference, a platform, the endpoints. Out: `Resolved`.
//! Never: fetches a layer, writes to the disk.

use super::error::PullError;
use super::fetch::Source;
use crate::config::Limits;
use crate::digest::{Digest, LayerKey};
use crate::manifest::{ConfigFile, ImageManifest, Manifest, ManifestError, choose};
use crate::platform::Platform;
use crate::reference::ImageReference;
use crate::registry::RawDocument;
use crate::registry::error::RegistryError;
use crate::store::flight::{Flight, Flights};
use crate::store::layout::Layout;
use std::sync::Arc;

/// What a reference means for a platform.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) resolved_digest: Digest,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest_bytes: Vec<u8>,
    pub(crate) manifest: ImageManifest,
    pub(crate) config_bytes: Vec<u8>,
    pub(crate) config: ConfigFile,
    /// Chain ids of the layers, bottom first.
    pub(crate) layers: Vec<LayerKey>,
    /// Held until the image is recorded: who asks for the config before that gets it from here.
    pub(crate) _config: Option<ConfigFlight>,
}

type ConfigFlight = Flight<Option<Arc<Vec<u8>>>>;

/// The question of one pull.
pub(crate) struct Question<'a> {
    pub(crate) reference: &'a ImageReference,
    pub(crate) platform: &'a Platform,
    pub(crate) limits: &'a Limits,
    pub(crate) layout: &'a Layout,
    pub(crate) configs: &'a Flights<Digest, Option<Arc<Vec<u8>>>>,
}

impl Question<'_> {
    fn failed(&self, source: RegistryError) -> PullError {
        PullError::Resolve { reference: self.reference.to_string(), source: Box::new(source) }
    }

    fn unusable(&self, source: ManifestError) -> PullError {
        PullError::Manifest { reference: self.reference.to_string(), source }
    }

    fn wrong_platform(&self, offered: String) -> PullError {
        PullError::WrongPlatform {
            reference: self.reference.to_string(),
            wanted: self.platform.to_string(),
            offered,
        }
    }

    /// Asks for everything.
    pub(crate) async fn resolve(&self, source: &Source<'_>) -> Result<Resolved, PullError> {
        let top = self.document(source, self.reference.manifest_name()).await?;
        let resolved_digest = top.digest.clone();
        let (document, manifest) = match self.parse(&top)? {
            Manifest::Image(manifest) => (top, manifest),
            Manifest::Index(entries) => {
                let entry = choose(&entries, self.platform).ok_or_else(|| {
                    let offered: Vec<String> = entries.iter().map(|e| e.platform.to_string()).collect();
                    self.wrong_platform(if offered.is_empty() { "none".into() } else { offered.join(", ") })
                })?;
                let document = self.document(source, entry.digest.as_str()).await?;
                match self.parse(&document)? {
                    Manifest::Image(manifest) => (document, manifest),
                    Manifest::Index(_) => {
                        return Err(self.unusable(ManifestError::Invalid {
                            what: "the index".into(),
                            problem: "that one of its images is an index again".into(),
                        }));
                    }
                }
            }
        };
        let (config_bytes, flight) = self.config(source, &manifest).await?;
        let config = ConfigFile::parse(&config_bytes, manifest.layers.len()).map_err(|e| self.unusable(e))?;
        self.check_platform(&config.platform)?;
        Ok(Resolved {
            resolved_digest,
            manifest_digest: document.digest,
            manifest_bytes: document.bytes,
            layers: LayerKey::chain(&config.diff_ids),
            manifest,
            config_bytes,
            config,
            _config: flight,
        })
    }

    async fn document(&self, source: &Source<'_>, name: &str) -> Result<RawDocument, PullError> {
        let registries = source.registries;
        source
            .ask(&format!("manifest {name}"), |ask| registries.manifest(ask, name))
            .await
            .map_err(|e| self.failed(e))
    }

    fn parse(&self, document: &RawDocument) -> Result<Manifest, PullError> {
        Manifest::parse(&document.bytes, &document.content_type, self.limits).map_err(|e| self.unusable(e))
    }

    /// The config from the store, else from the registry; several who want it ask once.
    async fn config(
        &self,
        source: &Source<'_>,
        manifest: &ImageManifest,
    ) -> Result<(Vec<u8>, Option<ConfigFlight>), PullError> {
        let digest = &manifest.config_digest;
        if let Ok(bytes) = tokio::fs::read(self.layout.blob(digest)).await
            && Digest::of(&bytes) == *digest
        {
            return Ok((bytes, None));
        }
        let flight = self.configs.join(digest);
        let mut landed = flight.lock().await;
        if let Some(bytes) = landed.as_ref().map(|bytes| bytes.to_vec()) {
            drop(landed);
            return Ok((bytes, Some(flight)));
        }
        let registries = source.registries;
        let bytes = source
            .ask("the image config", |ask| registries.small_blob(ask, digest, manifest.config_size))
            .await
            .map_err(|e| self.failed(e))?;
        *landed = Some(Arc::new(bytes.clone()));
        drop(landed);
        Ok((bytes, Some(flight)))
    }

    /// An index that lies, or a tag of a single image: the config itself has to fit, too.
    fn check_platform(&self, offered: &Platform) -> Result<(), PullError> {
        let silent = offered.os.is_empty() && offered.architecture.is_empty();
        match silent || self.platform.rank(offered).is_some() {
            true => Ok(()),
            false => Err(self.wrong_platform(offered.to_string())),
        }
    }
}
