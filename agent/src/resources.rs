//! Admission: what this node offers, what tasks hold of it, and why a task must wait.
//! In: needs of tasks. Out: yes, or a named reason. Owns the ledger, a value inside the reconciler;
//! it is rebuilt from the records at start. Source of the needs: `lighter_model::resources`.
//! Never: knows how a task runs. Dynamic host ports are no resource (ECS).

use lighter_model::ids::TaskId;
use lighter_model::resources::{HostPort, Resources};
use std::collections::BTreeMap;
use std::fmt;

/// Why a task is not admitted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    Cpu {
        needs: u32,
        free: u32,
    },
    Memory {
        needs_mib: u64,
        free_mib: u64,
    },
    Port {
        port: HostPort,
        holder: TaskId,
    },
    Device {
        kind: String,
        needs: u32,
        free: u32,
    },
    Definition,
    /// The node starts, and this daemon task goes before.
    Daemon {
        task: TaskId,
    },
    Closing,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { needs, free } => {
                write!(
                    f,
                    "RESOURCE:CPU: needs {needs} units, {free} are free; waits for another task of this node to stop"
                )
            }
            Self::Memory { needs_mib, free_mib } => {
                write!(
                    f,
                    "RESOURCE:MEMORY: needs {needs_mib} MiB, {free_mib} MiB are free; waits for another task of this node to stop"
                )
            }
            Self::Port { port, holder } => {
                write!(
                    f,
                    "RESOURCE:PORTS: host port {}/{} is held by task {holder}; waits for it to stop",
                    port.port,
                    port.protocol.as_str()
                )
            }
            Self::Daemon { task } => {
                write!(f, "waits for daemon task {task} to run, 30 s at most after the start of the agent")
            }
            Self::Closing => {
                f.write_str("this node stops all its tasks; waits for the next start of its agent")
            }
            Self::Device { kind, needs, free } => {
                write!(
                    f,
                    "RESOURCE:{}: needs {needs} of {kind}, {free} are free; waits for another task of this node to stop",
                    kind.to_ascii_uppercase()
                )
            }
            Self::Definition => f.write_str("waits for its task definition from the control plane"),
        }
    }
}

/// What a task asks and this node can never give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Impossible {
    #[error("RESOURCE:CPU: needs {needs} units, this node offers {offers}")]
    Cpu { needs: u32, offers: u32 },
    #[error("RESOURCE:MEMORY: needs {needs_mib} MiB, this node offers {offers_mib} MiB")]
    Memory { needs_mib: u64, offers_mib: u64 },
    #[error("RESOURCE:PORTS: host port {}/{} is reserved by this node (reserved_ports)", port.port, port.protocol.as_str())]
    ReservedPort { port: HostPort },
    #[error("RESOURCE:{}: needs {needs} of {kind}, this node offers {offers}", kind.to_ascii_uppercase())]
    Device { kind: String, needs: u32, offers: u32 },
}

/// What the node offers and who holds how much of it.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    /// Counts are what is offered, ports what the node keeps for itself.
    offered: Resources,
    held: BTreeMap<TaskId, Resources>,
    cpu_held: u64,
    memory_held_mib: u64,
    ports: BTreeMap<HostPort, TaskId>,
}

impl Ledger {
    pub(crate) fn new(offered: Resources) -> Self {
        Self { offered, held: BTreeMap::new(), cpu_held: 0, memory_held_mib: 0, ports: BTreeMap::new() }
    }

    pub(crate) fn offered(&self) -> &Resources {
        &self.offered
    }

