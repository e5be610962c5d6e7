//! Our table as the kernel gets it: two maps, five chains hooked in, one of DNAT rules.
//! In: the configuration. Out: the messages of a batch. Owns nothing; pure.
//! Never: changes with the number of port mappings; a mapping is one element of a map.
//!
//! `ports` leads (protocol, port) of every host address to (address, port) of an attachment;
//! `ports_by_address` does so for one host address and is asked first.

use super::expr::{Cmp, Meta, REG_1, REG32_01, REG32_02, Rule, Verdict};
use super::{Batch, MAP_ANY, MAP_BY_ADDRESS};
use crate::config::{METADATA_ADDRESS, NetworkConfig};
use crate::netlink::{NLM_F_APPEND, NLM_F_CREATE};
use std::net::Ipv4Addr;

pub(super) const NEWTABLE: u8 = 0;
pub(super) const DELTABLE: u8 = 2;
const NEWCHAIN: u8 = 3;
const NEWRULE: u8 = 6;
const NEWSET: u8 = 9;

/// Data types of the `nft` tool, by which it prints keys; 6 bits each when put together.
const TYPE_IPADDR: u32 = 7;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;

/// netfilter hooks and the priorities that `nft` calls raw, dstnat, filter and srcnat.
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const LOCAL_OUT: u32 = 3;
const POSTROUTING: u32 = 4;
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

/// The instance metadata service of clouds.
const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const LOOPBACK: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(255, 0, 0, 0));

/// The whole table without elements; what was there under its name goes in the same transaction.
pub(super) fn push_table(batch: &mut Batch, config: &NetworkConfig) {
    push_delete_table(batch, &config.table);
    batch.push(NEWTABLE, NLM_F_CREATE, "table", |b| b.text(1, &config.table));
    push_map(batch, &config.table, MAP_BY_ADDRESS, true, 1);
    push_map(batch, &config.table, MAP_ANY, false, 2);
    let table = Table { batch, config };
    table.chains();
}

/// Deletes the table whether or not it exists.
pub(super) fn push_delete_table(batch: &mut Batch, table: &str) {
    batch.push(NEWTABLE, NLM_F_CREATE, "table", |b| b.text(1, table));
    batch.push(DELTABLE, 0, "table", |b| b.text(1, table));
}

fn push_map(batch: &mut Batch, table: &str, name: &str, by_address: bool, id: u32) {
    const MAP_FLAG: u32 = 8;
    let service = (TYPE_INET_PROTOCOL << 6) | TYPE_INET_SERVICE;
    let key_type = if by_address { (TYPE_IPADDR << 12) | service } else { service };
    batch.push(NEWSET, NLM_F_CREATE, "map", |b| {
        b.text(1, table);
        b.text(2, name);
        b.be32(3, MAP_FLAG);
        b.be32(4, key_type);
        b.be32(5, if by_address { 12 } else { 8 });
        b.be32(6, (TYPE_IPADDR << 6) | TYPE_INET_SERVICE);
        b.be32(7, 8);
        b.be32(10, id);
    });
}

struct Table<'a> {
    batch: &'a mut Batch,
    config: &'a NetworkConfig,
}

