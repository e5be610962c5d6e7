//! A store that is not the one its nodes knew: it learns from them what it must not give again, and
//! what is on them that it does not know waits for somebody to decide.

use crate::fake_node::{FakeNode, FakeSession, joined};
use crate::support::{
    Running, clock, config, definition_json, describe_instance, reason, register, run_request, start_at,
    until,
};
use futures_util::StreamExt;
use lighter_control::{Control, snapshot, transfer};
use lighter_model::held::HeldTask;
use lighter_model::ids::Generation;
use lighter_model::report::{ContainerReport, TaskReport};
use lighter_model::resources::Resources;
use lighter_model::status::{ContainerStatus, TaskStatus};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::stream_output::Output;

/// Stops, takes a snapshot, puts it back, and starts: the same content in another incarnation.
pub(crate) async fn restored(running: Running) -> Running {
    let Running { handle, dir, clock_ahead_ms } = running;
    handle.shutdown();
    handle.join().await;
    let (settings, file) = (config(&dir), dir.path().join("a.snapshot"));
    let moved = tokio::task::spawn_blocking(move || {
        transfer::save(&settings, &file).unwrap();
        transfer::restore(&settings, &file, true).unwrap();
    });
    moved.await.unwrap();
    start_at(dir, clock_ahead_ms).await
}

#[tokio::test]
async fn a_store_whose_clock_was_set_back_leads_in_a_term_above_all_that_its_nodes_have_seen() {
    let running = crate::support::start().await;
    let node = joined(&running, "node").await;
    let term = node.connect(&running).await.unwrap().hello.term;
    let seen = term + 86_400_000;
    let hello = v1::NodeHello { term: seen, ..node.hello() };
    let refused = node.connect_saying(&running, hello.clone()).await.err().unwrap();
    assert_eq!(reason(&refused), "STATE_RELOADED");
    until("a higher term", async || match node.connect_saying(&running, hello.clone()).await {
        Ok(session) => session.hello.term > seen,
        Err(_) => false,
    })
    .await;
    let running = running.restart().await;
    assert!(node.connect_saying(&running, hello.clone()).await.unwrap().hello.term > seen, "it is durable");
    let forged = v1::NodeHello { term: u64::MAX, ..hello };
    let refused = node.connect_saying(&running, forged).await.err().unwrap();
    assert_eq!(reason(&refused), "PROTOCOL_VIOLATION");
}

#[tokio::test]
async fn what_a_restored_store_does_not_know_it_learns_from_its_nodes_before_it_gives_it_again() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, Some(8080))).await;
    let mut node = joined(&running, "node").await;
    drop(node.connect(&running).await.unwrap());
    let running = restored(running).await;
    let mut admin = running.admin().await;
    let instance = describe_instance(&mut admin, "node").await;
    assert!(!instance.agent_connected, "nothing is placed on top of what it may hold");
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    assert_eq!(ran.failures[0].reason, "AGENT");
    let orphan = "0".repeat(31) + "7";
    node.incarnation = "first".to_owned();
    node.held = vec![v1::HeldTask {
        task_id: orphan.clone(),
        generation: 3,
        last_status: v1::TaskStatus::Running.into(),
        task_definition: "web:4".to_owned(),
        resources: Some(v1::Resources {
            cpu_units: 1000,
            memory_mib: 1024,
            ports_tcp: vec![8080],
            ..Default::default()
        }),
        group: "family:web".to_owned(),
    }];
    let hello = v1::NodeHello {
        revisions: [("web".to_owned(), 6), ("job".to_owned(), 2), ("all".to_owned(), u32::MAX)].into(),
        ..node.hello()
    };
    let _session = node.connect_saying(&running, hello).await.unwrap();
    let next = async |family| {
        register(&mut running.admin().await, &definition_json(family, 100, 64, Some(8080))).await.revision
    };
    assert_eq!((next("web").await, next("job").await, next("all").await), (7, 3, 1));
    let left = describe_instance(&mut admin, "node").await.remaining_resources.unwrap();
    assert_eq!((left.cpu_units, left.memory_mib, left.ports_tcp), (1048, 3072, vec![8080]));
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    assert_eq!(ran.failures[0].reason, "RESOURCE:PORTS", "the orphan has the port");
}

#[tokio::test]
async fn a_node_hears_what_a_restored_store_wants_although_it_counted_as_far_in_the_one_before() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, None)).await;
    let mut node = joined(&running, "node").await;
    let session = node.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let task_id = ran.tasks[0].task_id.clone();
    drop(session);
    let running = restored(running).await;
    let stop = v1::StopTaskRequest { task: task_id.clone(), ..Default::default() };
    running.admin().await.stop_task(stop).await.unwrap();
    // Its second generation was another: something that is forgotten here.
    node.incarnation = "first".to_owned();
    let last_status = v1::TaskStatus::Running.into();
    node.held = vec![v1::HeldTask { task_id, generation: 2, last_status, ..Default::default() }];
    let assigned = &node.connect(&running).await.unwrap().manifest;
    assert_eq!((assigned[0].generation, assigned[0].desired_status()), (3, v1::DesiredStatus::Stopped));
}

