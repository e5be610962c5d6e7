//! What a node has and a task takes: CPU units, memory, host ports.
//! 1024 CPU units are one vCPU (ECS). Static host ports are a resource; dynamic ones are not.

use crate::task_definition::{NetworkMode, TaskDefinition, TransportProtocol};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// Devices that are given out whole, by kind (`GPU`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, u32>,
}

/// ECS's name for graphics processors.
pub const GPU: &str = "GPU";

/// A device that one container has to itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantedDevice {
    pub kind: String,
    /// As the node's own file names it.
    pub id: String,
}

/// User and group ids of a host that are a task's own: 0 in the task is `first` on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

impl IdRange {
    /// What the host calls the task's `id`; `None`: the task has no such id.
    pub fn on_host(&self, id: u32) -> Option<u32> {
        (id < self.count).then(|| self.first.saturating_add(id))
    }

    /// What the task calls an id of the host.
    pub fn in_task(&self, id: u32) -> Option<u32> {
        id.checked_sub(self.first).filter(|own| *own < self.count)
    }
}

impl Resources {
    /// The larger of both in every count; the ports of both.
    pub fn max(mut self, other: &Self) -> Self {
        self.cpu_units = self.cpu_units.max(other.cpu_units);
        self.memory_mib = self.memory_mib.max(other.memory_mib);
        self.host_ports.extend(other.host_ports.iter().copied());
        for (kind, count) in &other.devices {
            let own = self.devices.entry(kind.clone()).or_default();
            *own = (*own).max(*count);
        }
        self
    }
}

/// What placement has to find free on one node for a task of this definition.
///
/// Task-level `cpu` and `memory` win over the sum of the containers'. A container counts with its
/// `memoryReservation` if it has one, else with its `memory`. Only static host ports are resources;
/// in host mode a container port without a host port is its own host port.
/// Source: Amazon ECS API reference, ContainerDefinition$memoryReservation and PortMapping$hostPort.
pub fn required_resources(definition: &TaskDefinition) -> Resources {
    let containers = &definition.container_definitions;
    let cpu_sum = containers.iter().fold(0u32, |sum, c| sum.saturating_add(c.cpu_units));
    let memory_sum = containers
        .iter()
        .fold(0u64, |sum, c| sum.saturating_add(c.memory_reservation_mib.or(c.memory_mib).unwrap_or(0)));
    Resources {
        cpu_units: definition.cpu_units.unwrap_or(cpu_sum),
        memory_mib: definition.memory_mib.unwrap_or(memory_sum),
        host_ports: static_host_ports(definition),
        devices: devices(definition),
    }
}

fn devices(definition: &TaskDefinition) -> BTreeMap<String, u32> {
    let mut devices = BTreeMap::new();
    for requirement in definition.container_definitions.iter().flat_map(|c| &c.resource_requirements) {
        let count: &mut u32 = devices.entry(requirement.kind.clone()).or_default();
        *count = count.saturating_add(requirement.count());
    }
    devices
}

fn static_host_ports(definition: &TaskDefinition) -> BTreeSet<HostPort> {
    let mappings = definition.container_definitions.iter().flat_map(|c| &c.port_mappings);
    mappings
        .flat_map(|mapping| {
            let ports = match definition.network_mode {
                NetworkMode::Host if mapping.host_port == 0 => mapping.container_ports(),
                NetworkMode::Bridge | NetworkMode::Host => mapping.host_port..=mapping.host_port,
                NetworkMode::None => 0..=0,
            };
            ports.filter(|port| *port != 0).map(|port| HostPort { protocol: mapping.protocol, port })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(json: &str) -> Resources {
        required_resources(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_reservation_counts_before_the_limit_and_dynamic_ports_are_no_resource() {
        let found = need(
            r#"{"family":"f","containerDefinitions":[
                {"name":"a","image":"i","cpu":100,"memory":64,"memoryReservation":32,
                 "portMappings":[{"containerPort":80,"hostPort":8080},{"containerPort":81}]},
                {"name":"b","image":"i","cpu":28,"memory":10,
                 "portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"udp"}]}]}"#,
        );
        assert_eq!((found.cpu_units, found.memory_mib), (128, 42));
        let ports: Vec<_> = found.host_ports.iter().map(|p| (p.protocol.as_str(), p.port)).collect();
        assert_eq!(ports, [("tcp", 8080), ("udp", 8080)]);
    }

    #[test]
    fn devices_are_counted_by_kind_over_all_containers() {
        let found = need(
            r#"{"family":"f","containerDefinitions":[
                {"name":"a","image":"i","resourceRequirements":[{"type":"GPU","value":"2"},{"type":"fpga","value":"1"}]},
                {"name":"b","image":"i","resourceRequirements":[{"type":"GPU","value":"1"}]}]}"#,
        );
        assert_eq!(found.devices, BTreeMap::from([("GPU".to_owned(), 3), ("fpga".to_owned(), 1)]));
    }

    #[test]
    fn task_level_values_win_and_host_mode_takes_the_container_port() {
        let found = need(
            r#"{"family":"f","networkMode":"host","cpu":512,"memory":300,"containerDefinitions":[
                {"name":"a","image":"i","cpu":100,"memory":64,"portMappings":[{"containerPort":80}]}]}"#,
        );
        assert_eq!((found.cpu_units, found.memory_mib), (512, 300));
        assert_eq!(found.host_ports.first().map(|p| p.port), Some(80));
    }
}
