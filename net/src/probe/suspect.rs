//! Who may have dropped a forwarded packet, and the commands that let our bridge through.
//! In: the chains of all tables and two files of /proc. Out: words and commands.
//! Owns nothing; `name` is pure. Never: runs a command.

use crate::config::NetworkConfig;
use crate::nft::list::{Chain, Family};
use std::fs;

/// NF_INET_FORWARD, and the hook before it.
const FORWARD: u32 = 2;
const PREROUTING: u32 = 0;

/// What can be known about the rules of others.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) chains: Vec<Chain>,
    /// Tables of iptables-legacy, which nf_tables does not list.
    pub(super) legacy_tables: Vec<String>,
    pub(super) forwards: bool,
}

impl Facts {
    /// Reads /proc of the calling thread's network namespace.
    pub(super) fn of_this_namespace(chains: Vec<Chain>) -> Self {
        let legacy = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        let forward = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
        let legacy_tables = legacy.lines().map(str::to_owned).collect();
        Self { chains, legacy_tables, forwards: forward.trim() == "1" }
    }
}

/// (suspect, commands). The most likely ones: chains that drop by policy, then any other chain
/// that sees forwarded packets.
pub(super) fn name(facts: &Facts, config: &NetworkConfig) -> (String, String) {
    if !facts.forwards {
        let mend = "sysctl -w net.ipv4.ip_forward=1".to_owned();
        return ("the kernel, which does not forward (net.ipv4.ip_forward is 0)".to_owned(), mend);
    }
    let ours = |chain: &&Chain| chain.family == Family::Ip && chain.table == config.table;
    let at = |hook: u32, policy: bool| -> Vec<&Chain> {
        let hooked = facts.chains.iter().filter(|chain| chain.hook == Some(hook));
        let foreign = hooked.filter(|c| c.family != Family::Other && !ours(c));
        foreign.filter(|chain| chain.drops_by_policy || !policy).collect()
    };
    let mut suspects = at(FORWARD, true);
    if suspects.is_empty() {
        suspects = at(FORWARD, false);
    }
    let legacy = facts.legacy_tables.iter().any(|table| table == "filter");
    if suspects.is_empty() && !legacy {
        suspects = at(PREROUTING, false);
    }
    let mut names: Vec<String> = suspects.iter().map(|chain| describe(chain)).collect();
    let mut mends: Vec<String> = suspects.iter().map(|chain| mend(chain, facts, &config.bridge)).collect();
    if legacy {
        names.push("iptables-legacy, table filter, chain FORWARD".to_owned());
        mends.push(iptables("iptables-legacy", "FORWARD", &config.bridge));
    }
    if names.is_empty() {
        let look = format!("nft list ruleset; ip route get 192.0.2.2; ip link show {}", config.bridge);
        return ("nobody found in nf_tables or iptables".to_owned(), look);
    }
    mends.dedup();
    (names.join("; "), mends.join(" && "))
}

fn describe(chain: &Chain) -> String {
    let policy = if chain.drops_by_policy { " (policy drop)" } else { "" };
    format!("table {} {}, chain {}{policy}", chain.family.as_str(), chain.table, chain.name)
}

/// The command in the words of the program that owns the chain, so that its next reload keeps it.
fn mend(chain: &Chain, facts: &Facts, bridge: &str) -> String {
    let beside = |name: &dyn Fn(&str) -> bool| {
        let same = |c: &&Chain| c.family == chain.family && c.table == chain.table;
        facts.chains.iter().filter(same).any(|c| name(&c.name))
    };
    if chain.table == "firewalld" {
        return format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
        );
    }
    if chain.family == Family::Ip && chain.table == "filter" && chain.name == "FORWARD" {
        if beside(&|name| name.starts_with("ufw-")) {
            return format!("ufw route allow in on {bridge} && ufw route allow out on {bridge}");
        }
        let user = if beside(&|name| name == "DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
        return iptables("iptables", user, bridge);
    }
    let (family, table, name) = (chain.family.as_str(), &chain.table, &chain.name);
    let rule = |side| format!("nft insert rule {family} {table} {name} {side} {bridge} accept");
    format!("{} && {}", rule("iifname"), rule("oifname"))
}

fn iptables(program: &str, chain: &str, bridge: &str) -> String {
    let rule = |side| format!("{program} -I {chain} {side} {bridge} -j ACCEPT");
    format!("{} && {}", rule("-i"), rule("-o"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: Family, table: &str, name: &str, drops_by_policy: bool) -> Chain {
        let (table, name) = (table.to_owned(), name.to_owned());
        Chain { family, table, name, hook: Some(FORWARD), drops_by_policy }
    }

    fn plain(table: &str, name: &str) -> Chain {
        Chain { hook: None, ..chain(Family::Ip, table, name, false) }
    }

    fn named(chains: Vec<Chain>) -> (String, String) {
        let facts = Facts { chains, legacy_tables: Vec::new(), forwards: true };
        name(&facts, &NetworkConfig::default())
    }

    #[test]
    fn the_owner_of_the_chain_decides_the_command() {
        let forward = || chain(Family::Ip, "filter", "FORWARD", true);
        let (suspect, mend) = named(vec![forward(), plain("filter", "DOCKER-USER")]);
        assert_eq!(suspect, "table ip filter, chain FORWARD (policy drop)");
        assert!(mend.starts_with("iptables -I DOCKER-USER -i lighter0 -j ACCEPT"), "{mend}");
        let (_, mend) = named(vec![forward(), plain("filter", "ufw-before-forward")]);
        assert!(mend.starts_with("ufw route allow"), "{mend}");
        let (_, mend) = named(vec![forward()]);
        assert!(mend.starts_with("iptables -I FORWARD"), "{mend}");
        let (suspect, mend) = named(vec![chain(Family::Inet, "firewalld", "filter_FORWARD", false)]);
        assert_eq!(suspect, "table inet firewalld, chain filter_FORWARD");
        assert!(mend.starts_with("firewall-cmd"), "{mend}");
        let (_, mend) = named(vec![chain(Family::Inet, "site", "fwd", true)]);
        assert!(mend.starts_with("nft insert rule inet site fwd iifname lighter0 accept"), "{mend}");
    }

    #[test]
    fn our_own_table_is_no_suspect_and_a_policy_is_the_first() {
        let own = chain(Family::Ip, "lighter", "forward", false);
        let (suspect, _) = named(vec![
            own.clone(),
            chain(Family::Inet, "a", "c", false),
            chain(Family::Inet, "b", "c", true),
        ]);
        assert_eq!(suspect, "table inet b, chain c (policy drop)");
        assert!(named(vec![own]).0.starts_with("nobody"));
    }

    #[test]
    fn legacy_tables_and_a_kernel_that_does_not_forward_are_named() {
        let facts = Facts { chains: vec![], legacy_tables: vec!["filter".to_owned()], forwards: true };
        let (suspect, mend) = name(&facts, &NetworkConfig::default());
        assert!(suspect.contains("iptables-legacy") && mend.starts_with("iptables-legacy -I"));
        let facts = Facts { forwards: false, ..facts };
        assert!(name(&facts, &NetworkConfig::default()).1.starts_with("sysctl"));
    }
}
