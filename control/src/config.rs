//! What an operator may set: a TOML file, overridden by flags and LIGHTER_* variables of the command.
//! In: /etc/lighter/control.toml and a `ControlOverrides`. Out: a checked `ControlConfig`.
//! Never: opens a socket or makes a file; an unknown key or an unsafe address is refused with words.

mod store;

pub use lighter_model::address::is_loopback_host;
pub use store::{StoreConfig, StoreKind};

use crate::core::quota::Quotas;
use crate::core::sweep::{STOPPED_KEPT_MS, STOPPED_PER_CLUSTER};
use crate::identity::ca::NODE_LIFE;
use crate::rate_limit::RateLimits;
use lighter_model::ids::ClusterName;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The port of the control plane's API when none is given.
pub const DEFAULT_PORT: u16 = 7443;

/// The settings of the control plane. Every member may be left out of the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlConfig {
    /// Holds control.redb, ca/ and admin.pem.
    pub data_dir: PathBuf,
    /// Addresses served with TLS; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Served without TLS: Unix socket paths, or loopback addresses. Nothing else is accepted.
    pub listen_plaintext: Vec<PlaintextListen>,
    /// DNS names and IP addresses put into the server certificate beside `control.lighter.internal`.
    pub server_names: Vec<String>,
    /// Clusters made at the first start that finds them missing; `default` always is.
    pub clusters: Vec<ClusterName>,
    /// How often a node is asked to say that it lives, in milliseconds; three missed make it away.
    pub heartbeat_interval_ms: u32,
    /// How long the certificate of a node lasts, in seconds; it is renewed after half of it at the
    /// earliest. A node that was away for longer has to join again.
    pub node_certificate_life_s: u64,
    /// CPU units of each node that placement leaves alone.
    pub placement_reserve_cpu_units: u32,
    /// Memory of each node that placement leaves alone, in MiB.
    pub placement_reserve_memory_mib: u64,
    /// Events kept for watchers that come later.
    pub events_kept: usize,
    /// How long a STOPPED task is kept, in seconds.
    pub stopped_tasks_kept_seconds: u64,
    /// STOPPED tasks that a cluster keeps at most: beyond it the oldest go before their time.
    pub stopped_tasks_per_cluster: usize,
    /// Audit records kept: who changed what, and who looked into which running task.
    pub audit_kept: usize,
    /// Where Prometheus' numbers are served, without TLS; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where nodes and people reach this control plane when it leads: what standbys tell them.
    /// Empty: the first address of `listen`, or else the first of `server_names` with its port.
    pub advertise: String,
    pub store: StoreConfig,
    /// Connections at a time on TLS and loopback; `None`: what the limit of open files allows.
    pub connections_max: Option<u32>,
    /// Of them without an identity, like nodes that join.
    pub anonymous_connections_max: u32,
    /// For a TLS handshake, and then for the first bytes of HTTP/2, in milliseconds.
    pub handshake_timeout_ms: u32,
    /// How much of what there may be; ECS's defaults.
    pub quotas: Quotas,
    /// How often one caller may ask; without a setting there is no limit.
    pub rate_limits: RateLimits,
    pub snapshots: SnapshotConfig,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/lighter"),
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT)],
            listen_plaintext: vec![PlaintextListen::Unix(PathBuf::from("/run/lighter/control.sock"))],
            server_names: Vec::new(),
            clusters: Vec::new(),
            heartbeat_interval_ms: 5_000,
            node_certificate_life_s: NODE_LIFE.as_secs(),
            placement_reserve_cpu_units: 0,
            placement_reserve_memory_mib: 0,
            events_kept: 4_096,
            stopped_tasks_kept_seconds: STOPPED_KEPT_MS / 1_000,
            stopped_tasks_per_cluster: STOPPED_PER_CLUSTER,
            audit_kept: 4_096,
            metrics_address: None,
            advertise: String::new(),
            store: StoreConfig::default(),
            connections_max: None,
            anonymous_connections_max: 1_024,
            handshake_timeout_ms: 10_000,
            quotas: Quotas::default(),
            rate_limits: RateLimits::default(),
            snapshots: SnapshotConfig::default(),
        }
    }
}

/// Snapshots that the leader takes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Where they are kept; `None`: `snapshots` below the data directory.
    pub directory: Option<PathBuf>,
    /// How often one is taken; 0: never.
    pub every_minutes: u32,
    /// How many are kept.
    pub keep: usize,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { directory: None, every_minutes: 360, keep: 8 }
    }
}

/// Where the API is served without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PlaintextListen {
    Unix(PathBuf),
    Loopback(SocketAddr),
}

impl FromStr for PlaintextListen {
    type Err = ConfigError;
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address: SocketAddr =
            text.parse().map_err(|_| ConfigError::NotAnAddress { text: text.to_owned() })?;
        if address.ip().is_loopback() {
            Ok(Self::Loopback(address))
        } else {
            Err(ConfigError::PlaintextNotLocal { address })
        }
    }
}

