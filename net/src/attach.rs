//! ADD of one attachment, on a throw-away thread: netns, veth pair, address, route.
//! In: the configuration and a record. Out: nothing more than the record says.
//! Owns nothing. Never: maps ports (see `network.rs`), stores anything, undoes a half-made
//! attachment: the record is stored, so ADD again completes it and DEL removes it.

use crate::config::NetworkConfig;
use crate::link::{self, LinkError, Made, VethPair};
use crate::netns::{self, NetnsError};
use crate::record::{AttachmentMode, AttachmentRecord, mac_of};
use nix::errno::Errno;
use rtnetlink::Handle;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;

/// lo is the first link of every namespace.
const LO_INDEX: u32 = 1;

/// The attachment's own end of the veth pair.
pub(crate) const ETH0: &str = "eth0";

/// Which step of making an attachment failed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("no network namespace")]
    Netns(#[source] NetnsError),
    #[error("no link")]
    Link(#[source] LinkError),
    #[error("the bridge {bridge} is missing; the host's side of the network must be made first")]
    NoBridge { bridge: String },
    #[error("the bridge {bridge} has all the 1,023 ports that Linux allows; stop tasks first")]
    BridgeFull { bridge: String },
    #[error("the record of a bridge attachment lacks {what}")]
    Incomplete { what: &'static str },
    #[error("the interface {veth} exists already and belongs to something else")]
    ForeignVeth { veth: String },
    #[error("cannot work in a network namespace")]
    Thread(#[source] io::Error),
}

/// Makes or completes the attachment. `home` is the host's network namespace. Blocks. One thread and
/// one runtime, with a connection in each of the two namespaces: all of it is about 2 ms.
pub(crate) fn attach(
    home: &File,
    config: &NetworkConfig,
    record: &AttachmentRecord,
) -> Result<(), AttachError> {
    let runtime = link::runtime().map_err(AttachError::Thread)?;
    let _context = runtime.enter();
    let path = config.netns_dir.join(&record.netns);
    let (netns, fresh) = netns::enter_or_create(&path, sysctls).map_err(AttachError::Netns)?;
    // One that belongs to a task's user namespace is made before.
    if !fresh && nix::net::if_::if_nametoindex(ETH0).is_err() {
        sysctls();
    }
    let inner = link::connect().map_err(AttachError::Thread)?;
    netns::enter(home).map_err(AttachError::Thread)?;
    if record.mode == AttachmentMode::None {
        return runtime.block_on(link::set_up(&inner, LO_INDEX, "lo")).map_err(AttachError::Link);
    }
    let outer = link::connect().map_err(AttachError::Thread)?;
    let veth = record.veth.as_deref().ok_or(AttachError::Incomplete { what: "an interface" })?;
    let address = record.address.ok_or(AttachError::Incomplete { what: "an address" })?;
    let peer_mac = mac_of(address);
    let pair = VethPair { name: veth, bridge: None, netns: &netns, peer: ETH0, peer_mac };
    runtime.block_on(async {
        // A namespace that was not made just now may have its pair already.
        let existing = !fresh && link::find(&inner, ETH0).await.map_err(AttachError::Link)?.is_some();
        join_bridge(&outer, config, pair, existing, &record.key.to_string()).await?;
        configure(&inner, config, address).await.map_err(AttachError::Link)?;
        // The bridge too: it has no carrier before its first port has.
        link::wait_operational(&outer, veth).await.map_err(AttachError::Link)?;
        link::wait_operational(&outer, &config.bridge).await.map_err(AttachError::Link)
    })
}

/// Makes the veth pair, unless it is there, and the host's end a port of the bridge.
async fn join_bridge(
    outer: &Handle,
    config: &NetworkConfig,
    pair: VethPair<'_>,
    existing: bool,
    alias: &str,
) -> Result<(), AttachError> {
    let bridge = nix::net::if_::if_nametoindex(config.bridge.as_str())
        .map_err(|_| AttachError::NoBridge { bridge: config.bridge.clone() })?;
    let pair = VethPair { bridge: Some(bridge), ..pair };
    let veth = pair.name;
    if !existing && !make_pair(outer, &pair, bridge).await.map_err(in_bridge(config))? {
        return Err(AttachError::ForeignVeth { veth: veth.to_owned() });
    }
    // Before the other end is up: an IPv6 address here would only send noise into the bridge.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{veth}/disable_ipv6"), "1");
    link::ensure_port(outer, veth, bridge, alias).await.map_err(in_bridge(config))
}

/// EXFULL is what a bridge with 1,023 ports says.
fn in_bridge(config: &NetworkConfig) -> impl FnOnce(LinkError) -> AttachError {
    let bridge = config.bridge.clone();
    move |error| match error.errno() {
        Some(Errno::EXFULL) => AttachError::BridgeFull { bridge },
        _ => AttachError::Link(error),
    }
}

/// False when the name belongs to something else.
async fn make_pair(handle: &Handle, pair: &VethPair<'_>, bridge: u32) -> Result<bool, LinkError> {
    if link::add_veth(handle, pair).await? == Made::New {
        return Ok(true);
    }
    // Left by a namespace of the same key that is ending or was deleted by hand.
    let there = link::find(handle, pair.name).await?;
    if there.is_some_and(|link| link.controller != Some(bridge)) {
        return Ok(false);
    }
    link::delete(handle, pair.name).await?;
    Ok(link::add_veth(handle, pair).await? == Made::New)
}

/// Inside the namespace: lo and eth0 up, the address and the default route.
async fn configure(inner: &Handle, config: &NetworkConfig, address: Ipv4Addr) -> Result<(), LinkError> {
    link::set_up(inner, LO_INDEX, "lo").await?;
    let missing = || LinkError { step: "find", link: ETH0.to_owned(), source: Errno::ENODEV.into() };
    let eth0 = link::find(inner, ETH0).await?.ok_or_else(missing)?;
    link::set_up(inner, eth0.index, ETH0).await?;
    let prefix_len = config.subnet.prefix_len();
    link::ensure_address(inner, eth0.index, ETH0, address, prefix_len).await?;
    link::ensure_default_route(inner, eth0.index, config.subnet.gateway()).await
}

/// In the new namespace, before it has a link: what Docker sets too and images rely on, ports below
/// 1024 and ping without privileges. And no IPv6 on what is not lo, as the bridge has none. Each is a
/// convenience: a kernel that lacks one gets along without.
fn sysctls() {
    for (name, value) in [
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/{name}"), value);
    }
}
