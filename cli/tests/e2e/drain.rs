//! A node is drained and comes back, by the commands a person types, against a real control plane and
//! a node with a real session over mTLS that does what it is told and runs nothing.

use super::control_plane::Cluster;
use super::program::{lighter, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_client::NodeClient;
use lighter_proto::v1::node_message::Message as FromNode;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// Joins as `n1` and follows its assignments until the control plane ends.
fn node(cluster: &Cluster) {
    let control = cluster.tls_endpoint();
    let token = cluster.run(&["token", "create", "-q"]).out.trim().to_owned();
    let folder = cluster.folder.path().join("node");
    let mut join = lighter();
    join.args(["agent", "join", &control, "--token", &token, "--name", "n1", "--data-dir"]).arg(&folder);
    assert!(join.output().unwrap().status.success());
    let pem = std::fs::read_to_string(folder.join("node.pem")).unwrap();
    let tls = ClientTlsConfig::new()
        .domain_name("control.lighter.internal")
        .ca_certificate(Certificate::from_pem(&pem))
        .identity(Identity::from_pem(&pem, &pem));
    let channel = Channel::from_shared(control).unwrap().tls_config(tls).unwrap();
    cluster.runtime.spawn(async move { obey(channel.connect().await.unwrap()).await });
}

async fn obey(channel: Channel) {
    let (out, messages) = mpsc::channel(64);
    let say = async |message| out.send(v1::NodeMessage { message: Some(message) }).await.unwrap();
    let resources = v1::Resources { cpu_units: 1024, memory_mib: 1024, ..Default::default() };
    say(FromNode::Hello(v1::NodeHello {
        protocol: Some(v1::ProtocolRange { min: 1, max: 1 }),
        agent_run_id: "one".to_owned(),
        state: Some(v1::NodeState { resources: Some(resources), ..Default::default() }),
        ..Default::default()
    }))
    .await;
    let answers = NodeClient::new(channel).session(ReceiverStream::new(messages)).await.unwrap();
    let (mut answers, mut sequence) = (answers.into_inner(), 0);
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    loop {
        let message = tokio::select! {
            message = answers.message() => message,
            _ = beat.tick() => {
                say(FromNode::Heartbeat(v1::Heartbeat { number: 1 })).await;
                continue;
            }
        };
        let Ok(Some(message)) = message else { return };
        let assignments = match message.message {
            Some(FromControl::Manifest(manifest)) => manifest.assignments,
            Some(FromControl::Assignments(delta)) => delta.assignments,
            _ => continue,
        };
        sequence += 1;
        let reports = assignments.into_iter().filter(|assignment| !assignment.forget).map(|assignment| {
            let last_status = match assignment.desired_status() {
                v1::DesiredStatus::Stopped => v1::TaskStatus::Stopped,
                _ => v1::TaskStatus::Running,
            };
            let last_status = last_status.into();
            v1::TaskReport { task_id: assignment.task_id, sequence, last_status, ..Default::default() }
        });
        say(FromNode::TaskReports(v1::TaskReports { reports: reports.collect() })).await;
    }
}

fn shown(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.run(&["node", "show", "n1", "-o", "json"]).out).unwrap()
}

#[test]
fn a_drained_node_is_empty_gets_nothing_and_comes_back() {
    let cluster = Cluster::start();
    node(&cluster);
    until("the node is there", || shown(&cluster)["status"] == "ACTIVE");
    let ran = cluster.run(&["run", &cluster.web()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    until("the task runs", || shown(&cluster)["runningTasksCount"] == 1);
    let drained = cluster.run(&["node", "drain", "n1", "--reason", "a new kernel", "--stop-tasks", "--wait"]);
    assert_eq!(drained.code, 0, "{}", drained.err);
    let after = shown(&cluster);
    assert_eq!((&after["status"], &after["runningTasksCount"]), (&"DRAINING".into(), &0.into()));
    assert_eq!(after["statusReason"], "a new kernel");
    assert_ne!(cluster.run(&["run", "web"]).code, 0, "nowhere else to go");
    assert_eq!(cluster.run(&["node", "activate", "n1"]).code, 0);
    assert_eq!(shown(&cluster)["status"], "ACTIVE");
    assert_eq!(cluster.run(&["run", "web"]).code, 0);
    assert_eq!(cluster.run(&["node", "drain", "n2"]).code, 4, "no such node");
}
