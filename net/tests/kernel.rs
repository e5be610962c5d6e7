//! T2: the network on a real kernel, every test in network and mount namespaces of its own.
//! Needs root and Debian's iproute2, nftables, iptables, conntrack; without one of them a test fails.
//! Observed with `ip`, `nft`, `conntrack` and plain sockets, never with the code under test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "kernel/attachments.rs"]
mod attachments;
#[path = "kernel/ports.rs"]
mod ports;
#[path = "kernel/probe.rs"]
mod probe;
#[path = "kernel/table.rs"]
mod table;
#[path = "kernel/world.rs"]
mod world;
