//! From CPU units (1024 are one vCPU) to the kernel's numbers. Pure.
//! In: units. Out: cpu.max quota, cpu.weight. Never: rounds a quota up beyond the kernel's minimum.

/// Period of every CPU quota; the kernel's default.
pub const PERIOD_US: u64 = 100_000;
/// The kernel refuses quotas below one millisecond.
const QUOTA_US_MIN: u64 = 1_000;

/// cpu.max of so many units; `None` for 0 units.
pub fn quota_us(cpu_units: u32) -> Option<u64> {
    (cpu_units > 0).then(|| (u64::from(cpu_units) * PERIOD_US / 1024).max(QUOTA_US_MIN))
}

/// cpu.shares of so many units (cgroup v1); the kernel's least is 2.
pub fn shares(cpu_units: u32) -> u64 {
    u64::from(cpu_units).max(2)
}

/// cpu.weight of so many units: 1024 units are the kernel's default of 100; without a reservation
/// the least.
pub fn weight(cpu_units: u32) -> u64 {
    (u64::from(cpu_units) * 100 / 1024).clamp(1, 10_000)
}
