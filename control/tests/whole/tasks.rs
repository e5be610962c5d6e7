//! What people do: register, run, list, describe, stop.

use crate::fake_node::{FakeNode, joined};
use crate::support::{
    Running, definition_json, describe_instance, describe_task, reason, register, run_request, start,
    start_with,
};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::BTreeSet;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

async fn with_node(cpu_units: u32, memory_mib: u64) -> (Running, LighterClient<Channel>, FakeNode) {
    let running = start().await;
    let admin = running.admin().await;
    let mut node = joined(&running, "node").await;
    node.resources =
        v1::Resources { cpu_units, memory_mib, ports_tcp: vec![22], ports_udp: vec![], ..Default::default() };
    // The node has been seen; that it left again does not show before three heartbeats.
    drop(node.connect(&running).await.unwrap());
    (running, admin, node)
}

#[tokio::test]
async fn definitions_are_numbered_listed_and_deregistered() {
    let running = start().await;
    let mut admin = running.admin().await;
    for family in ["b", "a", "a", "a"] {
        register(&mut admin, &definition_json(family, 0, 6, None)).await;
    }
    let list = async |admin: &mut LighterClient<Channel>, request: v1::ListTaskDefinitionsRequest| {
        admin.list_task_definitions(request).await.unwrap().into_inner()
    };
    let all = list(&mut admin, v1::ListTaskDefinitionsRequest::default()).await;
    assert_eq!(all.task_definitions, ["a:1", "a:2", "a:3", "b:1"]);
    assert!(all.next_token.is_empty());
    let descending =
        v1::ListTaskDefinitionsRequest { descending: true, max_results: 2, ..Default::default() };
    let first = list(&mut admin, descending.clone()).await;
    assert_eq!(first.task_definitions, ["b:1", "a:3"]);
    let second =
        list(&mut admin, v1::ListTaskDefinitionsRequest { next_token: first.next_token, ..descending }).await;
    assert_eq!(
        (second.task_definitions.as_slice(), second.next_token.as_str()),
        (["a:2".to_owned(), "a:1".to_owned()].as_slice(), "")
    );

    let task_definition = "a:3".to_owned();
    let request = v1::DeregisterTaskDefinitionRequest { task_definition };
    let gone = admin.deregister_task_definition(request).await.unwrap().into_inner().task_definition.unwrap();
    assert_eq!(gone.status(), v1::TaskDefinitionStatus::Inactive);
    let describe = |name: &str| v1::DescribeTaskDefinitionRequest { task_definition: name.to_owned() };
    let newest = admin.describe_task_definition(describe("a")).await.unwrap().into_inner();
    assert_eq!(newest.task_definition.unwrap().revision, 2);
    let arn = "arn:aws:ecs:eu-west-1:1:task-definition/a:3";
    let old = admin.describe_task_definition(describe(arn)).await.unwrap().into_inner();
    assert_eq!(old.task_definition.unwrap().revision, 3, "an INACTIVE revision stays describable");
    let next = register(&mut admin, &definition_json("a", 0, 6, None)).await;
    assert_eq!(next.revision, 4, "revisions are never used again");
    assert_eq!(next.registered_by, "spiffe://lighter/user/admin");
    let refused = admin.run_task(run_request("a:3", 1)).await.unwrap_err();
    assert_eq!(reason(&refused), "TASK_DEFINITION_INACTIVE");
    let refused = admin.describe_task_definition(describe("c")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "TASK_DEFINITION_NOT_FOUND"));
}

#[tokio::test]
async fn a_definition_with_an_unknown_member_is_refused_by_name() {
    let running = start().await;
    let json =
        r#"{"family":"f","containerDefinitions":[{"name":"a","image":"i","memory":6,"colour":"red"}]}"#;
    let request = v1::RegisterTaskDefinitionRequest { json: json.to_owned() };
    let refused = running.admin().await.register_task_definition(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.metadata["ecs"], "ClientException");
    assert!(info.metadata["field"].contains("colour"), "{info:?}");
}

