//! ECS's JSON of a task and its containers, member by member.
//! In: what the task's actor has published. Out: JSON. Pure.
//! Source: Amazon ECS Developer Guide, "Task metadata endpoint version 4", response members; types as
//! its examples show them. Members that ECS leaves out when they are empty are left out here too.
//! Never: a secret: the environment is not part of it.

use super::ids::{MetadataKey, container_id};
use crate::store::records::{ContainerRecord, TaskRecord};
use crate::time::rfc3339;
use lighter_model::health::ContainerHealth;
use lighter_model::ids::{ContainerName, TaskDefinitionId};
use lighter_model::report::NetworkBinding;
use lighter_model::status::{ContainerStatus, TaskStatus};
use lighter_model::task_definition::log::LogConfiguration;
use lighter_model::task_definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use serde_json::{Map, Value, json};

/// Partition, region and account are no idea of ours; SDKs only cut ARNs at their slashes.
const ARN: &str = "arn:aws:ecs:local:000000000000";

/// Everything about one task.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub cluster: &'a str,
    pub key: &'a MetadataKey,
    pub record: &'a TaskRecord,
    pub definition: &'a TaskDefinition,
    pub id: &'a TaskDefinitionId,
}

pub(super) fn instance_arn(cluster: &str, id: &str) -> String {
    format!("{ARN}:container-instance/{cluster}/{id}")
}

impl View<'_> {
    pub(super) fn task_arn(&self) -> String {
        format!("{ARN}:task/{}/{}", self.cluster, self.record.task)
    }

    pub(super) fn docker_id(&self, name: &ContainerName) -> String {
        container_id(self.key, &self.record.task, name)
    }

    /// `ecs-<family>-<revision>-<container>-<digits>`, as ECS names them for Docker.
    pub(super) fn docker_name(&self, name: &ContainerName) -> String {
        let id = self.docker_id(name);
        format!("ecs-{}-{}-{name}-{}", self.id.family, self.id.revision, &id[..20])
    }

    pub(super) fn desired(&self) -> &'static str {
        if self.record.stopping_at_unix_ms.is_some() { "STOPPED" } else { "RUNNING" }
    }

    pub(super) fn known(&self) -> &'static str {
        match self.record.status {
            TaskStatus::Provisioning => "NONE",
            TaskStatus::Pending | TaskStatus::Activating => "CREATED",
            TaskStatus::Running
            | TaskStatus::Deactivating
            | TaskStatus::Stopping
            | TaskStatus::Deprovisioning => "RUNNING",
            TaskStatus::Stopped => "STOPPED",
        }
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&ContainerDefinition, &ContainerRecord)> {
        let records = &self.record.containers;
        let definitions = self.definition.container_definitions.iter();
        definitions.filter_map(|d| Some((d, records.iter().find(|r| r.name == d.name)?)))
    }
}

/// `/task`.
pub(super) fn task(view: &View<'_>) -> Value {
    let record = view.record;
    let mut task = Map::new();
    let mut put = |key: &str, value: Value| {
        task.insert(key.to_owned(), value);
    };
    put("Cluster", json!(view.cluster));
    put("TaskARN", json!(view.task_arn()));
    put("Family", json!(view.id.family.as_str()));
    put("Revision", json!(view.id.revision.to_string()));
    put("DesiredStatus", json!(view.desired()));
    put("KnownStatus", json!(view.known()));
    put("LaunchType", json!("EC2"));
    put("FaultInjectionEnabled", json!(false));
    let mut limits = Map::new();
    if let Some(units) = view.definition.cpu_units {
        limits.insert("CPU".to_owned(), json!(f64::from(units) / 1024.0));
    }
    if let Some(mib) = view.definition.memory_mib {
        limits.insert("Memory".to_owned(), json!(mib));
    }
    if !limits.is_empty() {
        put("Limits", Value::Object(limits));
    }
    let times = [
        ("PullStartedAt", record.pull_started_at_unix_ms),
        ("PullStoppedAt", record.pull_stopped_at_unix_ms),
        ("ExecutionStoppedAt", record.execution_stopped_at_unix_ms),
    ];
    for (key, unix_ms) in times {
        if let Some(unix_ms) = unix_ms {
            put(key, json!(rfc3339(unix_ms)));
        }
    }
    let containers: Vec<Value> = view.pairs().map(|(d, r)| one(view, d, r)).collect();
    put("Containers", Value::Array(containers));
    Value::Object(task)
}

/// The container itself; `None` when the task has none of that name.
pub(super) fn container(view: &View<'_>, name: &ContainerName) -> Option<Value> {
    view.pairs().find(|(definition, _)| definition.name == *name).map(|(d, r)| one(view, d, r))
}

