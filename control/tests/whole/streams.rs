//! Exec, attach, copy and stats through the relay, with a node that does what the test says: both
//! ways, back-pressure, either side going away, refusals, limits, and the audit of each.

use crate::fake_node::{FakeNode, FakeSession, joined, report};
use crate::support::{PATIENCE, Running, definition_json, reason, register, run_request, start, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_input::Input;
use lighter_proto::v1::stream_output::Output;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A node with a running task, and its session.
/// Records of what was done to running tasks, without those of RunTask and the like.
fn looks(records: Vec<v1::AuditRecord>) -> Vec<v1::AuditRecord> {
    records.into_iter().filter(|record| record.action.starts_with(char::is_lowercase)).collect()
}

struct World {
    running: Running,
    node: FakeNode,
    session: FakeSession,
    task: String,
}

async fn world() -> World {
    let running = start().await;
    let node = joined(&running, "node").await;
    let mut hello = node.hello();
    hello.features = vec!["streams".to_owned()];
    let mut session = node.connect_saying(&running, hello).await.unwrap();
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let task = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks.remove(0).task_id;
    session.report(vec![report(&task, 1, v1::TaskStatus::Running)]).await;
    World { running, node, session, task }
}

/// A person's end of an exec.
struct Person {
    to: mpsc::Sender<v1::ExecRequest>,
    from: Streaming<v1::StreamOutput>,
}

/// The node's end.
struct NodeEnd {
    to: mpsc::Sender<v1::NodeFrame>,
    from: Streaming<v1::ControlFrame>,
}

fn output(output: Output) -> v1::NodeFrame {
    v1::NodeFrame { output: Some(v1::StreamOutput { output: Some(output) }), ..Default::default() }
}

fn ended(result: Ended) -> v1::NodeFrame {
    output(Output::Ended(v1::StreamEnded { result: Some(result) }))
}

fn started() -> v1::NodeFrame {
    output(Output::Started(v1::StreamStarted::default()))
}

impl World {
    fn start_of(&self, words: &[&str]) -> v1::ExecRequest {
        let command = words.iter().map(|word| (*word).to_owned()).collect();
        let target = Some(v1::StreamTarget { task: self.task.clone(), ..Default::default() });
        let order = Some(v1::ExecOrder { command, stdin: true, ..Default::default() });
        let start = v1::exec_request::Message::Start(v1::ExecStart { target, order });
        v1::ExecRequest { message: Some(start) }
    }

    /// Begins an exec; the answer comes when the node has said something.
    fn begin(&self, words: &[&str]) -> tokio::task::JoinHandle<Result<Person, Status>> {
        let start = self.start_of(words);
        let (to, messages) = mpsc::channel(1);
        let sender = to.clone();
        let socket = self.running.handle.unix_socket().unwrap().display().to_string();
        tokio::spawn(async move {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("unix:{socket}")).unwrap();
            let mut client = v1::lighter_client::LighterClient::new(endpoint.connect().await.unwrap());
            sender.send(start).await.unwrap();
            drop(sender);
            let from = client.exec(ReceiverStream::new(messages)).await?.into_inner();
            Ok(Person { to, from })
        })
    }

    /// What the node is asked for next.
    async fn asked(&mut self) -> v1::OpenStream {
        loop {
            if let FromControl::OpenStream(open) = self.session.receive().await.unwrap() {
                return open;
            }
        }
    }

    /// The node answers a stream and says these frames first.
    async fn answer(&self, id: &str, first: Vec<v1::NodeFrame>) -> Result<NodeEnd, Status> {
        let (to, frames) = mpsc::channel(64);
        to.send(v1::NodeFrame { stream_id: id.to_owned(), output: None }).await.unwrap();
        for frame in first {
            to.send(frame).await.unwrap();
        }
        let mut client = self.node.client(&self.running).await;
        let from = client.stream(ReceiverStream::new(frames)).await?.into_inner();
        Ok(NodeEnd { to, from })
    }

    /// Both ends of a running exec.
    async fn open(&mut self, words: &[&str]) -> (Person, NodeEnd) {
        let begun = self.begin(words);
        let open = self.asked().await;
        let node = self.answer(&open.stream_id, vec![started()]).await.unwrap();
        let mut person = begun.await.unwrap().unwrap();
        assert!(matches!(person.next().await.unwrap(), Some(Output::Started(_))));
        (person, node)
    }

    async fn audit(&self) -> Vec<v1::AuditRecord> {
        let mut admin = self.running.admin().await;
        looks(admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner().records)
    }

    /// The assignment of this generation.
    async fn assigned(&mut self, generation: u64) -> v1::Assignment {
        loop {
            let found = self.session.assignments().await;
            if let Some(found) = found.into_iter().find(|assignment| assignment.generation == generation) {
                return found;
            }
        }
    }

    /// The newest record, once it is completed.
    async fn completed(&self) -> v1::AuditRecord {
        until("the audit record is completed", async || {
            self.audit().await.first().is_some_and(|record| !record.result.is_empty())
        })
        .await;
        self.audit().await.remove(0)
    }
}

