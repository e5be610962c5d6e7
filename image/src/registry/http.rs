//! HTTP clients and the one place where requests are sent and answers become errors.
//! In: endpoints and paths. Out: successful responses, bodies of bounded size, `RegistryError`.
//! Owns: one connection pool for each CA file. TLS is rustls with ring, given by hand, so that no
//! process-wide provider has to be installed.
//! Never: follows a redirect to plain HTTP on a host that is not allowed by name.

use super::error::{RegistryError, TransportError};
use super::{Ask, Registries, endpoint};
use crate::config::{ImageStoreConfig, RegistriesConfig, Timeouts};
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

/// An error page is for reading, not for storing.
const MAX_ERROR_BYTES: u64 = 4096;
const MAX_REDIRECTS: usize = 5;

/// What a client is made of: the CA file as it was then, and whether a proxy may stand before it.
type ClientKey = (Option<(PathBuf, Option<SystemTime>)>, bool);

pub(crate) struct Clients {
    registries: RegistriesConfig,
    timeouts: Timeouts,
    made: Mutex<HashMap<ClientKey, Client>>,
}

/// A redirect that would leave encryption.
#[derive(Debug, thiserror::Error)]
#[error("redirected to plain HTTP at {0}")]
struct PlainRedirect(String);

impl Clients {
    pub(crate) fn new(config: &ImageStoreConfig) -> Self {
        Self {
            registries: config.registries.clone(),
            timeouts: config.timeouts.clone(),
            made: Mutex::new(HashMap::new()),
        }
    }

    /// The client for a host; made at first use, and again when its CA file has changed.
    pub(crate) fn of(&self, host: &str) -> Result<Client, RegistryError> {
        let ca = self.registries.hosts.get(host).and_then(|h| h.ca_pem.clone());
        let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let key = (ca.map(|path| (path.clone(), changed(&path))), endpoint::is_loopback(host));
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(host, key.0.as_ref().map(|(path, _)| path.as_path()), key.1)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    fn make(&self, host: &str, ca: Option<&Path>, loopback: bool) -> Result<Client, RegistryError> {
        let registries = self.registries.clone();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls(host, ca)?)
            .user_agent(concat!("lighter/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(self.timeouts.connect_ms))
            .read_timeout(Duration::from_millis(self.timeouts.inactivity_ms))
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(redirect::Policy::custom(move |attempt| redirected(&registries, attempt)));
        if loopback {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|e| RegistryError::Unreachable { host: host.to_owned(), source: e.into() })
    }

    /// Whether a request may go to this address.
    pub(crate) fn encrypted_or_allowed(&self, url: &Url) -> bool {
        encrypted_or_allowed(&self.registries, url)
    }

    /// The whole body, if it has at most `limit` bytes.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        host: &str,
        what: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk(&mut response, host).await? {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge { host: host.to_owned(), what: what.to_owned(), limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        host: &str,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        response.chunk().await.map_err(|e| self.transport_error(host, e))
    }

    pub(crate) fn transport_error(&self, host: &str, error: reqwest::Error) -> RegistryError {
        let host = host.to_owned();
        if let Some(target) = plain_redirect(&error) {
            return RegistryError::Unencrypted { host, target };
        }
        if error.is_timeout() && !error.is_connect() {
            return RegistryError::Stalled { host, seconds: self.timeouts.inactivity_ms.div_ceil(1000) };
        }
        if error.is_redirect() {
            return RegistryError::Protocol { host, problem: TransportError::from(error).to_string() };
        }
        let source = TransportError::from(error);
        // The TLS library's errors are not reachable as types through the layers above them.
        if source.0.contains("InvalidContentType") {
            return RegistryError::NotTls { host };
        }
        if source.0.contains("invalid peer certificate") {
            return RegistryError::Certificate { host, source };
        }
        RegistryError::Unreachable { host, source }
    }
}

fn plain_redirect(error: &reqwest::Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(one) = cause {
        if let Some(PlainRedirect(target)) = one.downcast_ref() {
            return Some(target.clone());
        }
        cause = one.source();
    }
    None
}

fn encrypted_or_allowed(registries: &RegistriesConfig, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let allowed = || match url.port() {
        Some(port) => registries.http_allowed(&format!("{host}:{port}")),
        None => registries.http_allowed(host),
    };
    url.scheme() == "https" || (url.scheme() == "http" && allowed())
}

fn redirected(registries: &RegistriesConfig, attempt: redirect::Attempt<'_>) -> redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many redirects");
    }
    if !encrypted_or_allowed(registries, attempt.url()) {
        let target = attempt.url().host_str().unwrap_or_default().to_owned();
        return attempt.error(PlainRedirect(target));
    }
    attempt.follow()
}

fn tls(host: &str, ca: Option<&Path>) -> Result<rustls::ClientConfig, RegistryError> {
    let mut roots = system_roots().clone();
    if let Some(path) = ca {
        let wrong = |problem: String| RegistryError::Ca {
            host: host.to_owned(),
            path: path.display().to_string(),
            problem,
        };
        let mut found = 0;
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
            roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong("it has no certificate".into()));
        }
    }
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| RegistryError::Protocol { host: host.to_owned(), problem: e.to_string() })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The system's certificates, read once. A machine without any can still use registries of its own CA.
fn system_roots() -> &'static rustls::RootCertStore {
    static ROOTS: OnceLock<rustls::RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

