//! Log streams: asked for over the session, answered on a second connection.

use crate::fake_node::{FakeNode, FakeSession, joined};
use crate::support::{Running, definition_json, reason, register, run_request, start};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::lighter_client::LighterClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

async fn world() -> (Running, LighterClient<Channel>, FakeNode, FakeSession, v1::StreamTaskLogsRequest) {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let node = joined(&running, "node").await;
    let mut hello = node.hello();
    hello.features = vec!["log-end".to_owned()];
    let session = node.connect_saying(&running, hello).await.unwrap();
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let task = ran.tasks[0].task_id.clone();
    let request = v1::StreamTaskLogsRequest {
        task,
        follow: true,
        tail_lines: Some(0),
        since_unix_ms: 1_700_000_000_123,
        ..Default::default()
    };
    (running, admin, node, session, request)
}

async fn asked(session: &mut FakeSession) -> v1::OpenLogStream {
    loop {
        if let FromControl::OpenLogStream(open) = session.receive().await.unwrap() {
            return open;
        }
    }
}

fn batch(stream_id: &str, text: &str) -> v1::SendLogsRequest {
    let line =
        v1::LogLine { container: "web".to_owned(), line: text.as_bytes().to_vec(), ..Default::default() };
    v1::SendLogsRequest { stream_id: stream_id.to_owned(), lines: vec![line], ..Default::default() }
}