fn one(view: &View<'_>, definition: &ContainerDefinition, record: &ContainerRecord) -> Value {
    let mut container = Map::new();
    let mut put = |key: &str, value: Value| {
        container.insert(key.to_owned(), value);
    };
    let id = view.docker_id(&record.name);
    put("DockerId", json!(id));
    put("Name", json!(record.name));
    put("DockerName", json!(view.docker_name(&record.name)));
    put("Image", json!(record.image));
    put("ImageID", json!(record.image_digest.clone().unwrap_or_default()));
    put("Labels", labels(view, definition));
    put("DesiredStatus", json!(view.desired()));
    put("KnownStatus", json!(container_status(record)));
    put("Limits", json!({ "CPU": definition.cpu_units, "Memory": definition.memory_mib.unwrap_or(0) }));
    put("Type", json!("NORMAL"));
    let log = definition.log_configuration.as_ref();
    put("LogDriver", json!(log.map_or("json-file", |log| log.log_driver.as_str())));
    let options = log.map(log_options).unwrap_or_default();
    if !options.is_empty() {
        put("LogOptions", Value::Object(options));
    }
    put(
        "ContainerARN",
        json!(format!("{ARN}:container/{}/{}/{}", view.cluster, view.record.task, record.name)),
    );
    put("Snapshotter", json!("overlayfs"));
    if let Some(created) = view.record.pull_stopped_at_unix_ms {
        put("CreatedAt", json!(rfc3339(created)));
    }
    let started = record.life.started_unix_ms.or(view.record.started_at_unix_ms);
    if let Some(started) = started.filter(|_| record.status != ContainerStatus::Pending) {
        put("StartedAt", json!(rfc3339(started)));
    }
    if let Some(health) = &record.life.health {
        put("Health", health_of(health));
    }
    if definition.restart_policy.is_some() {
        put("RestartCount", json!(record.life.restarts));
    }
    if let Some(exit) = &record.exit {
        put("ExitCode", json!(exit.status.exit_code()));
        put("FinishedAt", json!(rfc3339(exit.finished_at_unix_ms)));
    }
    if !record.bindings.is_empty() {
        put("Ports", record.bindings.iter().map(port).collect());
    }
    put("Networks", networks(view, record));
    let volumes = volumes(view, definition);
    if !volumes.is_empty() {
        put("Volumes", Value::Array(volumes));
    }
    Value::Object(container)
}

/// As they are in the definition, but for the one that holds passwords: every container of the task
/// may ask.
fn log_options(log: &LogConfiguration) -> Map<String, Value> {
    let shown = log.options.iter().filter(|(name, _)| *name != "http-headers");
    shown.map(|(name, value)| (name.clone(), json!(value))).collect()
}

fn health_of(health: &ContainerHealth) -> Value {
    json!({
        "status": health.status.as_str(),
        "statusSince": rfc3339(health.since_unix_ms),
        "output": health.last_output,
    })
}

fn container_status(record: &ContainerRecord) -> &'static str {
    match record.status {
        ContainerStatus::Pending if record.image_digest.is_some() => "PULLED",
        ContainerStatus::Pending => "NONE",
        ContainerStatus::Running => "RUNNING",
        ContainerStatus::Stopped => "STOPPED",
    }
}

fn labels(view: &View<'_>, definition: &ContainerDefinition) -> Value {
    let mut labels = Map::new();
    for (key, value) in &definition.docker_labels {
        labels.insert(key.clone(), json!(value));
    }
    let own = [
        ("cluster", view.cluster.to_owned()),
        ("container-name", definition.name.to_string()),
        ("task-arn", view.task_arn()),
        ("task-definition-family", view.id.family.to_string()),
        ("task-definition-version", view.id.revision.to_string()),
    ];
    for (key, value) in own {
        labels.insert(format!("com.amazonaws.ecs.{key}"), json!(value));
    }
    Value::Object(labels)
}

pub(super) fn port(binding: &NetworkBinding) -> Value {
    json!({
        "ContainerPort": binding.container_port,
        "Protocol": binding.protocol.as_str(),
        "HostPort": binding.host_port,
        "HostIp": binding.bind_ip,
    })
}

fn networks(view: &View<'_>, record: &ContainerRecord) -> Value {
    let mode = match view.definition.network_mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::Host => "host",
        NetworkMode::None => "none",
    };
    let address = record.attachment.as_ref().and_then(|attachment| attachment.address);
    let addresses: Vec<String> = address.iter().map(ToString::to_string).collect();
    json!([{ "NetworkMode": mode, "IPv4Addresses": addresses }])
}

fn volumes(view: &View<'_>, definition: &ContainerDefinition) -> Vec<Value> {
    let mounts = definition.mount_points.iter();
    let each = mounts.map(|mount| {
        let volume = view.definition.volumes.iter().find(|volume| volume.name == mount.source_volume);
        let source = volume.and_then(|volume| volume.host.as_ref()?.source_path.clone());
        let mut value = json!({ "Destination": mount.container_path });
        match source {
            Some(source) => value["Source"] = json!(source),
            None => value["DockerName"] = json!(mount.source_volume),
        }
        value
    });
    each.collect()
}
