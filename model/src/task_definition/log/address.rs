//! Addresses of sinks and syslog's facilities, as Docker writes them. In: text. Out: values. Pure.
//! Never: resolves a name.

use std::fmt;
use std::str::FromStr;

/// Where syslog listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A socket of the node; a datagram socket if it is one.
    Unix(String),
    /// `host:port`.
    Udp(String),
    Tcp(String),
}

impl Default for SyslogAddress {
    fn default() -> Self {
        Self::Unix("/dev/log".to_owned())
    }
}

/// Where a fluentd or fluent-bit listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FluentdAddress {
    /// `host:port`.
    Tcp(String),
    Unix(String),
}

impl Default for FluentdAddress {
    fn default() -> Self {
        Self::Tcp("127.0.0.1:24224".to_owned())
    }
}

/// An address or a facility that is not understood: what would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressError(&'static str);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for AddressError {}

const SYSLOG: AddressError = AddressError(
    "must be unix:///path, unixgram:///path, udp://host:port or tcp://host:port (tcp+tls is not supported)",
);
const FLUENTD: AddressError =
    AddressError("must be host:port, tcp://host:port or unix:///path (tls is not supported)");

impl FromStr for SyslogAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once("://").ok_or(SYSLOG)? {
            ("unix" | "unixgram", path) if path.starts_with('/') => Ok(Self::Unix(path.to_owned())),
            ("udp", host) => host_and_port(host, 514).map(Self::Udp).ok_or(SYSLOG),
            ("tcp", host) => host_and_port(host, 514).map(Self::Tcp).ok_or(SYSLOG),
            _ => Err(SYSLOG),
        }
    }
}

impl FromStr for FluentdAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.split_once("://").unwrap_or(("tcp", text)) {
            ("unix", path) if path.starts_with('/') => Ok(Self::Unix(path.to_owned())),
            ("tcp", host) => host_and_port(host, 24224).map(Self::Tcp).ok_or(FLUENTD),
            _ => Err(FLUENTD),
        }
    }
}

/// `host`, `host:port` or `[::1]:port`, with the port put in.
fn host_and_port(text: &str, default_port: u16) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside brackets belongs to the address.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (text, default_port),
    };
    let literal = host.starts_with('[') && host.ends_with(']');
    let usable = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@');
    (usable && (literal || !host.contains(':'))).then(|| format!("{host}:{port}"))
}

/// RFC 5424's number of a facility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyslogFacility(pub u8);

const DAEMON: SyslogFacility = SyslogFacility(3);

impl Default for SyslogFacility {
    fn default() -> Self {
        DAEMON
    }
}

const FACILITIES: &[&str] =
    &["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];

impl FromStr for SyslogFacility {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let named = FACILITIES.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
        let local = text.strip_prefix("local").and_then(|digit| digit.parse::<u8>().ok());
        let local = local.filter(|digit| *digit < 8).map(|digit| digit + 16);
        let number = text.parse::<u8>().ok().filter(|number| *number < 24);
        let known = named.or(local).or(number);
        known.map(Self).ok_or(AddressError("must be a facility like daemon, user or local0, or its number"))
    }
}
