//! Sessions with a fake node over real mTLS.

use crate::fake_node::{FakeNode, FakeSession, joined, report, stopped_report};
use crate::support::{
    Running, definition_json, describe_instance, describe_task, reason, register, run_request, start,
    start_with, until,
};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_message::Message as FromNode;
use tonic::Code;
use tonic::transport::Channel;

async fn world() -> (Running, LighterClient<Channel>, FakeNode, FakeSession) {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, None)).await;
    let node = joined(&running, "node").await;
    let session = node.connect(&running).await.unwrap();
    (running, admin, node, session)
}

async fn run_one(admin: &mut LighterClient<Channel>) -> String {
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    assert!(ran.failures.is_empty(), "{:?}", ran.failures);
    ran.tasks[0].task_id.clone()
}

fn held(task: &str, generation: u64) -> v1::HeldTask {
    let last_status = v1::TaskStatus::Running.into();
    v1::HeldTask { task_id: task.to_owned(), generation, last_status, ..Default::default() }
}

#[tokio::test]
async fn a_task_lives_from_assignment_to_forgetting() {
    let (_running, mut admin, _node, mut session) = world().await;
    assert_eq!((session.hello.protocol, session.hello.cluster.as_str()), (1, "default"));
    assert!(session.manifest.is_empty() && !session.hello.incarnation.is_empty());
    let task = run_one(&mut admin).await;
    let assigned = session.assignments().await;
    assert_eq!(session.definitions, ["web:1"], "the definition came before its first use");
    assert_eq!((assigned[0].task_id.as_str(), assigned[0].generation), (task.as_str(), 1));
    session.say(FromNode::Acknowledge(v1::Acknowledge { sequence: session.last_sequence })).await;
    session
        .report(vec![report(&task, 1, v1::TaskStatus::Pending), report(&task, 2, v1::TaskStatus::Running)])
        .await;
    let running_task = describe_task(&mut admin, &task).await;
    assert_eq!(running_task.last_status(), v1::TaskStatus::Running);
    assert_eq!(describe_instance(&mut admin, "node").await.running_tasks_count, 1);

    let second = run_one(&mut admin).await;
    session.assignments().await;
    assert_eq!(session.definitions, ["web:1"], "once for each session");
    let stop = v1::StopTaskRequest { task: task.clone(), ..Default::default() };
    admin.stop_task(stop).await.unwrap();
    let stopping = session.assignments().await;
    assert_eq!((stopping[0].desired_status(), stopping[0].generation), (v1::DesiredStatus::Stopped, 2));
    assert_eq!(stopping[0].stop_code(), v1::StopCode::UserInitiated);
    session.report(vec![stopped_report(&task, 3, 143)]).await;
    let forget = session.assignments().await;
    assert!(forget[0].forget && forget[0].generation == 3);
    let stopped = describe_task(&mut admin, &task).await;
    assert_eq!(stopped.last_status(), v1::TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), v1::StopCode::UserInitiated, "the first reason stays");
    assert_eq!(stopped.containers[0].exit_code, Some(143));
    let left = describe_instance(&mut admin, "node").await.remaining_resources.unwrap();
    assert_eq!((left.cpu_units, left.memory_mib), (1948, 4032), "only {second} takes something now");
}

#[tokio::test]
async fn reports_are_applied_once_and_never_backward() {
    let (_running, mut admin, _node, mut session) = world().await;
    let task = run_one(&mut admin).await;
    session.report(vec![report(&task, 5, v1::TaskStatus::Running)]).await;
    let version = describe_task(&mut admin, &task).await.version;
    session
        .report(vec![report(&task, 5, v1::TaskStatus::Stopped), report(&task, 4, v1::TaskStatus::Stopped)])
        .await;
    assert_eq!(describe_task(&mut admin, &task).await.version, version, "old sequences change nothing");
    session.report(vec![report(&task, 6, v1::TaskStatus::Pending)]).await;
    assert_eq!(describe_task(&mut admin, &task).await.last_status(), v1::TaskStatus::Running);
    session.report(vec![stopped_report(&task, 7, 3)]).await;
    let stopped = describe_task(&mut admin, &task).await;
    assert_eq!(stopped.desired_status(), v1::DesiredStatus::Stopped);
    assert_eq!(stopped.stop_code(), v1::StopCode::EssentialContainerExited);
    // Fifty at once, of which all but the first are unknown tasks: each is answered.
    let many = (0..50).map(|n| report(&format!("{n:032x}"), 1, v1::TaskStatus::Stopped)).collect();
    session.report(many).await;
}

