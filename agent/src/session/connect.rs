//! Connects to the control plane: mTLS by the node's certificate, or plaintext on a Unix socket or a
//! loopback address. In: an endpoint, credentials. Out: a channel. And the pauses between tries.
//! Owns nothing. Never: TLS without checking the name `control.lighter.internal` against the
//! cluster's own CA; plaintext to another machine.

use crate::errors::Cause;
use crate::join::{CONTROL_SERVER_NAME, Credentials};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_types::StatusExt;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 pings find a peer that went away without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the control planes are and how the node shows who it is. Clones go to the same one.
#[derive(Clone)]
pub(crate) struct ControlEndpoint {
    /// As configured: one, or several with commas between them.
    pub uri: String,
    /// The one to go to next.
    next: Arc<Mutex<String>>,
    /// As they are now; they are renewed meanwhile. `None`: plaintext.
    pub credentials: Option<watch::Receiver<Credentials>>,
}

/// The reason of a refusal by a control plane that does not lead.
const NOT_LEADER: &str = "NOT_LEADER";

/// The control planes of a list with commas.
pub(crate) fn each(uris: &str) -> impl Iterator<Item = &str> {
    uris.split(',').map(str::trim).filter(|uri| !uri.is_empty())
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[error("connect to the control plane at {uri}")]
pub(crate) struct ConnectError {
    pub uri: String,
    #[source]
    pub source: Cause,
}

impl ControlEndpoint {
    pub(crate) fn new(uri: &str, credentials: Option<watch::Receiver<Credentials>>) -> Self {
        let first = each(uri).next().unwrap_or_default().to_owned();
        Self { uri: uri.to_owned(), next: Arc::new(Mutex::new(first)), credentials }
    }

    /// Connects to the control plane that led last, as far as is known; a failure turns to the next.
    pub(crate) async fn connect(&self) -> Result<Channel, ConnectError> {
        let uri = self.next.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.connect_to(&uri).await.inspect_err(|_| self.turn_from(&uri))
    }

    /// What a refusal says of who leads is followed; one that names nobody turns to the next. Only
    /// TLS proves that an address that was not configured is a control plane of this cluster.
    pub(crate) fn refused(&self, status: &tonic::Status) {
        let details = status.get_error_details();
        let Some(info) = details.error_info().filter(|info| info.reason == NOT_LEADER) else { return };
        let leader = info.metadata.get("leader").map(String::as_str).unwrap_or_default();
        let is_provable = self.credentials.is_some() && leader.starts_with("https://");
        if is_provable || each(&self.uri).any(|uri| uri == leader) {
            leader.clone_into(&mut self.next.lock().unwrap_or_else(PoisonError::into_inner));
        } else {
            self.unanswered();
        }
    }

    /// Who takes a connection and says nothing is left for the next.
    pub(crate) fn unanswered(&self) {
        let uri = self.next.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.turn_from(&uri);
    }

    /// To the one after it; to the first after one that is not configured.
    fn turn_from(&self, uri: &str) {
        let mut after = each(&self.uri).skip_while(|known| *known != uri).skip(1);
        let next = after.next().or_else(|| each(&self.uri).next()).unwrap_or_default();
        next.clone_into(&mut self.next.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn connect_to(&self, uri: &str) -> Result<Channel, ConnectError> {
        let failed = |source: Cause| ConnectError { uri: uri.to_owned(), source };
        let mut endpoint = Endpoint::from_shared(uri.to_owned())
            .map_err(|error| failed(error.into()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if let Some(credentials) = self.credentials.as_ref().filter(|_| uri.starts_with("https://")) {
            let credentials = credentials.borrow().clone();
            let tls = ClientTlsConfig::new()
                .domain_name(CONTROL_SERVER_NAME)
                .ca_certificate(Certificate::from_pem(&credentials.ca))
                .identity(Identity::from_pem(&credentials.certificate, &credentials.key));
            endpoint = endpoint.tls_config(tls).map_err(|error| failed(error.into()))?;
        }
        endpoint.connect().await.map_err(|error| failed(error.into()))
    }

    /// Returns when there are newer credentials than at this call; for ever when there never are.
    pub(crate) fn renewed(&self) -> impl Future<Output = ()> + Send + use<> {
        let credentials = self.credentials.clone().map(|mut credentials| {
            credentials.mark_unchanged();
            credentials
        });
        async move {
            let newer = match credentials {
                Some(mut credentials) => credentials.changed().await.is_ok(),
                None => false,
            };
            if !newer {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Exponential pauses with full jitter; checked when made, so never nonsense.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// 100 ms to 5 s (decision 7).
    pub(crate) const SESSION: Self = Self::new(Duration::from_millis(100), Duration::from_secs(5));

    const fn new(first: Duration, longest: Duration) -> Self {
        assert!(first.as_nanos() > 0 && first.as_nanos() <= longest.as_nanos());
        Self { first, longest }
    }

    pub(crate) fn start(self) -> Pauses {
        Pauses { backoff: self, ceiling: self.first }
    }
}

/// The pauses of one series of tries.
#[derive(Debug)]
pub(crate) struct Pauses {
    backoff: Backoff,
    ceiling: Duration,
}

impl Pauses {
    /// Between nothing and a ceiling that doubles.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.backoff.longest);
        ceiling.mul_f64(random_fraction())
    }

    /// The last try was a success.
    pub(crate) fn reset(&mut self) {
        self.ceiling = self.backoff.first;
    }
}

/// 0 to 1, from the system's source; a failure of that means no jitter.
fn random_fraction() -> f64 {
    crate::random::bytes().map_or(1.0, |bytes| f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_leader(leader: &str) -> tonic::Status {
        let metadata = std::collections::HashMap::from([("leader".to_owned(), leader.to_owned())]);
        let details = tonic_types::ErrorDetails::with_error_info(NOT_LEADER, "lighter", metadata);
        tonic::Status::with_error_details(tonic::Code::Unavailable, "", details)
    }

    #[tokio::test]
    async fn the_leader_is_followed_and_who_does_not_answer_is_left() {
        let at = |endpoint: &ControlEndpoint| endpoint.next.lock().unwrap().clone();
        let dir = tempfile::tempdir().unwrap();
        let uris = ["a", "b", "c"].map(|name| format!("unix:{}", dir.path().join(name).display()));
        let endpoint = ControlEndpoint::new(&uris.join(", "), None);
        let clone = endpoint.clone();
        for next in [1, 2, 0] {
            assert!(endpoint.connect().await.is_err(), "nobody is there");
            assert_eq!(at(&clone), uris[next]);
        }
        endpoint.refused(&not_leader(&uris[2]));
        assert_eq!(at(&endpoint), uris[2]);
        endpoint.refused(&not_leader(""));
        assert_eq!(at(&endpoint), uris[0], "it does not know who leads");
        endpoint.refused(&tonic::Status::unavailable("busy"));
        assert_eq!(at(&endpoint), uris[0]);
        // Without TLS only who was configured is a control plane.
        endpoint.refused(&not_leader("http://10.0.0.1:7443"));
        assert_eq!(at(&endpoint), uris[1]);
        let credentials = Credentials { certificate: String::new(), key: String::new(), ca: String::new() };
        let (_sender, receiver) = watch::channel(credentials);
        let endpoint = ControlEndpoint::new("https://a:7443", Some(receiver));
        endpoint.refused(&not_leader("https://b:7443"));
        assert_eq!(at(&endpoint), "https://b:7443");
        endpoint.turn_from("https://b:7443");
        assert_eq!(at(&endpoint), "https://a:7443");
    }

    #[test]
    fn pauses_grow_to_the_ceiling_and_start_over() {
        let mut pauses = Backoff::SESSION.start();
        let mut ceilings = Vec::new();
        for _ in 0..8 {
            ceilings.push(pauses.ceiling.as_millis());
            assert!(pauses.next_pause() <= Duration::from_secs(5));
        }
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.ceiling.as_millis(), 100);
        assert!((0..100).all(|_| (0.0..=1.0).contains(&random_fraction())));
    }
}
