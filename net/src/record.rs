//! What one attachment is, decided before anything is done, so that it can be written down first.
//! In: a request and the lease pool. Out: an `AttachmentRecord` that says every name and address.
//! Owns nothing; pure. Never: touches the kernel (see `network.rs`), stores a record (the agent does).

use crate::lease::{LeaseError, LeasePool};
use lighter_model::ids::AttachmentKey;
use lighter_model::task_definition::TransportProtocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// How an attachment meets the network. Host mode needs no attachment at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachmentMode {
    /// A netns of its own with eth0 on the bridge, an address and port mappings.
    Bridge,
    /// A netns of its own with the loopback interface only.
    None,
}

/// One host port that leads to one port of the attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    pub protocol: TransportProtocol,
    /// The host address it is for; 0.0.0.0 is every address of the host.
    pub host_ip: Ipv4Addr,
    /// Never 0: a dynamic port is chosen with `PortAllocator` first.
    pub host_port: u16,
    pub target_port: u16,
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.as_str();
        write!(f, "{}:{}->{}/{protocol}", self.host_ip, self.host_port, self.target_port)
    }
}

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    pub key: AttachmentKey,
    pub mode: AttachmentMode,
    /// An address recorded earlier, to have it again; None leases the next free one.
    pub address: Option<Ipv4Addr>,
    pub ports: Vec<PortForward>,
}

/// Everything about one attachment. The agent stores it before `Network::add` and gives it back to
/// `add`, `check`, `del` and `restore`, which need nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentRecord {
    pub key: AttachmentKey,
    pub mode: AttachmentMode,
    /// File name under the configured netns directory.
    pub netns: String,
    /// The host's end of the veth pair; in bridge mode only.
    pub veth: Option<String>,
    /// The lease; in bridge mode only.
    pub address: Option<Ipv4Addr>,
    pub ports: Vec<PortForward>,
}

/// Why a request cannot become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("attachment {key} gets no address")]
    Lease {
        key: AttachmentKey,
        #[source]
        source: LeaseError,
    },
    #[error("attachment {key} asks for port mappings, which need bridge mode")]
    PortsWithoutBridge { key: AttachmentKey },
    #[error("attachment {key}: the mapping {port} has port 0; a dynamic host port must be chosen first")]
    PortZero { key: AttachmentKey, port: PortForward },
    #[error("attachment {key} maps the host port {port} twice")]
    PortTwice { key: AttachmentKey, port: PortForward },
}

/// Decides names and address. On success the address is leased in `pool`; release it there when the
/// record cannot be stored. Nothing is leased on failure.
pub fn plan_attachment(pool: &mut LeasePool, request: AddRequest) -> Result<AttachmentRecord, PlanError> {
    let AddRequest { key, mode, address, mut ports } = request;
    check_ports(&key, mode, &ports)?;
    ports.sort();
    let leased = match (mode, address) {
        (AttachmentMode::None, _) => Ok(None),
        (AttachmentMode::Bridge, Some(address)) => pool.claim(address).map(|()| Some(address)),
        (AttachmentMode::Bridge, None) => pool.lease().map(Some),
    };
    let address = leased.map_err(|source| PlanError::Lease { key: key.clone(), source })?;
    let netns = netns_name(&key);
    let veth = address.map(|_| veth_name(&key));
    Ok(AttachmentRecord { key, mode, netns, veth, address, ports })
}

fn check_ports(key: &AttachmentKey, mode: AttachmentMode, ports: &[PortForward]) -> Result<(), PlanError> {
    if mode == AttachmentMode::None && !ports.is_empty() {
        return Err(PlanError::PortsWithoutBridge { key: key.clone() });
    }
    let mut seen = BTreeSet::new();
    for port in ports {
        if port.host_port == 0 || port.target_port == 0 {
            return Err(PlanError::PortZero { key: key.clone(), port: *port });
        }
        if !seen.insert((port.protocol, port.host_ip, port.host_port)) {
            return Err(PlanError::PortTwice { key: key.clone(), port: *port });
        }
    }
    Ok(())
}

