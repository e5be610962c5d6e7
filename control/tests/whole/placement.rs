//! RunTask by constraints and strategies, dryRun, overrides down to the assignment, StartTask, scores on request.

use crate::fake_node::{FakeSession, joined};
use crate::support::{Running, definition_json, reason, register, run_request, start, start_with};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use tonic::transport::Channel;

/// Three connected nodes, `n0` to `n2`, in the zones a, a and b.
async fn three(running: &Running) -> (LighterClient<Channel>, Vec<String>, Vec<FakeSession>) {
    let mut admin = running.admin().await;
    let (mut ids, mut sessions) = (Vec::new(), Vec::new());
    for (name, zone) in [("n0", "a"), ("n1", "a"), ("n2", "b")] {
        let mut node = joined(running, name).await;
        node.resources = v1::Resources { cpu_units: 1024, memory_mib: 1024, ..Default::default() };
        let attributes = vec![v1::TargetAttribute {
            container_instance: node.id.clone(),
            name: "zone".to_owned(),
            value: zone.to_owned(),
        }];
        admin.put_attributes(v1::PutAttributesRequest { attributes, ..Default::default() }).await.unwrap();
        sessions.push(node.connect(running).await.unwrap());
        ids.push(node.id.clone());
    }
    register(&mut admin, &definition_json("web", 100, 100, None)).await;
    (admin, ids, sessions)
}

