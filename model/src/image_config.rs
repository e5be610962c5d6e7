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
}
