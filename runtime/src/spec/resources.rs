//! Limits of a container. In: definition. Out: OCI `linux.resources`, and the same limits in the
//! kernel's numbers, to be compared with what is in force. CPU is a hard quota and a weight,
//! or the weight alone where the node says so; swap is none unless the definition says how much.
//! Never: limits of the task; those are on the parent cgroup.

use super::{SpecRequest, devices};
use crate::cgroup::cpu;
use lighter_shim_wire::{CgroupVersion, Limits};
use serde_json::{Value, json};

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
            let shares = cpu::shares(container.cpu_units);
            cpu_value["shares"] = json!(shares);
            limits.cpu_weight = Some(shares);
        }
    }
    if let Some(quota) = cpu::quota_us(container.cpu_units).filter(|_| request.cpu_quota) {
        cpu_value["quota"] = json!(quota);
        cpu_value["period"] = json!(cpu::PERIOD_US);
        limits.cpu_quota_us = Some(quota);
        limits.cpu_period_us = Some(cpu::PERIOD_US);
    }
    value["cpu"] = cpu_value;
    let mut memory = json!({});
    if let Some(bytes) = container.memory_mib.map(|mib| mib << 20) {
        let linux = container.linux_parameters.as_ref();
        let swap_bytes = linux.and_then(|linux| linux.max_swap_mib).unwrap_or(0) << 20;
        memory["limit"] = json!(bytes);
        // Memory and swap together (OCI): equal means no swap.
        memory["swap"] = json!(bytes + swap_bytes);
        limits.memory_max_bytes = Some(bytes);
        if request.cgroup_version == CgroupVersion::V2 {
            // libcgroups takes a difference of 0 for "not given" and leaves swap without a limit.
            value["unified"]["memory.swap.max"] = json!(swap_bytes.to_string());
            limits.swap_max_bytes = Some(swap_bytes);
        }
    }
    if let Some(mib) = container.memory_reservation_mib {
        memory["reservation"] = json!(mib << 20);
    }
    value["memory"] = memory;
    (value, limits)
}
