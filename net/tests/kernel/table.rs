//! Our nf_tables table as the `nft` tool reads it, beside the tables of others.

use crate::world::{bare_world, sh, tcp, udp, world};
use lighter_net::{Network, NetworkConfig, PortForward};
use std::net::Ipv4Addr;

#[test]
fn the_table_is_what_we_mean() {
    world(|w| {
        let by_address = PortForward { host_ip: Ipv4Addr::new(203, 0, 113, 1), ..tcp(443, 8443) };
        w.add(vec![tcp(8080, 80), udp(5353, 53), by_address]);
        let golden = include_str!("golden.nft");
        let table = sh("nft list table ip lighter");
        assert_eq!(table, golden, "nft prints:\n{table}");
    });
}

#[test]
fn options_change_the_table() {
    bare_world(|w| {
        let config = NetworkConfig { block_imds: false, host_loopback: false, ..NetworkConfig::default() };
        let network = Network::open(config).unwrap();
        w.runtime.block_on(network.ensure_host()).unwrap();
        let table = sh("nft list table ip lighter");
        assert!(!table.contains("169.254.169.254"), "{table}");
        assert!(!table.contains("127.0.0.0/8 masquerade"), "{table}");
        assert_eq!(sh("cat /proc/sys/net/ipv4/conf/lighter0/route_localnet"), "0\n");
    });
}

#[test]
fn a_thousand_mappings_and_the_tables_of_others() {
    world(|w| {
        sh("nft 'table inet theirs { chain c { type filter hook input priority 0; policy accept; }; }'
            nft 'add table ip lighter_other'");
        let theirs = sh("nft list table inet theirs");
        let mut ports: Vec<_> = (0..1000).map(|n| tcp(20_000 + n, 80)).collect();
        ports.extend((0..500).map(|n| udp(20_000 + n, 53)));
        let (record, _) = w.add(ports);
        let elements = || sh("nft list map ip lighter ports | grep -oE '(tcp|udp) \\. [0-9]+' | wc -l");
        assert_eq!(elements().trim(), "1500");
        w.runtime.block_on(w.network.check(&record)).unwrap();
        w.runtime.block_on(w.network.restore(std::slice::from_ref(&record))).unwrap();
        assert_eq!(elements().trim(), "1500");
        w.del(&record);
        w.assert_nothing_left();
        assert_eq!(theirs, sh("nft list table inet theirs"));
        assert!(sh("nft list tables").contains("lighter_other"));
    });
}

#[test]
fn ensure_host_again_changes_nothing() {
    world(|w| {
        w.add(vec![tcp(8080, 80)]);
        let look = || sh("nft -a list ruleset; ip addr show lighter0");
        let before = look();
        w.runtime.block_on(w.network.ensure_host()).unwrap();
        assert_eq!(before, look());
    });
}
