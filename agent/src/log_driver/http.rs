//! Driver `http`, our own: a batch is one POST of NDJSON, one object a record. In: records. Out:
//! requests. An answer of 2xx takes the batch; 400, 413, 415 and 422 refuse what is in it for good;
//! everything else is tried again. Owns: the client with its connections.
//! Never: follows a redirect; falls back to plaintext.

use super::batch::{Record, stream_name};
use super::identity::Identity;
use super::sink::{SendError, Sink};
use crate::errors::{Cause, words};
use futures_util::future::BoxFuture;
use lighter_model::task_definition::log::HttpSettings;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DRIVER: &str = "http";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// An idle connection is closed before most servers would close it.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const REFUSALS: [u16; 4] = [400, 413, 415, 422];

pub(super) struct Http {
    settings: HttpSettings,
    fixed: Map<String, Value>,
    client: Option<Client>,
}

impl Http {
    pub(super) fn new(settings: HttpSettings, identity: &Identity) -> Self {
        let names = [
            ("container", &identity.container),
            ("task", &identity.task),
            ("family", &identity.family),
            ("cluster", &identity.cluster),
            ("host", &identity.host),
            ("image", &identity.image),
            ("tag", &identity.tag),
        ];
        let fixed = names.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value.as_str())));
        let extra = identity.extra.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        // Ours go before a label of the same name.
        Self { settings, fixed: extra.chain(fixed).collect(), client: None }
    }

    fn body(&self, records: &[Record]) -> Result<Vec<u8>, Cause> {
        let mut bytes = Vec::new();
        for Record { number, line, .. } in records {
            let mut object = self.fixed.clone();
            object.insert("time".into(), line.time.as_str().into());
            object.insert("stream".into(), stream_name(line.stream).into());
            object.insert("line".into(), String::from_utf8_lossy(&line.text).into());
            object.insert("number".into(), (*number).into());
            if line.partial {
                object.insert("partial".into(), true.into());
            }
            serde_json::to_writer(&mut bytes, &object)?;
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    /// The status of the answer.
    async fn post(&mut self, records: &[Record]) -> Result<u16, Cause> {
        let body = self.body(records)?;
        let client = match &self.client {
            Some(client) => client,
            // Made anew until it can be: the file of the authority may come later.
            None => self.client.insert(client(&self.settings)?),
        };
        let headers = headers(&self.settings.headers)?;
        let answer = client.post(&self.settings.url).headers(headers).body(body).send().await?;
        Ok(answer.status().as_u16())
    }
}

impl Sink for Http {
    fn send<'a>(&'a mut self, records: &'a [Record]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            match self.post(records).await {
                Ok(200..300) => Ok(()),
                Ok(status) => {
                    let source = words(format!("it answered {status}"));
                    Err(SendError { driver: DRIVER, taken: 0, refused: REFUSALS.contains(&status), source })
                }
                Err(error) => Err(SendError::later(DRIVER, 0, error)),
            }
        })
    }
}

fn headers(wanted: &[(String, String)]) -> Result<HeaderMap, Cause> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    for (name, value) in wanted {
        let mut value = HeaderValue::from_str(value)?;
        // Kept out of what the client prints: it may be a password.
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
    }
    Ok(headers)
}

fn client(settings: &HttpSettings) -> Result<Client, Cause> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &settings.tls_ca_cert {
        for certificate in CertificateDer::pem_file_iter(Path::new(path))? {
            roots.add(certificate?)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let builder = Client::builder().tls_backend_preconfigured(tls).connect_timeout(CONNECT_LIMIT);
    let builder = builder.pool_idle_timeout(IDLE_LIMIT).pool_max_idle_per_host(1);
    let builder = builder.redirect(redirect::Policy::none());
    Ok(builder.user_agent(concat!("lighter/", env!("CARGO_PKG_VERSION"))).build()?)
}
