//! Links, addresses and routes through rtnetlink: the bridge, veth pairs, eth0 of an attachment.
//! In: names, addresses, namespaces. Out: what is there now. Owns nothing.
//! Never: knows records; runs on a worker of the agent's runtime (`with_routes` makes a small runtime
//! of its own on a throw-away thread, because a socket belongs to the namespace of its thread).

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkMessage, State};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A link, address or route could not be made, read or deleted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {link}")]
pub struct LinkError {
    /// Such as "make the veth pair".
    pub step: &'static str,
    pub link: String,
    #[source]
    pub source: io::Error,
}

impl LinkError {
    fn new(step: &'static str, link: &str, source: impl Into<io::Error>) -> Self {
        Self { step, link: link.to_owned(), source: source.into() }
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }
}

/// rtnetlink's error as an io::Error with its errno, if the kernel gave one.
fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

fn failed(step: &'static str, link: &str) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |error| LinkError::new(step, link, io_error(error))
}

/// A small runtime for a throw-away thread.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

/// Opens an rtnetlink connection in the network namespace where the calling thread is now; it stays
/// there. Within a runtime, which the connection ends with.
pub(crate) fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Runs `work` with an rtnetlink connection of the calling thread's network namespace, on a runtime
/// that ends with it. Blocks; for throw-away threads.
pub(crate) fn with_routes<T>(work: impl AsyncFnOnce(&Handle) -> T) -> io::Result<T> {
    runtime()?.block_on(async { Ok(work(&connect()?).await) })
}

/// What of a link matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// The kernel has acted on the carrier: packets pass.
    pub(crate) operational: bool,
    /// The bridge it belongs to.
    pub(crate) controller: Option<u32>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let up = message.header.flags.contains(LinkFlags::Up);
        let (index, name) = (message.header.index, String::new());
        let mut link = Self { index, name, up, operational: false, controller: None };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::OperState(state) => link.operational = state == State::Up,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                _ => {}
            }
        }
        link
    }
}

/// The link of that name, or None.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, LinkError> {
    let mut found = Box::pin(handle.link().get().match_name(name).execute());
    match found.try_next().await {
        Ok(message) => Ok(message.map(Link::from)),
        Err(error) => {
            let error = failed("look up", name)(error);
            if error.errno() == Some(Errno::ENODEV) { Ok(None) } else { Err(error) }
        }
    }
}

/// Every link of the namespace.
pub(crate) async fn list(handle: &Handle) -> Result<Vec<Link>, LinkError> {
    let links = handle.link().get().execute().map_ok(Link::from).try_collect();
    links.await.map_err(failed("list the links of", "the namespace"))
}

/// Every IPv4 address of the namespace: (link index, address, prefix length).
pub(crate) async fn addresses(handle: &Handle) -> Result<Vec<(u32, Ipv4Addr, u8)>, LinkError> {
    let messages: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(failed("list the addresses of", "the namespace"))?;
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    };
    let rows = messages.iter().filter_map(|message| {
        let address = message.attributes.iter().find_map(local)?;
        Some((message.header.index, address, message.header.prefix_len))
    });
    Ok(rows.collect())
}

/// The bridge, up, with a fixed hardware address (else it would take that of a port, and change with
/// every port). Its index.
pub(crate) async fn ensure_bridge(handle: &Handle, name: &str, mac: [u8; 6]) -> Result<u32, LinkError> {
    if find(handle, name).await?.is_none() {
        let bridge = LinkBridge::new(name).address(mac.to_vec()).up().build();
        ignore_existing(handle.link().add(bridge).execute().await)
            .map_err(failed("make the bridge", name))?;
    }
    let missing = || LinkError::new("find the bridge", name, Errno::ENODEV);
    let link = find(handle, name).await?.ok_or_else(missing)?;
    if !link.up {
        set_up(handle, link.index, name).await?;
    }
    Ok(link.index)
}

/// Sets a link up.
pub(crate) async fn set_up(handle: &Handle, index: u32, name: &str) -> Result<(), LinkError> {
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.map_err(failed("set up", name))
}