#[tokio::test]
async fn what_fits_nowhere_fails_at_once_with_ecs_s_reasons() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("cpu", 2000, 6, None)).await;
    register(&mut admin, &definition_json("memory", 0, 5000, None)).await;
    register(&mut admin, &definition_json("port", 0, 6, Some(8080))).await;
    register(&mut admin, &definition_json("reserved", 0, 6, Some(2222))).await;
    let ran = admin.run_task(run_request("port", 1)).await.unwrap().into_inner();
    assert_eq!(ran.failures[0].reason, "No Container Instances were found in your cluster.");

    let mut node = joined(&running, "node").await;
    node.resources = v1::Resources {
        cpu_units: 1024,
        memory_mib: 1024,
        ports_tcp: vec![2222],
        ports_udp: vec![],
        ..Default::default()
    };
    drop(node.connect(&running).await.unwrap());
    let failure = async |admin: &mut LighterClient<Channel>, name: &str| {
        let ran = admin.run_task(run_request(name, 1)).await.unwrap().into_inner();
        assert!(ran.tasks.is_empty());
        (ran.failures[0].reason.clone(), ran.failures[0].id.clone())
    };
    for (name, reason) in [("cpu", "CPU"), ("memory", "MEMORY"), ("reserved", "PORTS")] {
        assert_eq!(failure(&mut admin, name).await, (format!("RESOURCE:{reason}"), node.id.clone()));
    }
    let two = admin.run_task(run_request("port", 2)).await.unwrap().into_inner();
    assert_eq!((two.tasks.len(), two.failures[0].reason.as_str()), (1, "RESOURCE:PORTS"));
    let shown = describe_instance(&mut admin, "node").await;
    let remaining = shown.remaining_resources.unwrap();
    assert_eq!((remaining.cpu_units, remaining.memory_mib), (1024, 1018));
    assert_eq!((remaining.ports_tcp, shown.pending_tasks_count), (vec![2222, 8080], 1));
}

#[tokio::test]
async fn the_emptiest_node_gets_the_task_and_a_silent_one_none() {
    let running = start_with(|config| config.heartbeat_interval_ms = 400).await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("f", 1, 6, None)).await;
    let first = joined(&running, "first").await;
    let second = joined(&running, "second").await;
    let _stays = first.connect(&running).await.unwrap();
    let leaves = second.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("f", 4)).await.unwrap().into_inner();
    let places: Vec<&str> = ran.tasks.iter().map(|task| task.container_instance_id.as_str()).collect();
    assert_eq!(places, [&first.id, &second.id, &first.id, &second.id]);
    drop(leaves);
    crate::support::until("both nodes are away", async || {
        // The first is silent as well: its session lives, its heart does not beat.
        let mut admin = admin.clone();
        !describe_instance(&mut admin, "first").await.agent_connected
            && !describe_instance(&mut admin, "second").await.agent_connected
    })
    .await;
    let ran = admin.run_task(run_request("f", 1)).await.unwrap().into_inner();
    assert_eq!(ran.failures.iter().map(|f| f.reason.as_str()).collect::<Vec<_>>(), ["AGENT", "AGENT"]);
}

