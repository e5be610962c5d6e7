//! Services while two things happen to them at once: an update during a rollback, another count during a
//! drain, a deletion during a deployment, and a revision that cannot run with nobody to give it up.
//! Nothing here moves the clock before both are under way: a task without a health check counts as healthy
//! after 40 s only, so that what is under way stays so.

use crate::robot::{
    Admin, Robot, Temper, control, create, describe, drain, messages, steady, tasks, update, world,
};
use crate::support::{definition_json, describe_instance, reason, register, until};
use lighter_proto::v1;
use std::sync::atomic::Ordering;

fn states(service: &v1::Service) -> Vec<(&str, v1::RolloutState)> {
    service.deployments.iter().map(|d| (d.task_definition.as_str(), d.rollout_state())).collect()
}

#[tokio::test]
async fn an_update_during_a_rollback_takes_its_place() {
    use v1::RolloutState::{Completed, Failed, InProgress, Superseded};
    let (running, mut admin, _) = world(0).await;
    let temper = |definition: &str| if definition == "web:2" { Temper::Bad } else { Temper::Good };
    let _robot = Robot::join_with(&running, "node", temper).await;
    // All of one revision stop before one of the next starts: the rollback has two tasks to start anew.
    let settings = r#","desiredCount":2,"deploymentConfiguration":{"minimumHealthyPercent":0,
        "maximumPercent":100,"deploymentCircuitBreaker":{"enable":true,"rollback":true}}"#;
    create(&mut admin, settings).await;
    steady(&running, &admin, 2).await;
    for _ in 2..=3 {
        register(&mut admin, &definition_json("web", 10, 6, None)).await;
    }
    update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    until("it rolls back", async || {
        let back = !describe(&admin).await.deployments[0].rollback_of.is_empty();
        running.clock_ahead_ms.fetch_add(if back { 0 } else { 200 }, Ordering::Relaxed);
        back
    })
    .await;
    let before = describe(&admin).await;
    assert_eq!(states(&before), [("web:1", InProgress), ("web:2", Failed), ("web:1", Completed)]);
    let updated = update(&mut admin, r#","taskDefinition":"web:3""#).await.unwrap();
    assert_eq!(states(&updated)[..2], [("web:3", InProgress), ("web:1", Superseded)]);
    assert_eq!(updated.deployments[1].id, before.deployments[0].id);
    let service = steady(&running, &admin, 2).await;
    assert_eq!(states(&service)[..3], [("web:3", Completed), ("web:1", Superseded), ("web:2", Failed)]);
    assert!(tasks(&admin).await.iter().all(|task| task.task_definition == "web:3"));
    // From now on one goes back to this, not to what the rollback was to bring.
    update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    let back = control(&mut admin, v1::DeploymentAction::Rollback).await.unwrap();
    assert_eq!(back.task_definition, "web:3");
    steady(&running, &admin, 2).await;
}

async fn on(admin: &Admin, node: &Robot) -> usize {
    tasks(admin).await.iter().filter(|task| task.container_instance_id == node.node.id).count()
}

/// Begins to drain a node with so many tasks, which stay until others are healthy.
async fn begin_to_drain(admin: &mut Admin, node: &Robot, count: usize) {
    drain(admin, &node.node.id).await;
    let status = describe_instance(admin, &node.node.id).await.status();
    assert_eq!(status, v1::ContainerInstanceStatus::Draining);
    assert_eq!(on(admin, node).await, count, "nothing healthy has taken their place");
}

