//! The settings of the image store, as the agent's file gives them, and their validation.
//! In: values from a configuration file. Out: checked values, or the name of the field that is wrong.
//! Never: opens a file or a connection.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Everything the store needs to know; `ImageStoreConfig::new` gives the defaults.
#[derive(Debug, Clone)]
pub struct ImageStoreConfig {
    /// The store's own directory, normally `/var/lib/lighter/images`; made with mode 0700.
    pub root: PathBuf,
    pub registries: RegistriesConfig,
    /// A Docker `config.json` whose `auths` hold logins; read again at every pull.
    pub docker_config: Option<PathBuf>,
    pub limits: Limits,
    pub retry: RetryConfig,
    pub timeouts: Timeouts,
    /// Layers downloaded at once, over all pulls of this store.
    pub max_concurrent_downloads: usize,
    /// Kept free on the file system of `root`, for whatever runs: a pull that would go into it fails.
    pub min_free_bytes: u64,
}

impl ImageStoreConfig {
    /// Defaults: every registry over HTTPS with the system's certificates, no logins, 4 downloads.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            registries: RegistriesConfig::default(),
            docker_config: None,
            limits: Limits::default(),
            retry: RetryConfig::default(),
            timeouts: Timeouts::default(),
            max_concurrent_downloads: 4,
            min_free_bytes: 0,
        }
    }

    /// Refuses values that cannot work, by the name of the field.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.max_concurrent_downloads == 0 {
            return Err(InvalidConfig::new("max_concurrent_downloads", "must be at least 1"));
        }
        self.retry.validate()?;
        self.timeouts.validate()?;
        self.limits.validate()?;
        self.registries.validate()
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image setting {field}: {problem}")]
pub struct InvalidConfig {
    pub field: String,
    pub problem: String,
}

impl InvalidConfig {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// Registries that need more than HTTPS with the system's certificates, by `host[:port]` as it
/// stands in image references.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    pub hosts: BTreeMap<String, RegistryHost>,
}

/// One registry host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryHost {
    /// PEM file with the CA certificates this host may be signed by, besides the system's.
    pub ca_pem: Option<PathBuf>,
    /// `host[:port]` of mirrors, asked in this order before the host itself. A mirror's own CA,
    /// login and permission for HTTP are those of its own entry.
    pub mirrors: Vec<String>,
    /// Speak plain HTTP to this host. Without it nothing is ever sent to it unencrypted.
    pub http_allowed: bool,
}

impl RegistriesConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        for (name, host) in &self.hosts {
            check_host(&format!("registries.hosts.{name:?}"), name)?;
            for mirror in &host.mirrors {
                check_host(&format!("registries.hosts.{name:?}.mirrors"), mirror)?;
            }
            if host.http_allowed && host.ca_pem.is_some() {
                return Err(InvalidConfig::new(
                    format!("registries.hosts.{name:?}.ca_pem"),
                    "has no meaning together with http_allowed = true",
                ));
            }
        }
        Ok(())
    }

    /// Whether plain HTTP may be spoken to `host[:port]`.
    pub(crate) fn http_allowed(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|h| h.http_allowed)
    }
}

fn check_host(field: &str, text: &str) -> Result<(), InvalidConfig> {
    if text.contains("://") || text.contains('/') {
        return Err(InvalidConfig::new(
            field,
            format!("is a host name with an optional port, not a URL: {text:?}"),
        ));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if text.is_empty() || !text.chars().all(good) {
        return Err(InvalidConfig::new(field, format!("is not a host name: {text:?}")));
    }
    Ok(())
}

/// What an image may cost; beyond it the pull stops at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Of a manifest, an index or a config, in bytes.
    pub max_manifest_bytes: u64,
    /// Of one layer as it is sent, in bytes.
    pub max_layer_bytes: u64,
    /// Of one layer after decompression, in bytes.
    pub max_unpacked_layer_bytes: u64,
    /// Files, directories, links and whiteouts in one layer.
    pub max_layer_entries: u64,
    pub max_layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_manifest_bytes: 4 << 20,
            max_layer_bytes: 32 << 30,
            max_unpacked_layer_bytes: 128 << 30,
            max_layer_entries: 4_000_000,
            max_layers: 127,
        }
    }
}

impl Limits {
    fn validate(&self) -> Result<(), InvalidConfig> {
        // 127 layers and the upper one are what one mount(2) page of options surely holds.
        if self.max_layers == 0 || self.max_layers > 127 {
            return Err(InvalidConfig::new("limits.max_layers", "must be 1 to 127"));
        }
        if self.max_manifest_bytes < 1024 {
            return Err(InvalidConfig::new("limits.max_manifest_bytes", "must be at least 1024"));
        }
        Ok(())
    }
}

/// Retries of one request (a manifest, a token, the rest of a layer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Tries in all, the first included. Progress of a download starts the count anew.
    pub attempts: u32,
    pub first_backoff_ms: u64,
    pub max_backoff_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 5, first_backoff_ms: 250, max_backoff_ms: 10_000 }
    }
}

impl RetryConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if !(1..=100).contains(&self.attempts) {
            return Err(InvalidConfig::new("retry.attempts", "must be 1 to 100"));
        }
        if self.first_backoff_ms == 0 || self.first_backoff_ms > self.max_backoff_ms {
            return Err(InvalidConfig::new(
                "retry.first_backoff_ms",
                "must be at least 1 and at most retry.max_backoff_ms",
            ));
        }
        if self.max_backoff_ms > 300_000 {
            return Err(InvalidConfig::new("retry.max_backoff_ms", "must be at most 300000"));
        }
        Ok(())
    }
}

/// How long a registry may keep silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    pub connect_ms: u64,
    /// Longest silence within an answer (ECS_IMAGE_PULL_INACTIVITY_TIMEOUT).
    pub inactivity_ms: u64,
    /// Longest time of a whole pull (ECS_IMAGE_PULL_TIMEOUT).
    pub pull_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect_ms: 10_000, inactivity_ms: 60_000, pull_ms: 7_200_000 }
    }
}

impl Timeouts {
    fn validate(&self) -> Result<(), InvalidConfig> {
        for (field, value) in [
            ("timeouts.connect_ms", self.connect_ms),
            ("timeouts.inactivity_ms", self.inactivity_ms),
            ("timeouts.pull_ms", self.pull_ms),
        ] {
            if value == 0 {
                return Err(InvalidConfig::new(field, "must be at least 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut ImageStoreConfig)) -> String {
        let mut config = ImageStoreConfig::new("/x");
        change(&mut config);
        config.validate().unwrap_err().field
    }

    #[test]
    fn defaults_are_valid_and_wrong_values_are_named() {
        ImageStoreConfig::new("/x").validate().unwrap();
        assert_eq!(problem(|c| c.max_concurrent_downloads = 0), "max_concurrent_downloads");
        assert_eq!(problem(|c| c.retry.attempts = 0), "retry.attempts");
        assert_eq!(problem(|c| c.retry.first_backoff_ms = 20_000), "retry.first_backoff_ms");
        assert_eq!(problem(|c| c.timeouts.pull_ms = 0), "timeouts.pull_ms");
        assert_eq!(problem(|c| c.limits.max_layers = 128), "limits.max_layers");
        let mirror = |c: &mut ImageStoreConfig| {
            let host = RegistryHost { mirrors: vec!["http://m".into()], ..Default::default() };
            c.registries.hosts.insert("r:5000".into(), host);
        };
        assert_eq!(problem(mirror), "registries.hosts.\"r:5000\".mirrors");
    }
}
