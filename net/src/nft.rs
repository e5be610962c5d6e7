//! nf_tables in process: our table, and the elements of its maps, in atomic batches.
//! In: the configuration and port mappings. Out: what the kernel said, by message.
//! Owns nothing but a borrowed socket. Never: runs `nft` or `iptables`, changes another's table.
//! The order of attributes and their numbers: linux/netfilter/nf_tables.h.

mod expr;
pub(crate) mod list;
mod ruleset;

use crate::config::NetworkConfig;
use crate::netlink::socket::Socket;
use crate::netlink::{AF_INET, AF_UNSPEC, Attributes, Buffer, Head, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};
use crate::record::PortForward;
use expr::DATA_VALUE;
use lighter_model::task_definition::TransportProtocol;
use nix::errno::Errno;
use std::net::Ipv4Addr;

/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWSETELEM: u8 = 12;
const GETSETELEM: u8 = 13;
const DELSETELEM: u8 = 14;

const MAP_ANY: &str = "ports";
const MAP_BY_ADDRESS: &str = "ports_by_address";
/// An attribute holds 64 KiB; an element takes at most 48 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// A change of nf_tables that the kernel refused; nothing of its batch was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nf_tables refused the {what}")]
pub struct NftError {
    /// Which part of the batch: table, map, chain, rule, element, or transaction.
    pub what: &'static str,
    #[source]
    pub errno: Errno,
}

/// One port mapping as the kernel has it: an element of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortElement {
    pub protocol: TransportProtocol,
    /// 0.0.0.0 is every address of the host.
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
    pub target: Ipv4Addr,
    pub target_port: u16,
}

impl PortElement {
    /// The mapping without its target address.
    pub fn forward(&self) -> PortForward {
        let Self { protocol, host_ip, host_port, target_port, .. } = *self;
        PortForward { protocol, host_ip, host_port, target_port }
    }

    fn map(&self) -> &'static str {
        if self.host_ip.is_unspecified() { MAP_ANY } else { MAP_BY_ADDRESS }
    }

    /// The fields one after the other, each padded to 4 bytes.
    fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(12);
        if !self.host_ip.is_unspecified() {
            key.extend_from_slice(&self.host_ip.octets());
        }
        key.extend_from_slice(&[protocol_number(self.protocol), 0, 0, 0]);
        key.extend_from_slice(&padded_port(self.host_port));
        key
    }

    fn data(&self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.target.octets(), padded_port(self.target_port));
        [a, b, c, d, e, f, g, h]
    }

    /// The inverse of `key` and `data`.
    fn parse(element: Attributes<'_>) -> Option<Self> {
        let key = element.nested(1).get(DATA_VALUE)?;
        let data = element.nested(2).get(DATA_VALUE)?;
        let (host_ip, rest) = match key.len() {
            12 => (ipv4(key)?, &key[4..]),
            8 => (Ipv4Addr::UNSPECIFIED, key),
            _ => return None,
        };
        let protocol = match rest[0] {
            6 => TransportProtocol::Tcp,
            17 => TransportProtocol::Udp,
            _ => return None,
        };
        let host_port = u16::from_be_bytes([rest[4], rest[5]]);
        let target_port = u16::from_be_bytes([*data.get(4)?, *data.get(5)?]);
        Some(Self { protocol, host_ip, host_port, target: ipv4(data)?, target_port })
    }

    fn write(&self, b: &mut Buffer, with_data: bool) {
        b.nest(1, |b| {
            b.nest(1, |b| b.bytes(DATA_VALUE, &self.key()));
            if with_data {
                b.nest(2, |b| b.bytes(DATA_VALUE, &self.data()));
            }
        });
    }
}

pub(crate) fn protocol_number(protocol: TransportProtocol) -> u8 {
    match protocol {
        TransportProtocol::Tcp => 6,
        TransportProtocol::Udp => 17,
    }
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(octets.into())
}

/// Messages that the kernel takes all or none.
struct Batch {
    buffer: Buffer,
    first: u32,
    next: u32,
    names: Vec<&'static str>,
}

impl Batch {
    fn new(first: u32) -> Self {
        let mut buffer = Buffer::default();
        buffer.message(batch_head(BATCH_BEGIN, first), |_| ());
        Self { buffer, first, next: first + 1, names: vec!["transaction"] }
    }

    fn push(&mut self, kind: u8, flags: u16, name: &'static str, fill: impl FnOnce(&mut Buffer)) {
        // Every message asks: only the acknowledgement of the last one tells of success.
        let head = Head { flags: flags | NLM_F_ACK, ..head(kind, AF_INET, self.next) };
        self.buffer.message(head, fill);
        self.names.push(name);
        self.next += 1;
    }

    fn elements(&mut self, table: &str, elements: &[PortElement]) {
        for map in [MAP_ANY, MAP_BY_ADDRESS] {
            let of_map: Vec<&PortElement> = elements.iter().filter(|e| e.map() == map).collect();
            for chunk in of_map.chunks(ELEMENTS_PER_MESSAGE) {
                self.push(NEWSETELEM, NLM_F_CREATE, "element", |b| {
                    write_elements(b, table, map, chunk, true);
                });
            }
        }
    }