impl TryFrom<String> for PlaintextListen {
    type Error = ConfigError;
    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

/// Settings of flags and LIGHTER_* variables; what is `None` stays as the file has it.
#[derive(Debug, Clone, Default)]
pub struct ControlOverrides {
    pub data_dir: Option<PathBuf>,
    pub listen: Option<Vec<SocketAddr>>,
    pub listen_plaintext: Option<Vec<PlaintextListen>>,
    pub server_names: Option<Vec<String>>,
    pub heartbeat_interval_ms: Option<u32>,
}

/// Why there are no usable settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path:?} is not a valid configuration of the control plane")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{text:?} is neither the path of a Unix socket nor an address like 127.0.0.1:7444")]
    NotAnAddress { text: String },
    #[error(
        "{address} cannot be served without TLS: listen_plaintext takes a Unix socket path or a \
         loopback address only; put {address} into listen, where TLS is used"
    )]
    PlaintextNotLocal { address: SocketAddr },
    #[error("{name} must be {rule}, got {got}")]
    OutOfRange { name: &'static str, rule: &'static str, got: u64 },
    #[error("[store]: {problem}")]
    Store { problem: String },
    #[error("there is nothing to listen on: give an address in listen or in listen_plaintext")]
    NothingToListenOn,
}

impl ControlConfig {
    /// Reads the file if one is named, lays the overrides over it and checks the whole.
    pub fn load(path: Option<&Path>, overrides: ControlOverrides) -> Result<Self, ConfigError> {
        let mut config = match path {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                Self::from_toml(&text, path)?
            }
        };
        config.lay_over(overrides);
        config.check()?;
        Ok(config)
    }

    fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    fn lay_over(&mut self, overrides: ControlOverrides) {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut self.data_dir, overrides.data_dir);
        set(&mut self.listen, overrides.listen);
        set(&mut self.listen_plaintext, overrides.listen_plaintext);
        set(&mut self.server_names, overrides.server_names);
        set(&mut self.heartbeat_interval_ms, overrides.heartbeat_interval_ms);
    }

    /// Refuses what cannot work or is not safe; `Control::start` calls it as well.
    pub fn check(&self) -> Result<(), ConfigError> {
        for plaintext in &self.listen_plaintext {
            if let PlaintextListen::Loopback(address) = plaintext
                && !address.ip().is_loopback()
            {
                return Err(ConfigError::PlaintextNotLocal { address: *address });
            }
        }
        if self.listen.is_empty() && self.listen_plaintext.is_empty() {
            return Err(ConfigError::NothingToListenOn);
        }
        self.store.check()?;
        if self.snapshots.keep == 0 {
            return Err(ConfigError::OutOfRange { name: "snapshots.keep", rule: "at least 1", got: 0 });
        }
        let range = |name, rule, ok: bool, got: u64| {
            if ok { Ok(()) } else { Err(ConfigError::OutOfRange { name, rule, got }) }
        };
        let interval = u64::from(self.heartbeat_interval_ms);
        range("heartbeat_interval_ms", "between 10 and 60000", (10..=60_000).contains(&interval), interval)?;
        let life = self.node_certificate_life_s;
        range("node_certificate_life_s", "between 1 and 315360000", (1..=315_360_000).contains(&life), life)?;
        let handshake = u64::from(self.handshake_timeout_ms);
        range(
            "handshake_timeout_ms",
            "between 100 and 60000",
            (100..=60_000).contains(&handshake),
            handshake,
        )?;
        if let Some(got) = self.rate_limits.out_of_range() {
            return range("each number of rate_limits", "between 1 and 1000000", false, u64::from(got));
        }
        let kept = self.stopped_tasks_kept_seconds;
        range(
            "stopped_tasks_kept_seconds",
            "between 60 and 31536000",
            (60..=31_536_000).contains(&kept),
            kept,
        )?;
        range("events_kept", "at least 16", self.events_kept >= 16, self.events_kept as u64)
    }

    /// How long the certificate of a node lasts.
    pub fn node_certificate_life(&self) -> Duration {
        Duration::from_secs(self.node_certificate_life_s)
    }

    /// The time between two heartbeats of a node.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.heartbeat_interval_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ControlConfig, ConfigError> {
        let config = ControlConfig::from_toml(text, Path::new("control.toml"))?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn an_empty_file_is_the_default_and_an_unknown_key_is_refused() {
        assert_eq!(parse("").unwrap(), ControlConfig::default());
        let refused = parse("listne = []").unwrap_err();
        assert!(std::error::Error::source(&refused).unwrap().to_string().contains("listne"));
    }

    #[test]
    fn plaintext_is_for_loopback_and_unix_sockets_only() {
        let config = parse("listen_plaintext = ['127.0.0.1:0', '[::1]:1', 'unix:/run/x', '/y']").unwrap();
        assert_eq!(config.listen_plaintext.len(), 4);
        let refused = parse("listen_plaintext = ['10.0.0.1:7444']").unwrap_err();
        let words = std::error::Error::source(&refused).unwrap().to_string();
        assert!(words.contains("10.0.0.1:7444 cannot be served without TLS"), "{words}");
        let listen_plaintext = vec![PlaintextListen::Loopback("0.0.0.0:1".parse().unwrap())];
        let by_hand = ControlConfig { listen_plaintext, ..ControlConfig::default() };
        assert!(matches!(by_hand.check(), Err(ConfigError::PlaintextNotLocal { .. })));
    }

    #[test]
    fn rates_are_tables_with_both_numbers() {
        let config = parse("[rate_limits]\nreads = {per_second = 20, burst = 50}").unwrap();
        assert_eq!(config.rate_limits.reads.map(|rate| (rate.per_second, rate.burst)), Some((20, 50)));
        for wrong in ["reads = {per_second = 0, burst = 1}", "reads = {per_second = 1}", "writes = 1"] {
            assert!(parse(&format!("[rate_limits]\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn overrides_win_over_the_file() {
        let overrides = ControlOverrides { heartbeat_interval_ms: Some(5), ..Default::default() };
        let refused = ControlConfig::load(None, overrides).unwrap_err();
        assert!(matches!(refused, ConfigError::OutOfRange { name: "heartbeat_interval_ms", .. }));
    }
}
