//! What a registry, or the way to it, can do wrong.
//! In: answers and transport errors. Out: `RegistryError`, which knows whether trying again can help.
//! Never: carries credentials, tokens or signed addresses.

use crate::digest::Digest;
use std::time::Duration;

/// One variant for each kind of refusal or fault.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{host} knows no image {name}")]
    NotFound { host: String, name: String },
    #[error("{host} has no blob {digest} although its manifest names it")]
    BlobUnknown { host: String, digest: Digest },
    #[error("{host} refused access to {repository}: {reason}")]
    Denied { host: String, repository: String, reason: String },
    #[error("{host} answered {status}: {message}")]
    Status { host: String, status: u16, message: String, retry_after: Option<Duration> },
    #[error("{host} cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: TransportError,
    },
    #[error("{host} does not speak TLS; if plain HTTP is meant, allow it by name with http_allowed")]
    NotTls { host: String },
    #[error("the certificate of {host} is not trusted; name the file of its CA in ca_pem")]
    Certificate {
        host: String,
        #[source]
        source: TransportError,
    },
    #[error("{host} broke off after {received} of {expected} bytes")]
    Cut {
        host: String,
        received: u64,
        expected: u64,
        #[source]
        source: Option<TransportError>,
    },
    #[error("{host} sent nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },
    #[error("{host} sent {digest} with other content: its digest is {actual}")]
    WrongDigest { host: String, digest: Digest, actual: Digest },
    #[error("{host} announced {actual} bytes for {digest}, the manifest says {expected}")]
    WrongSize { host: String, digest: Digest, expected: u64, actual: u64 },
    #[error("{host} sent more than the {limit} bytes allowed for {what}")]
    TooLarge { host: String, what: String, limit: u64 },
    #[error("{host} sends to {target} without encryption; only hosts with http_allowed may")]
    Unencrypted { host: String, target: String },
    #[error("{host} gave an answer that breaks the distribution protocol: {problem}")]
    Protocol { host: String, problem: String },
    #[error("the CA file {path} for {host} cannot be used: {problem}")]
    Ca { host: String, path: String, problem: String },
}

/// The text of an HTTP client's error with all its causes, its address taken out (it may be signed).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub(crate) String);

impl From<reqwest::Error> for TransportError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(one) = cause {
            let words = one.to_string();
            // Layers of the client often repeat each other's words.
            if !text.ends_with(&words) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&words);
            }
            cause = one.source();
        }
        Self(text)
    }
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Stalled { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether the registry has no such image.
    pub(crate) fn not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the registry itself could not answer (its answers count as answers).
    pub(crate) fn unreachable(&self) -> bool {
        self.retriable()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
