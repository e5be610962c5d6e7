//! The `[store]` table of control.toml: where the state is kept.
//! In: TOML. Out: a checked `StoreConfig`. Never: etcd without TLS on another machine.

use super::{ConfigError, is_loopback_host};
use crate::store::RedbSettings;
use crate::store::etcd::EtcdSettings;
use serde::Deserialize;
use std::path::PathBuf;

/// Which store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// control.redb in the data directory: one control plane.
    #[default]
    Redb,
    /// etcd: several control planes, one of which leads.
    Etcd,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    pub kind: StoreKind,
    /// Of etcd: `https://host:port` of every member; `http://` for loopback addresses only.
    pub endpoints: Vec<String>,
    /// All keys in etcd begin with it, so that clusters can share one.
    pub prefix: String,
    /// PEM file with the CA of etcd's certificates.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate shown to etcd.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// How long after a leader's last word another takes over.
    pub lease_seconds: u32,
    /// Of redb: MiB of the disk that are kept for what runs, in a file beside the store; 0: none.
    pub reserve_mib: u32,
    /// Of redb: new work is refused while fewer MiB are free on the disk.
    pub free_low_mib: u32,
    /// Of etcd: its `--quota-backend-bytes` in MiB; new work is refused when nine tenths are in use.
    pub limit_mib: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::Redb,
            endpoints: Vec::new(),
            prefix: "/lighter/".to_owned(),
            ca: None,
            certificate: None,
            key: None,
            lease_seconds: 5,
            reserve_mib: 32,
            free_low_mib: 64,
            limit_mib: 2_048,
        }
    }
}

impl StoreConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |problem: &str| Err(ConfigError::Store { problem: problem.to_owned() });
        if self.kind == StoreKind::Redb {
            return if self.endpoints.is_empty() {
                Ok(())
            } else {
                wrong("endpoints are for kind = \"etcd\"")
            };
        }
        if self.endpoints.is_empty() {
            return wrong("kind = \"etcd\" needs endpoints");
        }
        if !self.prefix.ends_with('/') {
            return wrong("prefix must end with a slash");
        }
        if !(2..=60).contains(&self.lease_seconds) {
            return wrong("lease_seconds must be between 2 and 60");
        }
        if self.certificate.is_some() != self.key.is_some() {
            return wrong("certificate and key go together");
        }
        self.endpoints.iter().try_for_each(|endpoint| check_endpoint(endpoint))
    }

    pub(crate) fn redb(&self) -> RedbSettings {
        RedbSettings { reserve_bytes: mib(self.reserve_mib), free_low_bytes: mib(self.free_low_mib) }
    }

    pub(crate) fn etcd(&self) -> EtcdSettings {
        EtcdSettings {
            endpoints: self.endpoints.clone(),
            prefix: self.prefix.clone(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            lease_seconds: self.lease_seconds,
            limit_bytes: mib(self.limit_mib),
        }
    }
}

fn mib(mib: u32) -> u64 {
    u64::from(mib) << 20
}

fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let wrong = |problem: &str| Err(ConfigError::Store { problem: format!("{endpoint:?} {problem}") });
    let uri: http::Uri = match endpoint.parse() {
        Ok(uri) => uri,
        Err(_) => return wrong("is not a URL"),
    };
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if uri.host().is_some_and(is_loopback_host) => Ok(()),
        Some("http") => wrong("is of another machine and must be https://"),
        _ => wrong("must begin with https://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_on_another_machine_needs_tls_and_redb_no_endpoints() {
        let check = |text: &str| toml::from_str::<StoreConfig>(text).unwrap().check();
        assert!(check("").is_ok());
        assert!(check("kind = 'etcd'\nendpoints = ['https://a:2379', 'http://127.0.0.1:2379']").is_ok());
        for refused in [
            "endpoints = ['https://a:2379']",
            "kind = 'etcd'",
            "kind = 'etcd'\nendpoints = ['http://10.0.0.1:2379']",
            "kind = 'etcd'\nendpoints = ['a:2379']",
            "kind = 'etcd'\nendpoints = ['https://a']\nprefix = 'x'",
            "kind = 'etcd'\nendpoints = ['https://a']\nlease_seconds = 1",
            "kind = 'etcd'\nendpoints = ['https://a']\ncertificate = '/x'",
        ] {
            assert!(check(refused).is_err(), "{refused}");
        }
        assert!(toml::from_str::<StoreConfig>("kind = 'raft'").is_err());
    }
}
