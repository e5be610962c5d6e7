//! Tasks of services that stay where they are: protected for a while, or of a service that is not rebalanced.
//! In: robots on a control plane. Out: verdicts.

use crate::robot::{Admin, Robot, create, steady, tasks, update, world};
use crate::support::{definition_json, reason, register, until};
use lighter_proto::v1;
use std::sync::atomic::Ordering;

const MINUTE_MS: i64 = 60_000;

/// Protects a task for so many minutes: until when.
async fn protect(admin: &mut Admin, task: &str, minutes: u32) -> Result<i64, tonic::Status> {
    let request = v1::UpdateTaskProtectionRequest {
        tasks: vec![task.to_owned()],
        protection_enabled: true,
        expires_in_minutes: minutes,
        ..Default::default()
    };
    let answer = admin.update_task_protection(request).await?.into_inner();
    assert!(answer.failures.is_empty(), "{answer:?}");
    Ok(answer.protected_tasks[0].expires_at_unix_ms)
}

#[tokio::test]
async fn a_protected_task_outlives_scale_in_and_a_deployment_until_its_time_is_over() {
    let (running, mut admin, _robots) = world(1).await;
    create(&mut admin, r#","desiredCount":2"#).await;
    steady(&running, &admin, 2).await;
    let kept = tasks(&admin).await.remove(0).task_id;
    let longest = protect(&mut admin, &kept, 48 * 60).await.unwrap();
    assert_eq!(reason(&protect(&mut admin, &kept, 48 * 60 + 1).await.unwrap_err()), "INVALID_PARAMETER");
    let unsaid = protect(&mut admin, &kept, 0).await.unwrap();
    let between = (longest - unsaid) / MINUTE_MS;
    assert!((46 * 60 - 5..=46 * 60).contains(&between), "two hours unless said otherwise: {between}");

    update(&mut admin, r#","desiredCount":0"#).await.unwrap();
    let ids = async || -> Vec<String> { tasks(&admin).await.into_iter().map(|t| t.task_id).collect() };
    until("only it is left", async || ids().await == [kept.clone()]).await;
    register(&mut admin.clone(), &definition_json("web", 20, 6, None)).await;
    update(&mut admin.clone(), r#","taskDefinition":"web:2","desiredCount":2"#).await.unwrap();
    until("two of the next revision are healthy beside it", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        crate::robot::describe(&admin).await.deployments[0].healthy_count == 2
    })
    .await;
    assert!(ids().await.contains(&kept), "it is of the old revision and one too many");
    running.clock_ahead_ms.fetch_add(120 * MINUTE_MS as u64, Ordering::Relaxed);
    let service = steady(&running, &admin, 2).await;
    assert_eq!(service.task_definition, "web:2");
    assert!(!ids().await.contains(&kept));
}

#[tokio::test]
async fn a_service_that_is_not_to_be_rebalanced_stays_where_it_is() {
    let (running, mut admin, robots) = world(1).await;
    create(&mut admin, r#","desiredCount":4,"availabilityZoneRebalancing":"DISABLED""#).await;
    let json = r#"{"serviceName":"moves","taskDefinition":"web","desiredCount":4}"#.to_owned();
    admin.create_service(v1::CreateServiceRequest { json }).await.unwrap();
    steady(&running, &admin, 4).await;
    let second = Robot::join(&running, "second").await;
    let on = async |group: &str, node: &Robot| {
        let all = tasks(&admin).await.into_iter();
        all.filter(|task| task.group == group && task.container_instance_id == node.node.id).count()
    };
    until("two of the other service have moved", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let (here, there) = (on("service:moves", &robots[0]).await, on("service:moves", &second).await);
        assert!(here + there >= 4, "one starts before one stops: {here} and {there}");
        (here, there) == (2, 2)
    })
    .await;
    assert_eq!((on("service:web", &robots[0]).await, on("service:web", &second).await), (4, 0));
    // Once it is to be, it is.
    update(&mut admin.clone(), r#","availabilityZoneRebalancing":"ENABLED""#).await.unwrap();
    until("two of it have moved as well", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        (on("service:web", &robots[0]).await, on("service:web", &second).await) == (2, 2)
    })
    .await;
}
