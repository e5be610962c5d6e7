//! Other limits for containers that run: written to their cgroups and read back, all or none.
//! In: what each container shall have. Out: the limits in force, or why nothing was changed.
//! A memory limit below what is in use and cannot be given back is refused: the kernel would kill.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
//! Never: leaves some containers with new limits and others with old ones, unless undoing fails too.

use super::limits::in_force;
use super::{CgroupError, CgroupRoot, cpu, io_error};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::ContainerDefinition;
use lighter_shim_wire::limits::{parse_keyed, parse_limit};
use lighter_shim_wire::{CgroupPaths, CgroupVersion, Limits};
use std::fs;
use std::path::PathBuf;

/// CPU and memory of a container in the kernel's numbers; `None` is no limit. `cpu_quota`: whether
/// this node gives containers a quota beside their weight. Swap is what the container has beyond
/// its memory; only v1 counts both together and has to be told.
pub(crate) fn wanted(container: &ContainerDefinition, version: CgroupVersion, cpu_quota: bool) -> Wanted {
    let quota = cpu::quota_us(container.cpu_units).filter(|_| cpu_quota);
    let weight = match version {
        CgroupVersion::V2 => cpu::weight(container.cpu_units),
        CgroupVersion::V1 => cpu::shares(container.cpu_units),
    };
    let linux = container.linux_parameters.as_ref();
    let swap_bytes = linux.and_then(|linux| linux.max_swap_mib).unwrap_or(0) << 20;
    let limits = Limits {
        cpu_quota_us: quota,
        cpu_period_us: quota.map(|_| cpu::PERIOD_US),
        cpu_weight: Some(weight),
        memory_max_bytes: container.memory_mib.map(|mib| mib << 20),
        ..Limits::default()
    };
    Wanted { limits, swap_bytes }
}

/// What a container shall have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    limits: Limits,
    swap_bytes: u64,
}

impl CgroupRoot {
    /// Gives running containers other limits.
    pub(crate) fn resize(
        &self,
        task: &TaskId,
        containers: &[(ContainerName, Wanted)],
    ) -> Result<Vec<(ContainerName, Limits)>, CgroupError> {
        let paths = |name: &ContainerName| self.container_paths(task, name);
        let each = || containers.iter().map(|(name, wanted)| (name, paths(name), wanted));
        for (name, paths, wanted) in each() {
            check_use(name, &paths, &wanted.limits)?;
        }
        let mut before: Vec<(CgroupPaths, Wanted)> = Vec::new();
        let mut result = Vec::new();
        for (name, paths, wanted) in each() {
            before.push((paths.clone(), Wanted { limits: in_force(&paths), ..*wanted }));
            match set_and_prove(&paths, wanted) {
                Ok(limits) => result.push((name.clone(), limits)),
                Err(error) => return Err(undo(before, error)),
            }
        }
        Ok(result)
    }
}

fn undo(before: Vec<(CgroupPaths, Wanted)>, error: CgroupError) -> CgroupError {
    let mut errors = vec![error];
    errors.extend(before.iter().rev().filter_map(|(paths, wanted)| set(paths, wanted).err()));
    if errors.len() == 1 { errors.remove(0) } else { CgroupError::Several(errors) }
}

/// What is in use less the files that the kernel can drop.
fn unreclaimable(paths: &CgroupPaths) -> u64 {
    let read = |file: &str| fs::read_to_string(format!("{}/{file}", paths.memory)).unwrap_or_default();
    let stat = read("memory.stat");
    let (used, files) = match paths.version {
        CgroupVersion::V2 => ("memory.current", ["inactive_file", "active_file"]),
        CgroupVersion::V1 => ("memory.usage_in_bytes", ["total_inactive_file", "total_active_file"]),
    };
    let used = parse_limit(&read(used)).unwrap_or(0);
    files.iter().fold(used, |left, key| left.saturating_sub(parse_keyed(&stat, key).unwrap_or(0)))
}

fn check_use(name: &ContainerName, paths: &CgroupPaths, limits: &Limits) -> Result<(), CgroupError> {
    let Some(wanted) = limits.memory_max_bytes else { return Ok(()) };
    let used = unreclaimable(paths);
    if wanted >= used {
        return Ok(());
    }
    Err(CgroupError::BelowUse {
        container: name.to_string(),
        wanted_mib: wanted >> 20,
        used_mib: used.div_ceil(1 << 20),
    })
}

fn set_and_prove(paths: &CgroupPaths, wanted: &Wanted) -> Result<Limits, CgroupError> {
    set(paths, wanted)?;
    let limits = &wanted.limits;
    let found = in_force(paths);
    let still = |asked: Option<u64>, found: Option<u64>| asked.is_none() && found.is_some();
    let difference = limits.difference(&found).or_else(|| {
        let left = still(limits.cpu_quota_us, found.cpu_quota_us)
            || still(limits.memory_max_bytes, found.memory_max_bytes);
        left.then(|| "a limit that was taken away is still there".to_owned())
    });
    match difference {
        None => Ok(found),
        Some(difference) => Err(CgroupError::NotInForce { path: PathBuf::from(&paths.memory), difference }),
    }
}

fn set(paths: &CgroupPaths, wanted: &Wanted) -> Result<(), CgroupError> {
    match paths.version {
        CgroupVersion::V2 => set_v2(paths, &wanted.limits),
        CgroupVersion::V1 => set_v1(paths, wanted),
    }
}

fn write(directory: &str, file: &str, text: &str) -> Result<(), CgroupError> {
    let path = PathBuf::from(format!("{directory}/{file}"));
    fs::write(&path, text).map_err(io_error("write", &path))
}

fn set_v2(paths: &CgroupPaths, limits: &Limits) -> Result<(), CgroupError> {
    let or_max = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let period = limits.cpu_period_us.unwrap_or(cpu::PERIOD_US);
    write(&paths.cpu, "cpu.max", &format!("{} {period}", or_max(limits.cpu_quota_us)))?;
    if let Some(weight) = limits.cpu_weight {
        write(&paths.cpu, "cpu.weight", &weight.to_string())?;
    }
    write(&paths.memory, "memory.max", &or_max(limits.memory_max_bytes))
}

/// On v1 the limit of memory and swap together may never be below that of memory alone.
fn set_v1(paths: &CgroupPaths, wanted: &Wanted) -> Result<(), CgroupError> {
    let limits = &wanted.limits;
    let or_none = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
    if let Some(period) = limits.cpu_period_us {
        write(&paths.cpu, "cpu.cfs_period_us", &period.to_string())?;
    }
    write(&paths.cpu, "cpu.cfs_quota_us", &or_none(limits.cpu_quota_us))?;
    if let Some(shares) = limits.cpu_weight {
        write(&paths.cpu, "cpu.shares", &shares.to_string())?;
    }
    let memory = ("memory.limit_in_bytes", or_none(limits.memory_max_bytes));
    let both = limits.memory_max_bytes.map(|bytes| bytes.saturating_add(wanted.swap_bytes));
    let mut files = vec![memory];
    if PathBuf::from(format!("{}/memory.memsw.limit_in_bytes", paths.memory)).exists() {
        let now = in_force(paths).memory_max_bytes.unwrap_or(u64::MAX);
        let grows = limits.memory_max_bytes.unwrap_or(u64::MAX) > now;
        files.insert(usize::from(!grows), ("memory.memsw.limit_in_bytes", or_none(both)));
    }
    files.into_iter().try_for_each(|(file, bytes)| write(&paths.memory, file, &bytes))
}