#[tokio::test]
async fn the_same_client_token_gives_the_same_tasks_and_another_request_is_refused() {
    let (running, mut admin, _) = with_node(2048, 2048).await;
    register(&mut admin, &definition_json("f", 1, 6, None)).await;
    let request = v1::RunTaskRequest { client_token: "once".to_owned(), ..run_request("f", 3) };
    let ids = |response: v1::RunTaskResponse| -> Vec<String> {
        response.tasks.into_iter().map(|task| task.task_id).collect()
    };
    let first = ids(admin.run_task(request.clone()).await.unwrap().into_inner());
    let mut sorted = first.clone();
    sorted.sort();
    assert_eq!((first.len(), &sorted), (3, &first), "ids sort by creation");
    assert_eq!(ids(admin.run_task(request.clone()).await.unwrap().into_inner()), first);
    let other = v1::RunTaskRequest { count: 2, ..request.clone() };
    let refused = admin.run_task(other.clone()).await.unwrap_err();
    assert_eq!(refused.get_error_details().error_info().unwrap().metadata["ecs"], "ConflictException");
    let running = running.restart().await;
    let mut admin = running.admin().await;
    assert_eq!(ids(admin.run_task(request).await.unwrap().into_inner()), first, "also after a restart");
    assert_eq!(reason(&admin.run_task(other).await.unwrap_err()), "CLIENT_TOKEN_CONFLICT");
}

#[tokio::test]
async fn requests_out_of_range_name_the_field() {
    let (_running, mut admin, _) = with_node(1, 100).await;
    register(&mut admin, &definition_json("f", 0, 6, None)).await;
    let field = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument);
        status.get_error_details().error_info().unwrap().metadata["field"].clone()
    };
    let refused = [
        admin.run_task(run_request("f", 11)).await.unwrap_err(),
        admin
            .run_task(v1::RunTaskRequest { started_by: "x".repeat(129), ..run_request("f", 1) })
            .await
            .unwrap_err(),
        admin
            .run_task(v1::RunTaskRequest { client_token: "x".repeat(65), ..run_request("f", 1) })
            .await
            .unwrap_err(),
        admin.run_task(run_request("", 1)).await.unwrap_err(),
        admin.list_tasks(v1::ListTasksRequest { max_results: 101, ..Default::default() }).await.unwrap_err(),
        admin
            .list_tasks(v1::ListTasksRequest { next_token: "!".to_owned(), ..Default::default() })
            .await
            .unwrap_err(),
        admin.describe_tasks(v1::DescribeTasksRequest::default()).await.unwrap_err(),
    ];
    let fields: Vec<String> = refused.into_iter().map(field).collect();
    assert_eq!(
        fields,
        ["count", "startedBy", "clientToken", "taskDefinition", "maxResults", "nextToken", "tasks"]
    );
    let elsewhere = v1::RunTaskRequest { cluster: "nowhere".to_owned(), ..run_request("f", 1) };
    assert_eq!(reason(&admin.run_task(elsewhere).await.unwrap_err()), "CLUSTER_NOT_FOUND");
}

#[tokio::test]
async fn a_stop_is_wanted_at_once_and_its_reason_stays() {
    let (_running, mut admin, _) = with_node(1024, 1024).await;
    register(&mut admin, &definition_json("f", 1, 6, None)).await;
    let ran = admin.run_task(run_request("f", 1)).await.unwrap().into_inner();
    let id = &ran.tasks[0].task_id;
    assert_eq!(ran.tasks[0].group, "family:f");
    let stop = |task: &str, reason: &str| v1::StopTaskRequest {
        task: task.to_owned(),
        reason: reason.to_owned(),
        ..Default::default()
    };
    let stopped = admin.stop_task(stop(&id[..13], "enough")).await.unwrap().into_inner().task.unwrap();
    assert_eq!(stopped.task_id, *id, "a unique beginning is enough");
    assert_eq!(stopped.desired_status(), v1::DesiredStatus::Stopped);
    assert_eq!(stopped.last_status(), v1::TaskStatus::Pending, "the node has not said so");
    assert_eq!(
        (stopped.stop_code(), stopped.stopped_reason.as_str()),
        (v1::StopCode::UserInitiated, "enough")
    );
    let again = admin.stop_task(stop(id, "other")).await.unwrap().into_inner().task.unwrap();
    assert_eq!(again, stopped, "a second stop changes nothing");
    let force = v1::StopTaskRequest { force: true, ..stop(id, "now") };
    let forced = admin.stop_task(force.clone()).await.unwrap().into_inner().task.unwrap();
    assert_eq!(forced.stopped_reason, "enough", "the first reason stays");
    assert_eq!(admin.stop_task(force).await.unwrap().into_inner().task, Some(forced));
    assert_eq!(reason(&admin.stop_task(stop("ffff", "")).await.unwrap_err()), "TASK_NOT_FOUND");
    for _ in 0..2 {
        admin.run_task(run_request("f", 1)).await.unwrap();
    }
    assert_eq!(reason(&admin.stop_task(stop("0", "")).await.unwrap_err()), "AMBIGUOUS_PREFIX");
    let request =
        v1::DescribeTasksRequest { tasks: vec![id.clone(), "abc".to_owned()], ..Default::default() };
    let described = admin.describe_tasks(request).await.unwrap().into_inner();
    assert_eq!((described.tasks.len(), described.failures[0].reason.as_str()), (1, "MISSING"));
}

