//! Reads back from the kernel which limits are in force. In: the cgroup's directories. Out: limits.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/. Never: writes.

use lighter_shim_wire::limits::{parse_cpu_max, parse_limit, parse_v1_bytes};
use lighter_shim_wire::{CgroupPaths, CgroupVersion, Limits};
use std::fs;

/// A file that is not there is "no limit": the comparison then names what was asked for.
pub(crate) fn in_force(paths: &CgroupPaths) -> Limits {
    let read =
        |directory: &str, file: &str| fs::read_to_string(format!("{directory}/{file}")).unwrap_or_default();
    match paths.version {
        CgroupVersion::V2 => {
            let (cpu_quota_us, cpu_period_us) = parse_cpu_max(&read(&paths.cpu, "cpu.max"));
            Limits {
                cpu_quota_us,
                cpu_period_us,
                cpu_weight: parse_limit(&read(&paths.cpu, "cpu.weight")),
                memory_max_bytes: parse_limit(&read(&paths.memory, "memory.max")),
                swap_max_bytes: parse_limit(&read(&paths.memory, "memory.swap.max")),
                pids_max: parse_limit(&read(&paths.pids, "pids.max")),
            }
        }
        CgroupVersion::V1 => {
            let memory = parse_v1_bytes(&read(&paths.memory, "memory.limit_in_bytes"));
            let with_swap = parse_v1_bytes(&read(&paths.memory, "memory.memsw.limit_in_bytes"));
            Limits {
                cpu_quota_us: parse_limit(&read(&paths.cpu, "cpu.cfs_quota_us")),
                cpu_period_us: parse_limit(&read(&paths.cpu, "cpu.cfs_period_us")),
                cpu_weight: parse_limit(&read(&paths.cpu, "cpu.shares")),
                memory_max_bytes: memory,
                swap_max_bytes: memory.zip(with_swap).map(|(memory, both)| both.saturating_sub(memory)),
                pids_max: parse_limit(&read(&paths.pids, "pids.max")),
            }
        }
    }
}