    /// Could an empty node of this size run it?
    pub(crate) fn possible(&self, needs: &Resources) -> Result<(), Impossible> {
        if needs.cpu_units > self.offered.cpu_units {
            return Err(Impossible::Cpu { needs: needs.cpu_units, offers: self.offered.cpu_units });
        }
        if needs.memory_mib > self.offered.memory_mib {
            return Err(Impossible::Memory {
                needs_mib: needs.memory_mib,
                offers_mib: self.offered.memory_mib,
            });
        }
        let offers = |kind: &String| self.offered.devices.get(kind).copied().unwrap_or(0);
        if let Some((kind, needs)) = needs.devices.iter().find(|(kind, needs)| **needs > offers(kind)) {
            return Err(Impossible::Device { kind: kind.clone(), needs: *needs, offers: offers(kind) });
        }
        match needs.host_ports.intersection(&self.offered.host_ports).next() {
            Some(port) => Err(Impossible::ReservedPort { port: *port }),
            None => Ok(()),
        }
    }

    /// Is there room now?
    pub(crate) fn fits(&self, needs: &Resources) -> Result<(), Waiting> {
        let cpu_free = u64::from(self.offered.cpu_units).saturating_sub(self.cpu_held);
        if u64::from(needs.cpu_units) > cpu_free {
            return Err(Waiting::Cpu { needs: needs.cpu_units, free: cpu_free as u32 });
        }
        let free_mib = self.offered.memory_mib.saturating_sub(self.memory_held_mib);
        if needs.memory_mib > free_mib {
            return Err(Waiting::Memory { needs_mib: needs.memory_mib, free_mib });
        }
        for (kind, needs) in &needs.devices {
            let of = |resources: &Resources| resources.devices.get(kind).copied().unwrap_or(0);
            let held: u32 = self.held.values().map(of).sum();
            let free = of(&self.offered).saturating_sub(held);
            if *needs > free {
                return Err(Waiting::Device { kind: kind.clone(), needs: *needs, free });
            }
        }
        for port in &needs.host_ports {
            if let Some(holder) = self.ports.get(port) {
                return Err(Waiting::Port { port: *port, holder: holder.clone() });
            }
        }
        Ok(())
    }

    /// Is there room for a task that holds something already and needs this instead?
    pub(crate) fn fits_instead(&self, task: &TaskId, needs: &Resources) -> Result<(), Waiting> {
        let mut others = self.clone();
        others.release(task);
        others.fits(needs)
    }

    /// What a task holds.
    pub(crate) fn held(&self, task: &TaskId) -> Option<&Resources> {
        self.held.get(task)
    }

    /// Notes what a task holds, also beyond what is offered: a task adopted after the reserve was
    /// raised runs all the same.
    pub(crate) fn hold(&mut self, task: TaskId, needs: Resources) {
        self.release(&task);
        self.cpu_held += u64::from(needs.cpu_units);
        self.memory_held_mib += needs.memory_mib;
        for port in &needs.host_ports {
            self.ports.entry(*port).or_insert_with(|| task.clone());
        }
        self.held.insert(task, needs);
    }

    /// Gives back what a task holds; harmless to repeat.
    pub(crate) fn release(&mut self, task: &TaskId) {
        let Some(needs) = self.held.remove(task) else { return };
        self.cpu_held -= u64::from(needs.cpu_units);
        self.memory_held_mib -= needs.memory_mib;
        self.ports.retain(|_, holder| holder != task);
    }

    #[cfg(test)]
    pub(crate) fn totals(&self) -> (u64, u64, usize) {
        (self.cpu_held, self.memory_held_mib, self.ports.len())
    }
}

