//! Where images of a host are asked for: its mirrors, then itself.
//! In: the settings and the host of a reference. Out: `Endpoint` values in order.
//! Never: resolves a name or opens a connection.

use crate::config::RegistriesConfig;
use std::net::IpAddr;

/// One server to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]` as in references and settings; logins and CA go by it.
    pub(crate) host: String,
    /// `https://host[:port]`.
    pub(crate) base: String,
    /// Set on mirrors: the host the images are of, sent as `ns` as containerd does.
    pub(crate) mirror_of: Option<String>,
}

/// Docker Hub's references say docker.io; its registry is elsewhere.
fn authority(host: &str) -> &str {
    match host {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    }
}

pub(crate) fn endpoints(config: &RegistriesConfig, host: &str) -> Vec<Endpoint> {
    let base = |host: &str| {
        let scheme = if config.http_allowed(host) { "http" } else { "https" };
        format!("{scheme}://{}", authority(host))
    };
    let mirrors = config.hosts.get(host).map(|h| h.mirrors.as_slice()).unwrap_or_default();
    let mut endpoints: Vec<Endpoint> = mirrors
        .iter()
        .map(|mirror| Endpoint { host: mirror.clone(), base: base(mirror), mirror_of: Some(host.to_owned()) })
        .collect();
    endpoints.push(Endpoint { host: host.to_owned(), base: base(host), mirror_of: None });
    endpoints
}

/// Whether `host[:port]` is this machine, which no proxy stands before.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistryHost;

    #[test]
    fn mirrors_come_first_and_http_only_where_it_is_allowed() {
        let mut config = RegistriesConfig::default();
        let mirrors = vec!["m1:5000".into(), "m2".into()];
        config.hosts.insert("docker.io".into(), RegistryHost { mirrors, ..Default::default() });
        config.hosts.insert("m1:5000".into(), RegistryHost { http_allowed: true, ..Default::default() });
        let bases: Vec<_> = endpoints(&config, "docker.io").into_iter().map(|e| e.base).collect();
        assert_eq!(bases, ["http://m1:5000", "https://m2", "https://registry-1.docker.io"]);
        assert_eq!(endpoints(&config, "localhost:5000")[0].base, "https://localhost:5000");
    }

    #[test]
    fn loopback_is_recognised() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry", "10.0.0.1:5000", "localhost.example:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
