//! ECS's words for the numbers of the API, and one-line renderings of its messages.
//! In: proto messages. Out: text. Never: decides anything by a word.

use lighter_proto::v1;

/// `TASK_STATUS_RUNNING` is `RUNNING`; unspecified and unknown numbers are empty.
fn strip(name: Option<&'static str>, prefix: &str) -> &'static str {
    match name.and_then(|name| name.strip_prefix(prefix)) {
        Some("UNSPECIFIED") | None => "",
        Some(word) => word,
    }
}

pub fn task_status(number: i32) -> &'static str {
    strip(v1::TaskStatus::try_from(number).ok().map(|status| status.as_str_name()), "TASK_STATUS_")
}

pub fn desired_status(number: i32) -> &'static str {
    strip(v1::DesiredStatus::try_from(number).ok().map(|status| status.as_str_name()), "DESIRED_STATUS_")
}

pub fn container_status(number: i32) -> &'static str {
    strip(v1::ContainerStatus::try_from(number).ok().map(|status| status.as_str_name()), "CONTAINER_STATUS_")
}

/// Empty when there is no health check.
pub fn health_status(number: i32) -> &'static str {
    strip(v1::HealthStatus::try_from(number).ok().map(|status| status.as_str_name()), "HEALTH_STATUS_")
}

pub fn definition_status(number: i32) -> &'static str {
    strip(v1::TaskDefinitionStatus::try_from(number).ok().map(|s| s.as_str_name()), "TASK_DEFINITION_STATUS_")
}

pub fn cluster_status(number: i32) -> &'static str {
    strip(v1::ClusterStatus::try_from(number).ok().map(|s| s.as_str_name()), "CLUSTER_STATUS_")
}

pub fn attribute_source(number: i32) -> &'static str {
    strip(v1::AttributeSource::try_from(number).ok().map(|s| s.as_str_name()), "ATTRIBUTE_SOURCE_")
}

pub fn capacity_type(number: i32) -> &'static str {
    strip(v1::CapacityType::try_from(number).ok().map(|s| s.as_str_name()), "CAPACITY_TYPE_")
}

pub fn record_kind(number: i32) -> &'static str {
    strip(v1::RecordKind::try_from(number).ok().map(|s| s.as_str_name()), "RECORD_KIND_")
}

pub fn instance_status(number: i32) -> &'static str {
    strip(
        v1::ContainerInstanceStatus::try_from(number).ok().map(|s| s.as_str_name()),
        "CONTAINER_INSTANCE_STATUS_",
    )
}

/// ECS writes stop codes in camel case.
pub fn stop_code(number: i32) -> &'static str {
    match v1::StopCode::try_from(number) {
        Err(_) | Ok(v1::StopCode::Unspecified) => "",
        Ok(v1::StopCode::TaskFailedToStart) => "TaskFailedToStart",
        Ok(v1::StopCode::EssentialContainerExited) => "EssentialContainerExited",
        Ok(v1::StopCode::UserInitiated) => "UserInitiated",
        Ok(v1::StopCode::ServiceSchedulerInitiated) => "ServiceSchedulerInitiated",
        Ok(v1::StopCode::SpotInterruption) => "SpotInterruption",
        Ok(v1::StopCode::TerminationNotice) => "TerminationNotice",
        Ok(v1::StopCode::InfrastructureHealth) => "InfrastructureHealth",
    }
}

pub fn protocol(number: i32) -> &'static str {
    match v1::TransportProtocol::try_from(number) {
        Ok(v1::TransportProtocol::Udp) => "udp",
        _ => "tcp",
    }
}

pub fn log_source(number: i32) -> &'static str {
    match v1::LogSource::try_from(number) {
        Ok(v1::LogSource::Stderr) => "stderr",
        Ok(v1::LogSource::Marker) => "marker",
        _ => "stdout",
    }
}

pub fn service_status(number: i32) -> &'static str {
    match v1::ServiceStatus::try_from(number) {
        Ok(v1::ServiceStatus::Active) => "ACTIVE",
        Ok(v1::ServiceStatus::Draining) => "DRAINING",
        Ok(v1::ServiceStatus::Inactive) => "INACTIVE",
        Err(_) | Ok(v1::ServiceStatus::Unspecified) => "",
    }
}

pub fn scheduling_strategy(number: i32) -> &'static str {
    match v1::SchedulingStrategy::try_from(number) {
        Ok(v1::SchedulingStrategy::Daemon) => "DAEMON",
        _ => "REPLICA",
    }
}

pub fn deployment_status(number: i32) -> &'static str {
    match v1::DeploymentStatus::try_from(number) {
        Ok(v1::DeploymentStatus::Primary) => "PRIMARY",
        Ok(v1::DeploymentStatus::Active) => "ACTIVE",
        Ok(v1::DeploymentStatus::Inactive) => "INACTIVE",
        Err(_) | Ok(v1::DeploymentStatus::Unspecified) => "",
    }
}

