//! Nodes that do as they are told, and what tests of services ask of the control plane.

use crate::fake_node::{FakeNode, FakeSession, joined, stopped_report};
use crate::support::{Running, definition_json, register, start, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tonic::transport::Channel;

pub(crate) type Admin = LighterClient<Channel>;

/// What a robot's tasks do: by image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Good,
    /// Ends before it is RUNNING.
    Bad,
    /// RUNNING, then gone.
    Crashes,
}

/// What became of its tasks.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) started: Vec<String>,
    pub(crate) stopped: Vec<String>,
}

/// A node that starts and stops what it is told to.
pub(crate) struct Robot {
    pub(crate) node: FakeNode,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) running: tokio::task::JoinHandle<()>,
}

impl Robot {
    pub(crate) async fn join(running: &Running, name: &str) -> Self {
        let node = joined(running, name).await;
        Self::connect(running, node, |_| Temper::Good).await
    }

    pub(crate) async fn join_with(running: &Running, name: &str, temper: fn(&str) -> Temper) -> Self {
        let node = joined(running, name).await;
        Self::connect(running, node, temper).await
    }

    pub(crate) async fn connect(running: &Running, node: FakeNode, temper: fn(&str) -> Temper) -> Self {
        let session = node.connect(running).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let running = tokio::spawn(obey(session, seen.clone(), temper));
        Self { node, seen, running }
    }

    pub(crate) fn started(&self) -> usize {
        self.seen.lock().unwrap().started.len()
    }
}

pub(crate) fn port_of(task: &str) -> u32 {
    30_000 + u32::from_str_radix(&task[12..15], 16).unwrap()
}

/// From the host port of a task's port 80 to that of its port 8080.
pub(crate) const ALTERNATE: u32 = 5_000;

pub(crate) fn running_report(task: &str, sequence: u64) -> v1::TaskReport {
    let binding = |container_port, host_port| v1::NetworkBinding {
        bind_ip: "0.0.0.0".into(),
        container_port,
        host_port,
        ..Default::default()
    };
    v1::TaskReport {
        task_id: task.to_owned(),
        sequence,
        last_status: v1::TaskStatus::Running.into(),
        containers: vec![v1::Container {
            name: "web".to_owned(),
            last_status: v1::ContainerStatus::Running.into(),
            network_bindings: vec![binding(80, port_of(task)), binding(8080, port_of(task) + ALTERNATE)],
            image_digest: format!("sha256:{}", "a".repeat(64)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) async fn obey(mut session: FakeSession, seen: Arc<Mutex<Seen>>, temper: fn(&str) -> Temper) {
    let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
    let mut assignments = std::mem::take(&mut session.manifest);
    // What the session before this one reported may have been lost with it.
    let mut again = true;
    loop {
        let mut reports = Vec::new();
        for assignment in assignments {
            let id = assignment.task_id.clone();
            let mut next = || {
                let sequence = sequences.entry(id.clone()).or_default();
                *sequence += 1;
                *sequence
            };
            let mut seen = seen.lock().unwrap();
            let known = seen.started.contains(&id);
            if assignment.desired_status() == v1::DesiredStatus::Stopped {
                let told = seen.stopped.contains(&id);
                if !told {
                    seen.stopped.push(id.clone());
                }
                if again || !told {
                    reports.push(stopped_report(&id, next() + 10, 0));
                }
            } else if again || !known {
                if !known {
                    seen.started.push(id.clone());
                }
                match temper(&assignment.task_definition) {
                    Temper::Good => reports.push(running_report(&id, next())),
                    Temper::Bad => reports.push(v1::TaskReport {
                        stop_code: v1::StopCode::TaskFailedToStart.into(),
                        ..stopped_report(&id, next(), 1)
                    }),
                    Temper::Crashes => {
                        reports.push(running_report(&id, next()));
                        reports.push(stopped_report(&id, next(), 1));
                    }
                }
            }
        }
        again = false;
        if !reports.is_empty() {
            session.say(FromNode::TaskReports(v1::TaskReports { reports })).await;
        }
        assignments = loop {
            match session.receive().await {
                Ok(FromControl::Assignments(new)) => break new.assignments,
                Ok(_) => {}
                Err(_) => return,
            }
        };
    }
}

pub(crate) async fn create(admin: &mut Admin, more: &str) -> v1::Service {
    let json = format!(r#"{{"serviceName":"web","taskDefinition":"web"{more}}}"#);
    admin.create_service(v1::CreateServiceRequest { json }).await.unwrap().into_inner().service.unwrap()
}

pub(crate) async fn update(admin: &mut Admin, more: &str) -> Result<v1::Service, tonic::Status> {
    let request =
        v1::UpdateServiceRequest { json: format!(r#"{{"service":"web"{more}}}"#), expected_version: 0 };
    Ok(admin.update_service(request).await?.into_inner().service.unwrap())
}

pub(crate) async fn describe(admin: &Admin) -> v1::Service {
    let request = v1::DescribeServicesRequest { services: vec!["web".into()], ..Default::default() };
    admin.clone().describe_services(request).await.unwrap().into_inner().services.remove(0)
}

/// Tasks of the service that are not STOPPED, by definition.
pub(crate) async fn tasks(admin: &Admin) -> Vec<v1::Task> {
    let request = v1::ListTasksRequest::default();
    let ids = admin.clone().list_tasks(request).await.unwrap().into_inner().task_ids;
    if ids.is_empty() {
        return Vec::new();
    }
    let request = v1::DescribeTasksRequest { tasks: ids, ..Default::default() };
    admin.clone().describe_tasks(request).await.unwrap().into_inner().tasks
}

/// Moves the clock until the service is at rest with so many tasks.
pub(crate) async fn steady(running: &Running, admin: &Admin, count: u32) -> v1::Service {
    until("the service is steady", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let service = describe(admin).await;
        let done = service.deployments[0].rollout_state() == v1::RolloutState::Completed;
        let others = service.deployments.iter().filter(|d| d.status() == v1::DeploymentStatus::Active);
        done && others.count() == 0
            && service.running_count == count
            && service.deployments[0].healthy_count == count
    })
    .await;
    describe(admin).await
}

pub(crate) fn messages(service: &v1::Service) -> Vec<&str> {
    service.events.iter().map(|event| event.message.as_str()).collect()
}

pub(crate) async fn world(nodes: usize) -> (Running, Admin, Vec<Robot>) {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let mut robots = Vec::new();
    for number in 0..nodes {
        robots.push(Robot::join(&running, &format!("node-{number}")).await);
    }
    (running, admin, robots)
}

pub(crate) async fn control(
    admin: &mut Admin,
    action: v1::DeploymentAction,
) -> Result<v1::Service, tonic::Status> {
    let request =
        v1::ControlDeploymentRequest { service: "web".into(), action: action.into(), ..Default::default() };
    Ok(admin.control_deployment(request).await?.into_inner().service.unwrap())
}

pub(crate) async fn drain(admin: &mut Admin, node: &str) {
    let request = v1::UpdateContainerInstancesStateRequest {
        container_instances: vec![node.to_owned()],
        status: v1::ContainerInstanceStatus::Draining.into(),
        ..Default::default()
    };
    admin.update_container_instances_state(request).await.unwrap();
}
