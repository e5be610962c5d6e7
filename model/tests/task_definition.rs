//! What a task definition may say and how a wrong one is refused, seen through `input::parse`.
//! In: JSON as people write it. Out: the parsed definition, or the field that the error names.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lighter_model::task_definition::input::{DefinitionError, parse, to_json};
use lighter_model::task_definition::{NetworkMode, TaskDefinition, TransportProtocol, VolumeScope};
use serde_json::{Value, json};

#[path = "task_definition/options.rs"]
mod options;

/// One container `web` with what `container` adds, and what `task` adds at the top.
fn definition(task: Value, container: Value) -> Value {
    let mut web = json!({"name": "web", "image": "nginx:1.24", "memory": 64});
    merge(&mut web, container);
    let mut whole = json!({"family": "site", "containerDefinitions": [web]});
    merge(&mut whole, task);
    whole
}

fn merge(into: &mut Value, from: Value) {
    let Value::Object(members) = from else { panic!("an object") };
    for (name, value) in members {
        into[name] = value;
    }
}

#[track_caller]
fn accepted(value: Value) -> TaskDefinition {
    let definition = parse(&value.to_string()).unwrap_or_else(|error| panic!("{error}\n{value}"));
    assert_eq!(parse(&to_json(&definition)).as_ref(), Ok(&definition), "round trip");
    definition
}

#[track_caller]
fn error(value: Value) -> DefinitionError {
    parse(&value.to_string()).expect_err("refused")
}

#[track_caller]
fn refused(field: &str, value: Value) -> String {
    let error = error(value);
    let fields: Vec<&str> = error.problems().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, [field], "{error}");
    error.message().to_owned()
}

const C: &str = "containerDefinitions[0]";

#[test]
fn registers_the_smallest_definition() {
    let found = accepted(definition(json!({}), json!({})));
    assert_eq!(found.family.as_str(), "site");
    assert_eq!(found.network_mode, NetworkMode::Bridge);
    let web = &found.container_definitions[0];
    assert_eq!((web.name.as_str(), web.image.as_str(), web.memory_mib), ("web", "nginx:1.24", Some(64)));
    for (field, value) in [
        ("family", json!({"containerDefinitions": [{"name": "a", "image": "i", "memory": 6}]})),
        ("containerDefinitions", json!({"family": "f"})),
        ("containerDefinitions", json!({"family": "f", "containerDefinitions": []})),
        (
            "containerDefinitions[0].name",
            json!({"family": "f", "containerDefinitions": [{"image": "i", "memory": 6}]}),
        ),
        ("containerDefinitions[0].image", definition(json!({}), json!({"image": ""}))),
        ("containerDefinitions[0].image", definition(json!({}), json!({"image": "https://r/i"}))),
        ("family", definition(json!({"family": "a/b"}), json!({}))),
        ("family", definition(json!({"family": "a".repeat(256)}), json!({}))),
        ("containerDefinitions[0]", json!({"family": "f", "containerDefinitions": ["web"]})),
    ] {
        refused(field, value);
    }
}

#[test]
fn an_unknown_member_is_refused_by_name() {
    refused("containerDefinitions[0].memroy", definition(json!({}), json!({"memroy": 64})));
    let message = refused("containerDefinitions[0].Image", definition(json!({}), json!({"Image": "x"})));
    assert!(message.contains("did you mean `image`?"), "{message}");
    refused(
        "volumes[0].host.path",
        definition(json!({"volumes": [{"name": "v", "host": {"path": "/x"}}]}), json!({})),
    );
    refused("replicas", definition(json!({"replicas": null}), json!({})));
    // Inside a refused member that says nothing, too.
    refused(
        "containerDefinitions[0].healthCheck.cmd",
        definition(json!({}), json!({"healthCheck": {"cmd": []}})),
    );
}

