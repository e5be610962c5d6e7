//! Tells trouble that may pass from what only a person can mend.
//! In: a call that failed. Out: whether asking again may help. Never: asks.

use super::CallError;
use std::error::Error;
use tonic::{Code, Status};

/// How rustls words the other side's refusal of us.
const ALERT: &str = "received fatal alert";

impl CallError {
    /// Members that are down, start, or have no leader; not a certificate that is refused, a file that
    /// is missing, or what etcd answers to a request it does not allow.
    pub(super) fn may_mend(&self) -> bool {
        match self {
            Self::TimeOut => true,
            Self::Etcd { source: etcd_client::Error::GRpcStatus(status) } => {
                let passing = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown];
                passing.contains(&status.code()) && !is_refused_by_tls(status)
            }
            Self::Etcd { .. } | Self::Tls { .. } | Self::File { .. } | Self::Strange { .. } => false,
        }
    }
}

/// Whether one of the two sides does not take the other's certificate, or does not speak TLS.
fn is_refused_by_tls(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let by_type = error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>());
        // Of an error after the handshake, which is when a client's certificate is refused, h2 keeps the words alone.
        if by_type || error.to_string().contains(ALERT) {
            return true;
        }
        cause = error.source();
    }
    false
}
