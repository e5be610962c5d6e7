//! What a container or a whole task has used and uses, as the kernel counts it.
//! In: a cgroup's directories, on v2 or v1. Out: `ContainerStats`. Parsers are pure; reading takes a
//! few files of the kernel, each once.
//! A number the kernel does not give (no such file on v1, or an older kernel) is `None` where zero
//! would be a lie, and zero where it only means "nothing counted".
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,blkio-controller}.rst,
//! accounting/psi.rst, proc(5).
//! Never: sets anything, keeps anything.

use super::CgroupRoot;
use super::layout::v1_mounts;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_shim_wire::limits::{parse_keyed, parse_limit, parse_v1_bytes};
use std::fs;
use std::path::{Path, PathBuf};

/// Ticks of cpuacct.stat in a second: USER_HZ, 100 on every architecture Lighter runs on.
const NS_PER_TICK: u64 = 10_000_000;

/// CPU time and throttling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuStats {
    pub usage_ns: u64,
    pub user_ns: u64,
    pub system_ns: u64,
    /// Periods in which it could run, those in which it was stopped by its quota, and for how long.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_ns: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    pub current_bytes: u64,
    /// Since the cgroup was made; `None` on kernels without memory.peak (before 5.19).
    pub peak_bytes: Option<u64>,
    /// `None`: no limit.
    pub limit_bytes: Option<u64>,
    pub swap_bytes: u64,
    pub anon_bytes: u64,
    pub file_bytes: u64,
    /// File pages that can be dropped first; Docker takes them off what it calls usage.
    pub inactive_file_bytes: u64,
    pub shmem_bytes: u64,
    pub kernel_bytes: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    pub major_faults: u64,
}

/// Disk traffic over all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoStats {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// Share of the last ten seconds in which work waited, in percent: some of it, and all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    pub some_avg10_percent: f64,
    pub full_avg10_percent: f64,
}

/// Pressure of each kind; `None` where the kernel does not tell (v1, PSI off).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureStats {
    pub cpu: Option<Pressure>,
    pub memory: Option<Pressure>,
    pub io: Option<Pressure>,
}

/// One reading of a cgroup. The reader notes when.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ContainerStats {
    pub cpu: CpuStats,
    pub memory: MemoryStats,
    pub io: IoStats,
    pub pressure: PressureStats,
    pub pids: u64,
    /// `None`: no limit.
    pub pids_limit: Option<u64>,
}

/// The whole machine's CPU, which Docker's clients divide by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// Time of all CPUs together, idle time included, since boot.
    pub total_ns: u64,
    pub online: u32,
}

impl CgroupRoot {
    /// What a container has used; `None` when it has no cgroup (not started yet, or removed).
    pub fn container_stats(&self, task: &TaskId, container: &ContainerName) -> Option<ContainerStats> {
        self.stats(&self.below_container(task, container))
    }

    /// What a whole task has used; `None` when it has no cgroup.
    pub fn task_stats(&self, task: &TaskId) -> Option<ContainerStats> {
        self.stats(&self.below_task(task))
    }

    fn stats(&self, below: &str) -> Option<ContainerStats> {
        match self {
            Self::V2 { path } => {
                let directory = path.join(below);
                directory.is_dir().then(|| v2(&|file| read(&directory, file)))
            }
            Self::V1Hybrid { .. } => {
                let mounts = v1_mounts();
                let of = |controller: &str| -> Option<PathBuf> {
                    Some(mounts.get(controller)?.join(self.relative()).join(below))
                };
                of("memory").filter(|directory| directory.is_dir())?;
                Some(v1(&|controller, file| of(controller).map(|dir| read(&dir, file)).unwrap_or_default()))
            }
        }
    }
}