/// Waits until a link really passes packets. When a veth's other end is set up, this end gets its
/// carrier at once but is made use of by a work queue of the kernel, on a busy machine up to a second
/// later; until then the bridge drops what it sends there, and a first connection would hang until
/// its retransmission. To ask is what makes newer kernels (6.8) do it now. After a second it is left
/// to itself: later is no failure.
pub(crate) async fn wait_operational(handle: &Handle, name: &str) -> Result<(), LinkError> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut pause = Duration::from_micros(200);
    while find(handle, name).await?.is_some_and(|link| !link.operational) {
        if Instant::now() >= deadline {
            tracing::warn!(link = name, "the link has no carrier yet");
            return Ok(());
        }
        // A thread of its own, made for this attachment: it may sleep.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// Gives a link an address; one it has already is a success.
pub(crate) async fn ensure_address(
    handle: &Handle,
    index: u32,
    name: &str,
    address: Ipv4Addr,
    prefix_len: u8,
) -> Result<(), LinkError> {
    let request = handle.address().add(index, IpAddr::V4(address), prefix_len);
    ignore_existing(request.execute().await).map_err(failed("add an address to", name))
}

/// The default route; one that is there already is a success.
pub(crate) async fn ensure_default_route(
    handle: &Handle,
    index: u32,
    gateway: Ipv4Addr,
) -> Result<(), LinkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index);
    ignore_existing(handle.route().add(route.build()).execute().await)
        .map_err(failed("add a default route through", &gateway.to_string()))
}

fn ignore_existing(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -(Errno::EEXIST as i32) => {
            Ok(())
        }
        other => other,
    }
}

/// A veth pair to be made.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    /// The host's end.
    pub(crate) name: &'a str,
    /// The bridge's index, or None for a link of its own.
    pub(crate) bridge: Option<u32>,
    /// Where the other end is born, as `peer` with `peer_mac`; down, as the kernel refuses to set it
    /// up before both are made.
    pub(crate) netns: &'a File,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: [u8; 6],
}

/// What became of making a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    New,
    /// A link of that name is there, in one of the two namespaces.
    Existing,
}

/// Makes the pair, puts it on the bridge and sets the host's end up, in one message.
pub(crate) async fn add_veth(handle: &Handle, pair: &VethPair<'_>) -> Result<Made, LinkError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name(pair.peer)
        .address(pair.peer_mac.to_vec())
        .setns_by_fd(pair.netns.as_raw_fd())
        .build();
    let mut link =
        LinkVeth::new(pair.name, pair.peer).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).up();
    if let Some(bridge) = pair.bridge {
        link = link.controller(bridge);
    }
    match handle.link().add(link.build()).execute().await.map_err(failed("make the veth pair", pair.name)) {
        Ok(()) => Ok(Made::New),
        Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(Made::Existing),
        Err(error) => Err(error),
    }
}

/// Makes sure that a link is an up port of the bridge, in hairpin mode: where br_netfilter is at work
/// (Docker and Kubernetes turn it on), a packet translated to its own sender is bridged, not routed,
/// and a bridge sends no frame back to the port it came from unless told so. `alias` is what people
/// see in `ip link`; the kernel takes it of existing links only.
pub(crate) async fn ensure_port(
    handle: &Handle,
    name: &str,
    bridge: u32,
    alias: &str,
) -> Result<(), LinkError> {
    let missing = || LinkError::new("find", name, Errno::ENODEV);
    let link = find(handle, name).await?.ok_or_else(missing)?;
    if link.controller != Some(bridge) || !link.up {
        let joined = LinkUnspec::new_with_index(link.index).controller(bridge).up().build();
        handle.link().set(joined).execute().await.map_err(failed("put on the bridge", name))?;
    }
    let port = LinkBridgePort::new(link.index).hairpin(true);
    let port = port.append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned())).build();
    handle.link().set_port(port).execute().await.map_err(failed("set the hairpin mode of", name))
}

/// Deletes a link; one that is not there is a success. Takes about 15 ms during which the kernel lets
/// nobody else change links: see `teardown.rs` for the way that costs less.
pub(crate) async fn delete(handle: &Handle, name: &str) -> Result<(), LinkError> {
    let Some(link) = find(handle, name).await? else { return Ok(()) };
    match handle.link().del(link.index).execute().await.map_err(failed("delete", name)) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => other,
    }
}
