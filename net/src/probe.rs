//! The network's part of the agent's self-test: does nf_tables work, are packets forwarded?
//! In: the network. Out: a verdict with the commands that mend it. Owns what it makes for the length of
//! a call: two namespaces, two veth pairs, one port mapping. Never: changes a table of others; it only
//! sees that a packet was dropped, and names who may have done it (`probe/suspect.rs`).

mod path;
mod suspect;

use crate::config::NetworkConfig;
use crate::conntrack::{ConntrackError, Wanted};
use crate::firewall::FirewallGone;
use crate::link::LinkError;
use crate::netlink::socket::Socket;
use crate::netns;
use crate::network::Network;
use crate::nft::{self, NftError, PortElement};
use crate::subnet::Subnet;
use crate::teardown::DelStepError;
use lighter_model::task_definition::TransportProtocol;
use std::io;
use std::net::Ipv4Addr;

/// Whether packets pass between the bridge and the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardingVerdict {
    Passes,
    /// Somebody drops them.
    Dropped {
        /// Which packets did not arrive, such as "from the bridge to the outside".
        path: &'static str,
        /// Who may drop them, such as "table ip filter, chain FORWARD (policy drop)".
        suspect: String,
        /// Shell commands that let our bridge through.
        mend: String,
    },
}

/// The probe itself could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("nf_tables does not work: the kernel needs nf_tables with NAT, maps and fib expressions")]
    NfTables(#[source] NftError),
    #[error("nf_tables lost an element that was just added")]
    ElementLost,
    #[error("cannot make the links of the probe")]
    Link(#[source] LinkError),
    #[error("cannot make the namespaces and sockets of the probe")]
    Namespace(#[source] io::Error),
    #[error("the bridge is missing; the host's side of the network must be made first")]
    NoBridge,
    #[error("cannot forget the connections of the probe")]
    Conntrack(#[source] ConntrackError),
    #[error("cannot remove the links of the probe")]
    Cleanup(#[source] Box<DelStepError>),
}

impl From<FirewallGone> for ProbeError {
    fn from(gone: FirewallGone) -> Self {
        Self::NfTables(gone.into())
    }
}

/// Makes, reads and deletes a table with everything we use, in a throw-away network namespace.
pub async fn probe_nf_tables() -> Result<(), ProbeError> {
    let probed = netns::on_own_thread("lighter-probe", || {
        let netns = netns::anonymous().map_err(ProbeError::Namespace)?;
        netns::inside(&netns, table_round_trip).map_err(ProbeError::Namespace)?
    });
    probed.await.map_err(ProbeError::Namespace)?
}

fn table_round_trip() -> Result<(), ProbeError> {
    let mut socket = Socket::open().map_err(|errno| ProbeError::Namespace(errno.into()))?;
    let config = NetworkConfig::default();
    let any = PortElement {
        protocol: TransportProtocol::Tcp,
        host_ip: Ipv4Addr::UNSPECIFIED,
        host_port: 80,
        target: Subnet::DEFAULT.probe_address(),
        target_port: 80,
    };
    let one = PortElement { host_ip: Ipv4Addr::LOCALHOST, ..any };
    nft::replace_table(&mut socket, &config, &[any, one]).map_err(ProbeError::NfTables)?;
    let found = nft::list_elements(&mut socket, &config.table).map_err(ProbeError::NfTables)?;
    if found != [any, one] {
        return Err(ProbeError::ElementLost);
    }
    nft::delete_table(&mut socket, &config.table).map_err(ProbeError::NfTables)
}

impl Network {
    /// Sends udp packets from the bridge to an outside made for it, and through a port mapping back.
    /// The host's side must be made. Takes some 20 ms, or about a second when packets are dropped.
    /// Rules of others that name the uplink's interface let the probe's own link not through: then
    /// the verdict is wrong, and the suspect right.
    pub async fn probe_forwarding(&self) -> Result<ForwardingVerdict, ProbeError> {
        let inner = self.inner();
        let probe =
            netns::on_own_thread("lighter-probe", move || path::Path::make(&inner.home, &inner.config));
        let path = probe.await.map_err(ProbeError::Namespace)??;
        let element = path.element();
        let table = self.config().table.clone();
        let add = move |socket: &mut Socket| {
            nft::add_elements(socket, &table, &[element]).map_err(ProbeError::NfTables)
        };
        let mapped = self.firewall().run(add).await;
        // From here on everything that was made is removed, whatever fails.
        let inner = self.inner();
        let sent = netns::on_own_thread("lighter-probe", move || {
            netns::enter(&inner.home).map_err(ProbeError::Namespace)?;
            let sent = mapped.and_then(|()| path.send().map_err(ProbeError::Namespace));
            Ok::<_, ProbeError>((sent, path.remove()))
        });
        let (sent, removed) = sent.await.map_err(ProbeError::Namespace)??;
        let table = self.config().table.clone();
        let unmap = move |socket: &mut Socket| {
            nft::delete_element(socket, &table, &element).map_err(ProbeError::NfTables)
        };
        let unmapped = self.firewall().run(unmap).await;
        let forgotten = self.flows().delete(Wanted::OfAddress(element.target)).await;
        unmapped.and(forgotten.map_err(ProbeError::Conntrack))?;
        removed?;
        match sent? {
            None => Ok(ForwardingVerdict::Passes),
            Some(path) => self.name_suspect(path).await,
        }
    }

    async fn name_suspect(&self, path: &'static str) -> Result<ForwardingVerdict, ProbeError> {
        // On the firewall's thread, which is in the host's network namespace.
        let facts = |socket: &mut Socket| {
            let chains = nft::list::list_chains(socket).map_err(ProbeError::NfTables)?;
            Ok::<_, ProbeError>(suspect::Facts::of_this_namespace(chains))
        };
        let facts = self.firewall().run(facts).await?;
        let (suspect, mend) = suspect::name(&facts, self.config());
        Ok(ForwardingVerdict::Dropped { path, suspect, mend })
    }
}