#[tokio::test]
async fn a_node_that_was_away_before_a_restart_is_away_after_it_until_watchers_hear_of_it() {
    let running = crate::support::start_with(|config| config.heartbeat_interval_ms = 20).await;
    let node = joined(&running, "node").await;
    drop(node.connect(&running).await.unwrap());
    let mut admin = running.admin().await;
    let own = admin.clone();
    until("away", async || !describe_instance(&mut own.clone(), "node").await.agent_connected).await;
    let running = running.restart().await;
    admin = running.admin().await;
    assert!(!describe_instance(&mut admin, "node").await.agent_connected);
    let watch = v1::WatchEventsRequest { from_oldest: true, ..Default::default() };
    let mut events = admin.watch_events(watch).await.unwrap().into_inner();
    let _session = node.connect(&running).await.unwrap();
    let mut shown = Vec::new();
    while shown.last() != Some(&true) || !shown.contains(&false) {
        let event = events.message().await.unwrap().unwrap();
        if let Some(v1::event::Subject::ContainerInstanceStateChange(change)) = event.subject {
            shown.push(change.container_instance.unwrap().agent_connected);
        }
    }
}

#[tokio::test]
async fn a_watcher_of_the_store_before_is_not_given_the_events_of_this_one() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let watch = v1::WatchEventsRequest { from_oldest: true, ..Default::default() };
    let seen = admin.watch_events(watch).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let go_on = v1::WatchEventsRequest {
        after_sequence: seen.sequence,
        incarnation: seen.incarnation.clone(),
        ..Default::default()
    };
    assert!(admin.watch_events(go_on.clone()).await.is_ok());
    let running = restored(running).await;
    let mut admin = running.admin().await;
    let refused = admin.watch_events(go_on).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (tonic::Code::OutOfRange, "EVENTS_OF_ANOTHER_STORE")
    );
    let request = v1::StreamClusterStateRequest::default();
    let state = admin.stream_cluster_state(request).await.unwrap().into_inner().message().await;
    assert_ne!(state.unwrap().unwrap().incarnation, seen.incarnation);
}

#[tokio::test]
async fn a_control_plane_with_another_certificate_authority_does_not_start() {
    let running = crate::support::start().await;
    running.handle.shutdown();
    running.handle.join().await;
    let ca = running.dir.path().join("data/ca");
    std::fs::remove_dir_all(&ca).unwrap();
    std::fs::remove_file(running.dir.path().join("data/admin.pem")).unwrap();
    let clock = clock(running.clock_ahead_ms.clone());
    let refused = Control::start_in(config(&running.dir), clock).await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("another certificate authority"), "{refused}");
}

/// The node's word on a task that it holds.
fn held_task(task: &str, definition: &str) -> HeldTask {
    let container = ContainerReport {
        name: "web".parse().unwrap(),
        status: ContainerStatus::Running,
        exit: None,
        reason: None,
        pid: Some(7),
        image_digest: None,
        address: Some("10.0.0.2".to_owned()),
        network_bindings: Vec::new(),
        limits: Default::default(),
        health: None,
        restart_count: 0,
        last_exit: None,
        devices: Vec::new(),
    };
    let report = TaskReport {
        task: task.parse().unwrap(),
        sequence: 5,
        status: TaskStatus::Running,
        stop_code: None,
        stopped_reason: None,
        waiting_reason: None,
        waits: Vec::new(),
        containers: vec![container],
        paused: false,
        settled: Generation(0),
        refusal: None,
        pull_started_at_unix_ms: None,
        pull_stopped_at_unix_ms: None,
        started_at_unix_ms: Some(9),
        stopping_at_unix_ms: None,
        execution_stopped_at_unix_ms: None,
        stopped_at_unix_ms: None,
    };
    HeldTask {
        task: task.parse().unwrap(),
        generation: Generation(3),
        definition: definition.parse().unwrap(),
        definition_json: Some(definition_json("web", 100, 64, Some(8080))),
        group: "family:web".to_owned(),
        paused: false,
        container_resources: Vec::new(),
        image_digests: Default::default(),
        resources: Resources { cpu_units: 100, memory_mib: 64, ..Resources::default() },
        report: Some(report),
    }
}

/// The same of a task of this group that takes so much.
pub(crate) fn held_of(task: &str, definition: &str, group: &str, cpu: u32, memory_mib: u64) -> HeldTask {
    HeldTask {
        definition_json: Some(definition_json("web", cpu, memory_mib, None)),
        group: group.to_owned(),
        resources: Resources { cpu_units: cpu, memory_mib, ..Resources::default() },
        ..held_task(task, definition)
    }
}

