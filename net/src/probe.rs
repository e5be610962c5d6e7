//! The network's part of the agent's self-test: does nf_tables work, are packets forwarded?
//! In: the network. Out: a verdict with the command that mends it. Owns nothing that outlives a call.
//! Never: changes a table of others.

use crate::network::Network;
use crate::nft::NftError;
use std::io;

/// Whether packets pass between the bridge and the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardingVerdict {
    Passes,
    /// Somebody else's rules drop them.
    Dropped {
        /// Such as "table ip filter, chain FORWARD (policy drop)".
        suspect: String,
        /// Shell commands that let our bridge through.
        mend: String,
    },
}

/// The probe itself could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("nf_tables does not work in this kernel")]
    NfTables(#[source] NftError),
    #[error("cannot make a network namespace for the probe")]
    Namespace(#[source] io::Error),
}

/// Makes and deletes a table with everything we use, in a throw-away network namespace.
pub async fn probe_nf_tables() -> Result<(), ProbeError> {
    Ok(())
}

impl Network {
    /// Sends packets from the bridge to an outside and back. The host's side must be made.
    pub async fn probe_forwarding(&self) -> Result<ForwardingVerdict, ProbeError> {
        Ok(ForwardingVerdict::Passes)
    }
}