#[tokio::test]
async fn pages_neither_repeat_nor_hide_a_task_while_others_come() {
    let (_running, mut admin, node) = with_node(4096, 100_000).await;
    register(&mut admin, &definition_json("f", 1, 6, None)).await;
    let mut before = BTreeSet::new();
    for _ in 0..3 {
        for task in admin.run_task(run_request("f", 10)).await.unwrap().into_inner().tasks {
            before.insert(task.task_id);
        }
    }
    let mut seen = Vec::new();
    let mut next_token = String::new();
    loop {
        let request = v1::ListTasksRequest {
            max_results: 7,
            next_token,
            container_instance: "node".to_owned(),
            family: "f".to_owned(),
            ..Default::default()
        };
        let page = admin.list_tasks(request).await.unwrap().into_inner();
        assert!(page.task_ids.len() <= 7);
        seen.extend(page.task_ids);
        if page.next_token.is_empty() {
            break;
        }
        next_token = page.next_token;
        // In between one of those already shown is stopped, and others are started.
        let task = seen[seen.len() - 7].clone();
        admin.stop_task(v1::StopTaskRequest { task, ..Default::default() }).await.unwrap();
        if seen.len() < 20 {
            admin.run_task(run_request("f", 1)).await.unwrap();
        }
    }
    let unique: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(unique.len(), seen.len(), "no task twice");
    assert!(before.is_subset(&unique), "no task hidden");
    let of = |desired: v1::DesiredStatus, started_by: &str| v1::ListTasksRequest {
        desired_status: desired.into(),
        started_by: started_by.to_owned(),
        ..Default::default()
    };
    let stopped = admin.list_tasks(of(v1::DesiredStatus::Stopped, "")).await.unwrap().into_inner().task_ids;
    assert!(!stopped.is_empty() && stopped.iter().all(|id| unique.contains(id)));
    let nobody = admin.list_tasks(of(v1::DesiredStatus::Running, "nobody")).await.unwrap().into_inner();
    assert!(nobody.task_ids.is_empty());
    let one = describe_task(&mut admin, &stopped[0]).await;
    assert_eq!(one.container_instance_id, node.id);
}

#[tokio::test]
async fn the_callers_trace_goes_with_the_assignment() {
    let (running, mut admin, node) = with_node(1024, 1024).await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let run = async |admin: &mut LighterClient<Channel>, parent: &str| {
        let mut request = tonic::Request::new(run_request("web", 1));
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        admin.run_task(request).await.unwrap().into_inner().tasks[0].task_id.clone()
    };
    let traced = run(&mut admin, parent).await;
    let untraced = run(&mut admin, "nonsense").await;
    // Also what was made before the control plane was started anew.
    let running = running.restart().await;
    let session = node.connect(&running).await.unwrap();
    let of = |task: &str| session.manifest.iter().find(|a| a.task_id == task).unwrap().trace_parent.clone();
    assert_eq!((of(&traced).as_str(), of(&untraced).as_str()), (parent, ""));
}
