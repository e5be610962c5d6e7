//! Stats of containers in the form of Docker's API, which ECS passes on, with ECS's network rates.
//! In: readings of the kernel. Out: JSON. Owns: the last reading of each container that was asked
//! about, for the `pre…` members and the rates; one that is too old, or missing, is made good by a
//! second reading a moment later.
//! Source: Docker Engine API 1.41, GET /containers/{id}/stats; ECS Developer Guide, "Task metadata
//! endpoint version 4", `network_rate_stats`.
//! Never: an average over minutes shown as a rate.

use super::Endpoint;
use super::ids::container_id;
use crate::errors::chain;
use crate::telemetry::task_log::Snapshot;
use crate::time::{BootInstant, rfc3339, sleep, unix_ms};
use lighter_model::ids::ContainerName;
use lighter_net::Traffic;
use lighter_runtime::{ContainerStats, HostCpu};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Readings closer than this make no rate; older than that, no rate of now.
const NEAREST: Duration = Duration::from_millis(200);
const OLDEST: Duration = Duration::from_secs(60);
const SAMPLES_MAX: usize = 4096;

/// One reading.
#[derive(Debug, Clone, Default)]
struct Sample {
    at: Option<BootInstant>,
    unix_ms: u64,
    stats: ContainerStats,
    host: HostCpu,
    traffic: Option<Traffic>,
}

/// The last readings; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Samples {
    // Held for one map operation, never over an await.
    last: Arc<Mutex<BTreeMap<String, Sample>>>,
}

impl Samples {
    fn last(&self) -> MutexGuard<'_, BTreeMap<String, Sample>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, id: &str) -> Option<Sample> {
        let now = BootInstant::now();
        let mut last = self.last();
        if last.len() > SAMPLES_MAX {
            last.retain(|_, sample| sample.at.is_some_and(|at| now.since(at) < OLDEST));
        }
        let sample = last.get(id)?;
        let age = now.since(sample.at?);
        (NEAREST..OLDEST).contains(&age).then(|| sample.clone())
    }
}

impl Endpoint {
    /// `/stats`; `None` when the container has no cgroup.
    pub(super) async fn container_stats(
        &self,
        snapshot: &Snapshot,
        container: &ContainerName,
    ) -> Option<Value> {
        let id = container_id(&self.context.metadata_key, &snapshot.record.task, container);
        let before = match self.samples.usable(&id) {
            Some(before) => before,
            None => {
                let first = self.sample(snapshot, container).await?;
                sleep(NEAREST).await;
                first
            }
        };
        let now = self.sample(snapshot, container).await?;
        self.samples.last().insert(id.clone(), now.clone());
        let name = self.view(snapshot).docker_name(container);
        Some(docker_stats(&id, &name, &before, &now))
    }

    /// `/task/stats`: by container id; null for one that does not run.
    pub(super) async fn task_stats(&self, snapshot: &Snapshot) -> Value {
        let containers = snapshot.record.containers.iter();
        let each = containers.map(|container| async {
            let id = container_id(&self.context.metadata_key, &snapshot.record.task, &container.name);
            (id, self.container_stats(snapshot, &container.name).await.unwrap_or(Value::Null))
        });
        Value::Object(futures_util::future::join_all(each).await.into_iter().collect::<Map<_, _>>())
    }

    async fn sample(&self, snapshot: &Snapshot, container: &ContainerName) -> Option<Sample> {
        let (task, facilities) = (&snapshot.record.task, &self.context.facilities);
        let read = facilities.runtime.stats(task, Some(container)).await;
        let stats = read.inspect_err(|error| {
            tracing::debug!(%task, %container, cause = %chain(error.as_ref()), "stats cannot be read");
        });
        let records: Vec<_> = snapshot
            .record
            .attachments()
            .filter(|record| record.key.container == *container)
            .cloned()
            .collect();
        let traffic = facilities.network.traffic(&records).await.unwrap_or_default();
        Some(Sample {
            at: Some(BootInstant::now()),
            unix_ms: unix_ms(),
            stats: stats.ok().flatten()?,
            host: lighter_runtime::host_cpu(),
            traffic: traffic.into_values().next(),
        })
    }
}

