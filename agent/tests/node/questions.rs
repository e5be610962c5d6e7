//! What is asked of an agent over HTTP: metadata and stats from within containers, introspection and
//! numbers from the host.

use super::control::wait;
use super::world::{World, in_own_namespaces};
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::control_message::Message;
use serde_json::Value;
use std::io::{Read, Write};

/// Prints what the endpoint says, one JSON text a line.
const ASK: &str = r#"echo $ECS_CONTAINER_METADATA_URI_V4; for path in '' /task /stats /task/stats; do wget -qO- $ECS_CONTAINER_METADATA_URI_V4$path; echo; done; echo END; while :; do sleep 1; done"#;

fn definition(image: &str, mode: &str, script: &str, port: Option<u16>) -> String {
    let ports = port.map(|port| serde_json::json!([{ "containerPort": port, "hostPort": port }]));
    serde_json::json!({
        "family": "asks", "networkMode": mode, "cpu": "64", "memory": "64",
        "containerDefinitions": [{
            "name": "asks", "image": image, "memory": 32, "stopTimeout": 0,
            "dockerLabels": { "team": "blue" },
            "portMappings": ports.unwrap_or(serde_json::json!([])),
            "command": ["sh", "-c", script],
        }],
    })
    .to_string()
}

/// The lines a task has printed, once it has printed END.
fn lines(world: &World, task: &str) -> Vec<String> {
    // Before, there may be no session to ask over.
    world.control.wait_status(task, TaskStatus::Running);
    let asked = std::cell::Cell::new(0);
    wait(
        "END",
        || {
            world.control.with(|state| state.log_lines.clear());
            let ended = world.control.with(|state| state.log_streams_ended);
            let open = v1::OpenLogStream {
                stream_id: "stream-1".into(),
                task_id: task.into(),
                container: "asks".into(),
                ..Default::default()
            };
            world.control.push(Message::OpenLogStream(open));
            asked.set(asked.get() + 1);
            world.control.wait("the log", |state| (state.log_streams_ended > ended).then_some(()));
            let text = world.control.with(|state| {
                let pieces = state.log_lines.iter();
                pieces.map(|l| (String::from_utf8_lossy(&l.line).into_owned(), l.partial)).collect::<Vec<_>>()
            });
            let mut lines = vec![String::new()];
            for (piece, partial) in text {
                lines.last_mut().unwrap().push_str(&piece);
                if !partial {
                    lines.push(String::new());
                }
            }
            lines.contains(&"END".to_owned()).then_some(lines)
        },
        || format!("asked {} times: {:?}", asked.get(), world.control.with(|state| state.log_lines.clone())),
    )
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn check_answers(lines: &[String], task: &str, mode: &str) {
    let id = lines[0].rsplit('/').next().unwrap();
    assert_eq!(lines[0], format!("http://169.254.170.2/v4/{id}"), "{lines:?}");
    let (container, whole) = (json(&lines[1]), json(&lines[2]));
    assert_eq!((container["DockerId"].as_str(), container["Name"].as_str()), (Some(id), Some("asks")));
    assert_eq!(container["Labels"]["team"], "blue");
    assert_eq!(container["Networks"][0]["NetworkMode"], mode);
    let arn = whole["TaskARN"].as_str().unwrap();
    assert!(arn.ends_with(&format!(":task/default/{task}")), "{arn}");
    assert_eq!((whole["LaunchType"].as_str(), whole["Limits"]["Memory"].as_u64()), (Some("EC2"), Some(64)));
    let (stats, all) = (json(&lines[3]), json(&lines[4]));
    assert_eq!(stats["id"], id);
    assert!(stats["memory_stats"]["usage"].as_u64().unwrap() > 0, "{stats}");
    assert_eq!(stats["memory_stats"]["limit"].as_u64(), Some(32 << 20));
    let total = |which: &str| stats[which]["cpu_usage"]["total_usage"].as_u64().unwrap();
    assert!(total("cpu_stats") >= total("precpu_stats") && total("cpu_stats") > 0, "{stats}");
    let rates = stats["network_rate_stats"]["rx_bytes_per_sec"].as_f64();
    assert_eq!(rates.is_some(), mode == "bridge", "{stats}");
    assert!(all[id]["pids_stats"]["current"].as_u64().unwrap() >= 1, "{all}");
}

#[test]
fn containers_read_their_metadata_and_nobody_elses() {
    in_own_namespaces("questions::containers_read_their_metadata_and_nobody_elses", || {
        let mut world = World::new();
        let image = world.image();
        world.control.define("bridge:1", &definition(&image, "bridge", ASK, None));
        world.control.define("host:1", &definition(&image, "host", ASK, None));
        world.start();
        let (first, host, other) = (super::FIRST, super::SECOND, "00000000000300000000000000000000");
        world.control.assign(first, "bridge:1");
        world.control.assign(host, "host:1");
        let told = lines(&world, first);
        check_answers(&told, first, "bridge");
        check_answers(&lines(&world, host), host, "host");
        // A third one asks for the first one's, and has host port 80, where the endpoint seems to be.
        let uri = told[0].clone();
        let script = format!("wget -qO- {uri} 2>&1; echo code $?; {ASK}");
        world.control.define("other:1", &definition(&image, "bridge", &script, Some(80)));
        world.control.assign(other, "other:1");
        let asked = lines(&world, other);
        assert!(asked[0].contains("404"), "another task's metadata was given: {asked:?}");
        assert_eq!(asked[1], "code 1");
        check_answers(&asked[2..], other, "bridge");
        let (status, _) = get(51678, "/v1/tasks?dockerid=0000000000000000");
        assert!(status.contains("404"), "{status}");
        let id = uri.rsplit('/').next().unwrap();
        let task = json(&get(51678, &format!("/v1/tasks?dockerid={id}")).1);
        assert!(task["Arn"].as_str().unwrap().ends_with(first), "{task}");
        assert_eq!(task["KnownStatus"], "RUNNING");
        assert_eq!(json(&get(51678, "/v1/tasks").1)["Tasks"].as_array().unwrap().len(), 3);
        assert_eq!(json(&get(51678, "/v1/metadata").1)["Cluster"], "default");
        let (_, numbers) = get(51680, "/metrics");
        for line in ["lighter_agent_tasks{status=\"RUNNING\"} 3", "lighter_agent_session_connected 1"] {
            assert!(numbers.lines().any(|found| found == line), "{line} is not in\n{numbers}");
        }
        let memory =
            format!("lighter_container_memory_bytes{{task=\"{first}\",container=\"asks\",family=\"asks\"}}");
        assert!(numbers.contains(&memory), "{memory} is not in\n{numbers}");
        assert!(numbers.contains("lighter_agent_step_seconds_count{step=\"start\"} 3"), "{numbers}");
        for task in [first, host, other] {
            world.control.stop(task, "");
            world.control.wait_status(task, TaskStatus::Stopped);
        }
        world.assert_nothing_left();
    });
}
