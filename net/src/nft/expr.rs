//! The expressions of nf_tables rules, each a few attributes (linux/netfilter/nf_tables.h).
//! In: what to match or do. Out: bytes in a rule. Owns nothing; pure.
//! Never: decides which rules there are (see `ruleset.rs`). `nft list` is the test of the encoding.

use crate::netlink::Buffer;
use crate::subnet::Subnet;
use std::net::Ipv4Addr;

/// NFT_REG_1, 16 bytes wide; its four quarters are NFT_REG32_00 to NFT_REG32_03.
pub(super) const REG_1: u32 = 1;
pub(super) const REG32_01: u32 = 9;
pub(super) const REG32_02: u32 = 10;
const REG_VERDICT: u32 = 0;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// NFT_META_*.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
}

/// NFT_CMP_*.
#[derive(Clone, Copy)]
pub(super) enum Cmp {
    Eq = 0,
    Neq = 1,
}

/// What happens to a packet that came this far.
pub(super) enum Verdict<'a> {
    Drop,
    Accept,
    Return,
    Jump(&'a str),
}

/// The expressions of one rule, in their order.
pub(super) struct Rule<'a>(pub(super) &'a mut Buffer);

impl Rule<'_> {
    fn expr(&mut self, name: &str, data: impl FnOnce(&mut Buffer)) {
        self.0.nest(LIST_ELEM, |b| {
            b.text(EXPR_NAME, name);
            b.nest(EXPR_DATA, data);
        });
    }

    pub(super) fn meta(&mut self, key: Meta, register: u32) {
        self.expr("meta", |b| {
            b.be32(1, register);
            b.be32(2, key as u32);
        });
    }

    /// Loads header bytes; base 1 is the network header, 2 the transport header.
    fn payload(&mut self, base: u32, offset: u32, bytes: u32, register: u32) {
        self.expr("payload", |b| {
            b.be32(1, register);
            b.be32(2, base);
            b.be32(3, offset);
            b.be32(4, bytes);
        });
    }

    fn cmp(&mut self, op: Cmp, value: &[u8]) {
        self.expr("cmp", |b| {
            b.be32(1, REG_1);
            b.be32(2, op as u32);
            b.nest(3, |b| b.bytes(DATA_VALUE, value));
        });
    }

    fn mask(&mut self, mask: [u8; 4]) {
        self.expr("bitwise", |b| {
            b.be32(1, REG_1);
            b.be32(2, REG_1);
            b.be32(3, 4);
            b.nest(4, |b| b.bytes(DATA_VALUE, &mask));
            b.nest(5, |b| b.bytes(DATA_VALUE, &[0; 4]));
        });
    }

    pub(super) fn interface(&mut self, which: Meta, op: Cmp, name: &str) {
        let mut padded = [0u8; 16];
        let length = name.len().min(15);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.meta(which, REG_1);
        self.cmp(op, &padded);
    }

    pub(super) fn load_daddr(&mut self, register: u32) {
        self.payload(1, 16, 4, register);
    }

    pub(super) fn load_dport(&mut self, register: u32) {
        self.payload(2, 2, 2, register);
    }

    pub(super) fn daddr_is(&mut self, address: Ipv4Addr) {
        self.load_daddr(REG_1);
        self.cmp(Cmp::Eq, &address.octets());
    }

    pub(super) fn dport_is(&mut self, port: u16) {
        self.load_dport(REG_1);
        self.cmp(Cmp::Eq, &port.to_be_bytes());
    }

    /// Puts a value into a register.
    pub(super) fn load_value(&mut self, register: u32, value: &[u8]) {
        self.expr("immediate", |b| {
            b.be32(1, register);
            b.nest(2, |b| b.bytes(DATA_VALUE, value));
        });
    }

    pub(super) fn daddr_in(&mut self, network: Ipv4Addr, netmask: Ipv4Addr) {
        self.load_daddr(REG_1);
        self.mask(netmask.octets());
        self.cmp(Cmp::Eq, &network.octets());
    }

    pub(super) fn saddr_in(&mut self, network: Ipv4Addr, netmask: Ipv4Addr) {
        self.payload(1, 12, 4, REG_1);
        self.mask(netmask.octets());
        self.cmp(Cmp::Eq, &network.octets());
    }

    pub(super) fn saddr_in_subnet(&mut self, subnet: Subnet) {
        self.saddr_in(subnet.network(), subnet.netmask());
    }

    /// `fib daddr type local`: the destination is an address of this host.
    pub(super) fn daddr_is_local(&mut self) {
        const RESULT_ADDRTYPE: u32 = 3;
        const FLAG_DADDR: u32 = 2;
        const RTN_LOCAL: u32 = 2;
        self.expr("fib", |b| {
            b.be32(1, REG_1);
            b.be32(2, RESULT_ADDRTYPE);
            b.be32(3, FLAG_DADDR);
        });
        self.cmp(Cmp::Eq, &RTN_LOCAL.to_ne_bytes());
    }

    /// `ct state established,related` and the like: any of the bits of a key of conntrack.
    fn ct_any(&mut self, key: u32, bits: u32) {
        self.expr("ct", |b| {
            b.be32(1, REG_1);
            b.be32(2, key);
        });
        self.mask(bits.to_ne_bytes());
        self.cmp(Cmp::Neq, &[0; 4]);
    }

    pub(super) fn established_or_related(&mut self) {
        const STATE: u32 = 0;
        self.ct_any(STATE, 2 | 4);
    }

    pub(super) fn destination_was_translated(&mut self) {
        const STATUS: u32 = 2;
        const IPS_DST_NAT: u32 = 1 << 5;
        self.ct_any(STATUS, IPS_DST_NAT);
    }

    /// Looks the key at REG_1 up; its data goes to REG_1, and without data the rule ends.
    pub(super) fn lookup_map(&mut self, map: &str) {
        self.expr("lookup", |b| {
            b.text(1, map);
            b.be32(2, REG_1);
            b.be32(3, REG_1);
        });
    }

    /// Sends the packet to the address at REG_1 and the port at REG32_01.
    pub(super) fn dnat(&mut self) {
        self.expr("nat", |b| {
            b.be32(1, 1);
            b.be32(2, u32::from(crate::netlink::AF_INET));
            b.be32(3, REG_1);
            b.be32(5, REG32_01);
        });
    }

    pub(super) fn masquerade(&mut self) {
        self.expr("masq", |_| ());
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict<'_>) {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(*chain)),
            Verdict::Return => (-5, None),
        };
        self.expr("immediate", |b| {
            b.be32(1, REG_VERDICT);
            b.nest(2, |b| {
                b.nest(DATA_VERDICT, |b| {
                    b.bytes(1, &i32::to_be_bytes(code));
                    if let Some(chain) = chain {
                        b.text(2, chain);
                    }
                });
            });
        });
    }
}