#[test]
fn an_unsupported_member_is_refused_by_name() {
    let secrets = json!({"secrets": [{"name": "A", "valueFrom": "arn:aws:ssm:x"}]});
    let message = refused(&format!("{C}.secrets"), definition(json!({}), secrets));
    assert!(message.contains("not supported"), "{message}");
    refused(
        "containerDefinitions[0].logConfiguration.logDriver",
        definition(json!({}), json!({"logConfiguration": {"logDriver": "awslogs"}})),
    );
    refused("taskRoleArn", definition(json!({"taskRoleArn": "arn:aws:iam::1:role/x"}), json!({})));
    refused("revision", definition(json!({"revision": 3}), json!({})));
    refused("tags", definition(json!({"tags": [{"key": "aws:a", "value": "b"}]}), json!({})));
    refused("tags[0].key", definition(json!({"tags": [{"value": "b"}]}), json!({})));
}

#[test]
fn an_unsupported_member_that_says_nothing_is_accepted() {
    let nothing = definition(
        json!({"tags": [], "pidMode": "", "taskRoleArn": null, "ephemeralStorage": {"sizeInGiB": 0},
               "enableFaultInjection": false, "placementConstraints": [{"type": "", "expression": ""}]}),
        json!({"healthCheck": {"command": [""], "interval": 0}, "secrets": [], "interactive": false, "links": [],
               "linuxParameters": {"capabilities": {"add": [], "drop": []}, "initProcessEnabled": false, "maxSwap": 0},
               "hostname": "", "user": "", "workingDirectory": "", "versionConsistency": ""}),
    );
    let mut found = accepted(nothing);
    found.container_definitions[0].linux_parameters = None;
    assert_eq!(found, accepted(definition(json!({}), json!({}))));
}

#[test]
fn all_problems_are_kept() {
    let found = error(definition(json!({"x": 1}), json!({"memory": 3, "cpu": "a lot"})));
    let fields: Vec<&str> = found.problems().map(|problem| problem.field.as_str()).collect();
    // The order is that of the text; serde_json's test values sort their members.
    assert_eq!(fields, ["containerDefinitions[0].cpu", "containerDefinitions[0].memory", "x"]);
    assert_eq!(found.field(), fields[0]);
    assert!(found.to_string().contains("; x: no such member"), "{found}");
}

#[test]
fn text_that_is_no_definition_is_refused() {
    for text in ["", "{", "[]", "null", "\"family\"", "{\"family\": \"f\",}"] {
        assert_eq!(parse(text).unwrap_err().field(), "taskDefinition", "{text}");
    }
    let twice = r#"{"family":"f","containerDefinitions":[{"name":"a","image":"i","memory":64,"memory":6}]}"#;
    assert_eq!(parse(twice).unwrap_err().field(), "containerDefinitions[0].memory");
    let labels: Value = (0..5000).map(|i| (format!("key{i}"), json!("a".repeat(40)))).collect();
    refused("taskDefinition", definition(json!({}), json!({"dockerLabels": labels})));
    refused("containerDefinitions[0].command[0]", definition(json!({}), json!({"command": ["a\0b"]})));
    assert_eq!(parse(&" ".repeat(2_000_000)).unwrap_err().field(), "taskDefinition");
}

#[test]
fn container_cpu_and_memory() {
    let found = accepted(definition(json!({}), json!({"cpu": 256, "memory": 64, "memoryReservation": 32})));
    let web = &found.container_definitions[0];
    assert_eq!((web.cpu_units, web.memory_mib, web.memory_reservation_mib), (256, Some(64), Some(32)));
    accepted(definition(json!({}), json!({"memory": 6})));
    accepted(definition(json!({}), json!({"memory": null, "memoryReservation": 6})));
    for memory in [json!(5), json!(0), json!(-1), json!(6.5), json!("64"), json!(true), json!([64])] {
        refused("containerDefinitions[0].memory", definition(json!({}), json!({"memory": memory})));
    }
    refused(
        "containerDefinitions[0].memoryReservation",
        definition(json!({}), json!({"memoryReservation": 65})),
    );
    refused("containerDefinitions[0].memory", definition(json!({}), json!({"memory": null})));
    refused("containerDefinitions[0].cpu", definition(json!({}), json!({"cpu": 262_145})));
}

