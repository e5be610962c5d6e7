//! The part of an OCI image configuration that decides how a container's process starts.
//! Source: OCI image spec, config.md, "config" object.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Defaults an image gives; a container definition overrides them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty means root.
    pub user: String,
    /// `KEY=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// `SIGTERM`, `TERM` or a number; `None` means SIGTERM.
    pub stop_signal: Option<String>,
    /// Paths that get an anonymous volume when nothing else is mounted there.
    pub volumes: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    /// Docker's addition to the configuration; counts only when a definition asks for it.
    #[serde(default)]
    pub healthcheck: Option<ImageHealthcheck>,
}

/// The image's HEALTHCHECK; 0 means Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHealthcheck {
    /// `CMD` and arguments, `CMD-SHELL` and one text, or `NONE`; empty means none.
    pub test: Vec<String>,
    pub interval_ns: u64,
    pub timeout_ns: u64,
    pub start_period_ns: u64,
    pub retries: u32,
}