/// What the machine has, less the reserve. In: texts of the kernel; out: what to offer.
pub(crate) fn offered(cores: usize, meminfo: &str, config: &crate::AgentConfig) -> Resources {
    use lighter_model::task_definition::TransportProtocol::{Tcp, Udp};
    let total_kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap_or(0);
    let tcp = config.reserved_ports.iter().map(|port| HostPort { protocol: Tcp, port: *port });
    let udp = config.reserved_ports_udp.iter().map(|port| HostPort { protocol: Udp, port: *port });
    Resources {
        cpu_units: (cores as u32 * 1024).saturating_sub(config.reserve_cpu_units),
        memory_mib: (total_kib / 1024).saturating_sub(config.reserve_memory_mib),
        host_ports: tcp.chain(udp).collect(),
        devices: config
            .devices
            .iter()
            .map(|(kind, devices)| (kind.clone(), devices.ids.len() as u32))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lighter_model::task_definition::TransportProtocol::Tcp;
    use proptest::prelude::*;

    fn task(number: u64) -> TaskId {
        TaskId::from_parts(number, 0)
    }

    fn needs(cpu_units: u32, memory_mib: u64, ports: &[u16]) -> Resources {
        let host_ports = ports.iter().map(|port| HostPort { protocol: Tcp, port: *port }).collect();
        Resources { cpu_units, memory_mib, host_ports, ..Resources::default() }
    }

    #[test]
    fn reasons_name_the_resource_and_the_holder() {
        let mut ledger = Ledger::new(needs(1024, 512, &[22]));
        ledger.hold(task(1), needs(1000, 500, &[80]));
        assert!(ledger.fits(&needs(25, 0, &[])).unwrap_err().to_string().starts_with("RESOURCE:CPU"));
        assert!(ledger.fits(&needs(0, 13, &[])).unwrap_err().to_string().starts_with("RESOURCE:MEMORY"));
        let port = ledger.fits(&needs(0, 0, &[80])).unwrap_err().to_string();
        assert!(port.starts_with("RESOURCE:PORTS") && port.contains(task(1).as_str()), "{port}");
        assert!(ledger.possible(&needs(0, 513, &[])).is_err());
        assert!(ledger.possible(&needs(0, 0, &[22])).unwrap_err().to_string().contains("reserved_ports"));
        ledger.release(&task(1));
        ledger.release(&task(1));
        assert_eq!(ledger.totals(), (0, 0, 0));
    }

    #[test]
    fn devices_are_counted_by_kind() {
        let of = |count: u32| Resources {
            devices: BTreeMap::from([("GPU".to_owned(), count)]),
            ..Resources::default()
        };
        let mut ledger = Ledger::new(of(2));
        assert!(ledger.possible(&of(3)).unwrap_err().to_string().starts_with("RESOURCE:GPU"));
        ledger.hold(task(1), of(1));
        assert!(ledger.fits(&of(1)).is_ok());
        assert!(ledger.fits(&of(2)).unwrap_err().to_string().starts_with("RESOURCE:GPU"));
        ledger.release(&task(1));
        assert!(ledger.fits(&of(2)).is_ok());
    }

    #[test]
    fn the_reserve_is_taken_off() {
        let config = crate::AgentConfig::default();
        let offered = offered(2, "MemTotal:        2097152 kB\nMemFree: 1 kB\n", &config);
        assert_eq!((offered.cpu_units, offered.memory_mib), (2048 - 128, 2048 - 256));
        assert!(offered.host_ports.contains(&HostPort { protocol: Tcp, port: 22 }));
    }

    proptest! {
        #[test]
        fn what_fits_never_exceeds_the_offer(
            steps in proptest::collection::vec((0u64..8, 0u32..600, 0u64..300, 80u16..86, any::<bool>()), 0..60),
        ) {
            let mut ledger = Ledger::new(needs(1024, 512, &[]));
            let mut model: BTreeMap<u64, Resources> = BTreeMap::new();
            for (number, cpu, memory, port, give_back) in steps {
                if give_back || model.contains_key(&number) {
                    ledger.release(&task(number));
                    model.remove(&number);
                    continue;
                }
                let wanted = needs(cpu, memory, &[port]);
                if ledger.fits(&wanted).is_ok() {
                    ledger.hold(task(number), wanted.clone());
                    model.insert(number, wanted);
                }
                let cpu: u32 = model.values().map(|r| r.cpu_units).sum();
                let memory: u64 = model.values().map(|r| r.memory_mib).sum();
                prop_assert!(cpu <= 1024 && memory <= 512);
                let ports: Vec<_> = model.values().flat_map(|r| r.host_ports.iter()).collect();
                let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
                prop_assert_eq!(ports.len(), distinct.len());
                prop_assert_eq!(ledger.totals(), (u64::from(cpu), memory, ports.len()));
            }
        }
    }
}