#[tokio::test]
async fn a_node_that_comes_back_gets_the_manifest_and_what_it_may_forget() {
    let (running, mut admin, mut node, mut session) = world().await;
    let (kept, ended) = (run_one(&mut admin).await, run_one(&mut admin).await);
    session.report(vec![report(&kept, 1, v1::TaskStatus::Running), stopped_report(&ended, 1, 0)]).await;
    node.incarnation = session.hello.incarnation.clone();
    node.revision = session.revision;
    drop(session);
    let unseen = run_one(&mut admin).await;
    node.held = vec![held(&kept, 1), held(&ended, 1)];
    let session = node.connect(&running).await.unwrap();
    let mut listed: Vec<(String, bool)> =
        session.manifest.iter().map(|a| (a.task_id.clone(), a.forget)).collect();
    listed.sort();
    let mut expected = vec![(kept, false), (ended, true), (unseen, false)];
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(session.definitions, ["web:1"]);
}

#[tokio::test]
async fn a_running_task_that_the_node_no_longer_has_is_stopped() {
    let (running, mut admin, node, mut session) = world().await;
    let task = run_one(&mut admin).await;
    session.report(vec![report(&task, 1, v1::TaskStatus::Running)]).await;
    drop(session);
    let session = node.connect(&running).await.unwrap();
    assert!(session.manifest.is_empty(), "it is not started a second time");
    let lost = describe_task(&mut admin, &task).await;
    assert_eq!(lost.last_status(), v1::TaskStatus::Stopped);
    assert_eq!(lost.stop_code(), v1::StopCode::InfrastructureHealth);
}

#[tokio::test]
async fn unknown_tasks_are_stopped_only_when_confirmed_and_never_for_another_store() {
    let (running, mut admin, mut node, session) = world().await;
    let unknown = "0".repeat(31) + "1";
    let incarnation = session.hello.incarnation.clone();
    drop(session);
    // The store is the one the node knew: confirmed.
    node.incarnation = incarnation.clone();
    node.held = vec![held(&unknown, 1)];
    let mut session = node.connect(&running).await.unwrap();
    let known = run_one(&mut admin).await;
    let ask = |ids: &[&String]| {
        FromNode::ConfirmStop(v1::ConfirmStop { task_ids: ids.iter().map(|id| (*id).clone()).collect() })
    };
    session.say(ask(&[&unknown, &known])).await;
    let confirmed = loop {
        if let FromControl::StopConfirmed(confirmed) = session.receive().await.unwrap() {
            break confirmed.task_ids;
        }
    };
    assert_eq!(confirmed, std::slice::from_ref(&unknown), "a task that is wanted is not confirmed");
    drop(session);
    // The node has seen a later revision than the store has: it went back. Nothing is confirmed.
    let foreign = "0".repeat(31) + "2";
    node.revision = u64::MAX;
    node.held = vec![held(&foreign, 1), held(&known, 1)];
    let mut session = node.connect(&running).await.unwrap();
    session.say(ask(&[&foreign])).await;
    session.say(FromNode::Heartbeat(v1::Heartbeat { number: 9 })).await;
    assert!(
        matches!(session.receive().await.unwrap(), FromControl::HeartbeatAnswer(answer) if answer.number == 9)
    );
    drop(session);
    // Later it trusts the store again; the orphan is remembered, also over a restart.
    let running = running.restart().await;
    node.revision = 0;
    let mut session = node.connect(&running).await.unwrap();
    session.say(ask(&[&foreign])).await;
    session.say(FromNode::Heartbeat(v1::Heartbeat { number: 10 })).await;
    assert!(matches!(session.receive().await.unwrap(), FromControl::HeartbeatAnswer(_)));
    drop(session);
    node.incarnation = "another store".to_owned();
    let mut session = node.connect(&running).await.unwrap();
    session.say(ask(&[&foreign])).await;
    session.say(FromNode::Heartbeat(v1::Heartbeat { number: 11 })).await;
    assert!(matches!(session.receive().await.unwrap(), FromControl::HeartbeatAnswer(_)));
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_lives_and_the_same_agent_replaces_itself() {
    let running = start_with(|config| config.heartbeat_interval_ms = 500).await;
    let node = joined(&running, "node").await;
    let mut first = node.connect(&running).await.unwrap();
    let mut twin = node.clone();
    twin.run_id = "another run".to_owned();
    let refused = twin.connect(&running).await.err().expect("two agents of one identity");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "SESSION_EXISTS"));
    assert_eq!(refused.message().matches("127.0.0.1:").count(), 2, "{}", refused.message());
    let again = node.connect(&running).await.unwrap();
    assert_eq!(reason(&first.end().await), "SESSION_REPLACED");
    // The holder falls silent: the other one gets the place after three heartbeats.
    until("the silent session is replaced", async || twin.connect(&running).await.is_ok()).await;
    drop(again);
}

