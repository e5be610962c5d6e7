//! A client of the OCI distribution protocol, version 2, as small as pulling needs it.
//! In: endpoints, names, logins. Out: bounded answers and streams of bytes, unverified beyond what is
//! said at each function. Source: OCI distribution-spec; Docker registry token authentication.
//! Owns: HTTP connections and tokens, by host.
//! Never: speaks plain HTTP to a host that is not allowed by name, redirects and token servers
//! included; takes an answer of unbounded size into memory; tries again (the callers do).

pub(crate) mod auth;
pub(crate) mod challenge;
pub(crate) mod docker_config;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod http;

use crate::config::ImageStoreConfig;
use crate::digest::Digest;
use crate::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use auth::Tokens;
use docker_config::{DockerConfigError, Logins};
use endpoint::Endpoint;
use error::RegistryError;
use http::Clients;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

/// Every registry this store may talk to.
pub(crate) struct Registries {
    config: ImageStoreConfig,
    clients: Clients,
    tokens: Tokens,
}

/// A manifest or index as the registry sent it.
#[derive(Debug)]
pub(crate) struct RawDocument {
    pub(crate) bytes: Vec<u8>,
    /// Of the bytes; equal to what was asked for, if that was a digest.
    pub(crate) digest: Digest,
    pub(crate) content_type: String,
}

/// What is needed to ask: where, for which repository, as whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) repository: &'a str,
    pub(crate) logins: &'a Logins,
}

impl Registries {
    pub(crate) fn new(config: &ImageStoreConfig) -> Self {
        Self { config: config.clone(), clients: Clients::new(config), tokens: Tokens::default() }
    }

    /// Where to ask for images of `host`: its mirrors in order, then itself.
    pub(crate) fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        endpoint::endpoints(&self.config.registries, host)
    }

    /// The logins as they stand in the file now.
    pub(crate) fn logins(&self) -> Result<Logins, DockerConfigError> {
        match &self.config.docker_config {
            Some(path) => Logins::read(path),
            None => Ok(Logins::default()),
        }
    }

    /// What a tag stands for now, without its content; `None` when the registry does not say.
    pub(crate) async fn head_manifest(
        &self,
        ask: Ask<'_>,
        name: &str,
    ) -> Result<Option<Digest>, RegistryError> {
        let response = self.send(ask, Method::HEAD, &format!("manifests/{name}"), accept_manifests()).await?;
        Ok(digest_header(response.headers()))
    }

    /// A manifest or index by tag or digest. The digest of the bytes is checked against the name if
    /// that is one, else against what the registry says of it.
    pub(crate) async fn manifest(&self, ask: Ask<'_>, name: &str) -> Result<RawDocument, RegistryError> {
        let response = self.send(ask, Method::GET, &format!("manifests/{name}"), accept_manifests()).await?;
        let expected = name.parse::<Digest>().ok().or_else(|| digest_header(response.headers()));
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let limit = self.config.limits.max_manifest_bytes;
        let host = &ask.endpoint.host;
        let bytes = self.clients.body(response, host, &format!("manifest {name}"), limit).await?;
        let digest = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != digest => {
                Err(RegistryError::WrongDigest { host: host.clone(), digest: expected, actual: digest })
            }
            _ => Ok(RawDocument { bytes, digest, content_type }),
        }
    }

    /// A small blob, whole and verified.
    pub(crate) async fn small_blob(
        &self,
        ask: Ask<'_>,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut blob = self.blob(ask, digest, size, 0).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = blob.next().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > size {
                return Err(blob.too_large(digest, size));
            }
        }
        let host = ask.endpoint.host.clone();
        if (bytes.len() as u64) < size {
            let received = bytes.len() as u64;
            return Err(RegistryError::Cut { host, received, expected: size, source: None });
        }
        let actual = Digest::of(&bytes);
        match actual == *digest {
            true => Ok(bytes),
            false => Err(RegistryError::WrongDigest { host, digest: digest.clone(), actual }),
        }
    }

    /// The bytes of a blob from `offset` on. Only the announced size is checked here.
    pub(crate) async fn blob(
        &self,
        ask: Ask<'_>,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Blob<'_>, RegistryError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let response = match self.send(ask, Method::GET, &format!("blobs/{digest}"), headers).await {
            Err(RegistryError::NotFound { host, .. }) => {
                return Err(RegistryError::BlobUnknown { host, digest: digest.clone() });
            }
            other => other?,
        };
        let host = ask.endpoint.host.clone();
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = if partial { offset } else { 0 };
        if partial && !range_starts_at(response.headers(), offset) {
            return Err(RegistryError::Protocol { host, problem: "another range than was asked for".into() });
        }
        if let Some(length) = response.content_length()
            && start + length != size
        {
            let actual = start + length;
            return Err(RegistryError::WrongSize { host, digest: digest.clone(), expected: size, actual });
        }
        // A server that knows no ranges sends everything again: what we have is skipped.
        Ok(Blob { clients: &self.clients, response, host, skip: offset - start })
    }
}

/// A blob on its way.
pub(crate) struct Blob<'a> {
    clients: &'a Clients,
    response: reqwest::Response,
    host: String,
    skip: u64,
}

impl Blob<'_> {
    /// The next bytes, `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<bytes::Bytes>, RegistryError> {
        loop {
            let Some(mut chunk) = self.clients.chunk(&mut self.response, &self.host).await? else {
                return Ok(None);
            };
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let rest = chunk.split_off(skipped as usize);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }

    pub(crate) fn too_large(&self, digest: &Digest, limit: u64) -> RegistryError {
        RegistryError::TooLarge { host: self.host.clone(), what: format!("blob {digest}"), limit }
    }
}

fn accept_manifests() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for media_type in [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST] {
        headers.append(ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// `bytes 10-99/100` starts at 10.
fn range_starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let Some(text) = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()) else { return false };
    text.strip_prefix("bytes ")
        .and_then(|rest| rest.split('-').next())
        .and_then(|start| start.trim().parse::<u64>().ok())
        == Some(offset)
}
