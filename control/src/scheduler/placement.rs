//! Chooses the node of one task: it must fit by CPU, memory, host ports and devices on a connected node; of
//! those that fit the one with the fewest tasks wins, ties go to the lowest id.
//! In: numbers of tasks in the order of ids and who fits, or candidates. Out: the place, or why a candidate is none.
//! Never: looks at a clock or draws lots; the same input gives the same place.

use crate::wrong_edit::{self, WrongEdit};
use lighter_model::resources::{GPU, HostPort, Resources};
use std::collections::{BTreeMap, BTreeSet};

/// A node as placement sees it; borrowed, so that looking at thousands allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a, I> {
    pub id: &'a I,
    pub connected: bool,
    /// It has every attribute that the task requires.
    pub capable: bool,
    /// What it offers to tasks; ports are those it keeps for itself.
    pub offered: &'a Resources,
    pub used_cpu_units: u64,
    pub used_memory_mib: u64,
    pub used_ports: &'a BTreeSet<HostPort>,
    /// Devices that tasks have, by kind.
    pub used_devices: &'a BTreeMap<String, u32>,
}

/// What an operator keeps free on every node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserve {
    pub cpu_units: u32,
    pub memory_mib: u64,
}

impl Reserve {
    /// CPU units and MiB that are left for tasks.
    pub fn left(self, offered: (u32, u64), used: (u64, u64)) -> (u64, u64) {
        let cpu_units = u64::from(offered.0.saturating_sub(self.cpu_units)).saturating_sub(used.0);
        (cpu_units, offered.1.saturating_sub(self.memory_mib).saturating_sub(used.1))
    }
}

/// Why a candidate cannot take the task, in ECS's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misfit {
    Agent,
    Attribute,
    Cpu,
    Memory,
    Ports,
    Gpu,
    /// Of a kind that ECS does not know.
    Devices,
}

impl Misfit {
    /// ECS's failure reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::Attribute => "ATTRIBUTE",
            Self::Cpu => "RESOURCE:CPU",
            Self::Memory => "RESOURCE:MEMORY",
            Self::Ports => "RESOURCE:PORTS",
            Self::Gpu => "RESOURCE:GPU",
            Self::Devices => "RESOURCE:DEVICES",
        }
    }
}

/// ECS's failure reason for a cluster without nodes.
pub const NO_INSTANCES: &str = "No Container Instances were found in your cluster.";

/// The first thing that keeps the task off this candidate.
pub fn misfit<I>(candidate: &Candidate<'_, I>, need: &Resources, reserve: Reserve) -> Option<Misfit> {
    let offered = candidate.offered;
    let used = (candidate.used_cpu_units, candidate.used_memory_mib);
    let (cpu_free, memory_free) = reserve.left((offered.cpu_units, offered.memory_mib), used);
    let ignored = wrong_edit::is(WrongEdit::PortGivenTwice);
    let taken = |port| offered.host_ports.contains(port) || (!ignored && candidate.used_ports.contains(port));
    if !candidate.connected {
        Some(Misfit::Agent)
    } else if !candidate.capable {
        Some(Misfit::Attribute)
    } else if u64::from(need.cpu_units) > cpu_free {
        Some(Misfit::Cpu)
    } else if need.memory_mib > memory_free {
        Some(Misfit::Memory)
    } else if need.host_ports.iter().any(taken) {
        Some(Misfit::Ports)
    } else {
        missing_device(candidate, need).map(|kind| if kind == GPU { Misfit::Gpu } else { Misfit::Devices })
    }
}

/// The first kind of device that the candidate has not enough of.
fn missing_device<'a, I>(candidate: &Candidate<'_, I>, need: &'a Resources) -> Option<&'a str> {
    let count = |of: &BTreeMap<String, u32>, kind: &String| of.get(kind).copied().unwrap_or(0);
    let missing = need.devices.iter().find(|(kind, wanted)| {
        let free =
            count(&candidate.offered.devices, kind).saturating_sub(count(candidate.used_devices, kind));
        **wanted > free
    });
    missing.map(|(kind, _)| kind.as_str())
}

