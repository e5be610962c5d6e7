//! What a container's /etc/hosts and /etc/resolv.conf say. In: the definition, the addresses of the
//! task's containers, the node's own resolv.conf. Out: texts. Owns nothing; pure.
//! Source: Amazon ECS API reference (links, extraHosts, dnsServers, dnsSearchDomains); Docker's
//! `/etc/hosts` for links. Never: a name that the definition does not give.

use lighter_model::ids::ContainerName;
use lighter_model::task_definition::options::{HOST_GATEWAY, Link, addresses};
use lighter_model::task_definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use lighter_net::files;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// What a container is called: the definition's hostname, or one made of its name; in host mode the
/// node's own.
pub(super) fn hostname(definition: &TaskDefinition, container: &ContainerDefinition, node: &str) -> String {
    match &container.hostname {
        Some(hostname) => hostname.clone(),
        None if definition.network_mode == NetworkMode::Host => node.to_owned(),
        None => files::hostname(container.name.as_str()),
    }
}

/// The text of /etc/hosts. `gateway`: the node as seen from the bridge.
pub(super) fn hosts(
    container: &ContainerDefinition,
    hostname: &str,
    addresses: &BTreeMap<ContainerName, Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
) -> String {
    let linked = container.links.iter().filter_map(|text| {
        let link = Link::parse(text);
        let (_, address) = addresses.iter().find(|(name, _)| name.as_str() == link.container)?;
        // As Docker: the alias, and the name that the container has anyway.
        let names = if link.alias == link.container {
            link.alias.to_owned()
        } else {
            format!("{} {}", link.alias, link.container)
        };
        Some((IpAddr::V4(*address), names))
    });
    let given = container.extra_hosts.iter().filter_map(|entry| {
        let address = match entry.ip_address.as_str() {
            HOST_GATEWAY => gateway.map(IpAddr::V4),
            text => text.parse().ok(),
        };
        Some((address?, entry.hostname.clone()))
    });
    let extra: Vec<(IpAddr, String)> = linked.chain(given).collect();
    let names = match hostname.split_once('.') {
        // A qualified name is known by its first part too (hosts(5)).
        Some((first, _)) => format!("{hostname} {first}"),
        None => hostname.to_owned(),
    };
    files::hosts_file(&names, addresses.get(&container.name).copied(), &extra)
}

/// The text of /etc/resolv.conf.
pub(super) fn resolv_conf(
    host_network: bool,
    container: &ContainerDefinition,
    host_text: &str,
    fallback: &[IpAddr],
) -> String {
    let fallback = if fallback.is_empty() { &files::PUBLIC_NAME_SERVERS[..] } else { fallback };
    let base = if host_network { host_text.to_owned() } else { files::resolv_conf(host_text, fallback) };
    files::with_own_names(&base, &addresses(&container.dns_servers), &container.dns_search_domains)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(mode: &str, container: &str) -> TaskDefinition {
        let json = format!(
            r#"{{"family":"f","networkMode":"{mode}","containerDefinitions":[{{"name":"web","image":"i"{container}}},{{"name":"db","image":"i"}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_link_is_a_name_in_the_hosts_file() {
        let definition = definition(
            "bridge",
            r#","links":["db:store","db"],"extraHosts":[{"hostname":"api","ipAddress":"10.9.0.1"},{"hostname":"node","ipAddress":"host-gateway"},{"hostname":"six","ipAddress":"fd00::1"}]"#,
        );
        let web = &definition.container_definitions[0];
        let addresses = BTreeMap::from([
            ("web".parse().unwrap(), Ipv4Addr::new(172, 29, 0, 2)),
            ("db".parse().unwrap(), Ipv4Addr::new(172, 29, 0, 3)),
        ]);
        let text = hosts(web, "web.local", &addresses, Some(Ipv4Addr::new(172, 29, 0, 1)));
        let end = "172.29.0.2\tweb.local web\n172.29.0.3\tstore db\n172.29.0.3\tdb\n10.9.0.1\tapi\n172.29.0.1\tnode\nfd00::1\tsix\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_host_name_is_the_definition_s_or_made_of_the_container_s() {
        let bridge = definition("bridge", "");
        assert_eq!(hostname(&bridge, &bridge.container_definitions[0], "node"), "web");
        let host = definition("host", "");
        assert_eq!(hostname(&host, &host.container_definitions[0], "node"), "node");
        let own = definition("host", r#","hostname":"a.b""#);
        assert_eq!(hostname(&own, &own.container_definitions[0], "node"), "a.b");
    }

    #[test]
    fn servers_and_domains_of_the_definition_replace_the_nodes() {
        let text = "nameserver 10.0.0.2\nsearch node.local\noptions ndots:2\n";
        let of = |container: &str, host: bool| {
            let definition = definition("bridge", container);
            resolv_conf(host, &definition.container_definitions[0], text, &[])
        };
        assert_eq!(of("", false), text);
        assert_eq!(
            of(r#","dnsServers":["10.1.0.1","fd00::2"]"#, false),
            "nameserver 10.1.0.1\nnameserver fd00::2\nsearch node.local\noptions ndots:2\n"
        );
        assert_eq!(
            of(r#","dnsSearchDomains":["a.local","b.local"]"#, true),
            "nameserver 10.0.0.2\nsearch a.local b.local\noptions ndots:2\n"
        );
        assert_eq!(of(r#","dnsSearchDomains":["."]"#, false), "nameserver 10.0.0.2\noptions ndots:2\n");
    }
}