pub fn rollout_state(number: i32) -> &'static str {
    match v1::RolloutState::try_from(number) {
        Ok(v1::RolloutState::InProgress) => "IN_PROGRESS",
        Ok(v1::RolloutState::Paused) => "PAUSED",
        Ok(v1::RolloutState::Completed) => "COMPLETED",
        Ok(v1::RolloutState::Failed) => "FAILED",
        Ok(v1::RolloutState::RolledBack) => "ROLLED_BACK",
        Ok(v1::RolloutState::Superseded) => "SUPERSEDED",
        Err(_) | Ok(v1::RolloutState::Unspecified) => "",
    }
}

/// `0.0.0.0:8080->80/tcp`, as `docker ps` writes it.
pub fn binding(binding: &v1::NetworkBinding) -> String {
    let ip = &binding.bind_ip;
    let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    format!("{ip}:{}->{}/{}", binding.host_port, binding.container_port, protocol(binding.protocol))
}

/// `8080->80`, protocol only when it is not tcp; for narrow tables.
pub fn short_binding(binding: &v1::NetworkBinding) -> String {
    let suffix = if protocol(binding.protocol) == "udp" { "/udp" } else { "" };
    format!("{}->{}{suffix}", binding.host_port, binding.container_port)
}

/// Whether the task has come to its end.
pub fn is_stopped(task: &v1::Task) -> bool {
    task.last_status == v1::TaskStatus::Stopped as i32
}

/// The exit of a container in a word: `exit 0`, `SIGKILL (137)`, `OutOfMemory (137)`.
pub fn exit(container: &v1::Container) -> String {
    let code = container.exit_code.map(|code| code.to_string()).unwrap_or_default();
    match container.exit.as_ref() {
        Some(exit) if exit.oom_killed => format!("OutOfMemory ({code})"),
        Some(v1::ContainerExit { status: Some(v1::container_exit::Status::Signaled(signal)), .. }) => {
            format!("signal {signal} ({code})")
        }
        _ if code.is_empty() => String::new(),
        _ => format!("exit {code}"),
    }
}

/// How an earlier attempt of a container ended.
pub fn exit_of(exit: &v1::ContainerExit) -> String {
    match exit.status {
        _ if exit.oom_killed => "OutOfMemory (137)".to_owned(),
        Some(v1::container_exit::Status::Signaled(signal)) => format!("signal {signal} ({})", 128 + signal),
        Some(v1::container_exit::Status::Exited(code)) => format!("exit {code}"),
        None => String::new(),
    }
}

/// Bytes in the unit that leaves one to four digits, like `64 MiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    // In tenths, so that no float is needed.
    let mut tenths = bytes.saturating_mul(10);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    if tenths.is_multiple_of(10) || tenths >= 1000 {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// Limits as the kernel has them: `cpu.max 25000/100000 (25 %), memory.max 64 MiB, pids.max 1024`.
pub fn limits(limits: &v1::KernelLimits) -> String {
    let mut parts = Vec::new();
    match (limits.cpu_quota_us, limits.cpu_period_us) {
        (Some(quota), Some(period)) if period > 0 => {
            parts.push(format!("cpu.max {quota}/{period} µs ({} %)", quota.saturating_mul(100) / period));
        }
        _ => parts.push("cpu.max max".to_owned()),
    }
    if let Some(weight) = limits.cpu_weight {
        parts.push(format!("cpu.weight {weight}"));
    }
    parts.push(format!("memory.max {}", limits.memory_max_bytes.map_or("max".to_owned(), bytes)));
    parts.push(format!("pids.max {}", limits.pids_max.map_or("max".to_owned(), |max| max.to_string())));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_ecs_words() {
        assert_eq!(task_status(v1::TaskStatus::Deprovisioning as i32), "DEPROVISIONING");
        assert_eq!((task_status(0), task_status(99)), ("", ""));
        assert_eq!(desired_status(2), "STOPPED");
        assert_eq!(instance_status(2), "ACTIVE");
        assert_eq!(stop_code(1), "TaskFailedToStart");
        assert_eq!(definition_status(1), "ACTIVE");
    }

    #[test]
    fn sizes_have_one_to_four_digits() {
        for (size, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (u64::MAX, "1677721 TiB")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn bindings_and_limits_in_a_line() {
        let found = v1::NetworkBinding {
            bind_ip: "0.0.0.0".into(),
            container_port: 80,
            host_port: 8080,
            protocol: 2,
        };
        assert_eq!(binding(&found), "0.0.0.0:8080->80/udp");
        let kernel = v1::KernelLimits {
            cpu_quota_us: Some(25_000),
            cpu_period_us: Some(100_000),
            memory_max_bytes: Some(64 << 20),
            ..Default::default()
        };
        assert_eq!(limits(&kernel), "cpu.max 25000/100000 µs (25 %), memory.max 64 MiB, pids.max max");
    }
}