#[tokio::test]
async fn another_count_during_a_drain_is_reached_on_the_nodes_that_stay() {
    let (running, mut admin, robots) = world(2).await;
    create(&mut admin, r#","desiredCount":4,"availabilityZoneRebalancing":"DISABLED""#).await;
    steady(&running, &admin, 4).await;
    begin_to_drain(&mut admin, &robots[0], 2).await;
    let more = update(&mut admin, r#","desiredCount":6"#).await.unwrap();
    assert_eq!((more.desired_count, more.version), (6, 2));
    steady(&running, &admin, 6).await;
    assert_eq!((on(&admin, &robots[0]).await, on(&admin, &robots[1]).await), (0, 6));

    let back = v1::UpdateContainerInstancesStateRequest {
        container_instances: vec![robots[0].node.id.clone()],
        status: v1::ContainerInstanceStatus::Active.into(),
        ..Default::default()
    };
    admin.update_container_instances_state(back).await.unwrap();
    begin_to_drain(&mut admin, &robots[1], 6).await;
    update(&mut admin, r#","desiredCount":2"#).await.unwrap();
    until("two are on the node that came back, none on the one that drains", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let healthy: u32 = describe(&admin).await.deployments.iter().map(|d| d.healthy_count).sum();
        assert!(healthy >= 2, "never below the minimum of the new count: {healthy}");
        (on(&admin, &robots[0]).await, on(&admin, &robots[1]).await) == (2, 0)
    })
    .await;
    steady(&running, &admin, 2).await;
}

#[tokio::test]
async fn a_service_deleted_during_a_deployment_stops_all_and_its_name_is_free_again() {
    let (running, mut admin, robots) = world(1).await;
    let delayed = r#","desiredCount":3,"deregistrationDelaySeconds":3600"#;
    create(&mut admin, delayed).await;
    steady(&running, &admin, 3).await;
    register(&mut admin, &definition_json("web", 20, 6, None)).await;
    update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    until("tasks of both revisions run", async || describe(&admin).await.running_count == 6).await;
    let delete = v1::DeleteServiceRequest { service: "web".into(), force: true, ..Default::default() };
    let deleted = admin.delete_service(delete.clone()).await.unwrap().into_inner().service.unwrap();
    assert_eq!(deleted.status(), v1::ServiceStatus::Draining);
    assert_eq!(deleted.deployments[0].rollout_state(), v1::RolloutState::Superseded);
    // Its tasks have left the list of endpoints for an hour before they stop.
    let told = "has begun draining connections on 6 tasks";
    until("all leave", async || messages(&describe(&admin).await).iter().any(|m| m.contains(told))).await;
    assert_eq!(reason(&update(&mut admin, "").await.unwrap_err()), "SERVICE_NOT_ACTIVE");
    let refused = control(&mut admin, v1::DeploymentAction::Rollback).await.unwrap_err();
    assert_eq!(reason(&refused), "SERVICE_NOT_ACTIVE");
    let json = format!(r#"{{"serviceName":"web","taskDefinition":"web"{delayed}}}"#);
    let again = v1::CreateServiceRequest { json };
    assert_eq!(reason(&admin.create_service(again).await.unwrap_err()), "SERVICE_DRAINING");
    admin.delete_service(delete).await.unwrap();
    running.clock_ahead_ms.fetch_add(3_600_000, Ordering::Relaxed);
    until("it is INACTIVE", async || describe(&admin).await.status() == v1::ServiceStatus::Inactive).await;
    assert!(tasks(&admin).await.is_empty());
    assert_eq!((robots[0].started(), robots[0].seen.lock().unwrap().stopped.len()), (6, 6));
    assert_eq!(describe(&admin).await.deployments[0].rollout_state(), v1::RolloutState::Superseded);
    create(&mut admin, r#","desiredCount":1"#).await;
    let service = steady(&running, &admin, 1).await;
    assert_eq!((service.task_definition.as_str(), service.deployments.len()), ("web:2", 1));
}

/// When tasks of a revision were made and had stopped, in milliseconds since the Unix epoch, the oldest first.
async fn ended(admin: &Admin, definition: &str) -> Vec<(i64, i64)> {
    let request =
        v1::ListTasksRequest { desired_status: v1::DesiredStatus::Stopped.into(), ..Default::default() };
    let ids = admin.clone().list_tasks(request).await.unwrap().into_inner().task_ids;
    let request = v1::DescribeTasksRequest { tasks: ids, ..Default::default() };
    let all = admin.clone().describe_tasks(request).await.unwrap().into_inner().tasks;
    let own = all.iter().filter(|task| task.task_definition == definition && task.stopped_at_unix_ms > 0);
    let mut times: Vec<_> = own.map(|task| (task.created_at_unix_ms, task.stopped_at_unix_ms)).collect();
    times.sort_unstable();
    times
}

#[tokio::test]
async fn a_revision_that_cannot_run_waits_longer_each_time_and_an_update_ends_the_wait() {
    const ROUNDS: usize = 7;
    for (bad, temper) in [("dies", Temper::Bad), ("crashes", Temper::Crashes)] {
        let (running, mut admin, _) = world(0).await;
        let temper_of: fn(&str) -> Temper = match temper {
            Temper::Bad => |definition| if definition == "web:2" { Temper::Bad } else { Temper::Good },
            _ => |definition| if definition == "web:2" { Temper::Crashes } else { Temper::Good },
        };
        let robot = Robot::join_with(&running, "node", temper_of).await;
        create(&mut admin, r#","desiredCount":1"#).await;
        steady(&running, &admin, 1).await;
        for _ in 2..=3 {
            register(&mut admin, &definition_json("web", 10, 6, None)).await;
        }
        update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
        until("it has failed some times", async || {
            let failed = describe(&admin).await.deployments[0].failed_tasks as usize;
            running.clock_ahead_ms.fetch_add(if failed < ROUNDS { 1_000 } else { 0 }, Ordering::Relaxed);
            failed >= ROUNDS
        })
        .await;
        let times = ended(&admin, "web:2").await;
        for (round, pair) in times.windows(2).enumerate() {
            let (waited_ms, at_least_ms) = (pair[1].0 - pair[0].1, 1_000 << round);
            assert!(waited_ms >= at_least_ms, "{bad}: {waited_ms} ms after round {round}: {times:?}");
        }
        let service = describe(&admin).await;
        let impaired = "is unable to consistently start tasks successfully.";
        let told = messages(&service).iter().filter(|message| message.ends_with(impaired)).count();
        assert_eq!(told, 1, "{:?}", messages(&service));
        // Nobody asked for a breaker: it goes on, beside the task that works.
        let deployment = &service.deployments[0];
        assert_eq!(deployment.rollout_state(), v1::RolloutState::InProgress);
        assert_eq!((deployment.failed_tasks as usize, times.len()), (ROUNDS, ROUNDS));
        assert_eq!(tasks(&admin).await.iter().filter(|task| task.task_definition == "web:1").count(), 1);
        // The next wait is longer than the patience of a test: what starts now has not waited.
        let started = robot.started();
        update(&mut admin, r#","taskDefinition":"web:3""#).await.unwrap();
        until("it starts at once", async || robot.started() == started + 1).await;
        let service = steady(&running, &admin, 1).await;
        assert_eq!(service.task_definition, "web:3");
    }
}
