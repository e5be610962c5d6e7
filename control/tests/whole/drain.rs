//! Draining: by a person, by a notice; placement passes such nodes over; tasks stop only when asked.

use crate::fake_node::{FakeNode, FakeSession, joined, report, stopped_report};
use crate::support::{
    Running, definition_json, describe_instance, describe_task, reason, register, run_request, start, until,
};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_message::Message as FromNode;
use std::sync::atomic::Ordering;
use tonic::transport::Channel;

async fn world() -> (Running, LighterClient<Channel>, FakeNode, FakeSession) {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, None)).await;
    let node = joined(&running, "node").await;
    let mut hello = node.hello();
    hello.features = vec!["instance-state".to_owned()];
    let session = node.connect_saying(&running, hello).await.unwrap();
    (running, admin, node, session)
}

async fn run(admin: &mut LighterClient<Channel>, group: &str) -> String {
    let request = v1::RunTaskRequest { group: group.to_owned(), ..run_request("web", 1) };
    admin.run_task(request).await.unwrap().into_inner().tasks[0].task_id.clone()
}

fn drain() -> v1::UpdateContainerInstancesStateRequest {
    v1::UpdateContainerInstancesStateRequest {
        container_instances: vec!["node".to_owned()],
        status: v1::ContainerInstanceStatus::Draining.into(),
        ..Default::default()
    }
}

fn activate() -> v1::UpdateContainerInstancesStateRequest {
    v1::UpdateContainerInstancesStateRequest { status: v1::ContainerInstanceStatus::Active.into(), ..drain() }
}

async fn instance_state(session: &mut FakeSession) -> v1::InstanceState {
    loop {
        if let FromControl::InstanceState(state) = session.receive().await.unwrap() {
            return state;
        }
    }
}

async fn desired(admin: &mut LighterClient<Channel>, task: &str) -> v1::DesiredStatus {
    describe_task(admin, task).await.desired_status()
}

#[tokio::test]
async fn a_draining_node_gets_no_tasks_keeps_its_own_and_comes_back() {
    let (running, mut admin, _node, mut session) = world().await;
    assert_eq!(instance_state(&mut session).await.status(), v1::ContainerInstanceStatus::Active);
    let task = run(&mut admin, "").await;
    let reason = "kernel update".to_owned();
    let request = v1::UpdateContainerInstancesStateRequest { reason, ..drain() };
    let answer = admin.update_container_instances_state(request).await.unwrap().into_inner();
    assert_eq!(answer.container_instances[0].status(), v1::ContainerInstanceStatus::Draining);
    assert_eq!(answer.container_instances[0].status_reason, "kernel update");
    let told = instance_state(&mut session).await;
    assert_eq!(
        (told.status(), told.reason.as_str()),
        (v1::ContainerInstanceStatus::Draining, "kernel update")
    );
    let refused = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    assert_eq!(refused.failures[0].reason, "No Container Instances were found in your cluster.");
    assert_eq!(
        desired(&mut admin, &task).await,
        v1::DesiredStatus::Running,
        "standalone tasks are left alone"
    );
    let running = running.restart().await;
    let mut admin = running.admin().await;
    assert_eq!(describe_instance(&mut admin, "node").await.status(), v1::ContainerInstanceStatus::Draining);
    admin.update_container_instances_state(activate()).await.unwrap();
    let node = describe_instance(&mut admin, "node").await;
    assert_eq!((node.status(), node.status_reason.as_str()), (v1::ContainerInstanceStatus::Active, ""));
}

#[tokio::test]
async fn tasks_stop_at_the_deadline_daemons_last() {
    let (running, mut admin, _node, mut session) = world().await;
    let (daemon, other) = (run(&mut admin, "daemon:logs").await, run(&mut admin, "").await);
    let both = [&daemon, &other].map(|task| report(task, 1, v1::TaskStatus::Running));
    session.report(both.into()).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let request = v1::UpdateContainerInstancesStateRequest {
        stop_tasks: true,
        deadline_unix_ms: now + 600_000,
        ..drain()
    };
    admin.update_container_instances_state(request).await.unwrap();
    assert_eq!(desired(&mut admin, &other).await, v1::DesiredStatus::Running);
    running.clock_ahead_ms.store(600_001, Ordering::Relaxed);
    let at = admin.clone();
    until("the other is to stop", || async {
        desired(&mut at.clone(), &other).await == v1::DesiredStatus::Stopped
    })
    .await;
    assert_eq!(desired(&mut admin, &daemon).await, v1::DesiredStatus::Running, "the daemon is last");
    session.report(vec![stopped_report(&other, 2, 0)]).await;
    until("the daemon is to stop", || async {
        desired(&mut at.clone(), &daemon).await == v1::DesiredStatus::Stopped
    })
    .await;
    let stopped = describe_task(&mut admin, &daemon).await;
    assert!(
        stopped.stopped_reason.starts_with("Container instance is draining"),
        "{}",
        stopped.stopped_reason
    );
}

