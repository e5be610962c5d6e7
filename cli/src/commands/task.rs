//! `lighter task show`: everything about a task; its address, ports, and limits as the kernel has them.
//! In: a name of the task. Out: facts, or JSON.

pub mod events;
pub mod why;

use crate::args::{Format, Global, OneTask};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::facts;
use crate::{duration, json, names, output, time, words};
use lighter_proto::v1;
use std::fmt::Write as _;
use std::time::Duration;

pub async fn show(global: &Global, client: &mut Client, args: OneTask) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let task = names::task(client, &cluster, &args.task).await?;
    if global.output == Format::Json {
        return output::json(&json::task(&task));
    }
    if global.quiet {
        return output::line(&task.task_id);
    }
    let nodes = names::node_names(client, &cluster, std::slice::from_ref(&task)).await?;
    let node = nodes.get(&task.container_instance_id).cloned().unwrap_or_default();
    output::print(&text(&task, &node, time::now_unix_ms()))
}

/// The task as a page of facts.
pub fn text(task: &v1::Task, node: &str, now_unix_ms: i64) -> String {
    let last = words::task_status(task.last_status);
    let desired = words::desired_status(task.desired_status);
    let status = if last == desired || desired.is_empty() {
        last.to_owned()
    } else {
        format!("{last} (desired {desired})")
    };
    let resources = format!("{} CPU units, {} MiB", task.cpu_units, task.memory_mib);
    let mut text = facts(&[
        ("Task", task.task_id.clone()),
        ("Definition", task.task_definition.clone()),
        ("Status", status),
        ("Health", health(task)),
        ("Waits for", task.waiting_reason.clone()),
        ("Queue", task.queue.as_ref().map(|queue| in_queue(queue, now_unix_ms)).unwrap_or_default()),
        ("Paused", if task.paused { "yes".to_owned() } else { String::new() }),
        ("Not in force", task.refusal.clone()),
        ("Stop code", words::stop_code(task.stop_code).to_owned()),
        ("Stopped because", task.stopped_reason.clone()),
        (
            "Node",
            if node.is_empty() {
                task.container_instance_id.clone()
            } else {
                format!("{node} ({})", task.container_instance_id)
            },
        ),
        ("Node silent", task.node_silence.as_ref().map(silence).unwrap_or_default()),
        ("Replaces", task.replaces.clone()),
        ("Replaced by", task.replaced_by.clone()),
        ("Cluster", task.cluster.clone()),
        ("Group", task.group.clone()),
        ("Started by", task.started_by.clone()),
        ("Reserved", resources),
        ("Created", moment(task.created_at_unix_ms, now_unix_ms)),
        ("Pulled", pull_time(task)),
        ("Started", moment(task.started_at_unix_ms, now_unix_ms)),
        ("Stopped", moment(task.stopped_at_unix_ms, now_unix_ms)),
    ]);
    for container in &task.containers {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{}", of_container(container));
    }
    text
}

fn in_queue(queue: &v1::QueueEntry, now_unix_ms: i64) -> String {
    let left = Duration::from_millis(u64::try_from(queue.until_unix_ms - now_unix_ms).unwrap_or(0));
    format!("waits for room, priority {}, fails in {}", queue.priority, duration::short(left))
}

/// What becomes of it when its node falls silent.
fn silence(policy: &v1::NodeSilencePolicy) -> String {
    let span = |seconds: u32| duration::short(Duration::from_secs(seconds.into()));
    let replaced = policy.replace.then(|| format!("replaced after {}", span(policy.lost_after_s)));
    let exclusive =
        policy.exclusive.then(|| format!("exclusive, ends itself after {}", span(policy.lease_s)));
    replaced.into_iter().chain(exclusive).collect::<Vec<_>>().join("; ")
}

