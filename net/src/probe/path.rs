//! The way of the probe's packets: a namespace on the bridge, one outside, links and sockets.
//! In: the configuration. Out: which packets did not arrive. Owns what it makes until `remove`.
//! Never: waits longer than `PATIENCE` for a packet.

use super::ProbeError;
use crate::attach::ETH0;
use crate::config::NetworkConfig;
use crate::link::{self, LinkError, Made, VethPair};
use crate::netns;
use crate::nft::PortElement;
use crate::record::mac_of;
use crate::teardown;
use lighter_model::task_definition::TransportProtocol;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

/// The host's ends.
const INNER_LINK: &str = "lvprobe0";
const OUTER_LINK: &str = "lvprobe1";

/// TEST-NET-1 (RFC 5737), which no real network uses: the host's and the outside's address.
const OUTER_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OUTER_PREFIX_LEN: u8 = 30;

/// A packet that has not arrived after this was dropped; and how long until it is sent again.
const PATIENCE: Duration = Duration::from_millis(800);
const AGAIN: Duration = Duration::from_millis(40);

/// Both namespaces with a socket each.
pub(super) struct Path {
    inner: UdpSocket,
    outer: UdpSocket,
    /// Holds the mapped port, so that nobody else's traffic is mapped.
    host: UdpSocket,
    inner_address: Ipv4Addr,
    /// The namespaces live as long as these.
    _netns: [File; 2],
}

impl Path {
    /// Makes everything in the host's namespace `home`. On failure nothing is left. Blocks.
    pub(super) fn make(home: &File, config: &NetworkConfig) -> Result<Self, ProbeError> {
        netns::enter(home).map_err(ProbeError::Namespace)?;
        // What a probe that was killed left behind.
        remove_links()?;
        let made = Self::make_path(config);
        if made.is_err() {
            let _ = remove_links();
        }
        made
    }

    fn make_path(config: &NetworkConfig) -> Result<Self, ProbeError> {
        let inner = netns::anonymous().map_err(ProbeError::Namespace)?;
        let outer = netns::anonymous().map_err(ProbeError::Namespace)?;
        let bridge =
            nix::net::if_::if_nametoindex(config.bridge.as_str()).map_err(|_| ProbeError::NoBridge)?;
        let inner_address = config.subnet.probe_address();
        make_link(INNER_LINK, Some(bridge), &inner, inner_address)?;
        make_link(OUTER_LINK, None, &outer, OUTSIDE)?;
        host_end()?;
        let gateway = config.subnet.gateway();
        let prefix_len = config.subnet.prefix_len();
        let socket = configure(&inner, inner_address, prefix_len, Some(gateway))?;
        let outside = configure(&outer, OUTSIDE, OUTER_PREFIX_LEN, None)?;
        wait_operational(config)?;
        let host = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(ProbeError::Namespace)?;
        Ok(Self { inner: socket, outer: outside, host, inner_address, _netns: [inner, outer] })
    }

    /// The mapping that the packets from outside go through.
    pub(super) fn element(&self) -> PortElement {
        PortElement {
            protocol: TransportProtocol::Udp,
            host_ip: OUTER_HOST,
            host_port: port_of(&self.host),
            target: self.inner_address,
            target_port: port_of(&self.inner),
        }
    }

    /// Which packets did not arrive; None when all did.
    pub(super) fn send(&self) -> io::Result<Option<&'static str>> {
        let outside = SocketAddrV4::new(OUTSIDE, port_of(&self.outer));
        let Some(from) = transmit(&self.inner, outside, &self.outer)? else {
            return Ok(Some("from the bridge to the outside"));
        };
        if transmit(&self.outer, from, &self.inner)?.is_none() {
            return Ok(Some("from the outside to the bridge, as an answer"));
        }
        let mapped = SocketAddrV4::new(OUTER_HOST, port_of(&self.host));
        let Some(from) = transmit(&self.outer, mapped, &self.inner)? else {
            return Ok(Some("from the outside to a mapped port"));
        };
        if transmit(&self.inner, from, &self.outer)?.is_none() {
            return Ok(Some("from a mapped port to the outside, as an answer"));
        }
        Ok(None)
    }

    /// Ends namespaces and links and waits for it. Blocks.
    pub(super) fn remove(self) -> Result<(), ProbeError> {
        drop(self);
        remove_links()
    }
}

