//! Services over a real control plane and nodes that do as they are told: kept up, rolled, rolled back,
//! scaled, drained, replaced.

use crate::fake_node::{FakeNode, FakeSession, joined, stopped_report};
use crate::support::{Running, definition_json, reason, register, start, start_with, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::transport::Channel;

type Admin = LighterClient<Channel>;

/// What a robot's tasks do: by image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Good,
    /// Ends before it is RUNNING.
    Bad,
    /// RUNNING, then gone.
    Crashes,
}

/// What became of its tasks.
#[derive(Default)]
struct Seen {
    started: Vec<String>,
    stopped: Vec<String>,
}

/// A node that starts and stops what it is told to.
struct Robot {
    node: FakeNode,
    seen: Arc<Mutex<Seen>>,
    running: tokio::task::JoinHandle<()>,
}

impl Robot {
    async fn join(running: &Running, name: &str) -> Self {
        let node = joined(running, name).await;
        Self::connect(running, node, |_| Temper::Good).await
    }

    async fn join_with(running: &Running, name: &str, temper: fn(&str) -> Temper) -> Self {
        let node = joined(running, name).await;
        Self::connect(running, node, temper).await
    }

    async fn connect(running: &Running, node: FakeNode, temper: fn(&str) -> Temper) -> Self {
        let session = node.connect(running).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let running = tokio::spawn(obey(session, seen.clone(), temper));
        Self { node, seen, running }
    }

    fn started(&self) -> usize {
        self.seen.lock().unwrap().started.len()
    }
}

fn port_of(task: &str) -> u32 {
    30_000 + u32::from_str_radix(&task[12..15], 16).unwrap()
}

fn running_report(task: &str, sequence: u64) -> v1::TaskReport {
    let binding = v1::NetworkBinding {
        bind_ip: "0.0.0.0".into(),
        container_port: 80,
        host_port: port_of(task),
        ..Default::default()
    };
    v1::TaskReport {
        task_id: task.to_owned(),
        sequence,
        last_status: v1::TaskStatus::Running.into(),
        containers: vec![v1::Container {
            name: "web".to_owned(),
            last_status: v1::ContainerStatus::Running.into(),
            network_bindings: vec![binding],
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn obey(mut session: FakeSession, seen: Arc<Mutex<Seen>>, temper: fn(&str) -> Temper) {
    let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
    let mut assignments = std::mem::take(&mut session.manifest);
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
                if !seen.stopped.contains(&id) {
                    seen.stopped.push(id.clone());
                    reports.push(stopped_report(&id, next() + 10, 0));
                }
            } else if !known {
                seen.started.push(id.clone());
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

async fn create(admin: &mut Admin, more: &str) -> v1::Service {
    let json = format!(r#"{{"serviceName":"web","taskDefinition":"web"{more}}}"#);
    admin.create_service(v1::CreateServiceRequest { json }).await.unwrap().into_inner().service.unwrap()
}

async fn update(admin: &mut Admin, more: &str) -> Result<v1::Service, tonic::Status> {
    let request =
        v1::UpdateServiceRequest { json: format!(r#"{{"service":"web"{more}}}"#), expected_version: 0 };
    Ok(admin.update_service(request).await?.into_inner().service.unwrap())
}

async fn describe(admin: &Admin) -> v1::Service {
    let request = v1::DescribeServicesRequest { services: vec!["web".into()], ..Default::default() };
    admin.clone().describe_services(request).await.unwrap().into_inner().services.remove(0)
}

/// Tasks of the service that are not STOPPED, by definition.
async fn tasks(admin: &Admin) -> Vec<v1::Task> {
    let request = v1::ListTasksRequest::default();
    let ids = admin.clone().list_tasks(request).await.unwrap().into_inner().task_ids;
    if ids.is_empty() {
        return Vec::new();
    }
    let request = v1::DescribeTasksRequest { tasks: ids, ..Default::default() };
    admin.clone().describe_tasks(request).await.unwrap().into_inner().tasks
}

/// Moves the clock until the service is at rest with so many tasks.
async fn steady(running: &Running, admin: &Admin, count: u32) -> v1::Service {
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

fn messages(service: &v1::Service) -> Vec<&str> {
    service.events.iter().map(|event| event.message.as_str()).collect()
}

async fn world(nodes: usize) -> (Running, Admin, Vec<Robot>) {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let mut robots = Vec::new();
    for number in 0..nodes {
        robots.push(Robot::join(&running, &format!("node-{number}")).await);
    }
    (running, admin, robots)
}

#[tokio::test]
async fn a_service_reaches_its_steady_state_scales_and_is_deleted() {
    let (running, mut admin, robots) = world(2).await;
    let made = create(&mut admin, r#","desiredCount":3"#).await;
    assert_eq!((made.status(), made.desired_count), (v1::ServiceStatus::Active, 3));
    let service = steady(&running, &admin, 3).await;
    let started = [robots[0].started(), robots[1].started()];
    assert_eq!(started.iter().sum::<usize>(), 3);
    assert!(started.iter().all(|count| *count >= 1), "spread over the nodes: {started:?}");
    assert!(messages(&service).contains(&"(service web) has reached a steady state."));
    let task = tasks(&admin).await.remove(0);
    assert_eq!(task.group, "service:web");
    assert_eq!(task.started_by, service.deployments[0].id);
    assert!(task.started_by.starts_with("ecs-svc/") && task.started_by.len() == 27, "{}", task.started_by);
    // One that somebody stops is replaced.
    admin.stop_task(v1::StopTaskRequest { task: task.task_id, ..Default::default() }).await.unwrap();
    until("it is replaced", async || robots[0].started() + robots[1].started() == 4).await;
    steady(&running, &admin, 3).await;
    update(&mut admin, r#","desiredCount":5"#).await.unwrap();
    steady(&running, &admin, 5).await;
    update(&mut admin, r#","desiredCount":1"#).await.unwrap();
    let service = steady(&running, &admin, 1).await;
    assert!(messages(&service).iter().any(|m| m.starts_with("(service web) has stopped")));
    assert_eq!(service.deployments.len(), 1);
    let delete = |force| v1::DeleteServiceRequest { service: "web".into(), force, ..Default::default() };
    assert_eq!(reason(&admin.delete_service(delete(false)).await.unwrap_err()), "SERVICE_SCALED");
    admin.delete_service(delete(true)).await.unwrap();
    until("it is INACTIVE", async || describe(&admin).await.status() == v1::ServiceStatus::Inactive).await;
    assert!(tasks(&admin).await.is_empty());
    assert_eq!(reason(&update(&mut admin, "").await.unwrap_err()), "SERVICE_NOT_ACTIVE");
    create(&mut admin, r#","desiredCount":1"#).await;
    steady(&running, &admin, 1).await;
}
