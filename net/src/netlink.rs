//! The part of netlink that nf_tables and conntrack need: messages out, answers in.
//! In: messages built with `Buffer`. Out: attributes, or the errno and the message it belongs to.
//! Owns one NETLINK_NETFILTER socket. Never: links, addresses or routes (rtnetlink does those).
//! Written by hand because the generated bindings for nf_tables were seen to number attributes
//! wrongly; formats: linux/netlink.h, linux/netfilter/nfnetlink.h. Numbers are of the kernel's ABI.

pub(crate) mod socket;

/// struct nlmsghdr.
const HEADER_BYTES: usize = 16;
/// struct nfgenmsg, which follows the header in every message of nfnetlink.
const NFGEN_BYTES: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// First type number that is not netlink's own.
pub(crate) const NLMSG_MIN_TYPE: u16 = 0x10;

pub(crate) const AF_UNSPEC: u8 = 0;
/// AF_INET, which is also NFPROTO_IPV4.
pub(crate) const AF_INET: u8 = 2;

/// What stands in the two headers of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Subsystem in the high byte, message in the low one.
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) family: u8,
    /// In batch messages the subsystem; else 0.
    pub(crate) resource: u16,
}

/// Messages one after the other, as one sendmsg takes them.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends a message; `fill` adds its attributes.
    pub(crate) fn message(&mut self, head: Head, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&0u32.to_ne_bytes());
        self.0.extend_from_slice(&head.kind.to_ne_bytes());
        self.0.extend_from_slice(&(head.flags | NLM_F_REQUEST).to_ne_bytes());
        self.0.extend_from_slice(&head.sequence.to_ne_bytes());
        self.0.extend_from_slice(&0u32.to_ne_bytes());
        self.0.extend_from_slice(&[head.family, 0]);
        self.0.extend_from_slice(&head.resource.to_be_bytes());
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends an attribute. The kernel's length field has 16 bits: callers keep lists below that.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// nfnetlink's numbers are in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }
}

/// One answer: its headers and the bytes of its attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) family: u8,
    payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The attributes after struct nfgenmsg.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(NFGEN_BYTES..).unwrap_or_default())
    }

    /// The errno of an NLMSG_ERROR or NLMSG_DONE message as a positive number; 0 is success.
    pub(crate) fn errno(&self) -> i32 {
        let bytes = self.payload.get(..4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, |b| i32::from_ne_bytes(b).saturating_neg())
    }
}

/// Splits what one recv gave into messages. Stops at a length that cannot be right.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let message = bytes.get(..length).filter(|m| m.len() >= HEADER_BYTES)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let payload = &message[HEADER_BYTES..];
        Some(Answer {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            family: payload.first().copied().unwrap_or(0),
            payload,
        })
    })
}

/// Attributes, nested or not: (type, value).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of this type.
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes([*self.0.first()?, *self.0.get(1)?]));
        let kind = u16::from_ne_bytes([*self.0.get(2)?, *self.0.get(3)?]) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_reads_back() {
        let mut buffer = Buffer::default();
        let head = Head { kind: 0x0a03, flags: NLM_F_ACK, sequence: 7, family: AF_INET, resource: 0 };
        buffer.message(head, |b| {
            b.text(1, "lighter");
            b.nest(4, |b| b.be32(2, 0xffff_ff9c));
        });
        let mut found = answers(buffer.as_bytes());
        let answer = found.next().unwrap();
        assert_eq!((answer.kind, answer.sequence, answer.family), (0x0a03, 7, AF_INET));
        assert_eq!(answer.attributes().text(1).unwrap(), "lighter");
        assert_eq!(answer.attributes().nested(4).be32(2), Some(0xffff_ff9c));
        assert!(found.next().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for answer in answers(&bytes) {
                let _ = answer.errno();
                let _ = answer.attributes().count();
            }
        }
    }
}
