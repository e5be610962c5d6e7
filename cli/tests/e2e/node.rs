//! A node with a real session over mTLS that does what it is told and runs nothing.
//! In: a control plane. Out: reports; every container is RUNNING and, if it is checked, HEALTHY at once.

use super::control_plane::Cluster;
use super::program::lighter;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_client::NodeClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// Joins and follows its assignments until the control plane ends.
pub fn join(cluster: &Cluster, name: &str) {
    let control = cluster.tls_endpoint();
    let token = cluster.run(&["token", "create", "-q"]).out.trim().to_owned();
    let folder = cluster.folder.path().join(name);
    let mut join = lighter();
    join.args(["agent", "join", &control, "--token", &token, "--name", name, "--data-dir"]).arg(&folder);
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
        let reports = assignments.into_iter().filter(|assignment| !assignment.forget);
        let reports = reports.map(|assignment| report(assignment, sequence)).collect();
        say(FromNode::TaskReports(v1::TaskReports { reports })).await;
    }
}

/// What is asked for is so.
fn report(assignment: v1::Assignment, sequence: u64) -> v1::TaskReport {
    let stopped = assignment.desired_status() == v1::DesiredStatus::Stopped;
    let (last_status, container, health) = match stopped {
        true => (v1::TaskStatus::Stopped, v1::ContainerStatus::Stopped, v1::HealthStatus::Unknown),
        false => (v1::TaskStatus::Running, v1::ContainerStatus::Running, v1::HealthStatus::Healthy),
    };
    let container = v1::Container {
        name: "web".to_owned(),
        last_status: container.into(),
        image_digest: format!("sha256:{}", "a".repeat(64)),
        health: Some(v1::ContainerHealth { status: health.into(), ..Default::default() }),
        ..Default::default()
    };
    v1::TaskReport {
        task_id: assignment.task_id,
        sequence,
        last_status: last_status.into(),
        containers: vec![container],
        ..Default::default()
    }
}
