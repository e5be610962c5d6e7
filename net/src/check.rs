//! CHECK of one attachment: is everything there that its record says?
//! In: the configuration and a record. Out: what is missing, in words.
//! Owns nothing. Never: repairs; ADD of the same record does.

use crate::attach::ETH0;
use crate::config::NetworkConfig;
use crate::link::{self, LinkError};
use crate::netns;
use crate::nft::NftError;
use crate::record::{AttachmentMode, AttachmentRecord};
use lighter_model::ids::AttachmentKey;
use std::fs::File;
use std::io;

/// The attachment is not as its record says, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("attachment {key} lacks {}", missing.join(", "))]
    Missing { key: AttachmentKey, missing: Vec<String> },
    #[error("cannot look at links")]
    Link(#[source] LinkError),
    #[error("cannot look at port mappings")]
    Ports(#[source] NftError),
    #[error("cannot work in a network namespace")]
    Thread(#[source] io::Error),
}

/// Namespace, veth pair and address; what is missing. `home` is the host's network namespace. Blocks.
pub(crate) fn attachment(
    home: &File,
    config: &NetworkConfig,
    record: &AttachmentRecord,
) -> Result<Vec<String>, CheckError> {
    netns::enter(home).map_err(CheckError::Thread)?;
    let path = config.netns_dir.join(&record.netns);
    if !netns::is_mounted(&path) {
        return Ok(vec![format!("the network namespace {}", path.display())]);
    }
    if record.mode == AttachmentMode::None {
        return Ok(Vec::new());
    }
    let mut missing = Vec::new();
    let veth = record.veth.as_deref().unwrap_or_default();
    let bridge = nix::net::if_::if_nametoindex(config.bridge.as_str()).ok();
    let host_end = link::with_routes(async |handle| link::find(handle, veth).await);
    let host_end = host_end.map_err(CheckError::Thread)?.map_err(CheckError::Link)?;
    if !host_end.is_some_and(|link| link.up && bridge.is_some() && link.controller == bridge) {
        missing.push(format!("the interface {veth} on {}", config.bridge));
    }
    let netns = File::open(&path).map_err(CheckError::Thread)?;
    let addresses = netns::inside(&netns, || {
        let index = nix::net::if_::if_nametoindex(ETH0).unwrap_or(0);
        let addresses = link::with_routes(async |handle| link::addresses(handle).await);
        addresses.map(|rows| rows.map(|rows| (index, rows)))
    });
    let addresses = addresses.map_err(CheckError::Thread)?.map_err(CheckError::Thread)?;
    let (eth0, addresses) = addresses.map_err(CheckError::Link)?;
    let has = |(index, address, _): &(u32, _, u8)| *index == eth0 && Some(*address) == record.address;
    if !addresses.iter().any(has) {
        missing.push(format!("its address on {ETH0}"));
    }
    Ok(missing)
}