#[test]
fn task_level_cpu_and_memory() {
    let found = accepted(definition(json!({"cpu": "1 vCPU", "memory": "0.5 GB"}), json!({"memory": null})));
    assert_eq!((found.cpu_units, found.memory_mib), (Some(1024), Some(512)));
    let found = accepted(definition(json!({"cpu": 256, "memory": "512"}), json!({})));
    assert_eq!((found.cpu_units, found.memory_mib), (Some(256), Some(512)));
    let written: Value = serde_json::from_str(&to_json(&found)).unwrap();
    assert_eq!((&written["cpu"], &written["memory"]), (&json!("256"), &json!("512")));
    refused("cpu", definition(json!({"cpu": "much"}), json!({})));
    refused("cpu", definition(json!({"cpu": "196609"}), json!({})));
    refused("cpu", definition(json!({"cpu": "128"}), json!({"cpu": 129})));
    refused("memory", definition(json!({"memory": "5"}), json!({"memory": null})));
    refused("memory", definition(json!({"memory": "63"}), json!({"memoryReservation": 64, "memory": null})));
    refused(
        "containerDefinitions[0].memory",
        definition(json!({"memory": "63"}), json!({"memoryReservation": 6})),
    );
}

#[test]
fn network_modes() {
    for (word, mode) in
        [("bridge", NetworkMode::Bridge), ("host", NetworkMode::Host), ("none", NetworkMode::None)]
    {
        assert_eq!(accepted(definition(json!({"networkMode": word}), json!({}))).network_mode, mode);
    }
    let message = refused("networkMode", definition(json!({"networkMode": "awsvpc"}), json!({})));
    assert_eq!(message, "\"awsvpc\" is not supported; one of bridge, host, none");
    refused(
        "containerDefinitions[0].portMappings",
        definition(json!({"networkMode": "none"}), json!({"portMappings": [{"containerPort": 80}]})),
    );
}

fn ports(mappings: Value) -> Value {
    definition(json!({}), json!({"portMappings": mappings}))
}

#[test]
fn port_mappings_static_and_dynamic() {
    let found = accepted(ports(json!([
        {"containerPort": 80, "hostPort": 8080, "protocol": "tcp"},
        {"containerPort": 80, "hostPort": 8080, "protocol": "udp"},
        {"containerPort": 80},
        {"containerPort": 80, "hostPort": 0},
    ])));
    let mappings = &found.container_definitions[0].port_mappings;
    assert_eq!(mappings[1].protocol, TransportProtocol::Udp);
    assert_eq!((mappings[0].host_port, mappings[2].host_port, mappings[3].host_port), (8080, 0, 0));
    for port in [json!(0), json!(65_536), json!(-1), json!("80")] {
        refused(
            "containerDefinitions[0].portMappings[0].containerPort",
            ports(json!([{"containerPort": port}])),
        );
    }
    refused(
        "containerDefinitions[0].portMappings[0].hostPort",
        ports(json!([{"containerPort": 1, "hostPort": 65_536}])),
    );
    refused(
        "containerDefinitions[0].portMappings[0].protocol",
        ports(json!([{"containerPort": 1, "protocol": "sctp"}])),
    );
    refused("containerDefinitions[0].portMappings[0].containerPort", ports(json!([{"hostPort": 1}])));
    refused(
        "containerDefinitions[0].portMappings[1].hostPort",
        ports(json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}])),
    );
}

#[test]
fn two_containers_on_one_host_port_are_refused() {
    let container = |name: &str, port: u16, mode: &str| {
        json!({"name": name, "image": "i", "memory": 6,
               "portMappings": [{"containerPort": port, "hostPort": if mode == "host" { 0 } else { 8080 }}]})
    };
    for (mode, other) in [("bridge", 81), ("host", 80)] {
        let message = refused(
            "containerDefinitions[1].portMappings[0].hostPort",
            json!({"family": "f", "networkMode": mode,
                   "containerDefinitions": [container("a", 80, mode), container("b", other, mode)]}),
        );
        assert!(message.contains("container \"a\""), "{message}");
    }
}

