//! Services over a real control plane and nodes that do as they are told: kept up, rolled, rolled back,
//! scaled, drained, replaced.

use crate::fake_node::joined;
use crate::robot::{
    ALTERNATE, Robot, Seen, Temper, control, create, describe, drain, messages, obey, port_of, steady, tasks,
    update, world,
};
use crate::support::{Running, definition_json, reason, register, start, start_with, until};
use lighter_proto::v1;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

#[tokio::test]
async fn an_update_rolls_within_its_bounds_and_pins_nothing_of_the_last_one() {
    let (running, mut admin, _robots) = world(2).await;
    create(&mut admin, r#","desiredCount":4,"deploymentConfiguration":{"maximumPercent":150}"#).await;
    steady(&running, &admin, 4).await;
    register(&mut admin, &definition_json("web", 20, 6, None)).await;
    let watcher = admin.clone();
    let most = tokio::spawn(async move {
        let mut most = 0;
        loop {
            let service = describe(&watcher).await;
            most = most.max(service.running_count + service.pending_count);
            let healthy: u32 = service.deployments.iter().map(|d| d.healthy_count).sum();
            assert!(healthy >= 4, "{service:?}");
            if service.deployments.len() == 2
                && service.deployments[0].rollout_state() == v1::RolloutState::Completed
            {
                return most;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let updated = update(&mut admin, r#","taskDefinition":"web""#).await.unwrap();
    assert_eq!((updated.task_definition.as_str(), updated.deployments.len()), ("web:2", 2));
    let service = steady(&running, &admin, 4).await;
    assert_eq!(most.await.unwrap(), 6);
    assert!(tasks(&admin).await.iter().all(|task| task.task_definition == "web:2"));
    assert!(messages(&service).iter().any(|m| m.ends_with("deployment completed.")));
    // The same again is no deployment; by force it is.
    assert_eq!(update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap().deployments.len(), 2);
    update(&mut admin, r#","forceNewDeployment":true"#).await.unwrap();
    let service = steady(&running, &admin, 4).await;
    assert_eq!(service.deployments.len(), 3);
    let stale = v1::UpdateServiceRequest {
        json: r#"{"service":"web","desiredCount":1}"#.to_owned(),
        expected_version: service.version + 1,
    };
    assert_eq!(reason(&admin.update_service(stale).await.unwrap_err()), "SERVICE_CHANGED");
}

#[tokio::test]
async fn a_bad_revision_is_rolled_back_by_the_breaker() {
    let (running, mut admin, _) = world(0).await;
    let temper = |definition: &str| match definition {
        "web:2" => Temper::Bad,
        "web:3" => Temper::Crashes,
        _ => Temper::Good,
    };
    let _robot = Robot::join_with(&running, "node", temper).await;
    let breaker = r#","desiredCount":2,"deploymentConfiguration":{"deploymentCircuitBreaker":
        {"enable":true,"rollback":true}}"#;
    create(&mut admin, breaker).await;
    steady(&running, &admin, 2).await;
    for bad in ["web:2", "web:3"] {
        register(&mut admin, &definition_json("web", 10, 6, None)).await;
        update(&mut admin, &format!(r#","taskDefinition":"{bad}""#)).await.unwrap();
        until("it is rolled back", async || {
            running.clock_ahead_ms.fetch_add(200, Ordering::Relaxed);
            !describe(&admin).await.deployments[0].rollback_of.is_empty()
        })
        .await;
        let service = steady(&running, &admin, 2).await;
        let failed = &service.deployments[1];
        assert_eq!(
            (failed.rollout_state(), failed.task_definition.as_str()),
            (v1::RolloutState::Failed, bad)
        );
        assert!(failed.failed_tasks >= 3, "{failed:?}");
        assert_eq!(service.deployments[0].rollback_of, failed.id);
        assert_eq!(service.task_definition, "web:1");
        let told = messages(&service);
        assert!(told.iter().any(|m| m.ends_with("deployment failed: tasks failed to start.")), "{told:?}");
        assert!(tasks(&admin).await.iter().all(|task| task.task_definition == "web:1"));
    }
}

#[tokio::test]
async fn a_deployment_is_paused_resumed_rolled_back_and_superseded() {
    let (running, mut admin, _robots) = world(1).await;
    create(&mut admin, r#","desiredCount":2"#).await;
    steady(&running, &admin, 2).await;
    let refused = control(&mut admin, v1::DeploymentAction::Pause).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_DEPLOYMENT");
    register(&mut admin, &definition_json("web", 20, 6, None)).await;
    update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    let paused = control(&mut admin, v1::DeploymentAction::Pause).await.unwrap();
    assert_eq!(paused.deployments[0].rollout_state(), v1::RolloutState::Paused);
    // What stops meanwhile is replaced by what ran before.
    let victim = tasks(&admin).await.into_iter().find(|task| task.task_definition == "web:1").unwrap();
    admin.stop_task(v1::StopTaskRequest { task: victim.task_id, ..Default::default() }).await.unwrap();
    until("two run", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let service = describe(&admin).await;
        service.deployments.iter().map(|d| d.healthy_count).sum::<u32>() == service.running_count
            && tasks(&admin).await.len() as u32 == service.running_count
            && service.running_count == 2
    })
    .await;
    control(&mut admin, v1::DeploymentAction::Resume).await.unwrap();
    steady(&running, &admin, 2).await;
    register(&mut admin, &definition_json("web", 30, 6, None)).await;
    update(&mut admin, r#","taskDefinition":"web:3""#).await.unwrap();
    let back = control(&mut admin, v1::DeploymentAction::Rollback).await.unwrap();
    assert_eq!(back.deployments[1].rollout_state(), v1::RolloutState::RolledBack);
    assert_eq!(steady(&running, &admin, 2).await.task_definition, "web:2");
    update(&mut admin, r#","taskDefinition":"web:3""#).await.unwrap();
    let again = update(&mut admin, r#","taskDefinition":"web:1""#).await.unwrap();
    assert_eq!(again.deployments[1].rollout_state(), v1::RolloutState::Superseded);
    assert_eq!(steady(&running, &admin, 2).await.task_definition, "web:1");
    assert!(tasks(&admin).await.iter().all(|task| task.task_definition == "web:1"));
}

#[tokio::test]
async fn a_draining_node_is_emptied_and_protection_is_waited_for() {
    let (running, mut admin, robots) = world(2).await;
    create(&mut admin, r#","desiredCount":4"#).await;
    steady(&running, &admin, 4).await;
    let on = |tasks: &[v1::Task], node: &Robot| {
        let here = tasks.iter().filter(|task| task.container_instance_id == node.node.id);
        here.map(|task| task.task_id.clone()).collect::<Vec<_>>()
    };
    let kept = on(&tasks(&admin).await, &robots[0]).remove(0);
    let request = v1::UpdateTaskProtectionRequest {
        tasks: vec![kept.clone()],
        protection_enabled: true,
        ..Default::default()
    };
    let answer = admin.update_task_protection(request.clone()).await.unwrap().into_inner();
    assert!(answer.protected_tasks[0].protection_enabled, "{answer:?}");
    drain(&mut admin, &robots[0].node.id).await;
    until("all but the protected one are gone", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        on(&tasks(&admin).await, &robots[0]) == [kept.clone()]
    })
    .await;
    let service = describe(&admin).await;
    assert!(messages(&service).iter().any(|m| m.contains("is protected")), "{:?}", messages(&service));
    let request = v1::UpdateTaskProtectionRequest { protection_enabled: false, ..request };
    admin.update_task_protection(request).await.unwrap();
    steady(&running, &admin, 4).await;
    assert_eq!(on(&tasks(&admin).await, &robots[1]).len(), 4);
}

#[tokio::test]
async fn a_silent_node_s_tasks_are_replaced_and_stopped_when_it_returns() {
    let running = start_with(|config| config.heartbeat_interval_ms = 1_000).await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let lost = Robot::join(&running, "lost").await;
    create(&mut admin, r#","desiredCount":2,"nodeSilence":{"replace":true,"lostAfterSeconds":5}"#).await;
    until("two run", async || describe(&admin).await.running_count == 2).await;
    lost.running.abort();
    let other = joined(&running, "other").await;
    let session = other.connect(&running).await.unwrap();
    let beating = session.beats(Duration::from_millis(250));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let obeying = tokio::spawn(obey(session, seen.clone(), |_| Temper::Good));
    until("they run elsewhere", async || {
        let service = describe(&admin).await;
        seen.lock().unwrap().started.len() == 2 && service.running_count == 2
    })
    .await;
    // It still has them.
    let held = |task: &String| v1::HeldTask { task_id: task.clone(), generation: 1, ..Default::default() };
    let mut node = lost.node.clone();
    node.held = lost.seen.lock().unwrap().started.iter().map(held).collect();
    let back = node.connect(&running).await.unwrap();
    let wanted = |status| back.manifest.iter().filter(|a| a.desired_status() == status).count();
    assert_eq!((wanted(v1::DesiredStatus::Stopped), wanted(v1::DesiredStatus::Running)), (2, 0));
    beating.abort();
    obeying.abort();
}

#[tokio::test]
async fn a_control_plane_that_starts_again_goes_on_with_the_deployment() {
    let (mut running, mut admin, robots) = world(1).await;
    create(&mut admin, r#","desiredCount":3"#).await;
    steady(&running, &admin, 3).await;
    register(&mut admin, &definition_json("web", 20, 6, None)).await;
    update(&mut admin, r#","taskDefinition":"web:2""#).await.unwrap();
    until("it has begun", async || robots[0].started() > 3).await;
    running = running.restart().await;
    let admin = running.admin().await;
    let mut node = robots[0].node.clone();
    node.run_id = "another".to_owned();
    robots[0].running.abort();
    let session = node.connect(&running).await.unwrap();
    let obeying = tokio::spawn(obey(session, robots[0].seen.clone(), |_| Temper::Good));
    let service = steady(&running, &admin, 3).await;
    assert_eq!(service.task_definition, "web:2");
    assert!(tasks(&admin).await.iter().all(|task| task.task_definition == "web:2"));
    obeying.abort();
}

#[tokio::test]
async fn endpoints_are_the_running_tasks_and_one_leaves_before_it_stops() {
    let running = start().await;
    let mut admin = running.admin().await;
    let with_port = definition_json("web", 10, 6, None)
        .replace(r#""essential":true"#, r#""essential":true,"portMappings":[{"containerPort":80}]"#);
    register(&mut admin, &with_port).await;
    let robot = Robot::join(&running, "node").await;
    create(&mut admin, r#","desiredCount":2,"deregistrationDelaySeconds":3600"#).await;
    let request = v1::WatchEndpointsRequest { service: "web".into(), ..Default::default() };
    let mut lists = admin.watch_endpoints(request).await.unwrap().into_inner();
    let mut last = 0;
    let mut next = async |count: usize| loop {
        let wait = tokio::time::timeout(crate::support::PATIENCE, lists.message());
        let list = wait.await.expect("a list").unwrap().unwrap();
        assert!(list.sequence > last);
        last = list.sequence;
        if list.endpoints.len() == count {
            break list.endpoints;
        }
    };
    let both = next(2).await;
    for endpoint in &both {
        assert_eq!(endpoint.port, port_of(&endpoint.task_id));
        assert_eq!(endpoint.address, "127.0.0.1");
    }
    steady(&running, &admin, 2).await;
    update(&mut admin, r#","desiredCount":1"#).await.unwrap();
    let one = next(1).await;
    let gone = both.iter().find(|endpoint| endpoint.task_id != one[0].task_id).unwrap();
    let task = crate::support::describe_task(&mut admin, &gone.task_id).await;
    assert_eq!(task.desired_status(), v1::DesiredStatus::Running, "it is not stopped yet");
    running.clock_ahead_ms.fetch_add(3_600_000, Ordering::Relaxed);
    until("it is stopped", async || robot.seen.lock().unwrap().stopped.contains(&gone.task_id)).await;
}

#[tokio::test]
async fn endpoints_go_on_when_the_next_revision_has_its_port_elsewhere() {
    let running = start().await;
    let mut admin = running.admin().await;
    let with_ports = |ports: &str| {
        let members = format!(r#""essential":true,"portMappings":[{ports}]"#);
        definition_json("web", 10, 6, None).replace(r#""essential":true"#, &members)
    };
    register(&mut admin, &with_ports(r#"{"containerPort":80}"#)).await;
    let _robot = Robot::join(&running, "node").await;
    create(&mut admin, r#","desiredCount":2"#).await;
    steady(&running, &admin, 2).await;
    let request = v1::WatchEndpointsRequest { service: "web".into(), ..Default::default() };
    let mut lists = admin.watch_endpoints(request).await.unwrap().into_inner();
    // What the watch has followed so far stays what is meant where there are several.
    for ports in [r#"{"containerPort":8080}"#, r#"{"containerPort":9090},{"containerPort":80}"#] {
        register(&mut admin, &with_ports(ports)).await;
        update(&mut admin, r#","taskDefinition":"web""#).await.unwrap();
        let all_new = async {
            loop {
                let wait = tokio::time::timeout(crate::support::PATIENCE, lists.message());
                let list = wait.await.expect("a list").unwrap().unwrap().endpoints;
                assert!(list.len() >= 2, "{list:?}");
                let elsewhere = if ports.contains("8080") { ALTERNATE } else { 0 };
                if list.iter().all(|endpoint| endpoint.port == port_of(&endpoint.task_id) + elsewhere) {
                    break list.len();
                }
            }
        };
        let (left, _) = tokio::join!(all_new, steady(&running, &admin, 2));
        assert_eq!(left, 2);
    }
}

#[tokio::test]
async fn a_daemon_is_on_every_matching_node_and_leaves_a_draining_one_last() {
    let (running, mut admin, robots) = world(2).await;
    create(&mut admin, r#","schedulingStrategy":"DAEMON""#).await;
    let service = steady(&running, &admin, 2).await;
    assert_eq!(service.desired_count, 2);
    assert!(robots.iter().all(|robot| robot.started() == 1));
    let third = Robot::join(&running, "node-2").await;
    steady(&running, &admin, 3).await;
    assert_eq!(third.started(), 1);
    // On a node that drains it waits for the others.
    let run = crate::support::run_request("web:1", 6);
    let others = admin.run_task(run).await.unwrap().into_inner().tasks;
    drain(&mut admin, &third.node.id).await;
    running.clock_ahead_ms.fetch_add(5_000, Ordering::Relaxed);
    steady_count(&running, &admin, 2).await;
    assert!(third.seen.lock().unwrap().stopped.is_empty());
    for task in others.iter().filter(|task| task.container_instance_id == third.node.id) {
        let task = task.task_id.clone();
        admin.stop_task(v1::StopTaskRequest { task, ..Default::default() }).await.unwrap();
    }
    let service = steady(&running, &admin, 2).await;
    assert_eq!(service.desired_count, 2);
}

#[tokio::test]
async fn a_daemon_reaches_a_node_behind_many_that_have_no_room() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let mut full = Vec::new();
    for number in 0..10 {
        let mut node = joined(&running, &format!("full-{number}")).await;
        node.resources.memory_mib = 4;
        full.push(Robot::connect(&running, node, |_| Temper::Good).await);
    }
    let last = Robot::join(&running, "last").await;
    create(&mut admin, r#","schedulingStrategy":"DAEMON""#).await;
    until("it is on the last", async || last.started() == 1).await;
    assert!(full.iter().all(|robot| robot.started() == 0));
    let service = describe(&admin).await;
    assert_eq!(service.desired_count, 11);
    let told = messages(&service)
        .iter()
        .any(|message| message.contains("RESOURCE:MEMORY") || message.contains("insufficient memory"));
    assert!(told, "{:?}", messages(&service));
}

/// Moves the clock until so many are wanted.
async fn steady_count(running: &Running, admin: &crate::robot::Admin, count: u32) {
    until("so many are wanted", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        describe(admin).await.desired_count == count
    })
    .await;
}

#[tokio::test]
async fn tasks_move_to_a_node_that_comes() {
    let (running, mut admin, _robots) = world(1).await;
    create(&mut admin, r#","desiredCount":4"#).await;
    steady(&running, &admin, 4).await;
    let second = Robot::join(&running, "second").await;
    until("two have moved", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let tasks = tasks(&admin).await;
        let there = tasks.iter().filter(|task| task.container_instance_id == second.node.id);
        tasks.len() == 4 && there.count() == 2
    })
    .await;
    steady(&running, &admin, 4).await;
    assert_eq!(second.started(), 2);
}