/// The machine's CPU time. Zeros when /proc is not there.
pub fn host_cpu() -> HostCpu {
    parse_host_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn keyed(text: &str, key: &str) -> u64 {
    parse_keyed(text, key).unwrap_or(0)
}

/// `read` gives the text of a file of the cgroup, empty when it is not there.
fn v2(read: &dyn Fn(&str) -> String) -> ContainerStats {
    let cpu = read("cpu.stat");
    let memory = read("memory.stat");
    let number = |file: &str| parse_limit(&read(file));
    let us = |key: &str| keyed(&cpu, key).saturating_mul(1000);
    ContainerStats {
        cpu: CpuStats {
            usage_ns: us("usage_usec"),
            user_ns: us("user_usec"),
            system_ns: us("system_usec"),
            periods: keyed(&cpu, "nr_periods"),
            throttled_periods: keyed(&cpu, "nr_throttled"),
            throttled_ns: us("throttled_usec"),
        },
        memory: MemoryStats {
            current_bytes: number("memory.current").unwrap_or(0),
            peak_bytes: number("memory.peak"),
            limit_bytes: number("memory.max"),
            swap_bytes: number("memory.swap.current").unwrap_or(0),
            anon_bytes: keyed(&memory, "anon"),
            file_bytes: keyed(&memory, "file"),
            inactive_file_bytes: keyed(&memory, "inactive_file"),
            shmem_bytes: keyed(&memory, "shmem"),
            kernel_bytes: keyed(&memory, "kernel"),
            oom_kills: keyed(&read("memory.events"), "oom_kill"),
            major_faults: keyed(&memory, "pgmajfault"),
        },
        io: parse_io_stat(&read("io.stat")),
        pressure: PressureStats {
            cpu: parse_pressure(&read("cpu.pressure")),
            memory: parse_pressure(&read("memory.pressure")),
            io: parse_pressure(&read("io.pressure")),
        },
        pids: number("pids.current").unwrap_or(0),
        pids_limit: number("pids.max"),
    }
}

/// `read` gives the text of a controller's file, empty when it is not there.
fn v1(read: &dyn Fn(&str, &str) -> String) -> ContainerStats {
    let cpu = read("cpu", "cpu.stat");
    let times = read("cpuacct", "cpuacct.stat");
    let memory = read("memory", "memory.stat");
    let bytes = |file: &str| parse_limit(&read("memory", file));
    // Counts of the cgroup and those below it carry this prefix.
    let total = |key: &str| keyed(&memory, &format!("total_{key}"));
    let transferred = read("blkio", "blkio.throttle.io_service_bytes_recursive");
    let operations = read("blkio", "blkio.throttle.io_serviced_recursive");
    ContainerStats {
        cpu: CpuStats {
            usage_ns: parse_limit(&read("cpuacct", "cpuacct.usage")).unwrap_or(0),
            user_ns: keyed(&times, "user").saturating_mul(NS_PER_TICK),
            system_ns: keyed(&times, "system").saturating_mul(NS_PER_TICK),
            periods: keyed(&cpu, "nr_periods"),
            throttled_periods: keyed(&cpu, "nr_throttled"),
            throttled_ns: keyed(&cpu, "throttled_time"),
        },
        memory: MemoryStats {
            current_bytes: bytes("memory.usage_in_bytes").unwrap_or(0),
            peak_bytes: bytes("memory.max_usage_in_bytes"),
            limit_bytes: parse_v1_bytes(&read("memory", "memory.limit_in_bytes")),
            swap_bytes: total("swap"),
            anon_bytes: total("rss"),
            file_bytes: total("cache"),
            inactive_file_bytes: total("inactive_file"),
            shmem_bytes: total("shmem"),
            kernel_bytes: bytes("memory.kmem.usage_in_bytes").unwrap_or(0),
            oom_kills: keyed(&read("memory", "memory.oom_control"), "oom_kill"),
            major_faults: total("pgmajfault"),
        },
        io: IoStats {
            read_bytes: sum_blkio(&transferred, "Read"),
            write_bytes: sum_blkio(&transferred, "Write"),
            reads: sum_blkio(&operations, "Read"),
            writes: sum_blkio(&operations, "Write"),
        },
        pressure: PressureStats::default(),
        pids: parse_limit(&read("pids", "pids.current")).unwrap_or(0),
        pids_limit: parse_limit(&read("pids", "pids.max")),
    }
}

/// Lines such as `8:0 rbytes=90112 wbytes=0 rios=3 wios=0 dbytes=0 dios=0`.
fn parse_io_stat(text: &str) -> IoStats {
    let mut io = IoStats::default();
    for (key, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
        let value: u64 = value.parse().unwrap_or(0);
        match key {
            "rbytes" => io.read_bytes += value,
            "wbytes" => io.write_bytes += value,
            "rios" => io.reads += value,
            "wios" => io.writes += value,
            _ => {}
        }
    }
    io
}

/// The sum over devices of lines such as `8:0 Read 4096`.
fn sum_blkio(text: &str, operation: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next()? == operation).then(|| words.next()?.parse::<u64>().ok())?
    });
    values.sum()
}

/// Lines `some avg10=0.00 avg60=… avg300=… total=…` and `full …`; the second is not there for the
/// CPU of older kernels. `None`: no such file, or PSI is off (reading it then fails).
fn parse_pressure(text: &str) -> Option<Pressure> {
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(" avg10="));
    let percent = |rest: &str| rest.split(' ').next()?.parse().ok();
    Some(Pressure {
        some_avg10_percent: percent(line("some")?)?,
        full_avg10_percent: line("full").and_then(percent).unwrap_or(0.0),
    })
}

/// The line `cpu  user nice system idle iowait irq softirq steal …` in ticks, and a line for each
/// CPU that is online. Guest time is within user time already.
fn parse_host_cpu(text: &str) -> HostCpu {
    let Some(all) = text.lines().next().and_then(|line| line.strip_prefix("cpu ")) else {
        return HostCpu::default();
    };
    let ticks: u64 = all.split_whitespace().take(8).filter_map(|word| word.parse::<u64>().ok()).sum();
    let online = text.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    HostCpu { total_ns: ticks.saturating_mul(NS_PER_TICK), online: online as u32 }
}

#[cfg(test)]
mod tests;