#[tokio::test]
async fn a_notice_drains_its_node_once_and_its_end_gives_it_back() {
    let (_running, mut admin, node, mut session) = world().await;
    let task = run(&mut admin, "").await;
    let notice = v1::Notice {
        id: "spot-1".to_owned(),
        kind: v1::NoticeKind::SpotInterruption.into(),
        at_unix_ms: 4_000_000_000_000,
        detail: "terminate".to_owned(),
        stop_tasks_at_unix_ms: 1,
    };
    let state = |notices| {
        FromNode::NodeState(v1::NodeState {
            resources: Some(node.resources.clone()),
            notices,
            ..Default::default()
        })
    };
    session.say(state(vec![notice.clone()])).await;
    let at = admin.clone();
    let status = || async { describe_instance(&mut at.clone(), "node").await.status() };
    until("it drains", || async { status().await == v1::ContainerInstanceStatus::Draining }).await;
    let shown = describe_instance(&mut admin, "node").await;
    assert_eq!(shown.status_reason, "Notice of spot interruption: terminate");
    until("its task is to stop", || async {
        desired(&mut at.clone(), &task).await == v1::DesiredStatus::Stopped
    })
    .await;
    assert_eq!(describe_task(&mut admin, &task).await.stop_code(), v1::StopCode::SpotInterruption);
    // A person's word stands against a notice that is not new.
    admin.update_container_instances_state(activate()).await.unwrap();
    session.say(state(vec![notice])).await;
    session.say(FromNode::Heartbeat(v1::Heartbeat { number: 1 })).await;
    while !matches!(session.receive().await.unwrap(), FromControl::HeartbeatAnswer(_)) {}
    assert_eq!(status().await, v1::ContainerInstanceStatus::Active);
    let planned = v1::Notice {
        id: "reboot".to_owned(),
        kind: v1::NoticeKind::Maintenance.into(),
        ..Default::default()
    };
    session.say(state(vec![planned])).await;
    until("it drains again", || async { status().await == v1::ContainerInstanceStatus::Draining }).await;
    session.say(state(Vec::new())).await;
    until("it is given back", || async { status().await == v1::ContainerInstanceStatus::Active }).await;
}

#[tokio::test]
async fn what_cannot_be_drained_is_refused_by_name() {
    let (_running, mut admin, _node, _session) = world().await;
    let request = v1::UpdateContainerInstancesStateRequest {
        container_instances: vec!["nobody".to_owned()],
        ..drain()
    };
    let answer = admin.update_container_instances_state(request).await.unwrap().into_inner();
    assert_eq!(answer.failures[0].reason, "MISSING");
    let refusals = [
        v1::UpdateContainerInstancesStateRequest { status: 0, ..drain() },
        v1::UpdateContainerInstancesStateRequest { container_instances: Vec::new(), ..drain() },
        v1::UpdateContainerInstancesStateRequest { stop_tasks: true, ..activate() },
    ];
    for request in refusals {
        let refused = admin.update_container_instances_state(request).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_PARAMETER");
    }
}

/// A node's answer to a change of pause or limits.
fn settled(task: &str, sequence: u64, generation: u64, paused: bool, refusal: &str) -> v1::TaskReport {
    let refusal = refusal.to_owned();
    let settled_generation = generation;
    v1::TaskReport { settled_generation, refusal, paused, ..report(task, sequence, v1::TaskStatus::Running) }
}

#[tokio::test]
async fn what_a_node_refuses_is_taken_back_and_what_it_settles_is_counted() {
    let (_running, mut admin, _node, mut session) = world().await;
    let task = run(&mut admin, "").await;
    session.assignments().await;
    session.report(vec![report(&task, 1, v1::TaskStatus::Running)]).await;
    let update = |memory_mib| v1::UpdateTaskRequest {
        task: task.clone(),
        memory_mib: Some(memory_mib),
        ..Default::default()
    };
    admin.update_task(update(32)).await.unwrap();
    assert_eq!(session.assignments().await[0].container_resources[0].memory_mib, Some(32));
    assert_eq!(describe_task(&mut admin, &task).await.memory_mib, 64, "the larger until it is settled");
    session.report(vec![settled(&task, 2, 2, false, "")]).await;
    assert_eq!(describe_task(&mut admin, &task).await.memory_mib, 32);
    admin.update_task(update(16)).await.unwrap();
    session.assignments().await;
    session.report(vec![settled(&task, 3, 3, false, "16 MiB is below what it uses")]).await;
    let back = session.assignments().await;
    assert_eq!((back[0].container_resources[0].memory_mib, back[0].generation), (Some(32), 4));
    session.report(vec![settled(&task, 4, 4, false, "")]).await;
    let shown = describe_task(&mut admin, &task).await;
    assert_eq!((shown.memory_mib, shown.refusal.as_str()), (32, "16 MiB is below what it uses"));
    let pause = v1::PauseTaskRequest { task: task.clone(), ..Default::default() };
    admin.pause_task(pause).await.unwrap();
    assert!(session.assignments().await[0].paused);
    let wanted = describe_task(&mut admin, &task).await;
    assert_eq!((wanted.paused, wanted.paused_on_node, wanted.refusal.as_str()), (true, false, ""));
    session.report(vec![settled(&task, 5, 5, true, "")]).await;
    assert!(describe_task(&mut admin, &task).await.paused_on_node);
}
