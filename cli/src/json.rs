//! The API's messages as JSON for programs: ECS's member names and words, times in RFC 3339.
//! In: proto messages. Out: JSON values; what is not set is left out. Stable: members are only added.
//! Never: prints.

pub mod service;

use crate::{time, words};
use lighter_proto::v1;
use serde_json::{Map, Value, json};

/// Builds an object and leaves out what is not set.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn text(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }
    fn time(self, name: &str, unix_ms: i64) -> Self {
        self.text(name, &time::rfc3339(unix_ms).unwrap_or_default())
    }
    fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if !value.is_null() {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

pub fn task(task: &v1::Task) -> Value {
    let containers: Vec<Value> = task.containers.iter().map(container).collect();
    Object::default()
        .text("taskId", &task.task_id)
        .text("cluster", &task.cluster)
        .text("taskDefinition", &task.task_definition)
        .text("containerInstanceId", &task.container_instance_id)
        .text("desiredStatus", words::desired_status(task.desired_status))
        .text("lastStatus", words::task_status(task.last_status))
        .text("stopCode", words::stop_code(task.stop_code))
        .text("stoppedReason", &task.stopped_reason)
        .text("waitingReason", &task.waiting_reason)
        .text("group", &task.group)
        .text("startedBy", &task.started_by)
        .value("nodeSilence", task.node_silence.as_ref().map(silence))
        .value("queue", task.queue.as_ref().map(queue))
        .text("replaces", &task.replaces)
        .text("replacedBy", &task.replaced_by)
        .value("version", task.version)
        .value("paused", task.paused.then_some(true))
        .text("refusal", &task.refusal)
        .value("cpu", task.cpu_units)
        .value("memory", task.memory_mib)
        .time("createdAt", task.created_at_unix_ms)
        .time("pullStartedAt", task.pull_started_at_unix_ms)
        .time("pullStoppedAt", task.pull_stopped_at_unix_ms)
        .time("startedAt", task.started_at_unix_ms)
        .time("stoppingAt", task.stopping_at_unix_ms)
        .time("executionStoppedAt", task.execution_stopped_at_unix_ms)
        .time("stoppedAt", task.stopped_at_unix_ms)
        .text("healthStatus", words::health_status(task.health_status))
        .value("waits", (!task.waits.is_empty()).then(|| task.waits.iter().map(wait).collect::<Vec<_>>()))
        .value("containers", containers)
        .done()
}

fn queue(entry: &v1::QueueEntry) -> Value {
    Object::default().value("priority", entry.priority).time("until", entry.until_unix_ms).done()
}

fn silence(policy: &v1::NodeSilencePolicy) -> Value {
    Object::default()
        .value("replace", policy.replace)
        .value("lostAfterSeconds", (policy.lost_after_s > 0).then_some(policy.lost_after_s))
        .value("exclusive", policy.exclusive)
        .value("leaseSeconds", (policy.lease_s > 0).then_some(policy.lease_s))
        .done()
}

/// A task's journal.
pub fn task_events(answer: &v1::ListTaskEventsResponse) -> Value {
    let events = answer.events.iter().map(|event| {
        Object::default()
            .time("time", event.time_unix_ms)
            .text("source", if event.from_node { "node" } else { "control" })
            .text("kind", &event.kind)
            .text("container", &event.container)
            .text("text", &event.text)
            .value("tookMs", (event.took_ms > 0).then_some(event.took_ms))
            .done()
    });
    Object::default()
        .value("events", events.collect::<Vec<_>>())
        .text("nodeMissing", &answer.node_missing)
        .done()
}

/// What a task waits for.
pub fn waits(task: &v1::Task) -> Value {
    Object::default()
        .text("taskId", &task.task_id)
        .text("lastStatus", words::task_status(task.last_status))
        .value("waits", task.waits.iter().map(wait).collect::<Vec<_>>())
        .done()
}

fn wait(wait: &v1::Wait) -> Value {
    Object::default()
        .text("kind", &wait.kind)
        .text("container", &wait.container)
        .text("what", &wait.what)
        .time("since", wait.since_unix_ms)
        .time("until", wait.until_unix_ms)
        .text("endsBy", &wait.ends_by)
        .done()
}

fn container(container: &v1::Container) -> Value {
    let bindings: Vec<Value> = container.network_bindings.iter().map(binding).collect();
    let device = |device: &v1::GrantedDevice| serde_json::json!({"kind": device.kind, "id": device.id});
    let devices: Vec<Value> = container.devices.iter().map(device).collect();
    let exit = container.exit.as_ref();
    let signal = exit.and_then(|exit| match exit.status {
        Some(v1::container_exit::Status::Signaled(signal)) => Some(signal),
        _ => None,
    });
    Object::default()
        .text("name", &container.name)
        .text("image", &container.image)
        .text("imageDigest", &container.image_digest)
        .value("essential", container.essential)
        .text("lastStatus", words::container_status(container.last_status))
        .value("exitCode", container.exit_code)
        .value("signal", signal)
        .value("oomKilled", exit.map(|exit| exit.oom_killed))
        .time("finishedAt", exit.map_or(0, |exit| exit.finished_at_unix_ms))
        .text("reason", &container.reason)
        .value("pid", (container.pid != 0).then_some(container.pid))
        .text("address", &container.address)
        .text("healthStatus", words::health_status(container.health.as_ref().map_or(0, |h| h.status)))
        .value("health", container.health.as_ref().map(health))
        .value("restartCount", container.restart_count)
        .value("networkBindings", bindings)
        .value("devices", devices)
        .value("limits", container.limits.as_ref().map(limits))
        .done()
}

fn health(health: &v1::ContainerHealth) -> Value {
    Object::default()
        .value("failingStreak", health.failing_streak)
        .time("since", health.since_unix_ms)
        .text("lastEnd", &health.last_end)
        .text("lastOutput", &health.last_output)
        .done()
}

fn binding(binding: &v1::NetworkBinding) -> Value {
    json!({
        "bindIP": binding.bind_ip,
        "containerPort": binding.container_port,
        "hostPort": binding.host_port,
        "protocol": words::protocol(binding.protocol),
    })
}

/// Null stands for "max": no limit.
fn limits(limits: &v1::KernelLimits) -> Value {
    json!({
        "cpuQuotaUs": limits.cpu_quota_us,
        "cpuPeriodUs": limits.cpu_period_us,
        "cpuWeight": limits.cpu_weight,
        "memoryMaxBytes": limits.memory_max_bytes,
        "pidsMax": limits.pids_max,
    })
}

pub fn failure(failure: &v1::Failure) -> Value {
    Object::default()
        .text("id", &failure.id)
        .text("reason", &failure.reason)
        .text("detail", &failure.detail)
        .done()
}

pub fn node(node: &v1::ContainerInstance) -> Value {
    Object::default()
        .text("containerInstanceId", &node.container_instance_id)
        .text("cluster", &node.cluster)
        .text("name", &node.name)
        .text("status", words::instance_status(node.status))
        .text("statusReason", &node.status_reason)
        .time("statusDeadline", node.status_deadline_unix_ms)
        .value("notices", node.notices.iter().map(notice).collect::<Vec<_>>())
        .value("agentConnected", node.agent_connected)
        .text("agentVersion", &node.agent_version)
        .text("address", &node.address)
        .value("registeredResources", node.registered_resources.as_ref().map(resources))
        .value("remainingResources", node.remaining_resources.as_ref().map(resources))
        .value("runningTasksCount", node.running_tasks_count)
        .value("pendingTasksCount", node.pending_tasks_count)
        .value("attributes", attributes(&node.attributes))
        .text("capacityType", words::capacity_type(node.capacity_type))
        .value("tags", tags(&node.tags))
        .time("registeredAt", node.registered_at_unix_ms)
        .done()
}

pub fn attributes(attributes: &[v1::Attribute]) -> Value {
    let one = |a: &v1::Attribute| {
        Object::default()
            .text("name", &a.name)
            .value("value", a.value.as_str())
            .text("source", words::attribute_source(a.source))
            .done()
    };
    Value::from(attributes.iter().map(one).collect::<Vec<_>>())
}

pub fn orphans(orphans: &[v1::Orphan]) -> Value {
    let one = |orphan: &v1::Orphan| {
        let resources = orphan.resources.clone().unwrap_or_default();
        Object::default()
            .text("taskId", &orphan.task_id)
            .text("cluster", &orphan.cluster)
            .text("containerInstanceId", &orphan.container_instance_id)
            .text("containerInstanceName", &orphan.container_instance_name)
            .text("taskDefinition", &orphan.task_definition)
            .text("lastStatus", words::task_status(orphan.last_status))
            .value("cpuUnits", resources.cpu_units)
            .value("memoryMib", resources.memory_mib)
            .value("portsTcp", resources.ports_tcp)
            .value("portsUdp", resources.ports_udp)
            .done()
    };
    Value::from(orphans.iter().map(one).collect::<Vec<_>>())
}

pub fn tags(tags: &[v1::Tag]) -> Value {
    Value::from(tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect::<Vec<_>>())
}

pub fn cluster(cluster: &v1::Cluster) -> Value {
    let settings = cluster.settings.iter().map(|s| json!({"name": s.name, "value": s.value}));
    Object::default()
        .text("clusterName", &cluster.name)
        .text("status", words::cluster_status(cluster.status))
        .value("registeredContainerInstancesCount", cluster.registered_container_instances_count)
        .value("runningTasksCount", cluster.running_tasks_count)
        .value("pendingTasksCount", cluster.pending_tasks_count)
        .value("settings", settings.collect::<Vec<_>>())
        .value("tags", tags(&cluster.tags))
        .value("replacementBrake", cluster.replacement_brake.as_ref().map(brake))
        .time("createdAt", cluster.created_at_unix_ms)
        .done()
}

fn brake(brake: &v1::ReplacementBrake) -> Value {
    Object::default()
        .time("since", brake.since_unix_ms)
        .value("silentContainerInstances", brake.silent_container_instances)
        .value("containerInstances", brake.container_instances)
        .done()
}

fn notice(notice: &v1::Notice) -> Value {
    let kind = match notice.kind() {
        v1::NoticeKind::SpotInterruption => "spotInterruption",
        v1::NoticeKind::Maintenance => "maintenance",
        v1::NoticeKind::Unspecified => "unknown",
    };
    Object::default().text("kind", kind).text("detail", &notice.detail).time("at", notice.at_unix_ms).done()
}

fn resources(resources: &v1::Resources) -> Value {
    json!({
        "cpu": resources.cpu_units,
        "memory": resources.memory_mib,
        "ports": resources.ports_tcp,
        "portsUdp": resources.ports_udp,
    })
}

pub fn task_definition(definition: &v1::TaskDefinition) -> Value {
    // A definition is JSON already; what cannot be read is shown as it is.
    let body =
        serde_json::from_str(&definition.json).unwrap_or_else(|_| Value::from(definition.json.as_str()));
    Object::default()
        .text("taskDefinition", &format!("{}:{}", definition.family, definition.revision))
        .text("family", &definition.family)
        .value("revision", definition.revision)
        .text("status", words::definition_status(definition.status))
        .time("registeredAt", definition.registered_at_unix_ms)
        .text("registeredBy", &definition.registered_by)
        .time("deregisteredAt", definition.deregistered_at_unix_ms)
        .value(
            "imageDigests",
            (!definition.image_digests.is_empty()).then(|| json!(definition.image_digests)),
        )
        .value("requiresAttributes", attributes(&definition.requires_attributes))
        .value("tags", tags(&definition.tags))
        .value("definition", body)
        .done()
}

pub fn event(event: &v1::Event) -> Value {
    use v1::event::Subject;
    let object = Object::default()
        .value("sequence", event.sequence)
        .time("time", event.time_unix_ms)
        .text("cluster", &event.cluster);
    match &event.subject {
        Some(Subject::TaskStateChange(change)) => {
            object.text("type", "TaskStateChange").value("task", change.task.as_ref().map(task))
        }
        Some(Subject::ContainerInstanceStateChange(change)) => object
            .text("type", "ContainerInstanceStateChange")
            .value("containerInstance", change.container_instance.as_ref().map(node)),
        Some(Subject::TaskDefinitionStateChange(change)) => object
            .text("type", "TaskDefinitionStateChange")
            .value("taskDefinition", change.task_definition.as_ref().map(task_definition)),
        Some(Subject::ClusterStateChange(change)) => {
            object.text("type", "ClusterStateChange").value("cluster", change.cluster.as_ref().map(cluster))
        }
        Some(Subject::ServiceStateChange(change)) => {
            let service = change.service.as_ref();
            object
                .text("type", "ServiceStateChange")
                .text("serviceName", service.map_or("", |service| service.service_name.as_str()))
        }
        Some(Subject::ServiceAction(action)) => object
            .text("type", "ServiceAction")
            .text("serviceName", &action.service_name)
            .text("message", action.event.as_ref().map_or("", |event| event.message.as_str())),
        Some(Subject::RecordDeleted(deleted)) => object
            .text("type", "RecordDeleted")
            .text("kind", words::record_kind(deleted.kind))
            .text("id", &deleted.id),
        None => object,
    }
    .done()
}

pub fn log_line(line: &v1::LogLine) -> Value {
    let text = String::from_utf8_lossy(&line.line);
    let time = time::rfc3339(line.time_unix_ns / 1_000_000);
    json!({
        "container": line.container,
        "time": time,
        "source": words::log_source(line.source),
        "line": text,
        "partial": line.partial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_ecs_members() {
        let found = v1::Task {
            task_id: "0123".into(),
            last_status: v1::TaskStatus::Stopped as i32,
            stop_code: v1::StopCode::EssentialContainerExited as i32,
            stopped_at_unix_ms: 1,
            containers: vec![v1::Container {
                name: "web".into(),
                exit_code: Some(137),
                exit: Some(v1::ContainerExit {
                    status: Some(v1::container_exit::Status::Signaled(9)),
                    oom_killed: true,
                    finished_at_unix_ms: 2,
                }),
                network_bindings: vec![v1::NetworkBinding {
                    host_port: 8080,
                    container_port: 80,
                    ..Default::default()
                }],
                limits: Some(v1::KernelLimits { memory_max_bytes: Some(64), ..Default::default() }),
                devices: vec![v1::GrantedDevice { kind: "GPU".into(), id: "GPU-1".into() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let value = task(&found);
        assert_eq!(value["lastStatus"], "STOPPED");
        assert_eq!(value["stopCode"], "EssentialContainerExited");
        assert_eq!(value["stoppedAt"], "1970-01-01T00:00:00.001Z");
        assert!(value.get("startedAt").is_none() && value.get("stoppedReason").is_none());
        let container = &value["containers"][0];
        assert_eq!((&container["exitCode"], &container["signal"]), (&json!(137), &json!(9)));
        assert_eq!(container["oomKilled"], true);
        assert_eq!(container["networkBindings"][0]["hostPort"], 8080);
        assert_eq!(container["limits"]["memoryMaxBytes"], 64);
        assert_eq!(container["devices"], json!([{ "kind": "GPU", "id": "GPU-1" }]));
        assert_eq!(container["limits"]["pidsMax"], Value::Null);
    }
}
