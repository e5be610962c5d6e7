//! Connection tracking entries that outlive what they were made for, and are deleted with it.
//! In: an attachment's address, or a new mapping. Out: how many entries were deleted.
//! Owns nothing. Never: touches an entry of somebody else; what the kernel finds is compared again
//! here. Why: an entry decides for its whole flow. A udp client that goes on sending would reach the
//! next owner of the address, or, when the mapping is new, never reach it.
//! Formats: linux/netfilter/nfnetlink_conntrack.h.

use crate::netlink::socket::Socket;
use crate::netlink::{AF_INET, Answer, Attributes, Buffer, Head, NLM_F_ACK, NLM_F_DUMP};
use crate::nft::protocol_number;
use lighter_model::task_definition::TransportProtocol;
use nix::errno::Errno;
use std::net::Ipv4Addr;

/// NFNL_SUBSYS_CTNETLINK and its messages.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// IPS_SRC_NAT and IPS_DST_NAT.
const TRANSLATED: u32 = (1 << 4) | (1 << 5);
/// CTA_FILTER_F_CTA_IP_SRC.
const BY_SOURCE: u32 = 1;

/// The kernel refused to list or delete entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {what} conntrack entries")]
pub struct ConntrackError {
    pub what: &'static str,
    #[source]
    pub errno: Errno,
}

/// One direction of an entry. Ports are 0 for protocols without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: Ipv4Addr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

/// An entry, with what the kernel wants back to delete this very one.
#[derive(Debug, Clone)]
struct Entry {
    original: Tuple,
    reply: Tuple,
    translated: bool,
    original_raw: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl Entry {
    fn parse(answer: Answer<'_>) -> Option<Self> {
        let attributes = answer.attributes();
        Some(Self {
            original: parse_tuple(attributes.nested(TUPLE_ORIG))?,
            reply: parse_tuple(attributes.nested(TUPLE_REPLY))?,
            translated: attributes.be32(STATUS).unwrap_or(0) & TRANSLATED != 0,
            original_raw: attributes.get(TUPLE_ORIG)?.to_vec(),
            id: attributes.get(ID).map(<[u8]>::to_vec),
            zone: attributes.get(ZONE).map(<[u8]>::to_vec),
        })
    }
}

fn parse_tuple(tuple: Attributes<'_>) -> Option<Tuple> {
    let source: [u8; 4] = tuple.nested(1).get(1)?.try_into().ok()?;
    let proto = tuple.nested(2);
    let port = |kind| proto.get(kind).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes);
    let protocol = *proto.get(1)?.first()?;
    Some(Tuple { source: source.into(), protocol, source_port: port(2), destination_port: port(3) })
}

/// Which entries are to go.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// Every entry that the address began or that was translated to it.
    OfAddress(Ipv4Addr),
    /// The entries that lead these host ports to the address.
    OfMappings { target: Ipv4Addr, ports: Vec<(TransportProtocol, u16)> },
    /// The udp entries to these host ports that were made before the ports led anywhere. Entries with
    /// a translation belong to somebody else's flow and stay.
    UntranslatedUdp(Vec<u16>),
}

impl Wanted {
    fn matches(&self, entry: &Entry) -> bool {
        let (original, reply) = (entry.original, entry.reply);
        match self {
            Self::OfAddress(address) => original.source == *address || reply.source == *address,
            Self::OfMappings { target, ports } => {
                let leads = |(protocol, port): &(TransportProtocol, u16)| {
                    (original.protocol, original.destination_port) == (protocol_number(*protocol), *port)
                };
                reply.source == *target && ports.iter().any(leads)
            }
            Self::UntranslatedUdp(ports) => {
                original.protocol == protocol_number(TransportProtocol::Udp)
                    && !entry.translated
                    && ports.contains(&original.destination_port)
            }
        }
    }

    /// What the kernel can look for: the source address of one direction each.
    fn sources(&self) -> Vec<Option<(u16, Ipv4Addr)>> {
        match self {
            Self::OfAddress(address) => {
                vec![Some((TUPLE_ORIG, *address)), Some((TUPLE_REPLY, *address))]
            }
            Self::OfMappings { target, .. } => vec![Some((TUPLE_REPLY, *target))],
            Self::UntranslatedUdp(_) => vec![None],
        }
    }
}

