//! Services whose tasks have a health check: who is left alone for how long, and who is replaced.
//! In: reports of a node that does what a test says. Out: verdicts.

use crate::fake_node::{FakeSession, joined, report, stopped_report};
use crate::robot::{Admin, create, describe, messages, update};
use crate::support::{describe_task, register, start, until};
use lighter_proto::v1;
use std::sync::atomic::Ordering;

const CHECKED: &str = r#"{"family":"web","containerDefinitions":[{"name":"web","image":"registry.test/web:1",
    "cpu":10,"memory":6,"essential":true,"healthCheck":{"command":["CMD","true"]}}]}"#;

/// A RUNNING task whose container is judged so.
fn judged(task: &str, sequence: u64, status: v1::HealthStatus) -> v1::TaskReport {
    let health = v1::ContainerHealth { status: status.into(), ..Default::default() };
    let container = v1::Container {
        name: "web".to_owned(),
        last_status: v1::ContainerStatus::Running.into(),
        essential: true,
        health: Some(health),
        ..Default::default()
    };
    v1::TaskReport { containers: vec![container], ..report(task, sequence, v1::TaskStatus::Running) }
}

/// The next assignment that is wanted so.
async fn next(session: &mut FakeSession, wanted: v1::DesiredStatus) -> v1::Assignment {
    loop {
        let mut found = session.assignments().await.into_iter().filter(|a| a.desired_status() == wanted);
        if let Some(assignment) = found.next() {
            return assignment;
        }
    }
}

async fn healthy(admin: &Admin) -> u32 {
    describe(admin).await.deployments[0].healthy_count
}

fn failed_checks(service: &v1::Service, task: &str) -> bool {
    messages(service)
        .contains(&format!("(service web) (task {task}) failed container health checks.").as_str())
}

#[tokio::test]
async fn an_unhealthy_task_is_left_alone_in_its_grace_period_and_replaced_after_it() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, CHECKED).await;
    let mut session = joined(&running, "node").await.connect(&running).await.unwrap();
    create(&mut admin, r#","desiredCount":1,"healthCheckGracePeriodSeconds":600"#).await;
    let first = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    session.report(vec![judged(&first, 1, v1::HealthStatus::Unhealthy)]).await;
    assert_eq!(describe_task(&mut admin, &first).await.health_status(), v1::HealthStatus::Unhealthy);
    running.clock_ahead_ms.fetch_add(500_000, Ordering::Relaxed);
    // Another task shows that the service has been looked at since.
    update(&mut admin, r#","desiredCount":2"#).await.unwrap();
    let second = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    session.report(vec![judged(&second, 1, v1::HealthStatus::Healthy)]).await;
    until("the second is healthy", async || healthy(&admin).await == 1).await;
    let left = describe_task(&mut admin, &first).await;
    assert_eq!(left.desired_status(), v1::DesiredStatus::Running, "it is in its grace period");
    assert!(!failed_checks(&describe(&admin).await, &first));

    running.clock_ahead_ms.fetch_add(100_000, Ordering::Relaxed);
    // The maximum allows it: another is started before it stops.
    let third = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    session.report(vec![judged(&third, 1, v1::HealthStatus::Healthy)]).await;
    let stopped = next(&mut session, v1::DesiredStatus::Stopped).await.task_id;
    assert_eq!(stopped, first);
    let gone = describe_task(&mut admin, &first).await;
    assert_eq!(gone.stop_code(), v1::StopCode::ServiceSchedulerInitiated);
    assert_eq!(gone.stopped_reason, "Task failed container health checks");
    assert!(failed_checks(&describe(&admin).await, &first));
    session.report(vec![stopped_report(&first, 2, 0)]).await;
    until("it is steady", async || {
        let service = describe(&admin).await;
        service.running_count == 2
            && service.deployments[0].healthy_count == 2
            && service.deployments[0].rollout_state() == v1::RolloutState::Completed
    })
    .await;
}

#[tokio::test]
async fn a_task_that_gets_healthy_in_its_grace_period_stays() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, CHECKED).await;
    let mut session = joined(&running, "node").await.connect(&running).await.unwrap();
    create(&mut admin, r#","desiredCount":1,"healthCheckGracePeriodSeconds":600"#).await;
    let task = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    session.report(vec![judged(&task, 1, v1::HealthStatus::Unknown)]).await;
    running.clock_ahead_ms.fetch_add(60_000, Ordering::Relaxed);
    // Forty seconds count only for tasks that nobody asks how they do.
    session.report(vec![judged(&task, 2, v1::HealthStatus::Unhealthy)]).await;
    assert_eq!(healthy(&admin).await, 0);
    session.report(vec![judged(&task, 3, v1::HealthStatus::Healthy)]).await;
    until("it is steady", async || {
        describe(&admin).await.deployments[0].rollout_state() == v1::RolloutState::Completed
    })
    .await;
    running.clock_ahead_ms.fetch_add(600_000, Ordering::Relaxed);
    // The period was after its start, not at any time: now it is replaced.
    session.report(vec![judged(&task, 4, v1::HealthStatus::Unhealthy)]).await;
    let other = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    assert_ne!(other, task);
}

#[tokio::test]
async fn who_has_a_health_check_is_on_the_list_of_endpoints_while_it_is_healthy() {
    let running = start().await;
    let mut admin = running.admin().await;
    let ports = r#""essential":true,"portMappings":[{"containerPort":80}]"#;
    register(&mut admin, &CHECKED.replace(r#""essential":true"#, ports)).await;
    let mut session = joined(&running, "node").await.connect(&running).await.unwrap();
    let grace = r#","desiredCount":1,"healthCheckGracePeriodSeconds":600"#;
    create(&mut admin, grace).await;
    let task = next(&mut session, v1::DesiredStatus::Running).await.task_id;
    let request = v1::WatchEndpointsRequest { service: "web".into(), ..Default::default() };
    let mut lists = admin.watch_endpoints(request).await.unwrap().into_inner();
    let mut list = async || {
        let wait = tokio::time::timeout(crate::support::PATIENCE, lists.message());
        let endpoints = wait.await.expect("a list").unwrap().unwrap().endpoints;
        endpoints.into_iter().map(|endpoint| (endpoint.task_id, endpoint.port)).collect::<Vec<_>>()
    };
    assert!(list().await.is_empty(), "the first list is the present one");
    let binding = crate::robot::running_report(&task, 0).containers.remove(0).network_bindings;
    let mut sequence = 0;
    let mut judge = async |status| {
        sequence += 1;
        let mut report = judged(&task, sequence, status);
        report.containers[0].network_bindings = binding.clone();
        session.report(vec![report]).await;
    };
    // Neither changes the list: the next one is that of a healthy task.
    judge(v1::HealthStatus::Unknown).await;
    judge(v1::HealthStatus::Unhealthy).await;
    judge(v1::HealthStatus::Healthy).await;
    let listed = vec![(task.clone(), crate::robot::port_of(&task))];
    assert_eq!(list().await, listed);
    judge(v1::HealthStatus::Unhealthy).await;
    assert!(list().await.is_empty(), "also in its grace period: nobody is to ask it");
    judge(v1::HealthStatus::Healthy).await;
    assert_eq!(list().await, listed);
}