#[test]
fn host_mode_maps_a_port_to_itself() {
    let host =
        |mapping: Value| definition(json!({"networkMode": "host"}), json!({"portMappings": [mapping]}));
    for mapping in [json!({"containerPort": 80}), json!({"containerPort": 80, "hostPort": 80})] {
        assert_eq!(accepted(host(mapping)).container_definitions[0].port_mappings[0].host_port, 80);
    }
    refused(
        "containerDefinitions[0].portMappings[0].hostPort",
        host(json!({"containerPort": 80, "hostPort": 81})),
    );
}

#[test]
fn a_container_is_essential_unless_it_says_no() {
    let two = |first: Value, second: Value| {
        json!({"family": "f", "containerDefinitions": [
            {"name": "a", "image": "i", "memory": 6, "essential": first},
            {"name": "b", "image": "i", "memory": 6, "essential": second}]})
    };
    let found = accepted(two(json!(null), json!(false)));
    assert!(found.container_definitions[0].essential && !found.container_definitions[1].essential);
    refused("containerDefinitions", two(json!(false), json!(false)));
    refused("containerDefinitions[0].essential", two(json!("yes"), json!(true)));
}

#[test]
fn containers_have_distinct_names_and_are_at_most_a_hundred() {
    let of = |names: Vec<String>| {
        let containers: Vec<Value> =
            names.into_iter().map(|name| json!({"name": name, "image": "i", "memory": 6})).collect();
        json!({"family": "f", "containerDefinitions": containers})
    };
    accepted(of((0..100).map(|i| format!("c{i}")).collect()));
    refused("containerDefinitions", of((0..101).map(|i| format!("c{i}")).collect()));
    refused("containerDefinitions[1].name", of(vec!["a".into(), "a".into()]));
}

#[test]
fn process_members() {
    let found = accepted(definition(
        json!({}),
        json!({"entryPoint": ["/bin/sh", "-c"], "command": ["", "x"], "environment": [{"name": "A", "value": "1=2"}, {"name": "B"}],
               "stopTimeout": 5, "hostname": "web-1.local", "workingDirectory": "/srv", "privileged": true,
               "readonlyRootFilesystem": true, "dockerLabels": {"a": ""}}),
    ));
    let web = &found.container_definitions[0];
    assert_eq!(web.entry_point, ["/bin/sh", "-c"]);
    assert_eq!(web.command, ["", "x"]);
    assert_eq!((web.environment[0].value.as_str(), web.environment[1].value.as_str()), ("1=2", ""));
    assert_eq!((web.stop_timeout_s, web.hostname.as_deref()), (Some(5), Some("web-1.local")));
    assert_eq!(web.working_directory.as_deref(), Some("/srv"));
    assert!(web.privileged && web.readonly_root_filesystem);
    assert_eq!(web.docker_labels["a"], "");
    for (name, value) in [
        ("stopTimeout", json!(1u64 << 32)),
        ("hostname", json!("a_b")),
        ("hostname", json!("a".repeat(65))),
        ("workingDirectory", json!("srv")),
        ("workingDirectory", json!("/srv/../etc")),
        ("command", json!("sh")),
        ("privileged", json!("true")),
        ("dockerLabels", json!([])),
    ] {
        refused(&format!("{C}.{name}"), definition(json!({}), json!({name: value})));
    }
    refused("containerDefinitions[0].command[1]", definition(json!({}), json!({"command": ["a", 1]})));
    refused(
        "containerDefinitions[0].dockerLabels.k",
        definition(json!({}), json!({"dockerLabels": {"k": 1}})),
    );
    refused(
        "containerDefinitions[0].environment[0].name",
        definition(json!({}), json!({"environment": [{"name": "A=B"}]})),
    );
    refused(
        "containerDefinitions[0].environment[0].name",
        definition(json!({}), json!({"environment": [{"value": "x"}]})),
    );
}

