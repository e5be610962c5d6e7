//! Services and their nodes: where tasks may go, what a drain with a deadline and a notice do, and what a
//! store that was set back does with tasks it does not know.

use crate::fake_node::{FakeNode, joined};
use crate::robot::{
    Admin, Robot, Seen, Temper, create, describe, messages, obey, steady, tasks, update, world,
};
use crate::support::{Running, definition_json, reason, register, run_request, start, until};
use lighter_proto::v1;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// A node with an attribute.
async fn node_in(running: &Running, name: &str, attribute: &str, value: &str) -> Robot {
    let node = joined(running, name).await;
    let attribute =
        v1::Attribute { name: attribute.to_owned(), value: value.to_owned(), ..Default::default() };
    let mut hello = node.hello();
    hello.state.as_mut().unwrap().attributes.push(attribute);
    let session = node.connect_saying(running, hello).await.unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let obeying = tokio::spawn(obey(session, seen.clone(), |_| Temper::Good));
    Robot { node, seen, running: obeying }
}

async fn placed(admin: &Admin, node: &FakeNode) -> usize {
    tasks(admin).await.iter().filter(|task| task.container_instance_id == node.id).count()
}

#[tokio::test]
async fn tasks_go_where_constraints_let_them_and_spread_over_zones() {
    let (running, mut admin, _) = world(0).await;
    let zone = "ecs.availability-zone";
    let (a1, a2) = (node_in(&running, "a1", zone, "a").await, node_in(&running, "a2", zone, "a").await);
    let b = node_in(&running, "b", zone, "b").await;
    create(&mut admin, r#","desiredCount":4"#).await;
    steady(&running, &admin, 4).await;
    let on = [placed(&admin, &a1.node).await, placed(&admin, &a2.node).await, placed(&admin, &b.node).await];
    assert_eq!(on, [1, 1, 2], "zones first, then instances");
    // Scale in keeps it even.
    update(&mut admin, r#","desiredCount":2"#).await.unwrap();
    steady(&running, &admin, 2).await;
    assert_eq!(placed(&admin, &b.node).await, 1);
    // What is asked of the place from now on counts for new tasks.
    let only_a = r#","placementConstraints":[{"type":"memberOf","expression":"attribute:ecs.availability-zone == a"},
        {"type":"distinctInstance"}],"desiredCount":3,"forceNewDeployment":true,
        "deploymentConfiguration":{"minimumHealthyPercent":0}"#;
    update(&mut admin, only_a).await.unwrap();
    until("one on each of zone a, and nothing elsewhere", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let service = describe(&admin).await;
        let on =
            [placed(&admin, &a1.node).await, placed(&admin, &a2.node).await, placed(&admin, &b.node).await];
        on == [1, 1, 0] && service.running_count == 2
    })
    .await;
    let told = describe(&admin).await;
    assert!(messages(&told).iter().any(|m| m.contains("unable to place a task")), "{:?}", messages(&told));
    update(&mut admin, r#","desiredCount":2"#).await.unwrap();
    steady(&running, &admin, 2).await;
}

#[tokio::test]
async fn the_group_of_a_service_is_the_service_s_own() {
    let (_running, mut admin, robots) = world(1).await;
    let run = v1::RunTaskRequest { group: "service:web".to_owned(), ..run_request("web", 1) };
    assert_eq!(reason(&admin.run_task(run).await.unwrap_err()), "INVALID_PARAMETER");
    let start = v1::StartTaskRequest {
        task_definition: "web".to_owned(),
        container_instances: vec![robots[0].node.id.clone()],
        group: "service:other".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(&admin.start_task(start).await.unwrap_err()), "INVALID_PARAMETER");
    // Why the service's next task goes where it goes, or that of one it has, is no such task.
    create(&mut admin, r#","desiredCount":1"#).await;
    let of_service = v1::ExplainPlacementRequest { service: "web".to_owned(), ..Default::default() };
    admin.explain_placement(of_service).await.unwrap();
    until("it has a task", async || !tasks(&admin).await.is_empty()).await;
    let task = tasks(&admin).await.remove(0).task_id;
    let of_task = v1::ExplainPlacementRequest { task, ..Default::default() };
    admin.explain_placement(of_task).await.unwrap();
}

#[tokio::test]
async fn a_service_has_tags_until_it_is_inactive() {
    let (running, mut admin, _robots) = world(1).await;
    let made = create(&mut admin, r#","desiredCount":1,"tags":[{"key":"team","value":"a"}]"#).await;
    steady(&running, &admin, 1).await;
    let resource = "arn:aws:ecs:eu-west-1:0:service/default/web".to_owned();
    let tags = vec![v1::Tag { key: "env".to_owned(), value: "test".to_owned() }];
    admin.tag_resource(v1::TagResourceRequest { resource: resource.clone(), tags }).await.unwrap();
    let list = v1::ListTagsForResourceRequest { resource: "service/default/web".to_owned() };
    let listed = admin.list_tags_for_resource(list.clone()).await.unwrap().into_inner().tags;
    assert_eq!(listed.iter().map(|tag| tag.key.as_str()).collect::<Vec<_>>(), ["env", "team"]);
    let tag_keys = vec!["team".to_owned()];
    admin.untag_resource(v1::UntagResourceRequest { resource, tag_keys }).await.unwrap();
    let service = describe(&admin).await;
    assert_eq!((service.tags.len(), service.version), (1, made.version), "what is deployed is the same");
    let delete = v1::DeleteServiceRequest { service: "web".into(), force: true, ..Default::default() };
    admin.delete_service(delete).await.unwrap();
    until("it is INACTIVE", async || describe(&admin).await.status() == v1::ServiceStatus::Inactive).await;
    let refused = admin.list_tags_for_resource(list).await.unwrap_err();
    assert_eq!(reason(&refused), "SERVICE_NOT_ACTIVE");
}

fn draining(node: &FakeNode, deadline_unix_ms: i64) -> v1::UpdateContainerInstancesStateRequest {
    v1::UpdateContainerInstancesStateRequest {
        container_instances: vec![node.id.clone()],
        status: v1::ContainerInstanceStatus::Draining.into(),
        deadline_unix_ms,
        stop_tasks: true,
        ..Default::default()
    }
}

fn now_ms(running: &Running) -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis() as i64 + running.clock_ahead_ms.load(Ordering::Relaxed) as i64
}

/// Tasks of a service on a node with their state, the DAEMON's apart.
async fn on_node(admin: &Admin, node: &FakeNode) -> (Vec<v1::Task>, Vec<v1::Task>) {
    let here = tasks(admin).await.into_iter().filter(|task| task.container_instance_id == node.id);
    here.partition(|task| !task.group.starts_with("daemon:"))
}

#[tokio::test]
async fn a_drain_with_a_deadline_moves_what_it_can_before_and_ends_the_rest_the_daemon_last() {
    let (running, mut admin, robots) = world(2).await;
    let daemon = r#"{"serviceName":"logs","taskDefinition":"web","schedulingStrategy":"DAEMON"}"#;
    admin.create_service(v1::CreateServiceRequest { json: daemon.to_owned() }).await.unwrap();
    create(&mut admin, r#","desiredCount":4"#).await;
    steady(&running, &admin, 4).await;
    let kept = on_node(&admin, &robots[0].node).await.0.remove(0).task_id;
    let protect = v1::UpdateTaskProtectionRequest {
        tasks: vec![kept.clone()],
        protection_enabled: true,
        ..Default::default()
    };
    admin.update_task_protection(protect).await.unwrap();
    let deadline = now_ms(&running) + 600_000;
    admin.update_container_instances_state(draining(&robots[0].node, deadline)).await.unwrap();
    until("the others have moved ahead of the deadline", async || {
        running.clock_ahead_ms.fetch_add(500, Ordering::Relaxed);
        let (left, daemons) = on_node(&admin, &robots[0].node).await;
        assert_eq!(daemons.len(), 1, "the daemon goes last");
        left.iter().map(|task| &task.task_id).eq([&kept])
    })
    .await;
    assert!(now_ms(&running) < deadline);
    assert!(describe(&admin).await.running_count >= 4, "what is protected is doubled ahead, not lost");
    running.clock_ahead_ms.store(running.clock_ahead_ms.load(Ordering::Relaxed) + 600_000, Ordering::Relaxed);
    until("nothing is left", async || {
        let (left, daemons) = on_node(&admin, &robots[0].node).await;
        assert!(left.is_empty() || daemons.len() == 1, "the daemon goes last");
        left.is_empty() && daemons.is_empty()
    })
    .await;
    steady(&running, &admin, 4).await;
    let ended = crate::support::describe_task(&mut admin, &kept).await;
    assert!(ended.stopped_reason.starts_with("Container instance is draining"), "{}", ended.stopped_reason);
}

#[tokio::test]
async fn a_spot_notice_starts_replacements_ahead_of_the_interruption() {
    let (running, mut admin, robots) = world(1).await;
    let spot = joined(&running, "spot").await;
    let mut session = spot.connect(&running).await.unwrap();
    let seen = Arc::new(Mutex::new(Seen::default()));
    create(&mut admin, r#","desiredCount":2"#).await;
    let first = session.assignments().await;
    session.manifest = first;
    let mut state = spot.hello().state.unwrap();
    let at_unix_ms = now_ms(&running) + 120_000;
    state.notices = vec![v1::Notice {
        id: "one".to_owned(),
        kind: v1::NoticeKind::SpotInterruption.into(),
        at_unix_ms,
        stop_tasks_at_unix_ms: at_unix_ms - 30_000,
        ..Default::default()
    }];
    session.say(lighter_proto::v1::node_message::Message::NodeState(state)).await;
    let obeying = tokio::spawn(obey(session, seen.clone(), |_| Temper::Good));
    let service = steady(&running, &admin, 2).await;
    assert!(now_ms(&running) < at_unix_ms - 30_000, "long before");
    assert_eq!((placed(&admin, &robots[0].node).await, placed(&admin, &spot).await), (2, 0));
    assert!(messages(&service).iter().all(|message| !message.contains("unable")), "{:?}", messages(&service));
    obeying.abort();
}

/// Tells of tasks of the service that this store does not know.
async fn returns_with(
    running: &Running,
    node: &FakeNode,
    orphans: &[String],
) -> crate::fake_node::FakeSession {
    let held = |task: &String| v1::HeldTask {
        task_id: task.clone(),
        generation: 3,
        last_status: v1::TaskStatus::Running.into(),
        task_definition: "web:1".to_owned(),
        resources: Some(v1::Resources { cpu_units: 10, memory_mib: 6, ..Default::default() }),
        group: "service:web".to_owned(),
    };
    let mut node = node.clone();
    node.incarnation = "another".to_owned();
    node.held = orphans.iter().map(held).collect();
    let hello = v1::NodeHello { features: vec!["streams".to_owned()], ..node.hello() };
    node.connect_saying(running, hello).await.unwrap()
}

#[tokio::test]
async fn a_store_that_was_set_back_starts_no_second_set_and_takes_its_tasks_back() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 10, 6, None)).await;
    let (mut first, second) = (joined(&running, "first").await, joined(&running, "second").await);
    // Room for the two that it will have and no more.
    first.resources.cpu_units = 20;
    drop((first.connect(&running).await.unwrap(), second.connect(&running).await.unwrap()));
    create(&mut admin, r#","desiredCount":0"#).await;
    // The service as it was before it had tasks.
    let running = crate::recovery::restored(running).await;
    let mut admin = running.admin().await;
    update(&mut admin, r#","desiredCount":3"#).await.unwrap();
    let (kept, ended) = ("0".repeat(31) + "7", "0".repeat(31) + "8");
    let mut session = returns_with(&running, &first, &[kept.clone(), ended.clone()]).await;
    // The second node may hold some, too: nothing starts until it has said so.
    assert!(tasks(&admin).await.is_empty());
    let robot = returns_with(&running, &second, &[]).await;
    let obeying = tokio::spawn(obey(robot, Arc::default(), |_| Temper::Good));
    until("one that is missing runs", async || {
        tasks(&admin).await.iter().any(|task| task.last_status() == v1::TaskStatus::Running)
    })
    .await;
    // Only now: the seconds after which it counts as healthy begin when it runs.
    running.clock_ahead_ms.fetch_add(60_000, Ordering::Relaxed);
    until("it counts as healthy", async || {
        let service = describe(&admin).await;
        service.deployments[0].healthy_count == 1 && service.pending_count == 0
    })
    .await;
    assert_eq!(tasks(&admin).await.len(), 1, "the two orphans stand for two");
    let held = |task: &str| crate::recovery::held_of(task, "web:1", "service:web", 10, 6);
    let adopt = v1::AdoptOrphanRequest { task: kept.clone(), ..Default::default() };
    let asked = admin.clone();
    let adopting = tokio::spawn(async move { asked.clone().adopt_orphan(adopt).await });
    crate::recovery::answer(&running, &first, &mut session, &held(&kept)).await;
    let task = adopting.await.unwrap().unwrap().into_inner().task.unwrap();
    let service = describe(&admin).await;
    assert_eq!((task.group.as_str(), &task.started_by), ("service:web", &service.deployments[0].id));
    let stop = v1::StopOrphanRequest { task: ended.clone(), reason: "old".to_owned(), ..Default::default() };
    let asked = admin.clone();
    let stopping = tokio::spawn(async move { asked.clone().stop_orphan(stop).await });
    crate::recovery::answer(&running, &first, &mut session, &held(&ended)).await;
    stopping.await.unwrap().unwrap();
    let first_obeys = tokio::spawn(obey(session, Arc::default(), |_| Temper::Good));
    steady(&running, &admin, 3).await;
    let ids: Vec<String> = tasks(&admin).await.into_iter().map(|task| task.task_id).collect();
    assert!(ids.contains(&kept) && !ids.contains(&ended), "{ids:?}");
    obeying.abort();
    first_obeys.abort();
}