/// Answers the next question as an agent does.
pub(crate) async fn answer(running: &Running, node: &FakeNode, session: &mut FakeSession, held: &HeldTask) {
    let open = loop {
        if let FromControl::OpenStream(open) = session.receive().await.unwrap() {
            break open;
        }
    };
    let said = |output| v1::NodeFrame {
        stream_id: open.stream_id.clone(),
        output: Some(v1::StreamOutput { output: Some(output) }),
    };
    let done = v1::StreamEnded { result: Some(v1::stream_ended::Result::Done(v1::StreamDone::default())) };
    let json = serde_json::to_vec(held).unwrap();
    let frames = [said(Output::Stdout(json)), said(Output::Ended(done))];
    let frames = futures_util::stream::iter(frames).chain(futures_util::stream::pending());
    let mut client = node.client(running).await;
    let mut inputs = client.stream(frames).await.unwrap().into_inner();
    while let Ok(Some(_)) = inputs.message().await {}
}

#[tokio::test]
async fn an_orphan_becomes_a_task_of_the_cluster_or_is_stopped_when_somebody_says_so() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    let mut node = joined(&running, "node").await;
    let (kept, ended) = ("0".repeat(31) + "7", "0".repeat(31) + "8");
    node.incarnation = "another".to_owned();
    node.held = [&kept, &ended]
        .map(|task| v1::HeldTask { task_id: task.clone(), generation: 3, ..Default::default() })
        .into();
    let hello = v1::NodeHello { features: vec!["streams".to_owned()], ..node.hello() };
    let mut session = node.connect_saying(&running, hello).await.unwrap();
    let listed = admin.list_orphans(v1::ListOrphansRequest::default()).await.unwrap().into_inner().orphans;
    let listed: Vec<&str> = listed.iter().map(|orphan| orphan.task_id.as_str()).collect();
    assert_eq!(listed, [&kept, &ended]);
    let adopt = v1::AdoptOrphanRequest { task: kept.clone(), ..Default::default() };
    let held = held_task(&kept, "web:4");
    let asked = admin.clone();
    let adopting = tokio::spawn(async move { asked.clone().adopt_orphan(adopt).await });
    answer(&running, &node, &mut session, &held).await;
    let task = adopting.await.unwrap().unwrap().into_inner().task.unwrap();
    assert_eq!(
        (task.last_status(), task.desired_status()),
        (v1::TaskStatus::Running, v1::DesiredStatus::Running)
    );
    assert_eq!((task.task_definition.as_str(), task.containers[0].pid), ("web:4", 7));
    let assigned = session.assignments().await;
    assert_eq!((assigned[0].task_id.as_str(), assigned[0].generation), (kept.as_str(), 4));
    assert_eq!(session.definitions, ["web:4"]);
    let next = register(&mut admin, &definition_json("web", 1, 6, None)).await.revision;
    assert_eq!(next, 5, "the adopted revision is not given again");

    let stop = v1::StopOrphanRequest { task: ended.clone(), reason: "old".to_owned(), ..Default::default() };
    // It ran by another definition of the same name: it can only be stopped.
    let adopt = v1::AdoptOrphanRequest { task: ended.clone(), ..Default::default() };
    let held = held_task(&ended, "web:5");
    let asked = admin.clone();
    let adopting = tokio::spawn(async move { asked.clone().adopt_orphan(adopt).await });
    answer(&running, &node, &mut session, &held).await;
    assert_eq!(reason(&adopting.await.unwrap().unwrap_err()), "ORPHAN_DEFINITION_DIFFERS");
    let asked = admin.clone();
    let stopping = tokio::spawn(async move { asked.clone().stop_orphan(stop).await });
    answer(&running, &node, &mut session, &held).await;
    stopping.await.unwrap().unwrap();
    let assigned = session.assignments().await;
    assert_eq!((assigned[0].task_id.as_str(), assigned[0].stop_reason.as_str()), (ended.as_str(), "old"));
    let left = admin.list_orphans(v1::ListOrphansRequest::default()).await.unwrap().into_inner().orphans;
    assert!(left.is_empty(), "{left:?}");
    let audit = admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner().records;
    let actions: Vec<&str> = audit.iter().map(|record| record.action.as_str()).collect();
    assert!(actions.contains(&"AdoptOrphan") && actions.contains(&"StopOrphan"), "{actions:?}");
}

#[tokio::test]
async fn a_control_plane_that_runs_gives_a_snapshot_that_can_be_restored() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, None)).await;
    let mut chunks = admin.save_snapshot(v1::SaveSnapshotRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        bytes.extend(chunk.data);
    }
    let file = running.dir.path().join("given.snapshot");
    snapshot::keep(&file, &bytes).unwrap();
    bytes[40] ^= 1;
    assert!(snapshot::keep(&running.dir.path().join("damaged.snapshot"), &bytes).is_err());
    assert!(!running.dir.path().join("damaged.snapshot").exists());
    let Running { handle, dir, clock_ahead_ms } = running;
    handle.shutdown();
    handle.join().await;
    let settings = config(&dir);
    tokio::task::spawn_blocking(move || transfer::restore(&settings, &file, true).unwrap()).await.unwrap();
    let running = start_at(dir, clock_ahead_ms).await;
    let next = register(&mut running.admin().await, &definition_json("web", 100, 64, None)).await.revision;
    assert_eq!(next, 2);
}