/// The row of the place for a task, or `None` when it fits nowhere: of the rows that fit, the first with
/// the fewest tasks. `fits` is asked only about rows with fewer tasks than the best so far.
pub fn place(tasks: &[usize], fits: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    for (row, &count) in tasks.iter().enumerate() {
        if best.is_none_or(|(fewest, _)| count < fewest) && fits(row) {
            if count == 0 {
                return Some(row);
            }
            best = Some((count, row));
        }
    }
    best.map(|(_, row)| row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lighter_model::task_definition::TransportProtocol;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    struct Node {
        id: u32,
        connected: bool,
        offered: Resources,
        cpu: u64,
        memory: u64,
        ports: BTreeSet<HostPort>,
        devices: BTreeMap<String, u32>,
        tasks: usize,
    }

    fn candidate(node: &Node) -> Candidate<'_, u32> {
        Candidate {
            id: &node.id,
            connected: node.connected,
            capable: true,
            offered: &node.offered,
            used_cpu_units: node.cpu,
            used_memory_mib: node.memory,
            used_ports: &node.ports,
            used_devices: &node.devices,
        }
    }

    /// Slow and obvious: all that fit, sorted by (tasks, id).
    fn reference(nodes: &[Node], need: &Resources, reserve: Reserve) -> Option<u32> {
        let fits = |n: &&Node| {
            let all: BTreeSet<HostPort> = n.offered.host_ports.union(&n.ports).copied().collect();
            n.connected
                && n.cpu + u64::from(need.cpu_units) + u64::from(reserve.cpu_units)
                    <= u64::from(n.offered.cpu_units).max(n.cpu + u64::from(reserve.cpu_units))
                && n.memory + need.memory_mib + reserve.memory_mib
                    <= n.offered.memory_mib.max(n.memory + reserve.memory_mib)
                && all.is_disjoint(&need.host_ports)
                && need.devices.iter().all(|(kind, count)| {
                    let of = |devices: &BTreeMap<String, u32>| devices.get(kind).copied().unwrap_or(0);
                    of(&n.devices) + count <= of(&n.offered.devices)
                })
        };
        let mut fitting: Vec<&Node> = nodes.iter().filter(fits).collect();
        fitting.sort_by_key(|n| (n.tasks, n.id));
        fitting.first().map(|n| n.id)
    }

    fn ports() -> impl Strategy<Value = BTreeSet<HostPort>> {
        let port = (1u16..6, any::<bool>()).prop_map(|(port, udp)| HostPort {
            protocol: if udp { TransportProtocol::Udp } else { TransportProtocol::Tcp },
            port,
        });
        proptest::collection::btree_set(port, 0..3)
    }

    fn devices() -> impl Strategy<Value = BTreeMap<String, u32>> {
        let kind = prop_oneof![Just(GPU.to_owned()), Just("fpga".to_owned())];
        proptest::collection::btree_map(kind, 1u32..4, 0..2)
    }

    fn resources() -> impl Strategy<Value = Resources> {
        (0u32..8, 0u64..8, ports(), devices()).prop_map(|(cpu_units, memory_mib, host_ports, devices)| {
            Resources { cpu_units, memory_mib, host_ports, devices }
        })
    }

    fn nodes() -> impl Strategy<Value = Vec<Node>> {
        let node = (any::<bool>(), resources(), 0u64..8, 0u64..8, ports(), devices(), 0usize..4);
        proptest::collection::vec(node, 0..8).prop_map(|all| {
            let numbered = all.into_iter().enumerate();
            numbered
                .map(|(id, (connected, offered, cpu, memory, ports, devices, tasks))| Node {
                    id: id as u32,
                    connected,
                    offered,
                    cpu,
                    memory,
                    ports,
                    devices,
                    tasks,
                })
                .collect()
        })
    }

    #[test]
    fn what_is_missing_is_named_in_ecs_s_words() {
        let wants = |kind: &str| Resources {
            devices: BTreeMap::from([(kind.to_owned(), 1)]),
            ..Resources::default()
        };
        let node = Node {
            id: 1,
            connected: true,
            offered: wants(GPU),
            cpu: 0,
            memory: 0,
            ports: BTreeSet::new(),
            devices: BTreeMap::from([(GPU.to_owned(), 1)]),
            tasks: 0,
        };
        let reason =
            |need: &Resources| misfit(&candidate(&node), need, Reserve::default()).map(Misfit::reason);
        assert_eq!(reason(&wants(GPU)), Some("RESOURCE:GPU"));
        assert_eq!(reason(&wants("fpga")), Some("RESOURCE:DEVICES"));
        assert_eq!(reason(&Resources::default()), None);
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_the_obvious_reference(
            nodes in nodes(), need in resources(), cpu in 0u32..3, memory in 0u64..3,
        ) {
            let reserve = Reserve { cpu_units: cpu, memory_mib: memory };
            let tasks: Vec<usize> = nodes.iter().map(|node| node.tasks).collect();
            let fits = |row: usize| misfit(&candidate(&nodes[row]), &need, reserve).is_none();
            let found = place(&tasks, fits).map(|row| nodes[row].id);
            prop_assert_eq!(found, reference(&nodes, &need, reserve));
            let fits_somewhere = nodes.iter().any(|n| misfit(&candidate(n), &need, reserve).is_none());
            prop_assert_eq!(found.is_some(), fits_somewhere);
        }
    }
}