#[test]
fn users_are_names_or_numbers() {
    for user in ["root", "1000", "www-data:www-data", "1000:1000", "app:0", "_x.y$"] {
        accepted(definition(json!({}), json!({"user": user})));
    }
    for user in [":", "a:", ":a", "a:b:c", "a b", "4294967295", "99999999999", "-x", "a/b"] {
        refused("containerDefinitions[0].user", definition(json!({}), json!({"user": user})));
    }
}

fn mounted(volumes: Value, mounts: Value) -> Value {
    definition(json!({"volumes": volumes}), json!({"mountPoints": mounts}))
}

#[test]
fn volumes_of_every_kind() {
    let found = accepted(mounted(
        json!([{"name": "managed", "host": {}}, {"name": "host", "host": {"sourcePath": "/srv/x"}},
               {"name": "task", "dockerVolumeConfiguration": {"driver": "local"}},
               {"name": "kept", "host": {"sourcePath": ""}, "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true, "labels": {"a": "b"}}}]),
        json!([{"sourceVolume": "managed", "containerPath": "/a"}, {"sourceVolume": "kept", "containerPath": "/b", "readOnly": true}]),
    ));
    let kept = found.volumes[3].docker_volume_configuration.as_ref().unwrap();
    assert_eq!((kept.scope, kept.autoprovision), (VolumeScope::Shared, true));
    assert_eq!(found.volumes[2].docker_volume_configuration.as_ref().unwrap().scope, VolumeScope::Task);
    assert_eq!(found.volumes[1].host.as_ref().unwrap().source_path.as_deref(), Some("/srv/x"));
    assert!(found.container_definitions[0].mount_points[1].read_only);

    let v = json!([{"name": "v"}]);
    let mount = |path: &str| json!([{"sourceVolume": "v", "containerPath": path}]);
    refused("containerDefinitions[0].mountPoints[0].sourceVolume", mounted(json!([]), mount("/a")));
    for path in ["a", "/a/../b", "/", "//"] {
        refused("containerDefinitions[0].mountPoints[0].containerPath", mounted(v.clone(), mount(path)));
    }
    refused(
        "containerDefinitions[0].mountPoints[1].containerPath",
        mounted(
            v,
            json!([{"sourceVolume": "v", "containerPath": "/a"}, {"sourceVolume": "v", "containerPath": "/a/"}]),
        ),
    );
    refused("volumes[1].name", mounted(json!([{"name": "v"}, {"name": "v"}]), json!([])));
    refused(
        "volumes[0].host.sourcePath",
        mounted(json!([{"name": "v", "host": {"sourcePath": "x"}}]), json!([])),
    );
    refused(
        "volumes[0].dockerVolumeConfiguration",
        mounted(
            json!([{"name": "v", "host": {"sourcePath": "/x"}, "dockerVolumeConfiguration": {}}]),
            json!([]),
        ),
    );
    refused(
        "volumes[0].dockerVolumeConfiguration.driver",
        mounted(json!([{"name": "v", "dockerVolumeConfiguration": {"driver": "rexray"}}]), json!([])),
    );
    refused(
        "volumes[0].configuredAtLaunch",
        mounted(json!([{"name": "v", "configuredAtLaunch": true}]), json!([])),
    );
    refused(
        "volumes[0].efsVolumeConfiguration",
        mounted(json!([{"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-1"}}]), json!([])),
    );
}

#[test]
fn volumes_from_another_container() {
    let of = |edges: &[(&str, &str)]| {
        let containers: Vec<Value> = ["a", "b", "c"]
            .iter()
            .map(|name| {
                let from: Vec<Value> = edges
                    .iter()
                    .filter(|(user, _)| user == name)
                    .map(|(_, source)| json!({"sourceContainer": source, "readOnly": true}))
                    .collect();
                json!({"name": name, "image": "i", "memory": 6, "volumesFrom": from})
            })
            .collect();
        json!({"family": "f", "containerDefinitions": containers})
    };
    let found = accepted(of(&[("b", "a"), ("c", "b"), ("c", "a")]));
    assert!(found.container_definitions[1].volumes_from[0].read_only);
    refused("containerDefinitions[0].volumesFrom[0].sourceContainer", of(&[("a", "nobody")]));
    refused("containerDefinitions[0].volumesFrom[0].sourceContainer", of(&[("a", "a")]));
    let circle = error(of(&[("a", "b"), ("b", "c"), ("c", "a")]));
    assert_eq!(circle.problems().count(), 3);
    assert_eq!(circle.field(), "containerDefinitions[0].volumesFrom[0].sourceContainer");
}

#[test]
fn devices_and_tmpfs() {
    let with = |parameters: Value| definition(json!({}), json!({"linuxParameters": parameters}));
    let found = accepted(with(json!({
        "devices": [{"hostPath": "/dev/fuse", "containerPath": "/dev/f", "permissions": ["read", "write"]}],
        "tmpfs": [{"containerPath": "/run", "size": 16, "mountOptions": ["noexec", "mode=1777"]}]})));
    let parameters = found.container_definitions[0].linux_parameters.as_ref().unwrap();
    assert_eq!((parameters.devices[0].host_path.as_str(), parameters.tmpfs[0].size_mib), ("/dev/fuse", 16));
    let at = format!("{C}.linuxParameters");
    for (field, value) in [
        ("devices[0].hostPath", json!({"devices": [{"hostPath": "dev/fuse"}]})),
        (
            "devices[0].permissions[0]",
            json!({"devices": [{"hostPath": "/dev/x", "permissions": ["execute"]}]}),
        ),
        ("tmpfs[0].size", json!({"tmpfs": [{"containerPath": "/t", "size": 0}]})),
        ("tmpfs[0].size", json!({"tmpfs": [{"containerPath": "/t"}]})),
        ("tmpfs[0].containerPath", json!({"tmpfs": [{"containerPath": "t", "size": 1}]})),
        (
            "tmpfs[0].mountOptions[0]",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["bind"]}]}),
        ),
        (
            "tmpfs[0].mountOptions[0]",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["ro,bind"]}]}),
        ),
        (
            "tmpfs[0].mountOptions[0]",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["mode"]}]}),
        ),
        (
            "tmpfs[0].mountOptions[0]",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["ro=1"]}]}),
        ),
        (
            "tmpfs[0].mountOptions[0]",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["size=1"]}]}),
        ),
    ] {
        refused(&format!("{at}.{field}"), with(value));
    }
}