impl Person {
    async fn next(&mut self) -> Result<Option<Output>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.from.message()).await.expect("nothing came");
        Ok(next?.and_then(|frame| frame.output))
    }

    async fn send(&self, input: Input) {
        let message = v1::exec_request::Message::Input(v1::StreamInput { input: Some(input) });
        self.to.send(v1::ExecRequest { message: Some(message) }).await.unwrap();
    }
}

impl NodeEnd {
    /// The person's next frame; `None` when the person is gone.
    async fn next(&mut self) -> Option<Input> {
        let next = tokio::time::timeout(PATIENCE, self.from.message()).await.expect("nothing came");
        next.ok().flatten().and_then(|frame| frame.input?.input)
    }
}

#[tokio::test]
async fn frames_go_both_ways_and_the_audit_has_begin_and_end() {
    let mut world = world().await;
    let begun = world.begin(&["sh", "-c", "cat"]);
    let open = world.asked().await;
    assert_eq!(
        (open.task_id.as_str(), open.container.as_str(), open.user.as_str()),
        (world.task.as_str(), "web", "admin")
    );
    // Before the node has answered, it is on record already.
    let record = world.audit().await.remove(0);
    assert_eq!((record.action.as_str(), record.result.as_str()), ("exec", ""));
    assert_eq!(record.command, ["sh", "-c", "cat"]);
    let mut node = world.answer(&open.stream_id, vec![started()]).await.unwrap();
    let mut person = begun.await.unwrap().unwrap();
    assert!(matches!(person.next().await.unwrap(), Some(Output::Started(_))));
    person.send(Input::Data(b"hello".to_vec())).await;
    assert_eq!(node.next().await, Some(Input::Data(b"hello".to_vec())));
    person.send(Input::Resize(v1::WindowSize { rows: 3, columns: 4 })).await;
    assert_eq!(node.next().await, Some(Input::Resize(v1::WindowSize { rows: 3, columns: 4 })));
    person.send(Input::DataEnd(v1::DataEnd {})).await;
    assert_eq!(node.next().await, Some(Input::DataEnd(v1::DataEnd {})));
    node.to.send(output(Output::Stdout(b"out".to_vec()))).await.unwrap();
    node.to.send(output(Output::Stderr(b"err!".to_vec()))).await.unwrap();
    node.to.send(ended(Ended::Exited(3))).await.unwrap();
    assert_eq!(person.next().await.unwrap(), Some(Output::Stdout(b"out".to_vec())));
    assert_eq!(person.next().await.unwrap(), Some(Output::Stderr(b"err!".to_vec())));
    assert!(matches!(person.next().await.unwrap(), Some(Output::Ended(_))));
    // The record is completed before the person hears of the end.
    let record = world.audit().await.remove(0);
    assert_eq!((record.result.as_str(), record.bytes_in, record.bytes_out), ("exited 3", 5, 7));
    assert_eq!((record.user.as_str(), record.task_id.as_str()), ("admin", world.task.as_str()));
    assert_eq!(person.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_person_who_goes_away_ends_the_nodes_side() {
    let mut world = world().await;
    let (person, mut node) = world.open(&["sleep", "1000"]).await;
    drop(person);
    assert_eq!(node.next().await, None);
    let record = world.completed().await;
    assert_eq!(record.result, "failed: the caller went away");
}

#[tokio::test]
async fn a_node_that_goes_away_ends_the_persons_side_with_words() {
    let mut world = world().await;
    let (mut person, node) = world.open(&["sleep", "1000"]).await;
    drop(node);
    let status = person.next().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STREAM_BROKEN"));
    assert!(
        world.completed().await.result.starts_with("failed: the node's side"),
        "{:?}",
        world.audit().await
    );
}

#[tokio::test]
async fn a_slow_reader_slows_its_own_node_stream_and_no_other() {
    let mut world = world().await;
    let (mut slow, flooding) = world.open(&["yes"]).await;
    let chunk = vec![b'y'; 32 * 1024];
    let mut sent = 0_usize;
    // What is on the way is bounded: at some point nothing more is taken.
    while tokio::time::timeout(
        std::time::Duration::from_millis(500),
        flooding.to.send(output(Output::Stdout(chunk.clone()))),
    )
    .await
    .is_ok()
    {
        sent += chunk.len();
        assert!(sent < 16 << 20, "{sent} bytes are kept for a reader that does not read");
    }
    let (mut other, node) = world.open(&["true"]).await;
    node.to.send(ended(Ended::Exited(0))).await.unwrap();
    assert!(matches!(other.next().await.unwrap(), Some(Output::Ended(_))));
    // And the slow one gets every byte when it reads.
    let to = flooding.to.clone();
    tokio::spawn(async move { to.send(ended(Ended::Exited(0))).await });
    let mut got = 0;
    loop {
        match slow.next().await.unwrap() {
            Some(Output::Stdout(data)) => got += data.len(),
            Some(Output::Ended(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    // The send that was cancelled may have been taken or not.
    assert!(got == sent || got == sent + chunk.len(), "{got} of {sent}");
}

#[tokio::test]
async fn what_a_node_cannot_do_is_refused_with_its_reason() {
    let mut world = world().await;
    for (word, code, said) in [
        ("COMMAND_NOT_FOUND", Code::NotFound, "COMMAND_NOT_FOUND"),
        ("CONTAINER_NOT_RUNNING", Code::FailedPrecondition, "CONTAINER_NOT_RUNNING"),
        ("SOMETHING_NEW", Code::Unknown, "STREAM_FAILED"),
    ] {
        let begun = world.begin(&["nope"]);
        let open = world.asked().await;
        let failure = v1::StreamFailure { reason: word.to_owned(), message: "in words".to_owned() };
        let _node = world.answer(&open.stream_id, vec![ended(Ended::Failed(failure))]).await.unwrap();
        let status = begun.await.unwrap().err().unwrap();
        assert_eq!((status.code(), reason(&status).as_str(), status.message()), (code, said, "in words"));
        assert_eq!(world.completed().await.result, "failed: in words");
    }
}

#[tokio::test]
async fn unknown_tasks_containers_and_old_or_absent_agents_are_named() {
    let mut world = world().await;
    let admin = world.running.admin().await;
    let exec = async |task: &str, container: &str| {
        let target = Some(v1::StreamTarget {
            task: task.to_owned(),
            container: container.to_owned(),
            ..Default::default()
        });
        let order = Some(v1::ExecOrder { command: vec!["sh".to_owned()], ..Default::default() });
        let start = v1::exec_request::Message::Start(v1::ExecStart { target, order });
        let call = admin.clone().exec(tokio_stream::once(v1::ExecRequest { message: Some(start) })).await;
        reason(&call.err().unwrap())
    };
    assert_eq!(exec("ffff", "").await, "TASK_NOT_FOUND");
    assert_eq!(exec(&world.task, "nope").await, "CONTAINER_NOT_FOUND");
    // An agent of the last release says nothing of streams.
    let held = v1::HeldTask { task_id: world.task.clone(), generation: 1, ..Default::default() };
    world.node.held = vec![held];
    let old = world.node.connect(&world.running).await.unwrap();
    assert_eq!(exec(&world.task, "").await, "AGENT_TOO_OLD");
    drop(old);
    until("the session has ended", async || exec(&world.task, "").await == "NODE_NOT_CONNECTED").await;
    // Nothing stays open after any of them.
    world.session = world.node.connect(&world.running).await.unwrap();
    let mut stopped = report(&world.task, 2, v1::TaskStatus::Stopped);
    stopped.stopped_reason = "done".to_owned();
    world.session.report(vec![stopped]).await;
    assert_eq!(exec(&world.task, "").await, "TASK_NOT_RUNNING");
}

#[tokio::test]
async fn no_other_node_gets_a_stream_and_nobody_gets_it_twice() {
    let mut world = world().await;
    let other = joined(&world.running, "other").await;
    let begun = world.begin(&["sh"]);
    let open = world.asked().await;
    let frame = v1::NodeFrame { stream_id: open.stream_id.clone(), output: None };
    let mut thief = other.client(&world.running).await;
    let refused = thief.stream(tokio_stream::once(frame)).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let _node = world.answer(&open.stream_id, vec![started()]).await.unwrap();
    begun.await.unwrap().unwrap();
    let again = world.answer(&open.stream_id, Vec::new()).await.err().unwrap();
    assert_eq!(again.code(), Code::NotFound);
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_stream() {
    let mut world = world().await;
    let (mut person, mut node) = world.open(&["cat"]).await;
    person.send(Input::Data(vec![0; (64 << 10) + 1])).await;
    let status = person.next().await.unwrap_err();
    assert_eq!(reason(&status), "PROTOCOL_VIOLATION");
    assert_eq!(node.next().await, None);
}

#[tokio::test]
async fn the_limit_of_a_user_is_told_and_ended_streams_make_room() {
    let mut world = world().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(world.open(&["sleep", "1"]).await);
    }
    let refused = world.begin(&["one", "more"]).await.unwrap().err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "STREAM_LIMIT"));
    held.pop();
    until("there is room", async || {
        let all = world.audit().await;
        all.iter().filter(|record| record.action == "exec" && record.result.is_empty()).count() < 64
    })
    .await;
    world.open(&["fits"]).await;
}

#[tokio::test]
async fn stats_of_a_task_come_with_their_node_and_end_when_nobody_reads() {
    let mut world = world().await;
    let mut admin = world.running.admin().await;
    let request = v1::WatchStatsRequest { task: world.task.clone(), ..Default::default() };
    let mut samples = admin.watch_stats(request).await.unwrap().into_inner();
    let open = world.asked().await;
    assert!(matches!(open.order.unwrap().order, Some(v1::stream_order::Order::Stats(_))));
    let row = v1::ContainerStats { task_id: world.task.clone(), pids: Some(3), ..Default::default() };
    let sample = v1::StatsSample { containers: vec![row], ..Default::default() };
    let first = vec![started(), output(Output::Stats(sample))];
    let mut node = world.answer(&open.stream_id, first).await.unwrap();
    let got = samples.message().await.unwrap().unwrap();
    assert_eq!(
        (got.container_instance_id.as_str(), got.containers[0].pids),
        (world.node.id.as_str(), Some(3))
    );
    drop(samples);
    assert_eq!(node.next().await, None);
    let record = world.completed().await;
    assert_eq!((record.action.as_str(), record.result.as_str()), ("stats", "done"));
}

fn pids(task: &str, pids: u64) -> Vec<v1::NodeFrame> {
    let row = v1::ContainerStats { task_id: task.to_owned(), pids: Some(pids), ..Default::default() };
    let sample = v1::StatsSample { containers: vec![row], ..Default::default() };
    vec![started(), output(Output::Stats(sample))]
}

#[tokio::test]
async fn stats_of_the_cluster_take_in_nodes_that_join_later_or_come_back() {
    let running = start().await;
    let mut admin = running.admin().await;
    let mut samples = admin.watch_stats(v1::WatchStatsRequest::default()).await.unwrap().into_inner();
    let nothing = samples.message().await.unwrap().unwrap();
    assert!(nothing.containers.is_empty() && nothing.container_instance_id.is_empty());
    let node = joined(&running, "late").await;
    let mut hello = node.hello();
    hello.features = vec!["streams".to_owned()];
    let session = node.connect_saying(&running, hello).await.unwrap();
    let mut world = World { running, node, session, task: "t".to_owned() };
    for round in 0..2 {
        let open = world.asked().await;
        assert!(open.task_id.is_empty());
        let end = world.answer(&open.stream_id, pids("t", round)).await.unwrap();
        let got = samples.message().await.unwrap().unwrap();
        assert_eq!((&got.container_instance_id, got.containers[0].pids), (&world.node.id, Some(round)));
        // Its stream ends; as long as it has a session it is asked again.
        drop(end);
    }
}

#[tokio::test]
async fn a_paused_or_updated_task_reaches_its_node_and_the_audit() {
    let mut world = world().await;
    let mut admin = world.running.admin().await;
    let (cluster, task) = (String::new(), world.task.clone());
    let paused = admin.pause_task(v1::PauseTaskRequest { cluster, task: task.clone() }).await.unwrap();
    assert!(paused.into_inner().task.unwrap().paused);
    assert!(world.assigned(2).await.paused);
    let request = v1::UpdateTaskRequest { task: task.clone(), memory_mib: Some(64), ..Default::default() };
    let updated = admin.update_task(request.clone()).await.unwrap().into_inner().task.unwrap();
    assert_eq!((updated.memory_mib, updated.cpu_units), (64, 1));
    assert_eq!(world.assigned(3).await.container_resources[0].memory_mib, Some(64));
    // More than the node has, less than a container may have, and nothing at all.
    for (memory_mib, expected) in
        [(Some(1 << 20), "NO_ROOM"), (Some(1), "INVALID_PARAMETER"), (None, "INVALID_PARAMETER")]
    {
        let refused = admin.update_task(v1::UpdateTaskRequest { memory_mib, ..request.clone() }).await;
        assert_eq!(reason(&refused.err().unwrap()), expected);
    }
    let mut settled = report(&task, 2, v1::TaskStatus::Running);
    (settled.settled_generation, settled.refusal, settled.paused) = (3, "no room".to_owned(), true);
    world.session.report(vec![settled]).await;
    let shown = crate::support::describe_task(&mut admin, &task).await;
    // The refused limits are taken back by one more generation; the pause stays.
    assert_eq!((shown.generation, shown.settled_generation, shown.refusal.as_str()), (4, 3, "no room"));
    assert!(shown.paused && shown.memory_mib < 64, "{shown:?}");
    let actions: Vec<String> = world.audit().await.into_iter().map(|record| record.action).collect();
    assert_eq!(actions, ["update", "pause"]);
    assert_eq!(world.audit().await[0].command, ["memory=64"]);
}

#[tokio::test]
async fn the_audit_outlives_a_restart_which_closes_what_was_open() {
    let mut world = world().await;
    let begun = world.begin(&["sh"]);
    let open = world.asked().await;
    let _node = world.answer(&open.stream_id, vec![started()]).await.unwrap();
    let person = begun.await.unwrap().unwrap();
    let World { running, .. } = world;
    let running = running.restart().await;
    drop(person);
    let mut admin = running.admin().await;
    let records = admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner().records;
    let records = looks(records);
    assert_eq!(records.len(), 1);
    let result = &records[0].result;
    assert!(result.starts_with("failed: ") || result.starts_with("cut off: "), "{result}");
}