impl Table<'_> {
    fn chains(mut self) {
        self.plain_chain("port_maps");
        self.guard();
        self.translate_destination();
        self.translate_source();
        self.forward();
    }

    /// Before anything else: nobody but lo sends from or to 127/8 (route_localnet would let it in).
    fn guard(&mut self) {
        self.base_chain("guard", "filter", PREROUTING, RAW);
        self.rule("guard", Verdict::Drop, |r| {
            r.interface(Meta::IifName, Cmp::Neq, "lo");
            r.daddr_in(LOOPBACK.0, LOOPBACK.1);
        });
        self.rule("guard", Verdict::Drop, |r| {
            r.interface(Meta::IifName, Cmp::Neq, "lo");
            r.saddr_in(LOOPBACK.0, LOOPBACK.1);
        });
        if self.config.block_imds {
            let bridge = &self.config.bridge;
            self.rule("guard", Verdict::Drop, |r| {
                r.interface(Meta::IifName, Cmp::Eq, bridge);
                r.daddr_is(IMDS);
            });
        }
    }

    /// Only what is for an address of this host is looked up: traffic that an attachment sends to
    /// port 80 of somebody else is not ours.
    fn translate_destination(&mut self) {
        self.base_chain("prerouting", "nat", PREROUTING, DSTNAT);
        self.rule("prerouting", Verdict::Jump("port_maps"), |r| r.daddr_is_local());
        self.base_chain("output", "nat", LOCAL_OUT, DSTNAT);
        if !self.config.host_loopback {
            self.rule("output", Verdict::Return, |r| r.daddr_in(LOOPBACK.0, LOOPBACK.1));
        }
        self.rule("output", Verdict::Jump("port_maps"), |r| r.daddr_is_local());
        self.task_metadata();
        self.rule_without_verdict("port_maps", |r| {
            r.load_daddr(REG_1);
            r.meta(Meta::L4Proto, REG32_01);
            r.load_dport(REG32_02);
            r.lookup_map(MAP_BY_ADDRESS);
            r.dnat();
        });
        self.rule_without_verdict("port_maps", |r| {
            r.meta(Meta::L4Proto, REG_1);
            r.load_dport(REG32_01);
            r.lookup_map(MAP_ANY);
            r.dnat();
        });
    }

    /// Port 80 of the metadata address leads to the agent, and a task that maps host port 80 does not
    /// get in between. The agent's own port is another one, so that 80 stays free for tasks.
    fn task_metadata(&mut self) {
        let Some(port) = self.config.metadata_port else { return };
        self.rule_without_verdict("port_maps", |r| {
            r.daddr_is(METADATA_ADDRESS);
            r.dport_is(80);
            r.load_value(REG_1, &METADATA_ADDRESS.octets());
            r.load_value(REG32_01, &port.to_be_bytes());
            r.dnat();
        });
        self.rule("port_maps", Verdict::Return, |r| r.daddr_is(METADATA_ADDRESS));
    }

    /// From the host's loopback and for hairpins the answer must come back through the host; what
    /// leaves the bridge gets an address that others can answer to.
    fn translate_source(&mut self) {
        let NetworkConfig { bridge, subnet, host_loopback, .. } = self.config;
        self.base_chain("postrouting", "nat", POSTROUTING, SRCNAT);
        if *host_loopback {
            self.rule_without_verdict("postrouting", |r| {
                r.interface(Meta::OifName, Cmp::Eq, bridge);
                r.saddr_in(LOOPBACK.0, LOOPBACK.1);
                r.masquerade();
            });
        }
        self.rule_without_verdict("postrouting", |r| {
            r.interface(Meta::OifName, Cmp::Eq, bridge);
            r.saddr_in_subnet(*subnet);
            r.destination_was_translated();
            r.masquerade();
        });
        self.rule_without_verdict("postrouting", |r| {
            r.interface(Meta::OifName, Cmp::Neq, bridge);
            r.saddr_in_subnet(*subnet);
            r.masquerade();
        });
    }

    /// Attachments may reach anything; from outside they are reached by a mapping only, also when a
    /// neighbour routes to our subnet. Accepting ends this table's say, not that of others.
    fn forward(&mut self) {
        let bridge = self.config.bridge.as_str();
        self.base_chain("forward", "filter", FORWARD, FILTER);
        let from_bridge = |r: &mut Rule<'_>| r.interface(Meta::IifName, Cmp::Eq, bridge);
        let to_bridge = |r: &mut Rule<'_>| r.interface(Meta::OifName, Cmp::Eq, bridge);
        self.rule("forward", Verdict::Accept, from_bridge);
        self.rule("forward", Verdict::Accept, |r| {
            to_bridge(r);
            r.established_or_related();
        });
        self.rule("forward", Verdict::Accept, |r| {
            to_bridge(r);
            r.destination_was_translated();
        });
        self.rule("forward", Verdict::Drop, to_bridge);
    }

    fn plain_chain(&mut self, name: &str) {
        let table = &self.config.table;
        self.batch.push(NEWCHAIN, NLM_F_CREATE, "chain", |b| {
            b.text(1, table);
            b.text(3, name);
        });
    }

    fn base_chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        const ACCEPT: u32 = 1;
        let table = &self.config.table;
        self.batch.push(NEWCHAIN, NLM_F_CREATE, "chain", |b| {
            b.text(1, table);
            b.text(3, name);
            b.nest(4, |b| {
                b.be32(1, hook);
                b.be32(2, priority as u32);
            });
            b.be32(5, ACCEPT);
            b.text(7, kind);
        });
    }

    fn rule(&mut self, chain: &str, verdict: Verdict<'_>, matches: impl FnOnce(&mut Rule<'_>)) {
        self.rule_without_verdict(chain, |r| {
            matches(r);
            r.verdict(&verdict);
        });
    }

    fn rule_without_verdict(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
        let table = &self.config.table;
        self.batch.push(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "rule", |b| {
            b.text(1, table);
            b.text(2, chain);
            b.nest(4, |b| fill(&mut Rule(b)));
        });
    }
}
