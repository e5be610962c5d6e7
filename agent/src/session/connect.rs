//! Connects to the control plane: mTLS by the node's certificate, or plaintext on a Unix socket or a
//! loopback address. In: an endpoint, credentials. Out: a channel. And the pauses between tries.
//! Owns nothing. Never: TLS without checking the name `control.lighter.internal` against the
//! cluster's own CA; plaintext to another machine.

use crate::errors::Cause;
use crate::join::{CONTROL_SERVER_NAME, Credentials};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 pings find a peer that went away without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the control plane is and how the node shows who it is.
#[derive(Clone)]
pub(crate) struct ControlEndpoint {
    pub uri: String,
    /// As they are now; they are renewed meanwhile. `None`: plaintext.
    pub credentials: Option<watch::Receiver<Credentials>>,
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
    pub(crate) async fn connect(&self) -> Result<Channel, ConnectError> {
        let failed = |source: Cause| ConnectError { uri: self.uri.clone(), source };
        let mut endpoint = Endpoint::from_shared(self.uri.clone())
            .map_err(|error| failed(error.into()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        if let Some(credentials) = self.credentials.as_ref().filter(|_| self.uri.starts_with("https://")) {
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
    let mut bytes = [0u8; 4];
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
