//! DEL of one attachment: every step runs, every error is kept, what is gone already is a success.
//! In: the configuration and a record. Out: the list of failures. Owns nothing.
//! Never: stops at a failure, deletes what belongs to another record.
//!
//! The veth pair ends with its namespace, without our doing: deleting it takes the kernel 15 ms in
//! which nobody else may change links, while many namespaces that end are cleaned up together. DEL
//! waits until the host's end is really gone, and deletes it only when something (a process that
//! will not die) still holds the namespace. So after DEL nothing is left, and names can be reused.

use crate::config::NetworkConfig;
use crate::conntrack::ConntrackError;
use crate::link::{self, LinkError};
use crate::netns::{self, NetnsError};
use crate::nft::NftError;
use crate::record::PortForward;
use lighter_model::ids::AttachmentKey;
use std::fmt;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// How long the kernel may take to end a namespace before its link is deleted.
const NAMESPACE_END: Duration = Duration::from_millis(500);

/// One step of DEL that failed.
#[derive(Debug, thiserror::Error)]
pub enum DelStepError {
    #[error("cannot delete the port mapping {port}")]
    Port {
        port: PortForward,
        #[source]
        source: NftError,
    },
    #[error("cannot delete the network namespace")]
    Netns(#[source] NetnsError),
    #[error("cannot delete the veth pair")]
    Link(#[source] LinkError),
    #[error("cannot delete tracked connections")]
    Conntrack(#[source] ConntrackError),
    #[error("cannot work in the host's network namespace")]
    Thread(#[source] io::Error),
}

/// All failures of one DEL. Repeat it: steps that worked are done again without harm.
#[derive(Debug)]
pub struct DelError {
    pub key: AttachmentKey,
    pub failures: Vec<DelStepError>,
}

impl fmt::Display for DelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attachment {} is not wholly deleted", self.key)?;
        // The first is the source; the others have no other place.
        for failure in self.failures.iter().skip(1) {
            write!(f, "; also: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for DelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failures.first().map(|failure| failure as _)
    }
}

/// Removes namespace and veth pair. `home` is the host's network namespace. Blocks.
pub(crate) fn detach(
    home: &File,
    config: &NetworkConfig,
    netns_name: &str,
    veth: Option<&str>,
) -> Vec<DelStepError> {
    let mut failures = Vec::new();
    if let Err(error) = netns::enter(home) {
        return vec![DelStepError::Thread(error)];
    }
    if let Err(error) = netns::remove(&config.netns_dir.join(netns_name)) {
        failures.push(DelStepError::Netns(error));
    }
    if let Some(veth) = veth {
        failures.extend(end_of_link(veth).err());
    }
    failures
}

/// Waits for the end of a link, and brings it about after `NAMESPACE_END`.
pub(crate) fn end_of_link(veth: &str) -> Result<(), DelStepError> {
    let deadline = Instant::now() + NAMESPACE_END;
    let mut pause = Duration::from_micros(500);
    while nix::net::if_::if_nametoindex(veth).is_ok() {
        if Instant::now() >= deadline {
            let deleted = link::with_routes(async |handle| link::delete(handle, veth).await);
            return deleted.map_err(DelStepError::Thread)?.map_err(DelStepError::Link);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}