#[test]
fn compatibilities_other_than_ec2_and_external_are_refused() {
    accepted(definition(json!({"requiresCompatibilities": ["EC2", "EXTERNAL"]}), json!({})));
    refused(
        "requiresCompatibilities[0]",
        definition(json!({"requiresCompatibilities": ["FARGATE"]}), json!({})),
    );
}

#[test]
fn a_default_runtime_platform_is_accepted() {
    let platform = |value: Value| definition(json!({"runtimePlatform": value}), json!({}));
    accepted(platform(json!({"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"})));
    refused("runtimePlatform.cpuArchitecture", platform(json!({"cpuArchitecture": "ARM64"})));
    refused(
        "runtimePlatform.operatingSystemFamily",
        platform(json!({"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"})),
    );
}

#[test]
fn log_drivers_are_accepted_with_their_options() {
    let with = |configuration: Value| definition(json!({}), json!({ "logConfiguration": configuration }));
    accepted(with(json!({"logDriver": "json-file", "options": {}})));
    accepted(with(json!({"logDriver": "json-file", "options": {"max-size": "1m", "max-file": "2"}})));
    accepted(with(json!({"logDriver": "none"})));
    accepted(with(json!({"logDriver": "journald", "options": {"tag": "{{.Name}}"}, "secretOptions": []})));
    accepted(with(json!({"logDriver": "syslog", "options": {"syslog-address": "udp://127.0.0.1:514"}})));
    accepted(with(json!({"logDriver": "fluentd", "options": {"fluentd-address": "127.0.0.1:24224"}})));
    accepted(with(json!({"logDriver": "http", "options": {"http-url": "https://logs.example/in"}})));
    let at = |member: &str| format!("containerDefinitions[0].logConfiguration.{member}");
    refused(&at("options.max-sise"), with(json!({"logDriver": "json-file", "options": {"max-sise": "1m"}})));
    refused(&at("logDriver"), with(json!({"logDriver": "awsfirelens"})));
    refused(&at("logDriver"), with(json!({"options": {}})));
    let secret = json!([{"name": "a", "valueFrom": "b"}]);
    refused(&at("secretOptions"), with(json!({"logDriver": "syslog", "secretOptions": secret})));
}