/// Above this many entries in all, the kernel is asked for those of one address, if that is all that
/// is wanted; below, copying all of them costs less than going through its table twice.
const MANY_ENTRIES: u64 = 5_000;

/// Deletes what any of the requests wants. One walk through the kernel's table takes milliseconds
/// even when it is empty: hence many requests at once, and none at all while nothing is tracked.
pub(crate) fn sweep(socket: &mut Socket, wanted: &[Wanted]) -> Result<usize, ConntrackError> {
    let tracked = tracked_entries();
    if tracked == Some(0) {
        return Ok(0);
    }
    let sources = match wanted {
        [one] if tracked.is_some_and(|count| count > MANY_ENTRIES) => one.sources(),
        _ => vec![None],
    };
    let mut deleted = 0;
    for source in sources {
        let found = list(socket, source, |entry| wanted.iter().any(|w| w.matches(entry)))?;
        deleted += delete_all(socket, &found)?;
    }
    Ok(deleted)
}

/// How many entries this thread's network namespace has; None if the kernel does not say.
fn tracked_entries() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?;
    text.trim().parse().ok()
}

/// The entries that `wanted` says yes to. `source` lets the kernel look for the source address of
/// one direction (Linux 5.8); a kernel that cannot is asked for everything.
fn list(
    socket: &mut Socket,
    source: Option<(u16, Ipv4Addr)>,
    wanted: impl Fn(&Entry) -> bool,
) -> Result<Vec<Entry>, ConntrackError> {
    let mut ask = |source| {
        let mut found = Vec::new();
        let sequence = socket.reserve(1);
        let request = list_request(sequence, source);
        let asked = socket.query(&request, sequence, true, |answer| {
            found.extend(Entry::parse(answer).filter(&wanted));
        });
        asked.map(|()| found)
    };
    let asked = match ask(source) {
        Err(refused) if source.is_some() && refused.errno != Errno::EPERM => ask(None),
        other => other,
    };
    asked.map_err(|refused| ConntrackError { what: "list", errno: refused.errno })
}

fn list_request(sequence: u32, source: Option<(u16, Ipv4Addr)>) -> Buffer {
    let mut request = Buffer::default();
    request.message(head(GET, NLM_F_DUMP, sequence), |b| {
        if let Some((side, address)) = source {
            b.nest(side, |b| b.nest(1, |b| b.bytes(1, &address.octets())));
            // Both sides' flags are in the host's order, against nfnetlink's custom.
            let (original, reply) = if side == TUPLE_ORIG { (BY_SOURCE, 0) } else { (0, BY_SOURCE) };
            b.nest(FILTER, |b| {
                b.bytes(1, &original.to_ne_bytes());
                b.bytes(2, &reply.to_ne_bytes());
            });
        }
    });
    request
}

fn delete_all(socket: &mut Socket, entries: &[Entry]) -> Result<usize, ConntrackError> {
    let mut deleted = 0;
    for entry in entries {
        let sequence = socket.reserve(1);
        let mut request = Buffer::default();
        request.message(head(DELETE, NLM_F_ACK, sequence), |b| {
            b.bytes(TUPLE_ORIG | 0x8000, &entry.original_raw);
            for (kind, value) in [(ID, &entry.id), (ZONE, &entry.zone)] {
                if let Some(value) = value {
                    b.bytes(kind, value);
                }
            }
        });
        match socket.transact(&request, sequence, sequence) {
            Ok(()) => deleted += 1,
            // Its time had run out meanwhile.
            Err(refused) if refused.errno == Errno::ENOENT => {}
            Err(refused) => return Err(ConntrackError { what: "delete", errno: refused.errno }),
        }
    }
    Ok(deleted)
}

fn head(kind: u16, flags: u16, sequence: u32) -> Head {
    Head { kind, flags, sequence, family: AF_INET, resource: 0 }
}
