//! `lighter top --once` of several nodes, against a control plane that plays a script.

use super::program::{Done, run};
use super::scripted::Scripted;
use lighter_proto::v1;

fn node(name: &str, agent_connected: bool) -> v1::ContainerInstance {
    v1::ContainerInstance {
        container_instance_id: format!("id-{name}"),
        name: name.into(),
        agent_connected,
        ..Default::default()
    }
}

/// One node's counters after so many seconds, of which half a core was used throughout.
fn sample(node: &str, containers: &[&str], at_s: u64) -> v1::StatsSample {
    let stats = |container: &&str| v1::ContainerStats {
        task_id: format!("task-of-{node}"),
        container: (*container).into(),
        container_instance_id: format!("id-{node}"),
        read_at_ns: at_s * 1_000_000_000,
        cpu_usage_ns: Some(at_s * 500_000_000),
        ..Default::default()
    };
    v1::StatsSample {
        container_instance_id: format!("id-{node}"),
        containers: containers.iter().map(stats).collect(),
        ..Default::default()
    }
}

fn once(nodes: Vec<v1::ContainerInstance>, samples: Vec<v1::StatsSample>, more: &[&str]) -> Done {
    let control = Scripted::start();
    {
        let mut state = control.state.lock().unwrap();
        (state.nodes, state.samples) = (nodes, samples);
    }
    let mut arguments = vec!["top", "--once"];
    arguments.extend(more);
    run(&control.socket(), &arguments)
}

#[test]
fn every_node_is_in_a_look_taken_once() {
    // The idle node tells first, and one node tells twice before the other tells at all.
    let samples = vec![
        sample("idle", &[], 1),
        sample("a", &["web"], 1),
        sample("a", &["web"], 3),
        sample("b", &["job"], 7),
        sample("b", &["job"], 9),
    ];
    let nodes = vec![node("idle", true), node("a", true), node("b", true), node("away", false)];
    let done = once(nodes.clone(), samples.clone(), &[]);
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
    for container in ["web", "job"] {
        let row = done.out.lines().find(|line| line.contains(container)).unwrap();
        assert!(row.contains(" 50.0 "), "{done:?}");
    }
    let done = once(nodes, samples, &["-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(shown["containers"].as_array().unwrap().len(), 2, "{done:?}");
}

#[test]
fn a_node_that_does_not_answer_is_named_and_hides_no_other() {
    let samples = vec![sample("a", &["web"], 1), sample("a", &["web"], 3)];
    let done = once(vec![node("a", true), node("mute", true)], samples, &["--interval", "200ms"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("web"), "{done:?}");
    assert!(done.err.contains("node mute has not told its counters"), "{done:?}");
}
