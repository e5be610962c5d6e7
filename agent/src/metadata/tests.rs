//! The JSON against the examples of ECS's documentation, member by member and type by type.

use super::json::View;
use super::*;
use crate::store::records::TaskRecord;
use lighter_model::health::ContainerHealth;
use lighter_model::ids::TaskDefinitionId;
use lighter_model::task_definition::TaskDefinition;
use serde_json::{Value, json};

/// Members of the examples that are not ours to give: of the cloud, of other drivers or hardware, or
/// only there when a task has what they are about.
const ABSENT: &[&str] = &[
    "ServiceName",
    "AvailabilityZone",
    "VPCID",
    "RestartCount",
    "percpu_usage",
    "active_anon",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
];

/// Every member of `golden` is in `ours` with the same type, and ours has nothing golden has not.
fn same_shape(path: &str, ours: &Value, golden: &Value) {
    match (ours, golden) {
        (Value::Object(ours), Value::Object(golden)) => {
            for (key, value) in golden {
                match ours.get(key) {
                    Some(own) => same_shape(&format!("{path}.{key}"), own, value),
                    None => assert!(ABSENT.contains(&key.as_str()), "{path}.{key} is missing"),
                }
            }
            let unknown: Vec<_> = ours.keys().filter(|key| !golden.contains_key(*key)).collect();
            assert!(unknown.is_empty(), "{path}: unknown to ECS: {unknown:?}");
        }
        (Value::Array(ours), Value::Array(golden)) => {
            for own in ours {
                same_shape(&format!("{path}[]"), own, &golden[0]);
            }
        }
        (Value::Number(ours), Value::Number(golden)) => {
            assert_eq!(ours.is_f64(), golden.is_f64(), "{path}: {ours} for {golden}");
        }
        (ours, golden) => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(golden),
            "{path}: {ours} for {golden}"
        ),
    }
}

fn record() -> TaskRecord {
    let golden = include_str!("../store/golden/task-record-1.json");
    let mut record: TaskRecord = serde_json::from_str(golden).unwrap();
    record.pull_started_at_unix_ms = Some(1_600_000_000_000);
    record.pull_stopped_at_unix_ms = Some(1_600_000_000_500);
    record.started_at_unix_ms = Some(1_600_000_001_000);
    record.containers[0].life.health = Some(ContainerHealth::default());
    record
}

fn definition(record: &TaskRecord) -> TaskDefinition {
    let container = &record.containers[0];
    serde_json::from_value(json!({
        "family": "web", "cpu": "256", "memory": "512", "networkMode": "bridge",
        "volumes": [{ "name": "data", "host": { "sourcePath": "/srv/data" } }, { "name": "own" }],
        "containerDefinitions": [{
            "name": container.name, "image": container.image, "cpu": 10, "memory": 128,
            "dockerLabels": { "team": "blue" },
            "logConfiguration": { "logDriver": "http", "options": {
                "http-url": "https://logs.example/in", "http-headers": "Authorization=secret", "tag": "web",
            } },
            "mountPoints": [{ "sourceVolume": "data", "containerPath": "/data" }],
        }],
    }))
    .unwrap()
}

fn with_view(test: impl FnOnce(&View<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let record = record();
    let (key, definition) = (ids::MetadataKey::load(dir.path()), definition(&record));
    let id: TaskDefinitionId = "web:7".parse().unwrap();
    test(&View { cluster: "default", key: &key, record: &record, definition: &definition, id: &id });
}

#[test]
fn a_task_looks_as_ecs_documents_it() {
    with_view(|view| {
        let mut golden: Value = serde_json::from_str(include_str!("golden/task.json")).unwrap();
        let ours = json::task(view);
        // A label of the definition goes along, and so do the options of its log driver.
        golden["Containers"][0]["Labels"]["team"] = json!("blue");
        golden["Containers"][0]["LogOptions"] = json!({ "http-url": "", "tag": "" });
        let container = golden["Containers"][0].as_object_mut().unwrap();
        if ours["Containers"][0].get("ExitCode").is_none() {
            container.remove("ExitCode");
            container.remove("FinishedAt");
        }
        container["Volumes"][0].as_object_mut().unwrap().remove("DockerName");
        same_shape("", &ours, &golden);
        assert_eq!((&ours["Family"], &ours["Revision"]), (&json!("web"), &json!("7")));
        assert_eq!(ours["PullStartedAt"], "2020-09-13T12:26:40.000Z");
        let arn = ours["TaskARN"].as_str().unwrap();
        assert!(arn.ends_with(&format!(":task/default/{}", view.record.task)), "{arn}");
        let one = json::container(view, &view.record.containers[0].name).unwrap();
        assert_eq!(one, ours["Containers"][0]);
        assert_eq!(one["Labels"]["com.amazonaws.ecs.task-arn"], ours["TaskARN"]);
        assert_eq!(one["Networks"][0]["IPv4Addresses"], json!(["172.29.0.2"]));
        assert_eq!(one["DockerId"].as_str().unwrap().len(), 64);
        assert_eq!(one["LogDriver"], "http");
        let shown = json!({ "http-url": "https://logs.example/in", "tag": "web" });
        assert_eq!(one["LogOptions"], shown, "without the header, which is a password");
        assert_eq!(json::container(view, &"nobody".parse().unwrap()), None);
    });
}

#[test]
fn without_a_log_configuration_the_driver_is_the_default_without_options() {
    let dir = tempfile::tempdir().unwrap();
    let record = record();
    let (key, mut definition) = (ids::MetadataKey::load(dir.path()), definition(&record));
    definition.container_definitions[0].log_configuration = None;
    let id: TaskDefinitionId = "web:7".parse().unwrap();
    let view = View { cluster: "default", key: &key, record: &record, definition: &definition, id: &id };
    let one = json::container(&view, &record.containers[0].name).unwrap();
    assert_eq!((&one["LogDriver"], one.get("LogOptions")), (&json!("json-file"), None));
}

#[test]
fn stats_look_as_ecs_documents_them() {
    let golden: Value = serde_json::from_str(include_str!("golden/stats.json")).unwrap();
    same_shape("", &stats::sample_for_tests(), &golden);
}

#[test]
fn paths_are_cut_at_the_id() {
    assert_eq!(split("/v4/abc"), Some(("abc", "")));
    assert_eq!(split("/v4/abc/"), Some(("abc", "")));
    assert_eq!(split("/v4/abc/task/stats"), Some(("abc", "/task/stats")));
    assert_eq!(split("/v3/abc"), None);
}