mod properties {
    use super::*;
    use lighter_model::task_definition::support::{Shape, members_of};
    use proptest::prelude::*;

    /// JSON that often looks like a definition: names of members where names belong.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (0u64..70_000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z/.:0 ]{0,8}".prop_map(Value::from),
        ];
        let names: Vec<&str> =
            ["", "containerDefinitions[]", "volumes[]", "containerDefinitions[].portMappings[]"]
                .iter()
                .flat_map(|object| members_of(object).map(|member| member.name()))
                .collect();
        let name = prop_oneof![9 => prop::sample::select(names).prop_map(str::to_owned), 1 => "[a-z]{0,4}"];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Ports, memory and mounts that keep every rule.
    fn valid() -> impl Strategy<Value = Value> {
        let container =
            (6u64..4096, 0u32..4096, prop::option::of(any::<bool>()), 0u64..20, "[ -~]{0,20}", any::<bool>());
        let network = prop::sample::select(vec!["bridge", "host", "none"]);
        (prop::collection::vec(container, 1..10), network, any::<bool>()).prop_map(|(containers, network, limits)| {
            let list: Vec<Value> = containers
                .iter()
                .enumerate()
                .map(|(index, (memory, cpu, essential, stop, text, mount))| {
                    let port = 1000 + index;
                    json!({"name": format!("c{index}"), "image": "r/i:1", "memory": memory, "memoryReservation": 6,
                           "cpu": cpu, "essential": if index == 0 { Some(true) } else { *essential },
                           "stopTimeout": stop, "command": [text], "environment": [{"name": "X", "value": text}],
                           "portMappings": if network == "none" { json!([]) } else { json!([{"containerPort": port}]) },
                           "mountPoints": if *mount { json!([{"sourceVolume": "v", "containerPath": "/v"}]) } else { json!(null) }})
                })
                .collect();
            json!({"family": "f", "networkMode": network, "containerDefinitions": list,
                   "cpu": limits.then_some("64 vCPU"), "memory": limits.then_some("64 GB"), "volumes": [{"name": "v"}]})
        })
    }

    proptest! {
        #[test]
        fn random_json_never_panics(value in tree()) {
            if let Ok(definition) = parse(&value.to_string()) {
                prop_assert_eq!(parse(&to_json(&definition)), Ok(definition));
            }
        }

        #[test]
        fn random_text_never_panics(text in "[{}\\[\\]\",:a-z0-9 \\\\]{0,80}") {
            prop_assert!(parse(&text).is_err());
        }

        #[test]
        fn a_valid_definition_survives_the_round_trip(value in valid()) {
            let definition = parse(&value.to_string()).expect("valid");
            prop_assert_eq!(parse(&to_json(&definition)), Ok(definition));
        }

        /// Breaking one member of a good definition is noticed under the name of that member.
        #[test]
        fn a_value_of_the_wrong_shape_is_refused_by_its_name(
            member in prop::sample::select(members_of("containerDefinitions[]").collect::<Vec<_>>())
        ) {
            let wrong = match member.shape {
                Shape::Text | Shape::Name | Shape::Object => json!(["x"]),
                _ => json!({"x": 1}),
            };
            let found = error(definition(json!({}), json!({member.name(): wrong})));
            let field = format!("containerDefinitions[0].{}", member.name());
            prop_assert!(found.field().starts_with(&field), "{}", found);
        }
    }
}
