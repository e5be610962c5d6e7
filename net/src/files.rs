//! The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf of an attachment.
//! In: names, addresses, the host's own resolv.conf. Out: texts. Owns nothing; pure but for
//! `host_resolv_conf`, which reads two files. Never: writes (the agent puts the texts in the bundle).

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Name servers for a host whose own are all loopback ones that nobody else can reach.
pub const PUBLIC_NAME_SERVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))];

/// systemd-resolved's list of real servers, beside its stub at 127.0.0.53.
const RESOLVED_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// /etc/hosts: the loopback names, the attachment's own name, then extra entries in their order.
/// Without an address (mode none) the own name is at 127.0.0.1.
pub fn hosts_file(hostname: &str, address: Option<Ipv4Addr>, extra: &[(IpAddr, String)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    if !hostname.is_empty() {
        let _ = writeln!(text, "{own}\t{hostname}");
    }
    for (address, name) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// /etc/hostname: the name and a newline.
pub fn hostname_file(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// A host name for an attachment without one of its own: at most 63 bytes of letters, digits and
/// inner hyphens (RFC 1123), never empty.
pub fn hostname(wanted: &str) -> String {
    let label = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = wanted.chars().take(63).map(label).collect();
    let text = text.trim_matches('-');
    if text.is_empty() { "localhost".to_owned() } else { text.to_owned() }
}

/// /etc/resolv.conf for an attachment, made of the host's. Loopback name servers, which would be the
/// attachment's own loopback, and those of IPv6, which it does not have, are left out; when none is left, `fallback` is used. Options and search
/// domains are kept, comments are not; `trust-ad` goes together with the local resolver it trusts.
pub fn resolv_conf(host_text: &str, fallback: &[IpAddr]) -> String {
    let servers: Vec<String> = name_servers(host_text).filter(|s| !is_loopback(s) && !is_ipv6(s)).collect();
    let mut text = String::new();
    if servers.is_empty() {
        for server in fallback {
            let _ = writeln!(text, "nameserver {server}");
        }
    }
    for server in &servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for line in host_text.lines().map(str::trim) {
        match line.split_whitespace().next() {
            Some("search" | "domain" | "sortlist") => text.push_str(line),
            Some("options") => match kept_options(line) {
                Some(options) => text.push_str(&options),
                None => continue,
            },
            _ => continue,
        }
        text.push('\n');
    }
    text
}

/// A resolv.conf with other servers and search domains, each where there are any; `.` alone as a
/// domain means none.
pub fn with_own_names(base: &str, servers: &[IpAddr], domains: &[String]) -> String {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let own_search = (!domains.is_empty()).then(|| {
        let domains: Vec<&str> = domains.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
        if domains.is_empty() { String::new() } else { format!("search {}\n", domains.join(" ")) }
    });
    let kind = |line: &str| line.split_whitespace().next().unwrap_or("").to_owned();
    let (base_servers, rest): (Vec<&str>, Vec<&str>) =
        base.lines().partition(|line| kind(line) == "nameserver");
    if servers.is_empty() {
        base_servers.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    }
    text.push_str(own_search.as_deref().unwrap_or(""));
    for line in rest {
        let replaced = own_search.is_some() && matches!(kind(line).as_str(), "search" | "domain");
        if !replaced {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn kept_options(line: &str) -> Option<String> {
    let kept: Vec<&str> = line.split_whitespace().filter(|word| *word != "trust-ad").collect();
    (kept.len() > 1).then(|| kept.join(" "))
}

fn name_servers(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned)).flatten()
    })
}

/// "127.0.0.53", "::1", also with a zone as in "fe80::1%eth0". What is no address is kept for the
/// resolver to judge; an unspecified address means the own host too.
/// With a zone or without.
fn is_ipv6(server: &str) -> bool {
    server.contains(':')
}

fn is_loopback(server: &str) -> bool {
    let bare = server.split('%').next().unwrap_or(server);
    bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified())
}

/// The text to derive an attachment's resolv.conf from: the host's, or systemd-resolved's list of
/// real servers when the host's has only its stub. A missing file reads as empty.
pub fn host_resolv_conf() -> String {
    host_resolv_conf_from(Path::new("/etc/resolv.conf"), Path::new(RESOLVED_UPSTREAM))
}

fn host_resolv_conf_from(own: &Path, upstream: &Path) -> String {
    let text = std::fs::read_to_string(own).unwrap_or_default();
    let servers: Vec<String> = name_servers(&text).collect();
    let only_stub = !servers.is_empty() && servers.iter().all(|server| server == "127.0.0.53");
    if only_stub { std::fs::read_to_string(upstream).unwrap_or(text) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_loopback_own_and_extra_names() {
        let extra = [(IpAddr::from([10, 0, 0, 9]), "db.local".to_owned())];
        let text = hosts_file("web", Some(Ipv4Addr::new(172, 29, 0, 2)), &extra);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("172.29.0.2\tweb\n10.0.0.9\tdb.local\n"));
        assert!(hosts_file("web", None, &[]).ends_with("127.0.0.1\tweb\n"));
        assert_eq!(hostname_file("web"), "web\n");
    }

    #[test]
    fn hostnames_are_labels() {
        assert_eq!(hostname("Front_End"), "front-end");
        assert_eq!(hostname("_"), "localhost");
        assert_eq!(hostname(&"a".repeat(200)).len(), 63);
    }

    #[test]
    fn loopback_name_servers_are_replaced() {
        let text = resolv_conf(
            "# a comment\nnameserver 127.0.0.1\nnameserver ::1\nsearch a.example b.example\noptions edns0 trust-ad\n",
            &PUBLIC_NAME_SERVERS,
        );
        assert_eq!(
            text,
            "nameserver 1.1.1.1\nnameserver 8.8.8.8\nsearch a.example b.example\noptions edns0\n"
        );
    }

    #[test]
    fn real_name_servers_stay_alone() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\noptions trust-ad";
        let text = resolv_conf(host, &PUBLIC_NAME_SERVERS);
        assert_eq!(text, "nameserver 10.0.0.2\n");
        // An attachment has no IPv6 to ask these with.
        let only_ipv6 = "nameserver 2001:db8::53\nnameserver fe80::1%eth0\n";
        let fallback = resolv_conf("", &PUBLIC_NAME_SERVERS);
        assert_eq!(resolv_conf(only_ipv6, &PUBLIC_NAME_SERVERS), fallback);
        assert_eq!(resolv_conf("", &[]), "");
    }

    #[test]
    fn resolveds_upstream_list_stands_in_for_its_stub() {
        let dir = tempfile::tempdir().unwrap();
        let (own, upstream) = (dir.path().join("own"), dir.path().join("upstream"));
        std::fs::write(&own, "nameserver 127.0.0.53\n").unwrap();
        std::fs::write(&upstream, "nameserver 10.0.0.2\n").unwrap();
        assert_eq!(host_resolv_conf_from(&own, &upstream), "nameserver 10.0.0.2\n");
        std::fs::write(&own, "nameserver 127.0.0.53\nnameserver 10.0.0.3\n").unwrap();
        assert!(host_resolv_conf_from(&own, &upstream).contains("10.0.0.3"));
        std::fs::remove_file(&own).unwrap();
        assert_eq!(host_resolv_conf_from(&own, &upstream), "");
    }
}
