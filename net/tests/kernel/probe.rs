//! The self-test: does it see who drops forwarded packets, does the command it names mend it, and
//! does it leave everything of others as it was?

use crate::world::{World, bare_world, sh, world};
use lighter_net::{ForwardingVerdict, ProbeError, probe_nf_tables};

fn probe(w: &World) -> ForwardingVerdict {
    let verdict = w.runtime.block_on(w.network.probe_forwarding()).unwrap();
    w.assert_nothing_left();
    assert!(!sh("ip -o link").contains("lvprobe"));
    assert_eq!(sh("conntrack -L 2>/dev/null | grep -E '192.0.2|172.29.255.254' || true"), "");
    verdict
}

/// Makes the trouble, sees it reported with `suspect`, mends it by the command, sees it gone.
fn trouble(script: &'static str, suspect: &'static str) {
    world(move |w| {
        assert_eq!(probe(w), ForwardingVerdict::Passes);
        sh(script);
        let before = sh("nft -s list ruleset");
        let ForwardingVerdict::Dropped { suspect: named, mend, path } = probe(w) else {
            panic!("not seen: {script}")
        };
        assert!(named.contains(suspect), "{named}");
        assert!(!path.is_empty());
        assert_eq!(before, sh("nft -s list ruleset"), "tables of others were changed");
        sh(&mend);
        assert_eq!(probe(w), ForwardingVerdict::Passes, "after: {mend}");
    });
}

#[test]
fn a_policy_of_drop_is_named_and_mended() {
    trouble(
        "nft 'table inet site { chain passing { type filter hook forward priority 10; policy drop; }; }'",
        "table inet site, chain passing (policy drop)",
    );
}

#[test]
fn a_rule_that_drops_is_named_and_mended() {
    trouble(
        "nft 'table inet site { chain passing { type filter hook forward priority -5; oifname lighter0 drop; }; }'",
        "table inet site, chain passing",
    );
}

#[test]
fn iptables_policy_is_named_and_mended() {
    trouble("iptables-nft -P FORWARD DROP", "table ip filter, chain FORWARD (policy drop)");
}

#[test]
fn legacy_iptables_policy_is_named_and_mended() {
    trouble("iptables-legacy -P FORWARD DROP", "iptables-legacy, table filter, chain FORWARD");
}

#[test]
fn dockers_policy_is_named_and_mended() {
    trouble(
        "iptables-nft -N DOCKER-USER
         iptables-nft -A DOCKER-USER -j RETURN
         iptables-nft -A FORWARD -j DOCKER-USER
         iptables-nft -P FORWARD DROP",
        "table ip filter, chain FORWARD (policy drop)",
    );
}

#[test]
fn a_kernel_that_does_not_forward_is_named_and_mended() {
    trouble("echo 0 > /proc/sys/net/ipv4/ip_forward", "ip_forward is 0");
}

#[test]
fn nf_tables_is_probed_without_a_trace() {
    bare_world(|w| {
        let before = sh("nft list ruleset; ip -o link");
        w.runtime.block_on(probe_nf_tables()).unwrap();
        assert_eq!(before, sh("nft list ruleset; ip -o link"));
    });
}

#[test]
fn without_the_hosts_side_the_probe_says_so() {
    bare_world(|w| {
        let error = w.runtime.block_on(w.network.probe_forwarding()).unwrap_err();
        assert!(matches!(error, ProbeError::NoBridge), "{error:?}");
        assert!(!sh("ip -o link").contains("lvprobe"));
    });
}
