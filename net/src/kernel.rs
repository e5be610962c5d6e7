//! What exists in the kernel now, whatever the records say: for recovery and for leak checks.
//! In: the configuration; for the comparison, the records. Out: names.
//! Owns nothing. Never: looks outside our own directory, bridge and table.

use crate::config::NetworkConfig;
use crate::link::{self, LinkError};
use crate::netns::{self, NetnsError};
use crate::nft::{NftError, PortElement};
use crate::record::AttachmentRecord;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;

/// Everything of ours that the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// The bridge exists.
    pub bridge: bool,
    /// File names in the netns directory, mounted or not, sorted.
    pub netns: Vec<String>,
    /// Names of the links on the bridge, sorted.
    pub veths: Vec<String>,
    /// The elements of both maps of the table, sorted.
    pub ports: Vec<PortElement>,
}

/// A part of the kernel's state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("cannot list network namespaces")]
    Netns(#[source] NetnsError),
    #[error("cannot list links")]
    Link(#[source] LinkError),
    #[error("cannot list port mappings")]
    Ports(#[source] NftError),
    #[error("cannot work in the host's network namespace")]
    Thread(#[source] io::Error),
}

/// Namespaces and links. `home` is the host's network namespace. Blocks.
pub(crate) fn list(home: &File, config: &NetworkConfig) -> Result<KernelState, ListError> {
    netns::enter(home).map_err(ListError::Thread)?;
    let netns = netns::list(&config.netns_dir).map_err(ListError::Netns)?;
    let links = link::with_routes(async |handle| link::list(handle).await);
    let links = links.map_err(ListError::Thread)?.map_err(ListError::Link)?;
    let bridge = links.iter().find(|link| link.name == config.bridge).map(|link| link.index);
    let on_bridge = links.iter().filter(|link| bridge.is_some() && link.controller == bridge);
    let mut veths: Vec<String> = on_bridge.map(|link| link.name.clone()).collect();
    veths.sort();
    Ok(KernelState { bridge: bridge.is_some(), netns, veths, ports: Vec::new() })
}

/// The port mappings of a record as elements.
pub(crate) fn elements_of(record: &AttachmentRecord) -> Vec<PortElement> {
    let Some(target) = record.address else { return Vec::new() };
    let element = |port: &crate::record::PortForward| PortElement {
        protocol: port.protocol,
        host_ip: port.host_ip,
        host_port: port.host_port,
        target,
        target_port: port.target_port,
    };
    record.ports.iter().map(element).collect()
}

/// What the kernel has and no record knows: to be deleted by `Network::remove_leftovers`. Pure.
pub fn leftovers<'a>(
    state: &KernelState,
    records: impl IntoIterator<Item = &'a AttachmentRecord>,
) -> KernelState {
    let records: Vec<&AttachmentRecord> = records.into_iter().collect();
    let netns: BTreeSet<&str> = records.iter().map(|r| r.netns.as_str()).collect();
    let veths: BTreeSet<&str> = records.iter().filter_map(|r| r.veth.as_deref()).collect();
    let ports: BTreeSet<PortElement> = records.iter().flat_map(|r| elements_of(r)).collect();
    let unknown = |names: &[String], known: &BTreeSet<&str>| -> Vec<String> {
        names.iter().filter(|name| !known.contains(name.as_str())).cloned().collect()
    };
    KernelState {
        bridge: false,
        netns: unknown(&state.netns, &netns),
        veths: unknown(&state.veths, &veths),
        ports: state.ports.iter().filter(|port| !ports.contains(port)).copied().collect(),
    }
}

impl KernelState {
    /// No namespace, link or mapping.
    pub fn is_empty(&self) -> bool {
        self.netns.is_empty() && self.veths.is_empty() && self.ports.is_empty()
    }
}
