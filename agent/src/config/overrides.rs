//! Values that go before the file: flags, and variables `LIGHTER_<KEY>`.
//! In: keys and text. Out: a table with them put in. A text that is a TOML value (`true`, `8`,
//! `["/srv"]`) is taken as one, any other as a string.
//! Owns nothing. Never: reads the environment itself; the caller passes it in.

use super::ConfigError;
use toml::{Table, Value};

/// An ordered list of overrides; the later one wins.
#[derive(Debug, Clone, Default)]
pub struct ConfigOverrides {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Dots lead into tables: `logs.files_max`.
    key: String,
    text: String,
    origin: String,
}

const KEYS: &[&str] = &[
    "control_endpoint",
    "name",
    "data_dir",
    "run_dir",
    "log_dir",
    "credentials",
    "bridge",
    "bridge_subnet",
    "nft_table",
    "cgroup_root",
    "docker_config",
    "reserve_memory_mib",
    "reserve_cpu_units",
    "cpu_quota",
    "reserved_ports",
    "reserved_ports_udp",
    "allow_privileged",
    "allow_host_paths",
    "allow_devices",
    "allow_environment_files",
    "allow_capabilities",
    "allow_unconfined",
    "allow_host_namespaces",
    "allow_instance_metadata",
    "allow_cgroup_v1_hybrid",
    "shim_path",
    "oci_path",
    "dns_fallback",
    "attributes",
    "instance_metadata",
    "devices",
    "user_namespaces.first_id",
    "user_namespaces.tasks_max",
    "registries",
    "task_metadata",
    "introspection_address",
    "metrics_address",
    "metrics_containers",
    "otlp_endpoint",
    "logs.file_mib_max",
    "logs.files_max",
    "logs.keep_stopped_hours",
    "logs.keep_stopped_tasks",
    "logs.drivers",
    "logs.drain_wait_seconds",
    "notices.imds_endpoint",
    "notices.stop_tasks_before_s",
    "images.pull_behavior",
    "images.cleanup",
    "images.high_percent",
    "images.low_percent",
    "images.min_free_mib",
    "images.minimum_cleanup_age_s",
    "images.maximum_unused_hours",
    "images.cleanup_interval_s",
];

/// Keys whose value is a string even if the text looks like a number.
const TEXT_KEYS: &[&str] =
    &["name", "control_endpoint", "bridge", "bridge_subnet", "nft_table", "cgroup_root"];

impl ConfigOverrides {
    /// Every key that can be overridden, as `AgentConfig` names it.
    pub fn keys() -> &'static [&'static str] {
        KEYS
    }

    /// Takes `LIGHTER_DATA_DIR` and the like; variables that are no key of the agent are left to
    /// others. A dot in the key is `_` twice: `LIGHTER_LOGS__FILES_MAX`.
    pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut overrides = Self::default();
        for (variable, text) in variables {
            let Some(name) = variable.strip_prefix("LIGHTER_") else { continue };
            let key = name.to_ascii_lowercase().replace("__", ".");
            if KEYS.contains(&key.as_str()) {
                overrides.entries.push(Entry { key, text, origin: variable });
            }
        }
        overrides
    }

    /// Adds an override; `origin` is how messages name it, like `--data-dir`.
    pub fn set(&mut self, key: &str, text: impl Into<String>, origin: &str) {
        self.entries.push(Entry { key: key.to_owned(), text: text.into(), origin: origin.to_owned() });
    }

    pub(super) fn origins(&self) -> String {
        self.entries.iter().map(|entry| entry.origin.as_str()).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn apply(&self, mut table: Table) -> Result<Table, ConfigError> {
        for Entry { key, text, origin } in &self.entries {
            if !KEYS.contains(&key.as_str()) {
                return Err(ConfigError::UnknownKey { key: key.clone(), origin: origin.clone() });
            }
            let value =
                if TEXT_KEYS.contains(&key.as_str()) { Value::String(text.clone()) } else { value_of(text) };
            insert(&mut table, key, value);
        }
        Ok(table)
    }
}

fn value_of(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("v")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}