/// A file name for the key: readable, unique, and below the 255 bytes a name may have.
fn netns_name(key: &AttachmentKey) -> String {
    let text = key.to_string();
    let readable: String = text.replace('/', ".").chars().take(128).collect();
    if readable.len() == text.len() { readable } else { format!("{readable}.{:016x}", fnv1a(&text)) }
}

/// An interface name for the key: 15 bytes, the most Linux takes. 52 bits of a hash: two of the at
/// most 1,023 attachments of a bridge meet with a probability of 10^-10, and `add` then says so.
fn veth_name(key: &AttachmentKey) -> String {
    format!("lv{:013x}", fnv1a(&key.to_string()) >> 12)
}

/// FNV-1a, 64 bits: stable over releases, which the hasher of the standard library is not.
fn fnv1a(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A hardware address that follows from the IPv4 address (locally administered): when an address
/// is leased again, the ARP caches of the neighbours are still right.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x4c, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subnet::Subnet;

    fn key(task: u64, name: &str) -> AttachmentKey {
        AttachmentKey::new(format!("{task:032x}").parse().unwrap(), name.parse().unwrap())
    }

    fn request(name: &str, ports: Vec<PortForward>) -> AddRequest {
        AddRequest { key: key(1, name), mode: AttachmentMode::Bridge, address: None, ports }
    }

    fn port(host_port: u16) -> PortForward {
        PortForward {
            protocol: TransportProtocol::Tcp,
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_port,
            target_port: 80,
        }
    }

    #[test]
    fn the_record_says_every_name_and_survives_serde() {
        let mut pool = LeasePool::new(Subnet::DEFAULT);
        let record = plan_attachment(&mut pool, request("web", vec![port(81), port(80)])).unwrap();
        assert_eq!(record.netns, "00000000000000000000000000000001.web");
        assert_eq!(record.veth.as_deref().map(str::len), Some(15));
        assert_eq!(record.address, Some(Ipv4Addr::new(172, 29, 0, 2)));
        assert_eq!(record.ports[0].host_port, 80);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<AttachmentRecord>(&text).unwrap(), record);
        let restored = LeasePool::from_records(Subnet::DEFAULT, [&record]);
        assert!(restored.is_taken(Ipv4Addr::new(172, 29, 0, 2)));
    }

    #[test]
    fn long_names_stay_unique_and_short() {
        let long = |last: &str| netns_name(&key(1, &format!("{}{last}", "x".repeat(250))));
        assert!(long("a").len() < 200);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn impossible_ports_lease_nothing() {
        let mut pool = LeasePool::new(Subnet::DEFAULT);
        let twice = plan_attachment(&mut pool, request("web", vec![port(80), port(80)]));
        assert!(matches!(twice, Err(PlanError::PortTwice { .. })));
        let zero = plan_attachment(&mut pool, request("web", vec![port(0)]));
        assert!(matches!(zero, Err(PlanError::PortZero { .. })));
        let none = AddRequest { mode: AttachmentMode::None, ..request("web", vec![port(80)]) };
        let none = plan_attachment(&mut pool, none);
        assert!(matches!(none, Err(PlanError::PortsWithoutBridge { .. })));
        assert_eq!(pool.taken(), 0);
    }

    #[test]
    fn a_recorded_address_is_had_again() {
        let mut pool = LeasePool::new(Subnet::DEFAULT);
        let wanted = Ipv4Addr::new(172, 29, 7, 7);
        let again = AddRequest { address: Some(wanted), ..request("web", vec![]) };
        let record = plan_attachment(&mut pool, again.clone()).unwrap();
        assert_eq!(record.address, Some(wanted));
        assert!(matches!(plan_attachment(&mut pool, again), Err(PlanError::Lease { .. })));
    }
}
