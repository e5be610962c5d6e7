//! Keeps this node's certificate fresh: after a random part of its life between 50 and 80 % the agent
//! makes a new key, asks the control plane with the old certificate, and puts both in place of the
//! old ones. In: `node.pem`. Out: `node.pem`, whole, 0600; the new credentials for whoever connects.
//! Owns: the time of the next try. A failure leaves everything as it was and is tried again.
//! Never: sends a key anywhere; takes over a CA; ends anything of a session itself.

use crate::errors::{Cause, chain};
use crate::join::{Credentials, certificate_request, identity};
use crate::session::ControlEndpoint;
use crate::time::{sleep, unix_ms};
use lighter_proto::v1::RenewCertificateRequest;
use lighter_proto::v1::node_client::NodeClient;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The machine's clock may be set: the time of the renewal is looked at this often at least.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// Between two tries: a twentieth of what is left, within these.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_LONGEST: Duration = Duration::from_secs(3600);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(30);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error(transparent)]
    Connect(#[from] crate::session::connect::ConnectError),
    #[error("make a key and a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("the control plane refused")]
    Refused(#[source] Box<tonic::Status>),
    #[error("the control plane did not answer within {TRY:?}")]
    Silent,
    #[error("the certificate is none: {what}")]
    Certificate { what: &'static str },
    #[error("keep the new certificate in {path:?}")]
    Store {
        path: PathBuf,
        #[source]
        source: Cause,
    },
}

/// When a certificate is good for, by its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    not_before_unix_ms: u64,
    not_after_unix_ms: u64,
}

/// The moment of the renewal; `part`: 0 to 255, drawn for each certificate, so that nodes that
/// joined together do not come together.
fn renew_at_unix_ms(validity: Validity, part: u8) -> u64 {
    let life = validity.not_after_unix_ms.saturating_sub(validity.not_before_unix_ms);
    // 50 % and up to 30 % more.
    let share = u128::from(life) * (5_000 + 3_000 * u128::from(part) / 255) / 10_000;
    validity.not_before_unix_ms + u64::try_from(share).unwrap_or(life)
}

/// The pause after a try that failed.
fn again_in(validity: Validity, now_unix_ms: u64) -> Duration {
    let left = Duration::from_millis(validity.not_after_unix_ms.saturating_sub(now_unix_ms));
    (left / 20).clamp(AGAIN_FIRST, AGAIN_LONGEST)
}

/// What renewing works with.
pub(crate) struct Renewal {
    pub endpoint: ControlEndpoint,
    /// `node.pem`.
    pub path: PathBuf,
    /// Where everybody who connects has them from.
    pub credentials: watch::Sender<Credentials>,
    pub leaving: CancellationToken,
}

impl Renewal {
    /// Runs until the agent leaves.
    pub(crate) async fn run(self) {
        let leaving = self.leaving.clone();
        tokio::select! {
            // A try that is dropped has written all or nothing.
            () = leaving.cancelled() => {}
            () = self.renew_for_ever() => {}
        }
    }

    async fn renew_for_ever(&self) {
        loop {
            let certificate = self.credentials.borrow().certificate.clone();
            let validity = match validity(&certificate) {
                Ok(validity) => validity,
                Err(error) => {
                    tracing::error!(cause = %chain(&error), path = ?self.path, "the node's certificate cannot be renewed");
                    return std::future::pending().await;
                }
            };
            let at = renew_at_unix_ms(validity, random_part());
            while let Some(left) = at.checked_sub(unix_ms()).filter(|left| *left > 0) {
                sleep(Duration::from_millis(left).min(LOOK_AGAIN)).await;
            }
            while let Err(error) = self.renew(validity).await {
                let pause = again_in(validity, unix_ms());
                tracing::warn!(cause = %chain(&error), again_in = ?pause, "the node's certificate was not renewed; trying again");
                sleep(pause).await;
            }
        }
    }

    /// One try.
    async fn renew(&self, old: Validity) -> Result<(), RenewError> {
        let key = rcgen::KeyPair::generate().map_err(RenewError::Request)?;
        let certificate_request_pem = certificate_request(&key).map_err(RenewError::Request)?;
        let ask = async {
            let mut client = NodeClient::new(self.endpoint.connect().await?);
            let answer = client.renew_certificate(RenewCertificateRequest { certificate_request_pem }).await;
            Ok(answer.map_err(|status| RenewError::Refused(Box::new(status)))?.into_inner().certificate_pem)
        };
        let certificate: String = tokio::time::timeout(TRY, ask).await.unwrap_or(Err(RenewError::Silent))?;
        check(&certificate, &key, old)?;
        let ca = self.credentials.borrow().ca.clone();
        let new = Credentials { certificate, key: key.serialize_pem(), ca };
        let (path, text) = (self.path.clone(), new.to_pem());
        let written = tokio::task::spawn_blocking(move || identity::write_private(&path, text.as_bytes()));
        let written = written.await.map_err(Cause::from).and_then(|written| written.map_err(Cause::from));
        written.map_err(|source| RenewError::Store { path: self.path.clone(), source })?;
        // Only what is on disk is used: after a crash it is what the agent has.
        self.credentials.send_replace(new);
        tracing::info!(path = ?self.path, "the node's certificate was renewed");
        Ok(())
    }
}

/// The new certificate is for our key, and takes us further than the old one.
fn check(certificate: &str, key: &rcgen::KeyPair, old: Validity) -> Result<(), RenewError> {
    let der = der(certificate)?;
    let parsed = parse(&der)?;
    let wrong = |what| Err(RenewError::Certificate { what });
    if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(key) {
        return wrong("it is for another key");
    }
    if validity(certificate)?.not_after_unix_ms <= old.not_after_unix_ms {
        return wrong("it does not last longer than the old one");
    }
    Ok(())
}

fn validity(certificate: &str) -> Result<Validity, RenewError> {
    let der = der(certificate)?;
    let parsed = parse(&der)?;
    let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    Ok(Validity {
        not_before_unix_ms: ms(parsed.validity().not_before.timestamp()),
        not_after_unix_ms: ms(parsed.validity().not_after.timestamp()),
    })
}

fn der(certificate: &str) -> Result<CertificateDer<'static>, RenewError> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes());
    der.map_err(|_| RenewError::Certificate { what: "it is no PEM text" })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, RenewError> {
    let parsed = X509Certificate::from_der(der).map(|(_, parsed)| parsed);
    parsed.map_err(|_| RenewError::Certificate { what: "it is no X.509 certificate" })
}

/// From the system's source; a failure of that means the earliest moment.
fn random_part() -> u8 {
    crate::random::bytes().map_or(0, |[byte]| byte)
}

#[cfg(test)]
mod tests;