fn docker_stats(id: &str, name: &str, before: &Sample, now: &Sample) -> Value {
    let mut stats = json!({
        "read": rfc3339(now.unix_ms),
        "preread": rfc3339(before.unix_ms),
        "id": id,
        "name": format!("/{name}"),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": { "current": now.stats.pids, "limit": now.stats.pids_limit },
        "cpu_stats": cpu(now),
        "precpu_stats": cpu(before),
        "memory_stats": memory(now),
        "blkio_stats": blkio(now),
    });
    if let Some(traffic) = now.traffic {
        stats["networks"] = json!({ "eth0": {
            "rx_bytes": traffic.received_bytes,
            "rx_packets": traffic.received_packets,
            "rx_errors": traffic.received_errors,
            "rx_dropped": traffic.received_dropped,
            "tx_bytes": traffic.sent_bytes,
            "tx_packets": traffic.sent_packets,
            "tx_errors": traffic.sent_errors,
            "tx_dropped": traffic.sent_dropped,
        } });
        stats["network_rate_stats"] = rates(before, now, traffic);
    }
    stats
}

fn rates(before: &Sample, now: &Sample, traffic: Traffic) -> Value {
    let earlier = before.traffic.unwrap_or_default();
    let seconds = match (before.at, now.at) {
        (Some(before), Some(now)) => now.since(before).as_secs_f64(),
        _ => 0.0,
    };
    let rate = |after: u64, before: u64| {
        if seconds > 0.0 { after.saturating_sub(before) as f64 / seconds } else { 0.0 }
    };
    json!({
        "rx_bytes_per_sec": rate(traffic.received_bytes, earlier.received_bytes),
        "tx_bytes_per_sec": rate(traffic.sent_bytes, earlier.sent_bytes),
    })
}

fn cpu(sample: &Sample) -> Value {
    let cpu = sample.stats.cpu;
    json!({
        "cpu_usage": {
            "total_usage": cpu.usage_ns,
            "usage_in_kernelmode": cpu.system_ns,
            "usage_in_usermode": cpu.user_ns,
        },
        "system_cpu_usage": sample.host.total_ns,
        "online_cpus": sample.host.online,
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        },
    })
}

fn memory(sample: &Sample) -> Value {
    let memory = sample.stats.memory;
    // Docker says the machine's memory when there is no limit; this many bytes are "no limit" to all.
    let limit = memory.limit_bytes.unwrap_or(i64::MAX as u64);
    json!({
        "usage": memory.current_bytes,
        "max_usage": memory.peak_bytes.unwrap_or(memory.current_bytes),
        "limit": limit,
        "stats": {
            "anon": memory.anon_bytes,
            "file": memory.file_bytes,
            "shmem": memory.shmem_bytes,
            "kernel": memory.kernel_bytes,
            "inactive_file": memory.inactive_file_bytes,
            "pgmajfault": memory.major_faults,
        },
    })
}

fn blkio(sample: &Sample) -> Value {
    let io = sample.stats.io;
    let entry = |op: &str, value: u64| json!({ "major": 0, "minor": 0, "op": op, "value": value });
    json!({
        "io_service_bytes_recursive": [entry("read", io.read_bytes), entry("write", io.write_bytes)],
        "io_serviced_recursive": [entry("read", io.reads), entry("write", io.writes)],
    })
}

/// A second of a container with traffic.
#[cfg(test)]
pub(super) fn sample_for_tests() -> Value {
    let now = BootInstant::now();
    let stats = ContainerStats { pids_limit: Some(200), ..ContainerStats::default() };
    let before = Sample { at: Some(now), stats, traffic: Some(Traffic::default()), ..Sample::default() };
    let traffic = Traffic { received_bytes: 3001, sent_bytes: 11, ..Traffic::default() };
    let later =
        Sample { at: Some(now.after(Duration::from_secs(2))), traffic: Some(traffic), ..before.clone() };
    let value = docker_stats(&"a".repeat(64), "ecs-web-7-web-aa", &before, &later);
    assert_eq!(value["network_rate_stats"]["rx_bytes_per_sec"], 1500.5);
    value
}
