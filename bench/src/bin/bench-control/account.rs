//! What processes take, as the kernel counts it in /proc, and how fast this machine is just now.
//! In: process ids. Out: CPU seconds, MiB, a calibration. Never: asks a process itself.

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the times in /proc/pid/stat: USER_HZ, which is 100 on x86-64 and arm64 (time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Thousands of connections need as many descriptors; children inherit the limit.
pub(crate) fn raise_file_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

/// User and system time of a process so far, in seconds (proc(5), /proc/pid/stat, fields 14 and 15).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the CPU time")?;
    let (_, fields) = stat.rsplit_once(')').context("a stat file without a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub all: f64,
    pub anonymous: f64,
    pub file: f64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the memory")?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a field is missing")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Memory { all: field("VmRSS")?, anonymous: field("RssAnon")?, file: field("RssFile")? })
}

/// What the machine does at this minute: others may use it too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calibration {
    /// Median of 100 times 4 KiB appended and synced.
    pub fdatasync_us: f64,
    /// A fixed loop on one core.
    pub cpu_loop_ms: f64,
}

pub(crate) fn calibrate(dir: &Path) -> Result<Calibration> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort();
    let begun = Instant::now();
    let mut value = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..100_000_000_u64 {
        value = value.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (value >> 27);
    }
    black_box(value);
    Ok(Calibration {
        fdatasync_us: took[took.len() / 2].as_secs_f64() * 1e6,
        cpu_loop_ms: begun.elapsed().as_secs_f64() * 1e3,
    })
}