fn remove_links() -> Result<(), ProbeError> {
    for name in [INNER_LINK, OUTER_LINK] {
        teardown::end_of_link(name).map_err(|error| ProbeError::Cleanup(Box::new(error)))?;
    }
    Ok(())
}

fn make_link(name: &str, bridge: Option<u32>, netns: &File, address: Ipv4Addr) -> Result<(), ProbeError> {
    let pair = VethPair { name, bridge, netns, peer: ETH0, peer_mac: mac_of(address) };
    let made = link::with_routes(async |handle| link::add_veth(handle, &pair).await);
    match made.map_err(ProbeError::Namespace)?.map_err(ProbeError::Link)? {
        Made::New => Ok(()),
        Made::Existing => Err(ProbeError::Link(LinkError {
            step: "make the veth pair",
            link: name.to_owned(),
            source: Errno::EEXIST.into(),
        })),
    }
}

/// The host's address on the outer link.
fn host_end() -> Result<(), ProbeError> {
    let index =
        nix::net::if_::if_nametoindex(OUTER_LINK).map_err(|errno| ProbeError::Namespace(errno.into()))?;
    let addressed = link::with_routes(async |handle| {
        link::ensure_address(handle, index, OUTER_LINK, OUTER_HOST, OUTER_PREFIX_LEN).await
    });
    addressed.map_err(ProbeError::Namespace)?.map_err(ProbeError::Link)
}

fn wait_operational(config: &NetworkConfig) -> Result<(), ProbeError> {
    let waited = link::with_routes(async |handle| {
        for name in [INNER_LINK, config.bridge.as_str(), OUTER_LINK] {
            link::wait_operational(handle, name).await?;
        }
        Ok(())
    });
    waited.map_err(ProbeError::Namespace)?.map_err(ProbeError::Link)
}

/// eth0 inside a namespace, and a socket there.
fn configure(
    netns: &File,
    address: Ipv4Addr,
    prefix_len: u8,
    gateway: Option<Ipv4Addr>,
) -> Result<UdpSocket, ProbeError> {
    let work = || -> Result<UdpSocket, ProbeError> {
        let index =
            nix::net::if_::if_nametoindex(ETH0).map_err(|errno| ProbeError::Namespace(errno.into()))?;
        let configured = link::with_routes(async |handle| {
            link::set_up(handle, index, ETH0).await?;
            link::ensure_address(handle, index, ETH0, address, prefix_len).await?;
            match gateway {
                Some(gateway) => link::ensure_default_route(handle, index, gateway).await,
                None => Ok(()),
            }
        });
        configured.map_err(ProbeError::Namespace)?.map_err(ProbeError::Link)?;
        UdpSocket::bind((address, 0)).map_err(ProbeError::Namespace)
    };
    netns::inside(netns, work).map_err(ProbeError::Namespace)?
}

/// Sends until it arrives: the first packet waits for ARP. From where it seemed to come, or None.
fn transmit(from: &UdpSocket, to: SocketAddrV4, receiver: &UdpSocket) -> io::Result<Option<SocketAddrV4>> {
    receiver.set_read_timeout(Some(AGAIN))?;
    let deadline = Instant::now() + PATIENCE;
    // A number per packet, so that a late one of an earlier question is not taken for this one's.
    let mark = (u64::from(port_of(from)) << 32) | u64::from(to.port());
    while Instant::now() < deadline {
        // An ICMP error for an earlier packet, or EPERM of a rule, is a drop like any other.
        let _ = from.send_to(&mark.to_be_bytes(), to);
        let mut buffer = [0; 16];
        match receiver.recv_from(&mut buffer) {
            Ok((8, std::net::SocketAddr::V4(peer))) if buffer[..8] == mark.to_be_bytes() => {
                return Ok(Some(peer));
            }
            _ => continue,
        }
    }
    Ok(None)
}

fn port_of(socket: &UdpSocket) -> u16 {
    socket.local_addr().map_or(0, |address| address.port())
}
