//! Limits and use of a whole task, through cgroups-rs on the task's existing cgroup, each limit
//! read back. In: `TaskLimits`. Out: limits in force, `TaskUsage`.
//! Never: limits of a container; libcontainer sets those from the OCI spec.

use super::{CgroupError, CgroupRoot, cpu};
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::{Cgroup, hierarchies};
use lighter_model::ids::TaskId;
use lighter_model::report::KernelLimits;
use lighter_model::task_definition::TaskDefinition;
use lighter_shim_wire::limits::{parse_keyed, parse_limit};
use lighter_shim_wire::{CgroupPaths, CgroupVersion, Limits};
use std::fs;
use std::path::PathBuf;

/// Limits on a whole task; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// 1024 units are one vCPU; a hard quota.
    pub cpu_units: Option<u32>,
    pub memory_mib: Option<u64>,
    /// What the containers may have of swap together, beyond `memory_mib`.
    pub swap_mib: u64,
    /// What the containers reserve together; protected from reclaim on cgroup v2.
    pub reserved_mib: u64,
}

impl TaskLimits {
    /// What a definition asks for.
    pub fn of(definition: &TaskDefinition) -> Self {
        let containers = &definition.container_definitions;
        let swap = containers.iter().filter_map(|c| c.linux_parameters.as_ref()?.max_swap_mib);
        let reserved = containers.iter().filter_map(|c| c.memory_reservation_mib);
        Self {
            cpu_units: definition.cpu_units,
            memory_mib: definition.memory_mib,
            swap_mib: swap.fold(0, u64::saturating_add),
            reserved_mib: reserved.fold(0, u64::saturating_add),
        }
    }
}

/// What a task has used, or uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskUsage {
    pub cpu_usage_us: u64,
    pub memory_bytes: u64,
    pub pids: u64,
}

impl CgroupRoot {
    /// Sets a task's limits and proves them.
    pub(crate) fn limit_task(&self, task: &TaskId, limits: TaskLimits) -> Result<(), CgroupError> {
        self.protect_task(task, limits.reserved_mib << 20)?;
        if limits.cpu_units.is_none() && limits.memory_mib.is_none() {
            return Ok(());
        }
        let below = self.below_task(task);
        let path = PathBuf::from(self.paths(&below).memory);
        self.set_task_limits(&below, limits).map_err(|error| CgroupError::Limits {
            path: path.clone(),
            message: super::error_chain(&error),
        })?;
        let wanted = Limits {
            cpu_quota_us: limits.cpu_units.and_then(cpu::quota_us),
            memory_max_bytes: limits.memory_mib.map(|mib| mib << 20),
            swap_max_bytes: limits.memory_mib.map(|_| limits.swap_mib << 20).filter(|_| self.is_v2()),
            ..Limits::default()
        };
        match wanted.difference(&in_force(&self.paths(&below))) {
            Some(difference) => Err(CgroupError::NotInForce { path, difference }),
            None => Ok(()),
        }
    }

    fn set_task_limits(&self, below: &str, limits: TaskLimits) -> Result<(), cgroups_rs::fs::error::Error> {
        let group = Cgroup::load(hierarchies::auto(), self.relative().join(below));
        if let (Some(memory), Some(mib)) = (group.controller_of::<MemController>(), limits.memory_mib) {
            let bytes = |mib: u64| i64::try_from(mib << 20).unwrap_or(i64::MAX);
            memory.set_limit(bytes(mib))?;
            let swap = bytes(limits.swap_mib);
            // On v2 this is memory.swap.max, beyond memory; on v1 memory and swap together.
            memory.set_memswap_limit(if group.v2() { swap } else { bytes(mib).saturating_add(swap) })?;
        }
        if let (Some(cpu), Some(quota)) =
            (group.controller_of::<CpuController>(), limits.cpu_units.and_then(cpu::quota_us))
        {
            cpu.set_cfs_quota_and_period(i64::try_from(quota).ok(), Some(cpu::PERIOD_US))?;
        }
        Ok(())
    }

    /// What a whole task uses. Files that are not there count as 0.
    pub fn task_usage(&self, task: &TaskId) -> TaskUsage {
        usage(&self.paths(&self.below_task(task)))
    }
}

pub(crate) fn usage(paths: &CgroupPaths) -> TaskUsage {
    let (cpu_usage_us, memory_file) = match paths.version {
        CgroupVersion::V2 => (parse_keyed(&read(&paths.cpu, "cpu.stat"), "usage_usec"), "memory.current"),
        CgroupVersion::V1 => {
            let cpuacct = paths.cpu.replacen("/cpu/", "/cpuacct/", 1);
            (parse_limit(&read(&cpuacct, "cpuacct.usage")).map(|ns| ns / 1000), "memory.usage_in_bytes")
        }
    };
    TaskUsage {
        cpu_usage_us: cpu_usage_us.unwrap_or(0),
        memory_bytes: parse_limit(&read(&paths.memory, memory_file)).unwrap_or(0),
        pids: parse_limit(&read(&paths.pids, "pids.current")).unwrap_or(0),
    }
}

/// A file that is not there reads as empty.
fn read(directory: &str, file: &str) -> String {
    fs::read_to_string(format!("{directory}/{file}")).unwrap_or_default()
}

/// Limits as the kernel has them now.
pub(crate) fn in_force(paths: &CgroupPaths) -> Limits {
    lighter_shim_wire::limits::in_force(paths, read)
}

pub(crate) fn to_kernel_limits(limits: &Limits) -> KernelLimits {
    KernelLimits {
        cpu_quota_us: limits.cpu_quota_us,
        cpu_period_us: limits.cpu_period_us,
        cpu_weight: limits.cpu_weight,
        memory_max_bytes: limits.memory_max_bytes,
        pids_max: limits.pids_max,
    }
}