fn of_container(container: &v1::Container) -> String {
    let ports: Vec<String> = container.network_bindings.iter().map(words::binding).collect();
    let devices: Vec<String> =
        container.devices.iter().map(|device| format!("{} {}", device.kind, device.id)).collect();
    let status = words::container_status(container.last_status);
    let status = match words::exit(container) {
        exit if exit.is_empty() => status.to_owned(),
        exit => format!("{status}, {exit}"),
    };
    let essential = if container.essential { ", essential" } else { "" };
    facts(&[
        ("Container", format!("{}{essential}", container.name)),
        ("  Image", container.image.clone()),
        ("  Digest", container.image_digest.clone()),
        ("  Status", status),
        ("  Health", container_health(container)),
        ("  Restarts", restarts(container)),
        ("  Reason", container.reason.clone()),
        ("  Pid", if container.pid == 0 { String::new() } else { container.pid.to_string() }),
        ("  Address", container.address.clone()),
        ("  Ports", ports.join(", ")),
        ("  Devices", devices.join(", ")),
        ("  Limits", container.limits.as_ref().map(words::limits).unwrap_or_default()),
    ])
}

/// Said only where a container has a health check.
fn health(task: &v1::Task) -> String {
    let checked = task.containers.iter().any(|container| container.health.is_some());
    if checked { words::health_status(task.health_status).to_owned() } else { String::new() }
}

fn container_health(container: &v1::Container) -> String {
    let Some(health) = &container.health else { return String::new() };
    let status = words::health_status(health.status);
    let last = match (health.last_end.as_str(), health.last_output.trim()) {
        ("", _) => return format!("{status}, not checked yet"),
        (end, "") => end.to_owned(),
        (end, output) => format!("{end}: {}", output.replace('\n', " / ")),
    };
    match health.failing_streak {
        0 => format!("{status}, last check: {last}"),
        streak => format!("{status}, {streak} failed in a row, last check: {last}"),
    }
}

fn restarts(container: &v1::Container) -> String {
    let Some(exit) = &container.last_exit else { return String::new() };
    let ended = words::exit_of(exit);
    format!("{}, the attempt before ended: {ended}", container.restart_count)
}

fn moment(unix_ms: i64, now_unix_ms: i64) -> String {
    match time::rfc3339(unix_ms) {
        Some(text) => format!("{text} ({} ago)", time::age(unix_ms, now_unix_ms)),
        None => String::new(),
    }
}

fn pull_time(task: &v1::Task) -> String {
    if task.pull_started_at_unix_ms == 0 || task.pull_stopped_at_unix_ms < task.pull_started_at_unix_ms {
        return String::new();
    }
    format!("in {} ms", task.pull_stopped_at_unix_ms - task.pull_started_at_unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_task_shows_address_ports_and_limits() {
        let task = v1::Task {
            task_id: "ab".repeat(16),
            task_definition: "site:3".into(),
            last_status: 4,
            desired_status: 1,
            cpu_units: 256,
            memory_mib: 64,
            containers: vec![v1::Container {
                name: "web".into(),
                image: "r/nginx:1".into(),
                last_status: 2,
                address: "172.31.0.2".into(),
                essential: true,
                network_bindings: vec![v1::NetworkBinding {
                    bind_ip: "0.0.0.0".into(),
                    host_port: 8080,
                    container_port: 80,
                    protocol: 1,
                }],
                limits: Some(v1::KernelLimits { memory_max_bytes: Some(64 << 20), ..Default::default() }),
                devices: vec![v1::GrantedDevice { kind: "GPU".into(), id: "GPU-1".into() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let page = text(&task, "node-1", 0);
        for line in [
            "Status      RUNNING",
            "Reserved    256 CPU units, 64 MiB",
            "Container  web, essential",
            "  Address  172.31.0.2",
            "  Ports    0.0.0.0:8080->80/tcp",
            "  Devices  GPU GPU-1",
            "  Limits   cpu.max max, memory.max 64 MiB, pids.max max",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
