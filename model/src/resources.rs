//! What a node has and a task takes: CPU units, memory, host ports.
//! 1024 CPU units are one vCPU (ECS). Static host ports are a resource; dynamic ones are not.

use crate::task_definition::TransportProtocol;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A host port as a schedulable resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: TransportProtocol,
    pub port: u16,
}

/// An amount of each resource; ports are a set, the rest are counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// 1024 units are one vCPU.
    pub cpu_units: u32,
    pub memory_mib: u64,
    pub host_ports: BTreeSet<HostPort>,
}