fn constraint(kind: &str, expression: &str) -> v1::PlacementConstraint {
    v1::PlacementConstraint { r#type: kind.to_owned(), expression: expression.to_owned() }
}

fn strategy(kind: &str, field: &str, expression: &str) -> v1::PlacementStrategy {
    let expression = expression.to_owned();
    v1::PlacementStrategy { r#type: kind.to_owned(), field: field.to_owned(), expression }
}

fn places(answer: &v1::RunTaskResponse) -> Vec<&str> {
    answer.tasks.iter().map(|task| task.container_instance_id.as_str()).collect()
}

#[tokio::test]
async fn constraints_and_strategies_choose_and_misses_are_explained() {
    let running = start_with(|config| config.quotas.tasks_per_run_task = 50).await;
    let (mut admin, ids, _sessions) = three(&running).await;
    let spread = v1::RunTaskRequest {
        placement_strategy: vec![strategy("spread", "attribute:zone", ""), strategy("binpack", "cpu", "")],
        ..run_request("web", 4)
    };
    let dry = v1::RunTaskRequest { dry_run: true, ..spread.clone() };
    let would = admin.run_task(dry).await.unwrap().into_inner();
    assert!(would.tasks.is_empty());
    let choices = would.explanation.unwrap().choices;
    let answer = admin.run_task(spread).await.unwrap().into_inner();
    let chosen: Vec<&str> = choices.iter().map(|choice| choice.container_instance_id.as_str()).collect();
    assert_eq!(places(&answer), chosen, "dryRun says what happens");
    assert_eq!(chosen, [&ids[0], &ids[2], &ids[0], &ids[2]]);
    assert_eq!(choices[1].scores[0], "spread attribute:zone=b: 0 tasks");

    let distinct = v1::RunTaskRequest {
        group: "g".to_owned(),
        placement_constraints: vec![
            constraint("distinctInstance", ""),
            constraint("memberOf", "attribute:zone =~ 'a|c'"),
        ],
        ..run_request("web", 3)
    };
    let answer = admin.run_task(distinct).await.unwrap().into_inner();
    assert_eq!(places(&answer), [&ids[1], &ids[0]]);
    assert!(answer.failures.iter().all(|failure| failure.reason == "ATTRIBUTE"), "{:?}", answer.failures);
    let explained = answer.explanation.unwrap();
    let filters: Vec<_> = explained.filters.iter().map(|f| (f.reason.as_str(), f.fell_out)).collect();
    assert_eq!(filters, [("memberOf(attribute:zone =~ 'a|c')", 1), ("distinctInstance", 2)]);
    assert_eq!(explained.closest_container_instance_id, ids[0]);
    assert!(explained.closest_lacks.contains("distinctInstance"), "{}", explained.closest_lacks);

    register(&mut admin, &definition_json("big", 1024, 6, None)).await;
    let answer = admin.run_task(run_request("big", 1)).await.unwrap().into_inner();
    let explained = answer.explanation.unwrap();
    let lacks = explained.closest_lacks;
    assert!(lacks.starts_with("has insufficient CPU units available (1024 needed, "), "{lacks}");
    assert_eq!(explained.filters[0].reason, "RESOURCE:CPU");

    let look_ahead = v1::RunTaskRequest {
        placement_constraints: vec![constraint("memberOf", "attribute:zone =~ '(?!a)'")],
        ..run_request("web", 1)
    };
    assert_eq!(reason(&admin.run_task(look_ahead).await.unwrap_err()), "INVALID_PARAMETER");
    let queue = Some(v1::QueueOptions { time_limit_s: u32::MAX, priority: 0 });
    let too_long = v1::RunTaskRequest { queue, ..run_request("web", 1) };
    assert_eq!(reason(&admin.run_task(too_long).await.unwrap_err()), "INVALID_PARAMETER");
    assert_eq!(admin.run_task(run_request("web", 12)).await.unwrap().into_inner().tasks.len(), 12);
}

#[tokio::test]
async fn overrides_reach_the_node_and_are_refused_by_name() {
    let running = start().await;
    let (mut admin, ids, mut sessions) = three(&running).await;
    let overrides = r#"{"containerOverrides":[{"name":"web","command":["migrate"],"cpu":900,"memory":500}]}"#;
    let request = v1::RunTaskRequest {
        overrides_json: overrides.to_owned(),
        client_token: "once".to_owned(),
        placement_constraints: vec![constraint("memberOf", "attribute:zone == b")],
        ..run_request("web", 1)
    };
    let ran = admin.run_task(request.clone()).await.unwrap().into_inner();
    assert_eq!(places(&ran), [&ids[2]]);
    let shown = crate::support::describe_instance(&mut admin, "n2").await.remaining_resources.unwrap();
    assert_eq!((shown.cpu_units, shown.memory_mib), (124, 524));
    let assigned = loop {
        let assigned = sessions[2].assignments().await;
        if let Some(found) = assigned.into_iter().find(|one| one.task_id == ran.tasks[0].task_id) {
            break found;
        }
    };
    assert!(assigned.overrides_json.contains(r#""command":["migrate"]"#), "{}", assigned.overrides_json);
    let other = v1::RunTaskRequest { overrides_json: String::new(), ..request.clone() };
    assert_eq!(reason(&admin.run_task(other).await.unwrap_err()), "CLIENT_TOKEN_CONFLICT");
    let role =
        v1::RunTaskRequest { overrides_json: r#"{"taskRoleArn":"arn"}"#.to_owned(), ..run_request("web", 1) };
    let refused = admin.run_task(role).await.unwrap_err();
    assert!(refused.message().starts_with("overrides.taskRoleArn"), "{}", refused.message());
}

#[tokio::test]
async fn start_task_takes_the_named_instances_and_scores_are_shown() {
    let running = start().await;
    let (mut admin, ids, _sessions) = three(&running).await;
    let container_instances = vec!["n2".to_owned(), ids[0].clone(), "nobody".to_owned()];
    let request =
        v1::StartTaskRequest { task_definition: "web".to_owned(), container_instances, ..Default::default() };
    let started = admin.start_task(request).await.unwrap().into_inner();
    let places: Vec<&str> = started.tasks.iter().map(|task| task.container_instance_id.as_str()).collect();
    assert_eq!(places, [&ids[2], &ids[0]]);
    assert_eq!((started.failures[0].id.as_str(), started.failures[0].reason.as_str()), ("nobody", "MISSING"));

    let expression = "if({attribute:zone == b}, 10, 100 / (1 - group:tasks))".to_owned();
    let test = v1::TestPlacementStrategyRequest {
        expression: expression.clone(),
        task_definition: "web".to_owned(),
        ..Default::default()
    };
    let scores = admin.test_placement_strategy(test).await.unwrap().into_inner().scores;
    let shown: Vec<_> = scores
        .iter()
        .map(|score| (score.container_instance_name.as_str(), score.millionths, score.refused.as_str()))
        .collect();
    assert_eq!(shown, [("n1", 100_000_000, ""), ("n2", 10_000_000, ""), ("n0", 0, "division by zero")]);
    let custom = v1::RunTaskRequest {
        placement_strategy: vec![strategy("custom", "", &expression)],
        ..run_request("web", 1)
    };
    let ran = admin.run_task(custom).await.unwrap().into_inner();
    assert_eq!(ran.tasks[0].container_instance_id, ids[1]);
    let why = v1::ExplainPlacementRequest { task: ran.tasks[0].task_id.clone(), ..Default::default() };
    let why = admin.explain_placement(why).await.unwrap().into_inner().explanation.unwrap();
    assert_eq!(why.choices[0].container_instance_id, ids[2], "the others have a task of the group by now");
}

/// The longest text that both ids begin with.
fn common(a: &str, b: &str) -> String {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

async fn sequence(admin: &mut LighterClient<Channel>) -> u64 {
    let request = v1::StreamClusterStateRequest::default();
    let mut stream = admin.stream_cluster_state(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap().sequence
}

#[tokio::test]
async fn a_call_with_a_name_that_is_not_clear_changes_nothing() {
    let running = start().await;
    let (mut admin, ids, _sessions) = three(&running).await;
    let unclear = common(&ids[1], &ids[2]);
    let container_instances = vec![ids[0].clone(), unclear];
    let before = sequence(&mut admin).await;
    let request = v1::StartTaskRequest {
        task_definition: "web".to_owned(),
        container_instances: container_instances.clone(),
        ..Default::default()
    };
    assert_eq!(reason(&admin.start_task(request).await.unwrap_err()), "AMBIGUOUS_PREFIX");
    let drain = v1::UpdateContainerInstancesStateRequest {
        container_instances,
        status: v1::ContainerInstanceStatus::Draining.into(),
        ..Default::default()
    };
    let refused = admin.update_container_instances_state(drain).await.unwrap_err();
    assert_eq!(reason(&refused), "AMBIGUOUS_PREFIX");
    assert_eq!(sequence(&mut admin).await, before);
    let listed = admin.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    assert!(listed.task_ids.is_empty(), "{:?}", listed.task_ids);
}

/// What found a place stays, with its client token; what the queue does not take is said.
#[tokio::test]
async fn a_queue_without_room_fails_what_found_no_place() {
    let running = start_with(|config| config.quotas.provisioning_tasks_per_cluster = 1).await;
    let (mut admin, _ids, _sessions) = three(&running).await;
    register(&mut admin, &definition_json("whole", 1024, 6, None)).await;
    let queue = Some(v1::QueueOptions::default());
    let request = |count, token: &str| v1::RunTaskRequest {
        queue,
        client_token: token.to_owned(),
        ..run_request("whole", count)
    };
    let answer = admin.run_task(request(5, "one")).await.unwrap().into_inner();
    assert_eq!(answer.tasks.len(), 3);
    let reasons: Vec<&str> = answer.failures.iter().map(|failure| failure.reason.as_str()).collect();
    assert!(reasons.contains(&"RESOURCE:CPU") && reasons.contains(&"QUEUE_FULL"), "{reasons:?}");
    let again = admin.run_task(request(5, "one")).await.unwrap().into_inner();
    assert_eq!(places(&again), places(&answer), "the token is remembered");
    // Nothing fits any more: one may wait, two may not, and then neither does.
    assert_eq!(reason(&admin.run_task(request(2, "two")).await.unwrap_err()), "QUOTA_EXCEEDED");
    assert_eq!(admin.run_task(request(1, "two")).await.unwrap().into_inner().tasks.len(), 1);
    let listed = admin.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.task_ids.len(), 4);
}
