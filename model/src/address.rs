//! Which addresses are of this machine only. In: a host as it stands in a URL. Out: yes or no.
//! Owns nothing. Never: resolves a name; of names only `localhost` counts.

use std::net::IpAddr;

/// `localhost`, or an address of 127.0.0.0/8 or ::1; IPv6 with or without its brackets.
/// What is sent there never leaves the machine, so it may go without TLS.
pub fn is_loopback_host(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback_host;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "10.0.0.1", "0.0.0.0", "localhost.example", "[fe80::1]", "127.0.0.1.example"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