    fn commit(mut self, socket: &mut Socket) -> Result<(), NftError> {
        let last = self.next - 1;
        self.buffer.message(batch_head(BATCH_END, self.next), |_| ());
        socket.transact(&self.buffer, self.first, last).map_err(|refused| {
            let index = refused.sequence.wrapping_sub(self.first) as usize;
            let what = self.names.get(index).copied().unwrap_or("transaction");
            NftError { what, errno: refused.errno }
        })
    }
}

fn batch_head(kind: u16, sequence: u32) -> Head {
    Head { kind, flags: 0, sequence, family: AF_UNSPEC, resource: SUBSYSTEM }
}

fn head(kind: u8, family: u8, sequence: u32) -> Head {
    Head { kind: (SUBSYSTEM << 8) | u16::from(kind), flags: 0, sequence, family, resource: 0 }
}

fn write_elements(b: &mut Buffer, table: &str, map: &str, elements: &[&PortElement], data: bool) {
    b.text(1, table);
    b.text(2, map);
    b.nest(3, |b| elements.iter().for_each(|element| element.write(b, data)));
}

/// Makes our table new, with these elements, in one transaction: at no moment is it missing.
pub(crate) fn replace_table(
    socket: &mut Socket,
    config: &NetworkConfig,
    elements: &[PortElement],
) -> Result<(), NftError> {
    let mut batch = Batch::new(socket.reserve(elements.len() as u32 + 100));
    ruleset::push_table(&mut batch, config);
    batch.elements(&config.table, elements);
    batch.commit(socket)
}

/// Deletes a table of family ip; one that does not exist is a success.
pub(crate) fn delete_table(socket: &mut Socket, table: &str) -> Result<(), NftError> {
    let mut batch = Batch::new(socket.reserve(4));
    ruleset::push_delete_table(&mut batch, table);
    batch.commit(socket)
}

/// Adds elements, all or none. The same again is a success; EEXIST means that a key leads elsewhere.
pub(crate) fn add_elements(
    socket: &mut Socket,
    table: &str,
    elements: &[PortElement],
) -> Result<(), NftError> {
    if elements.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(socket.reserve(elements.len() as u32 + 4));
    batch.elements(table, elements);
    batch.commit(socket)
}

/// Deletes one element, if it is there and leads to the same target: a mapping that somebody else
/// has by now stays.
pub(crate) fn delete_element(
    socket: &mut Socket,
    table: &str,
    element: &PortElement,
) -> Result<(), NftError> {
    if get_element(socket, table, element)? != Some(*element) {
        return Ok(());
    }
    let mut batch = Batch::new(socket.reserve(3));
    batch.push(DELSETELEM, 0, "element", |b| {
        write_elements(b, table, element.map(), &[element], false);
    });
    match batch.commit(socket) {
        Err(error) if error.errno == Errno::ENOENT => Ok(()),
        other => other,
    }
}

/// What the kernel has under the key of `element`. A missing table or map reads as nothing.
pub(crate) fn get_element(
    socket: &mut Socket,
    table: &str,
    element: &PortElement,
) -> Result<Option<PortElement>, NftError> {
    let mut request = Buffer::default();
    let sequence = socket.reserve(1);
    request.message(head(GETSETELEM, AF_INET, sequence), |b| {
        write_elements(b, table, element.map(), &[element], false);
    });
    let mut found = Vec::new();
    collect_elements(socket, &request, sequence, false, &mut found)?;
    Ok(found.pop())
}

/// All elements of both maps. A missing table reads as nothing.
pub(crate) fn list_elements(socket: &mut Socket, table: &str) -> Result<Vec<PortElement>, NftError> {
    let mut found = Vec::new();
    for map in [MAP_ANY, MAP_BY_ADDRESS] {
        let mut request = Buffer::default();
        let sequence = socket.reserve(1);
        let head = Head { flags: NLM_F_DUMP, ..head(GETSETELEM, AF_INET, sequence) };
        request.message(head, |b| {
            b.text(1, table);
            b.text(2, map);
        });
        collect_elements(socket, &request, sequence, true, &mut found)?;
    }
    found.sort();
    Ok(found)
}

fn collect_elements(
    socket: &mut Socket,
    request: &Buffer,
    sequence: u32,
    dump: bool,
    found: &mut Vec<PortElement>,
) -> Result<(), NftError> {
    let asked = socket.query(request, sequence, dump, |answer| {
        let elements = answer.attributes().nested(3);
        found.extend(elements.filter_map(|(_, bytes)| PortElement::parse(Attributes(bytes))));
    });
    match asked {
        Err(refused) if refused.errno != Errno::ENOENT => {
            Err(NftError { what: "question for elements", errno: refused.errno })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_element_reads_back(
            udp in any::<bool>(),
            host_ip in prop_oneof![Just(0u32), any::<u32>()],
            target in any::<u32>(),
            host_port in any::<u16>(),
            target_port in any::<u16>(),
        ) {
            let protocol = if udp { TransportProtocol::Udp } else { TransportProtocol::Tcp };
            let (host_ip, target) = (host_ip.into(), target.into());
            let element = PortElement { protocol, host_ip, host_port, target, target_port };
            let mut buffer = Buffer::default();
            element.write(&mut buffer, true);
            let (_, bytes) = Attributes(buffer.as_bytes()).next().unwrap();
            prop_assert_eq!(PortElement::parse(Attributes(bytes)), Some(element));
        }

        #[test]
        fn any_bytes_are_no_element_or_one(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = PortElement::parse(Attributes(&bytes));
        }
    }
}
