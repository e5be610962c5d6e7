//! What an operator may choose about the network of a node.
//! In: values from the agent's configuration. Out: the same, checked.
//! Owns nothing. Never: reads files or asks the kernel.

use crate::subnet::Subnet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Where tasks ask for their metadata, as ECS has it (link-local, RFC 3927).
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 2);

/// The network of one node. Two agents on one machine need different bridges, directories and tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Addresses of the bridge and of every attachment.
    pub subnet: Subnet,
    /// Where network namespaces are kept as bind mounts; a directory of our own.
    pub netns_dir: PathBuf,
    /// Name of the nf_tables table (family ip).
    pub table: String,
    /// Drop what attachments send to the instance metadata service, 169.254.169.254.
    pub block_imds: bool,
    /// Let mapped ports be reached at 127.0.0.1 of the host (needs route_localnet on the bridge).
    pub host_loopback: bool,
    /// Give the host the address `METADATA_ADDRESS` and lead its port 80 to this port of it; `None`:
    /// the address is not ours.
    pub metadata_port: Option<u16>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "lighter0".to_owned(),
            subnet: Subnet::DEFAULT,
            netns_dir: PathBuf::from("/run/lighter/netns"),
            table: "lighter".to_owned(),
            block_imds: true,
            host_loopback: true,
            metadata_port: None,
        }
    }
}

/// Which member of the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("bridge: an interface name has 1 to 15 letters, digits, '-', '_' or '.', got {name:?}")]
    Bridge { name: String },
    #[error(
        "table: an nf_tables name has 1 to 32 letters, digits or '_' and starts with a letter, got {name:?}"
    )]
    Table { name: String },
    #[error("netns_dir: must be an absolute path, got {path:?}")]
    NetnsDir { path: PathBuf },
}

impl NetworkConfig {
    /// Refuses names that the kernel or the `nft` tool would not take.
    pub fn check(&self) -> Result<(), ConfigError> {
        let link_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let bridge = self.bridge.as_bytes();
        let dots = self.bridge == "." || self.bridge == "..";
        if bridge.is_empty() || bridge.len() > 15 || !bridge.iter().all(|b| link_char(*b)) || dots {
            return Err(ConfigError::Bridge { name: self.bridge.clone() });
        }
        let table = self.table.as_bytes();
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let starts_well = table.first().is_some_and(u8::is_ascii_alphabetic);
        if !starts_well || table.len() > 32 || !table.iter().all(word) {
            return Err(ConfigError::Table { name: self.table.clone() });
        }
        if !self.netns_dir.is_absolute() {
            return Err(ConfigError::NetnsDir { path: self.netns_dir.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_names_on_disk() {
        let config = NetworkConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert_eq!((config.bridge.as_str(), config.table.as_str()), ("lighter0", "lighter"));
    }

    #[test]
    fn each_wrong_member_is_named() {
        let wrong = |change: fn(&mut NetworkConfig)| {
            let mut config = NetworkConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.bridge = "a-name-that-is-too-long".into()).starts_with("bridge"));
        assert!(wrong(|c| c.bridge = "a/b".into()).starts_with("bridge"));
        assert!(wrong(|c| c.table = "9lives".into()).starts_with("table"));
        assert!(wrong(|c| c.netns_dir = "run".into()).starts_with("netns_dir"));
    }
}
