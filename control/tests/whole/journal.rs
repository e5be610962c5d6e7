//! Journals and waits: the control plane's lines, the node's beside them, and what is said when the
//! node does not answer.

use crate::fake_node::{joined, report};
use crate::support::{definition_json, describe_task, register, run_request, start_with, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_message::Message as FromNode;

fn line(text: &str, time_unix_ms: i64) -> v1::TaskEvent {
    v1::TaskEvent { time_unix_ms, kind: "STEP_ENDED".into(), text: text.into(), ..Default::default() }
}

#[tokio::test]
async fn both_sides_are_merged_and_waits_are_shown_without_the_node() {
    let running = start_with(|config| config.heartbeat_interval_ms = 1_000).await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let node = joined(&running, "node").await;
    let hello = v1::NodeHello { features: vec!["journals".into()], ..node.hello() };
    let mut session = node.connect_saying(&running, hello).await.unwrap();
    let task = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks[0].clone();
    let waits = describe_task(&mut admin, &task.task_id).await.waits;
    assert_eq!((waits.len(), waits[0].kind.as_str()), (1, "NODE"));
    assert!(waits[0].what.contains("take the task over"), "{waits:?}");
    let wait = v1::Wait { kind: "PULL".into(), what: "the pull of web".into(), ..Default::default() };
    let told = v1::TaskReport { waits: vec![wait], ..report(&task.task_id, 1, v1::TaskStatus::Pending) };
    session.report(vec![told]).await;
    let mut reader = admin.clone();
    assert_eq!(describe_task(&mut reader, &task.task_id).await.waits[0].kind, "PULL");
    let request = v1::ListTaskEventsRequest { task: task.task_id.clone(), ..Default::default() };
    let asked = async {
        loop {
            if let FromControl::AskTaskEvents(ask) = session.receive().await.unwrap() {
                let events = vec![line("first of all", 1), line("last", i64::MAX / 2)];
                let answer = v1::TaskEvents { question_id: ask.question_id, events };
                session.say(FromNode::TaskEvents(answer)).await;
                return ask.task_id;
            }
        }
    };
    let (answer, asked) = tokio::join!(reader.list_task_events(request.clone()), asked);
    let answer = answer.unwrap().into_inner();
    assert_eq!((asked, answer.node_missing.as_str()), (task.task_id.clone(), ""));
    let texts: Vec<(bool, &str)> = answer.events.iter().map(|e| (e.from_node, e.text.as_str())).collect();
    assert_eq!((texts[0], texts[texts.len() - 1]), ((true, "first of all"), (true, "last")));
    assert!(texts.contains(&(false, "created of web:1, placed on node")), "{texts:?}");
    // The node goes away: what it said stays, and that it is away is said first.
    drop(session);
    until("the node to be missed", || {
        let (mut reader, id) = (reader.clone(), task.task_id.clone());
        async move {
            let waits = describe_task(&mut reader, &id).await.waits;
            waits.len() == 2 && waits[0].what.contains("not connected") && waits[1].kind == "PULL"
        }
    })
    .await;
    let answer = reader.list_task_events(request).await.unwrap().into_inner();
    assert!(answer.node_missing.contains("not connected"), "{}", answer.node_missing);
    assert!(answer.events.iter().all(|event| !event.from_node));
}