#[tokio::test]
async fn a_silent_session_ends_and_a_beating_heart_keeps_it() {
    let running = start_with(|config| config.heartbeat_interval_ms = 300).await;
    let mut admin = running.admin().await;
    let (beats, silent) = (joined(&running, "beats").await, joined(&running, "silent").await);
    let mut beating = beats.connect(&running).await.unwrap();
    let mut quiet = silent.connect(&running).await.unwrap();
    let heart = async {
        for number in 1.. {
            beating.say(FromNode::Heartbeat(v1::Heartbeat { number })).await;
            let FromControl::HeartbeatAnswer(answer) = beating.receive().await.unwrap() else {
                panic!("another message");
            };
            assert_eq!((answer.number, answer.term), (number, beating.hello.term));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let ended = tokio::select! {
        () = heart => unreachable!(),
        ended = quiet.end() => ended,
    };
    assert_eq!(reason(&ended), "SESSION_SILENT");
    until("the silent node is away", async || {
        beating.say(FromNode::Heartbeat(v1::Heartbeat { number: 0 })).await;
        !describe_instance(&mut admin.clone(), "silent").await.agent_connected
    })
    .await;
    assert!(describe_instance(&mut admin, "beats").await.agent_connected);
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_session_with_words() {
    let (running, mut admin, node, session) = world().await;
    let task = run_one(&mut admin).await;
    drop(session);
    let mut newer = node.hello();
    newer.protocol = Some(v1::ProtocolRange { min: 7, max: 9 });
    let refused = node.connect_saying(&running, newer).await.err().expect("no common version");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "PROTOCOL_MISMATCH"));
    let wrong = [
        FromNode::Hello(node.hello()),
        FromNode::Acknowledge(v1::Acknowledge { sequence: 999 }),
        FromNode::TaskReports(v1::TaskReports {
            reports: vec![v1::TaskReport { task_id: task.clone(), ..Default::default() }],
        }),
        FromNode::ConfirmStop(v1::ConfirmStop { task_ids: vec!["x".to_owned()] }),
    ];
    for message in wrong {
        let mut session = node.connect(&running).await.unwrap();
        session.say(message).await;
        assert_eq!(reason(&session.end().await), "PROTOCOL_VIOLATION");
    }
    let other = joined(&running, "other").await;
    let mut session = other.connect(&running).await.unwrap();
    session
        .say(FromNode::TaskReports(v1::TaskReports {
            reports: vec![report(&task, 1, v1::TaskStatus::Stopped)],
        }))
        .await;
    let ended = session.end().await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::PermissionDenied, "FOREIGN_TASK"));
    assert_eq!(describe_task(&mut admin, &task).await.last_status(), v1::TaskStatus::Pending);
}

#[tokio::test]
async fn a_large_manifest_comes_in_chunks() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let mut node = joined(&running, "node").await;
    node.resources.memory_mib = 1_000_000;
    drop(node.connect(&running).await.unwrap());
    // Long groups, so that a few hundred tasks fill more than 256 KiB.
    let request = v1::RunTaskRequest { group: "g".repeat(255), ..run_request("web", 10) };
    let mut tasks = 0;
    while tasks < 1000 {
        tasks += admin.run_task(request.clone()).await.unwrap().into_inner().tasks.len();
    }
    let session = node.connect(&running).await.unwrap();
    assert_eq!(session.manifest.len(), tasks);
    assert!(session.manifest_chunks > 1);
    assert_eq!(session.definitions, ["web:1"]);
}

#[tokio::test]
async fn a_node_that_does_not_read_is_cut_off_and_resynchronised_and_nobody_waits_for_it() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let mut node = joined(&running, "node").await;
    node.resources.memory_mib = 1_000_000;
    let mut session = node.connect_with_small_windows(&running).await.unwrap();
    // More than the windows, the transport's buffer, both queues and one message hold.
    let request = v1::RunTaskRequest { group: "g".repeat(255), ..run_request("web", 10) };
    let mut tasks = 0;
    for _ in 0..100 {
        let answers = (0..5).map(|_| {
            let (mut admin, request) = (admin.clone(), request.clone());
            async move { admin.run_task(request).await.unwrap().into_inner().tasks.len() }
        });
        tasks += futures_util::future::join_all(answers).await.into_iter().sum::<usize>();
    }
    assert_eq!(tasks, 5000, "every call was answered");
    // What was under way comes, then the end, with a word if there was room for it.
    let ended = session.end().await;
    assert!(ended.code() == Code::Ok || reason(&ended) == "SESSION_TOO_SLOW", "{ended:?}");
    let session = node.connect(&running).await.unwrap();
    assert_eq!(session.manifest.len(), tasks);
}