#[tokio::test]
async fn lines_travel_from_the_node_that_was_asked_to_the_reader() {
    let (running, mut admin, node, mut session, request) = world().await;
    let other = joined(&running, "other").await;
    let (sender, messages) = mpsc::channel(4);
    let (sent, sending) = tokio::sync::oneshot::channel();
    let node_side = async {
        let open = asked(&mut session).await;
        assert_eq!((open.follow, open.tail_lines), (true, Some(0)));
        assert_eq!(open.since_unix_ms, 1_700_000_000_123);
        let intruder =
            other.client(&running).await.send_logs(tokio_stream::once(batch(&open.stream_id, "lie"))).await;
        assert_eq!(intruder.unwrap_err().code(), Code::PermissionDenied);
        sender.send(batch(&open.stream_id, "one")).await.unwrap();
        sender.send(batch("", "two")).await.unwrap();
        let mut client = node.client(&running).await;
        // Goes on while the reader reads.
        let sending = tokio::spawn(async move { client.send_logs(ReceiverStream::new(messages)).await });
        sent.send(sending).unwrap();
    };
    let (answer, ()) = tokio::join!(admin.stream_task_logs(request), node_side);
    let sending = sending.await.unwrap();
    let mut lines = answer.unwrap().into_inner();
    for expected in ["one", "two"] {
        let response = lines.message().await.unwrap().unwrap();
        assert_eq!(response.lines[0].line, expected.as_bytes());
    }
    // The reader leaves: the node's call ends although it has more to send.
    drop(lines);
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_of_the_node_and_the_end_of_the_log_reach_the_reader() {
    let (running, mut admin, node, mut session, request) = world().await;
    let node_side = async {
        let open = asked(&mut session).await;
        let mut failed = batch(&open.stream_id, "");
        failed.error = "the log was removed".to_owned();
        node.client(&running).await.send_logs(tokio_stream::once(failed)).await.unwrap();
        let open = asked(&mut session).await;
        let last = v1::SendLogsRequest { ended: true, ..batch(&open.stream_id, "all") };
        node.client(&running).await.send_logs(tokio_stream::once(last)).await.unwrap();
    };
    let reader = async {
        let refused = admin.stream_task_logs(request.clone()).await.unwrap_err();
        assert_eq!(reason(&refused), "LOGS_UNREADABLE");
        assert!(refused.message().contains("the log was removed"));
        let mut lines = admin.stream_task_logs(request).await.unwrap().into_inner();
        assert!(lines.message().await.unwrap().is_some());
        assert!(lines.message().await.unwrap().is_none());
    };
    tokio::join!(node_side, reader);
}

#[tokio::test]
async fn a_node_that_goes_away_in_the_middle_has_not_ended_the_log() {
    let (running, mut admin, node, mut session, request) = world().await;
    let (sender, messages) = mpsc::channel(4);
    let mut client = node.client(&running).await;
    let node_side = async {
        let open = asked(&mut session).await;
        sender.send(batch(&open.stream_id, "one")).await.unwrap();
        let sending = async move { client.send_logs(ReceiverStream::new(messages)).await };
        tokio::spawn(sending).abort_handle()
    };
    let (answer, sending) = tokio::join!(admin.stream_task_logs(request.clone()), node_side);
    let mut lines = answer.unwrap().into_inner();
    assert_eq!(lines.message().await.unwrap().unwrap().lines[0].line, b"one");
    sending.abort();
    let broken = lines.message().await.unwrap_err();
    assert_eq!((broken.code(), reason(&broken).as_str()), (Code::Unavailable, "STREAM_BROKEN"));
    drop(sender);
    // Who read whose output is known, and how it ended.
    crate::support::until("the audit has both ends", async || {
        let mut admin = admin.clone();
        let audit = admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner();
        let record = &audit.records[0];
        assert_eq!((record.action.as_str(), &record.task_id), ("logs", &request.task));
        assert_eq!(record.command, ["--follow"]);
        record.result.starts_with("failed: ")
    })
    .await;
}

#[tokio::test]
async fn a_node_hears_of_a_task_before_it_is_asked_for_its_log() {
    let (_running, mut admin, _node, mut session, _) = world().await;
    for _ in 0..8 {
        let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
        let task = ran.tasks[0].task_id.clone();
        let request = v1::StreamTaskLogsRequest { task: task.clone(), ..Default::default() };
        let mut reader = admin.clone();
        // Given up when the order of the messages is seen.
        let asking = tokio::spawn(async move { reader.stream_task_logs(request).await.map(drop) });
        let mut assigned = false;
        loop {
            match session.receive().await.unwrap() {
                FromControl::Assignments(delta) => {
                    assigned |= delta.assignments.iter().any(|assignment| assignment.task_id == task);
                }
                FromControl::OpenLogStream(open) if open.task_id == task => break,
                _ => {}
            }
        }
        assert!(assigned, "the log of a task was asked for before its assignment was sent");
        asking.abort();
    }
}

#[tokio::test]
async fn without_a_container_s_name_all_containers_are_asked_for_at_once() {
    let running = start().await;
    let mut admin = running.admin().await;
    let json = r#"{"family":"two","containerDefinitions":[
        {"name":"a","image":"i","memory":6},{"name":"b","image":"i","memory":6}]}"#;
    register(&mut admin, json).await;
    let node = joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("two", 1)).await.unwrap().into_inner();
    let request = v1::StreamTaskLogsRequest { task: ran.tasks[0].task_id.clone(), ..Default::default() };
    let node_side = async {
        let open = asked(&mut session).await;
        let last = v1::SendLogsRequest { error: "b never started".to_owned(), ..Default::default() };
        let messages = tokio_stream::iter([batch(&open.stream_id, "merged"), last]);
        node.client(&running).await.send_logs(messages).await.unwrap();
        (open.container, open.containers)
    };
    let (lines, asked_for) = tokio::join!(admin.stream_task_logs(request), node_side);
    let mut lines = lines.unwrap().into_inner();
    assert_eq!(asked_for, (String::new(), vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(lines.message().await.unwrap().unwrap().lines[0].line, b"merged");
    assert_eq!(reason(&lines.message().await.unwrap_err()), "LOGS_UNREADABLE", "after all the others");
}

#[tokio::test]
async fn without_a_session_or_a_container_of_that_name_the_answer_says_so() {
    let (_running, mut admin, _node, session, request) = world().await;
    let wrong = v1::StreamTaskLogsRequest { container: "db".to_owned(), ..request.clone() };
    assert_eq!(reason(&admin.stream_task_logs(wrong).await.unwrap_err()), "CONTAINER_NOT_FOUND");
    drop(session);
    crate::support::until("the session has ended", async || {
        let mut admin = admin.clone();
        let answer = admin.stream_task_logs(request.clone());
        // Until the session's end is seen the request may still be passed on, and is not answered.
        match tokio::time::timeout(std::time::Duration::from_millis(200), answer).await {
            Ok(answer) => reason(&answer.unwrap_err()) == "NODE_NOT_CONNECTED",
            Err(_) => false,
        }
    })
    .await;
}
