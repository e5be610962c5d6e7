//! What the host itself needs: the bridge with its address, forwarding, and no more than that.
//! In: the configuration. Out: nothing, or what stands in the way. Owns the bridge and its sysctls.
//! Never: changes an interface of others; turns forwarding off again (others may need it by then).

use crate::config::{METADATA_ADDRESS, NetworkConfig};
use crate::link::{self, LinkError};
use crate::record::mac_of;
use rtnetlink::Handle;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Why the host's side of the network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(
        "the subnet {subnet} overlaps the address {address}/{prefix_len} of {interface}; \
         configure another subnet"
    )]
    SubnetTaken { subnet: String, interface: String, address: Ipv4Addr, prefix_len: u8 },
    #[error("cannot make the bridge {bridge}")]
    Bridge {
        bridge: String,
        #[source]
        source: LinkError,
    },
    #[error("cannot write {value} to {path:?}")]
    Sysctl {
        path: PathBuf,
        value: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the nf_tables table {table}")]
    Table {
        table: String,
        #[source]
        source: crate::nft::NftError,
    },
    #[error("cannot work in the host's network namespace")]
    Thread(#[source] io::Error),
}

/// Makes or completes bridge, address and sysctls. The table with its guard against 127/8 must be
/// there already when `host_loopback` is on. Blocks.
pub(crate) async fn ensure(handle: &Handle, config: &NetworkConfig) -> Result<(), HostError> {
    let in_bridge = |source| HostError::Bridge { bridge: config.bridge.clone(), source };
    refuse_overlap(handle, config).await?;
    let gateway = config.subnet.gateway();
    let index = link::ensure_bridge(handle, &config.bridge, mac_of(gateway)).await.map_err(in_bridge)?;
    link::ensure_address(handle, index, &config.bridge, gateway, config.subnet.prefix_len())
        .await
        .map_err(in_bridge)?;
    if config.metadata_port.is_some() {
        link::ensure_address(handle, index, &config.bridge, METADATA_ADDRESS, 32).await.map_err(in_bridge)?;
    }
    sysctls(config)
}

async fn refuse_overlap(handle: &Handle, config: &NetworkConfig) -> Result<(), HostError> {
    let in_bridge = |source| HostError::Bridge { bridge: config.bridge.clone(), source };
    let addresses = link::addresses(handle).await.map_err(in_bridge)?;
    let subnet = config.subnet;
    for (index, address, prefix_len) in addresses {
        if !subnet.overlaps(address, prefix_len) {
            continue;
        }
        let links = link::list(handle).await.map_err(in_bridge)?;
        let interface = links.into_iter().find(|link| link.index == index).map(|link| link.name);
        let interface = interface.unwrap_or_else(|| format!("interface {index}"));
        if interface != config.bridge {
            let subnet = subnet.to_string();
            return Err(HostError::SubnetTaken { subnet, interface, address, prefix_len });
        }
    }
    Ok(())
}

fn sysctls(config: &NetworkConfig) -> Result<(), HostError> {
    let bridge = &config.bridge;
    set("net/ipv4/ip_forward".to_owned(), "1")?;
    // Never on `all`: a neighbour would reach the host's own 127.0.0.1.
    let localnet = if config.host_loopback { "1" } else { "0" };
    set(format!("net/ipv4/conf/{bridge}/route_localnet"), localnet)?;
    set(format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
    // Without addresses of our own there is no IPv6 here; a link-local one would be a way to the host
    // that no rule covers. A kernel without IPv6 has no such file.
    let _ = set(format!("net/ipv6/conf/{bridge}/disable_ipv6"), "1");
    Ok(())
}

/// Writes a sysctl of the calling thread's network namespace, if it has another value.
fn set(name: String, value: &'static str) -> Result<(), HostError> {
    let path = PathBuf::from(format!("/proc/sys/{name}"));
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|source| HostError::Sysctl { path, value, source })
}