impl Registries {
    /// Sends a request below `/v2/<repository>/`, with authorization if the registry asks for it;
    /// anything but a success is an error.
    pub(super) async fn send(
        &self,
        ask: Ask<'_>,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response, RegistryError> {
        let host = &ask.endpoint.host;
        let mut address = format!("{}/v2/{}/{path}", ask.endpoint.base, ask.repository);
        if let Some(origin) = &ask.endpoint.mirror_of {
            address.push_str(&format!("?ns={origin}"));
        }
        let wrong = |problem: String| RegistryError::Protocol { host: host.clone(), problem };
        let url = Url::parse(&address).map_err(|e| wrong(e.to_string()))?;
        let client = self.clients.of(host)?;
        let mut authorization = self.tokens.cached(ask);
        for first in [true, false] {
            let mut request = client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = request.send().await.map_err(|e| self.clients.transport_error(host, e))?;
            // A host that we were sent on to does not choose who gets this registry's login.
            let asked = response.url().origin() == url.origin();
            if first && asked && response.status() == StatusCode::UNAUTHORIZED {
                authorization = Some(self.authorize(ask, &client, response).await?);
                continue;
            }
            return self.successful(ask, path, response).await;
        }
        Err(wrong("it asked for authorization again and again".into()))
    }

    async fn successful(
        &self,
        ask: Ask<'_>,
        path: &str,
        response: Response,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = ask.endpoint.host.clone();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let message = self.error_message(response, &host).await;
        Err(match status {
            StatusCode::NOT_FOUND => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let separator = if name.contains(':') { "@" } else { ":" };
                RegistryError::NotFound { host, name: format!("{}{separator}{name}", ask.repository) }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(ask, message),
            _ => RegistryError::Status { host, status: status.as_u16(), message, retry_after },
        })
    }

    /// The registry's own words, from its JSON error or the start of whatever it sent.
    pub(super) async fn error_message(&self, response: Response, host: &str) -> String {
        let status = response.status();
        let body = self.clients.body(response, host, "error", MAX_ERROR_BYTES).await.unwrap_or_default();
        let said = serde_json::from_slice::<ErrorBody>(&body).ok().and_then(|b| b.errors.into_iter().next());
        match said {
            Some(error) if !error.message.is_empty() => error.message,
            Some(error) => error.code,
            None => status.canonical_reason().unwrap_or("no reason given").to_owned(),
        }
    }
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(serde::Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}
