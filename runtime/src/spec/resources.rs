//! Limits of a container. In: definition. Out: OCI `linux.resources`, and the same limits in the
//! kernel's numbers, to be compared with what is in force. CPU is a hard quota and a weight; swap
//! is none. Never: limits of the task; those are on the parent cgroup.

use super::{SpecRequest, devices};
use crate::cgroup::cpu;
use lighter_shim_wire::{CgroupVersion, Limits};
use serde_json::{Value, json};

/// The least weight of cgroup v1 (cpu.shares).
const V1_SHARES_MIN: u64 = 2;

pub(super) fn resources(request: &SpecRequest<'_>) -> (Value, Limits) {
    let container = request.container;
    let mut limits = Limits { pids_max: Some(request.pids_max), ..Limits::default() };
    let mut value = json!({
        "devices": devices::rules(request),
        "pids": { "limit": request.pids_max },
    });
    let mut cpu_value = json!({});
    match request.cgroup_version {
        // The exact weight goes through `unified`: shares would be converted by a rule that has
        // changed between versions of libcgroups.
        CgroupVersion::V2 => {
            let weight = cpu::weight(container.cpu_units);
            value["unified"] = json!({ "cpu.weight": weight.to_string() });
            limits.cpu_weight = Some(weight);
        }
        CgroupVersion::V1 => {
            let shares = u64::from(container.cpu_units).max(V1_SHARES_MIN);
            cpu_value["shares"] = json!(shares);
            limits.cpu_weight = Some(shares);
        }
    }
    if let Some(quota) = cpu::quota_us(container.cpu_units) {
        cpu_value["quota"] = json!(quota);
        cpu_value["period"] = json!(cpu::PERIOD_US);
        limits.cpu_quota_us = Some(quota);
        limits.cpu_period_us = Some(cpu::PERIOD_US);
    }
    value["cpu"] = cpu_value;
    let mut memory = json!({});
    if let Some(bytes) = container.memory_mib.map(|mib| mib << 20) {
        memory["limit"] = json!(bytes);
        // Memory and swap together (OCI): equal means no swap.
        memory["swap"] = json!(bytes);
        limits.memory_max_bytes = Some(bytes);
        if request.cgroup_version == CgroupVersion::V2 {
            // libcgroups takes a difference of 0 for "not given" and leaves swap without a limit.
            value["unified"]["memory.swap.max"] = json!("0");
            limits.swap_max_bytes = Some(0);
        }
    }
    if let Some(mib) = container.memory_reservation_mib {
        memory["reservation"] = json!(mib << 20);
    }
    value["memory"] = memory;
    (value, limits)
}
