//! ADD of one attachment, on a throw-away thread: netns, veth pair, address, route.
//! In: the configuration and a record. Out: nothing more than the record says.
//! Owns nothing. Never: maps ports (see `network.rs`), stores anything, undoes a half-made
//! attachment: the record is stored, so ADD again completes it and DEL removes it.

use crate::config::NetworkConfig;
use crate::link::{self, LinkError, Made, VethPair};
use crate::netns::{self, NetnsError};
use crate::record::{AttachmentMode, AttachmentRecord, mac_of};
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;

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
    #[error("the record of a bridge attachment lacks {what}")]
    Incomplete { what: &'static str },
    #[error("the interface {veth} exists already and belongs to something else")]
    ForeignVeth { veth: String },
    #[error("cannot work in a network namespace")]
    Thread(#[source] io::Error),
}

/// Makes or completes the attachment. `home` is the host's network namespace. Blocks.
pub(crate) fn attach(
    home: &File,
    config: &NetworkConfig,
    record: &AttachmentRecord,
) -> Result<(), AttachError> {
    netns::enter(home).map_err(AttachError::Thread)?;
    let path = config.netns_dir.join(&record.netns);
    let (netns, fresh) = netns::open_or_create(&path).map_err(AttachError::Netns)?;
    if record.mode == AttachmentMode::Bridge {
        let veth = record.veth.as_deref().ok_or(AttachError::Incomplete { what: "an interface" })?;
        let address = record.address.ok_or(AttachError::Incomplete { what: "an address" })?;
        join_bridge(config, &netns, fresh, veth, address, &record.key.to_string())?;
    }
    netns::inside(&netns, || {
        if fresh {
            sysctls();
        }
        let made = link::with_routes(async |handle| configure(handle, config, record).await);
        made.map_err(AttachError::Thread)?.map_err(AttachError::Link)
    })
    .map_err(AttachError::Thread)??;
    match &record.veth {
        Some(veth) => wait_operational(config, veth),
        None => Ok(()),
    }
}

/// The host's end, and the bridge, which has no carrier before its first port has.
fn wait_operational(config: &NetworkConfig, veth: &str) -> Result<(), AttachError> {
    let waited = link::with_routes(async |handle| {
        link::wait_operational(handle, veth).await?;
        link::wait_operational(handle, &config.bridge).await
    });
    waited.map_err(AttachError::Thread)?.map_err(AttachError::Link)
}

/// Makes the veth pair, unless this very pair is there, and the host's end a port of the bridge.
fn join_bridge(
    config: &NetworkConfig,
    netns: &File,
    fresh: bool,
    veth: &str,
    address: Ipv4Addr,
    alias: &str,
) -> Result<(), AttachError> {
    let index = nix::net::if_::if_nametoindex(config.bridge.as_str())
        .map_err(|_| AttachError::NoBridge { bridge: config.bridge.clone() })?;
    // A pair of a namespace that was not made just now may be complete already.
    let existing = !fresh && has_eth0(netns)?;
    let pair = VethPair {
        name: veth,
        bridge: Some(index),
        netns,
        peer: ETH0,
        peer_mac: mac_of(address),
    };
    let joined = link::with_routes(async |handle| {
        if !existing && !make_pair(handle, &pair, index).await? {
            return Ok(false);
        }
        // Before the other end is up: an IPv6 address here would only send noise into the bridge.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{veth}/disable_ipv6"), "1");
        link::ensure_port(handle, veth, index, alias).await.map(|()| true)
    });
    match joined.map_err(AttachError::Thread)?.map_err(AttachError::Link)? {
        true => Ok(()),
        false => Err(AttachError::ForeignVeth { veth: veth.to_owned() }),
    }
}

/// False when the name belongs to something else.
async fn make_pair(
    handle: &rtnetlink::Handle,
    pair: &VethPair<'_>,
    bridge: u32,
) -> Result<bool, LinkError> {
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

fn has_eth0(netns: &File) -> Result<bool, AttachError> {
    let look = || nix::net::if_::if_nametoindex(ETH0).is_ok();
    netns::inside(netns, look).map_err(AttachError::Thread)
}

/// Inside the namespace: lo and eth0 up, the address and the default route.
async fn configure(
    handle: &rtnetlink::Handle,
    config: &NetworkConfig,
    record: &AttachmentRecord,
) -> Result<(), LinkError> {
    /// lo is the first link of every namespace.
    const LO_INDEX: u32 = 1;
    link::set_up(handle, LO_INDEX, "lo").await?;
    if let Some(address) = record.address {
        let index = nix::net::if_::if_nametoindex(ETH0).map_err(|errno| LinkError {
            step: "find",
            link: ETH0.to_owned(),
            source: errno.into(),
        })?;
        let prefix_len = config.subnet.prefix_len();
        link::set_up(handle, index, ETH0).await?;
        link::ensure_address(handle, index, ETH0, address, prefix_len).await?;
        link::ensure_default_route(handle, index, config.subnet.gateway()).await?;
    }
    Ok(())
}

/// What Docker sets in every namespace too and images rely on: ports below 1024 and ping without
/// privileges. And no IPv6 on what is not lo, as the bridge has none. Each is a convenience:
/// a kernel that lacks one gets along without.
fn sysctls() {
    for (name, value) in [
        ("ipv4/ip_unprivileged_port_start", "0"),
        ("ipv4/ping_group_range", "0 2147483647"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv6/conf/eth0/disable_ipv6", "1"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/{name}"), value);
    }
}
