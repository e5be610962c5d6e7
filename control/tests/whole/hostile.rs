//! What strangers and broken peers send to the real listeners: refused, and nothing changed.

use crate::fake_node::joined;
use crate::support::{
    PATIENCE, Running, definition_json, describe_task, reason, register, run_request, start, start_with,
    until,
};
use bytes::Bytes;
use http_body::Frame;
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;
use tower::ServiceExt;

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 64];
    let read = async {
        // What it is told before the end (a GOAWAY) does not matter.
        while let Ok(1..) = stream.read(&mut byte).await {}
    };
    tokio::time::timeout(PATIENCE, read).await.is_ok()
}

/// The sequence of the cluster's state.
async fn sequence(admin: &mut LighterClient<Channel>) -> u64 {
    let request = v1::StreamClusterStateRequest::default();
    let mut chunks = admin.stream_cluster_state(request).await.unwrap().into_inner();
    chunks.message().await.unwrap().unwrap().sequence
}

#[tokio::test]
async fn handshakes_that_never_finish_are_cut_and_hold_up_nobody() {
    let running = start_with(|config| config.handshake_timeout_ms = 1_000).await;
    let (tls, plain) = (running.handle.addresses()[0], running.handle.plaintext_addresses()[0]);
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(tls).await.unwrap());
    }
    for _ in 0..10 {
        // The beginning of a ClientHello, and no more.
        let mut begun = TcpStream::connect(tls).await.unwrap();
        begun.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        silent.push(begun);
        // Connected, and no HTTP/2 after it.
        silent.push(TcpStream::connect(plain).await.unwrap());
    }
    let mut person = LighterClient::new(running.admin_tls().await);
    person.list_clusters(v1::ListClustersRequest::default()).await.unwrap();
    for stream in &mut silent {
        assert!(is_closed(stream).await, "a handshake that never finishes is cut");
    }
    // A connection that speaks stays.
    person.list_clusters(v1::ListClustersRequest::default()).await.unwrap();
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused_and_the_socket_stays_open() {
    let running = start_with(|config| config.connections_max = Some(3)).await;
    let plain = running.handle.plaintext_addresses()[0];
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(plain).await.unwrap());
    }
    let mut fourth = TcpStream::connect(plain).await.unwrap();
    assert!(is_closed(&mut fourth).await);
    running.admin().await.list_clusters(v1::ListClustersRequest::default()).await.unwrap();
    drop(held);
    until("the places are free again", async || running.tls_endpoint(None).connect().await.is_ok()).await;
}

#[tokio::test]
async fn the_anonymous_have_a_limit_of_their_own() {
    let running = start_with(|config| config.anonymous_connections_max = 2).await;
    let plain = running.handle.plaintext_addresses()[0];
    let _held = [TcpStream::connect(plain).await.unwrap(), TcpStream::connect(plain).await.unwrap()];
    let mut third = TcpStream::connect(plain).await.unwrap();
    assert!(is_closed(&mut third).await);
    let mut person = LighterClient::new(running.admin_tls().await);
    person.list_clusters(v1::ListClustersRequest::default()).await.unwrap();
}

async fn garbage(running: &Running) {
    let mut stream = TcpStream::connect(running.handle.plaintext_addresses()[0]).await.unwrap();
    stream.write_all(&[0xff; 4_096]).await.unwrap();
    assert!(is_closed(&mut stream).await);
    let mut stream = TcpStream::connect(running.handle.plaintext_addresses()[0]).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // A frame that says it is 16 MiB long.
    stream.write_all(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]).await.unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn oversized_malformed_and_unknown_requests_change_nothing() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let before = sequence(&mut admin).await;
    garbage(&running).await;
    let json = "x".repeat(5 << 20);
    let refused =
        admin.register_task_definition(v1::RegisterTaskDefinitionRequest { json }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let refused =
        admin.register_task_definition(v1::RegisterTaskDefinitionRequest { json }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let request = v1::ListTasksRequest { desired_status: 99, ..Default::default() };
    assert_eq!(admin.list_tasks(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = v1::ListContainerInstancesRequest { status: 99, ..Default::default() };
    assert_eq!(admin.list_container_instances(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = v1::ListTaskDefinitionsRequest { status: -1, ..Default::default() };
    assert_eq!(admin.list_task_definitions(request).await.unwrap_err().code(), Code::InvalidArgument);
    let request = v1::UpdateContainerInstancesStateRequest {
        container_instances: vec!["x".into()],
        status: 99,
        ..Default::default()
    };
    assert_eq!(
        admin.update_container_instances_state(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(sequence(&mut admin).await, before, "nothing changed");
}

#[tokio::test]
async fn a_node_that_says_what_cannot_be_is_refused() {
    let running = start().await;
    let mut admin = running.admin().await;
    let node = joined(&running, "node").await;
    let before = sequence(&mut admin).await;
    let attribute = |name: &str, value: &str| v1::Attribute {
        name: name.to_owned(),
        value: value.to_owned(),
        ..Default::default()
    };
    let many = (0..1_000).map(|n| attribute(&format!("a{n}"), "")).collect();
    let wrong = [
        vec![attribute("a b", "c")],
        vec![attribute("a", &"x".repeat(129))],
        vec![attribute("lighter.capacity-type", "free")],
        many,
    ];
    for attributes in wrong {
        let mut hello = node.hello();
        hello.state.as_mut().unwrap().attributes = attributes;
        let refused = node.connect_saying(&running, hello).await.err().expect("refused");
        assert_eq!(reason(&refused), "PROTOCOL_VIOLATION");
    }
    assert_eq!(sequence(&mut admin).await, before, "nothing changed");
    let mut older = node.hello();
    older.protocol = Some(v1::ProtocolRange { min: 0, max: 0 });
    node.connect_saying(&running, older).await.err().expect("refused");
    let seen = crate::support::describe_instance(&mut admin, "node").await;
    assert_eq!(seen.status(), v1::ContainerInstanceStatus::RegistrationFailed);
    let mut session = node.connect(&running).await.unwrap();
    let seen = crate::support::describe_instance(&mut admin, "node").await;
    assert_eq!(seen.status(), v1::ContainerInstanceStatus::Active);
    let container = v1::Container { name: "web".into(), last_status: 99, ..Default::default() };
    let task = "0".repeat(32);
    let report = v1::TaskReport {
        containers: vec![container],
        ..crate::fake_node::report(&task, 1, v1::TaskStatus::Running)
    };
    let reports = v1::TaskReports { reports: vec![report] };
    session.say(v1::node_message::Message::TaskReports(reports)).await;
    assert_eq!(reason(&session.end().await), "PROTOCOL_VIOLATION");
}

/// What would be kept in records and events for everybody to carry.
#[tokio::test]
async fn a_node_that_says_too_much_is_refused() {
    let running = start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, None)).await;
    let mut node = joined(&running, "node").await;
    drop(node.connect(&running).await.unwrap());
    let task = admin.run_task(run_request("web", 1)).await;
    let task = task.unwrap().into_inner().tasks.remove(0).task_id;
    let long = "x".repeat(1 << 20);
    let report = || crate::fake_node::report(&task, 1, v1::TaskStatus::Pending);
    let wait = v1::Wait { kind: "PULL".to_owned(), ..Default::default() };
    let reports = [
        v1::TaskReport { waiting_reason: long.clone(), ..report() },
        v1::TaskReport { waits: vec![wait; 10_000], ..report() },
        v1::TaskReport { settled_generation: u64::MAX, ..report() },
    ];
    for report in reports {
        let mut session = node.connect(&running).await.unwrap();
        let before = sequence(&mut admin).await;
        let reports = v1::TaskReports { reports: vec![report] };
        session.say(v1::node_message::Message::TaskReports(reports)).await;
        assert_eq!(reason(&session.end().await), "PROTOCOL_VIOLATION");
        assert_eq!(sequence(&mut admin).await, before);
    }
    // A text for people is cut.
    let mut session = node.connect(&running).await.unwrap();
    session.report(vec![v1::TaskReport { waiting_reason: "y".repeat(10_000), ..report() }]).await;
    until("the report is taken", async || {
        describe_task(&mut admin.clone(), &task).await.waiting_reason.starts_with("yyy")
    })
    .await;
    assert!(describe_task(&mut admin, &task).await.waiting_reason.len() < 5_000);
    drop(session);
    let before = sequence(&mut admin).await;
    let named = |name: String| {
        let mut hello = node.hello();
        hello.state.as_mut().unwrap().name = name;
        hello
    };
    let hellos = [
        v1::NodeHello { agent_version: long.clone(), ..node.hello() },
        v1::NodeHello { features: vec![String::new(); 1_000], ..node.hello() },
        named(long),
        named("0".repeat(32)),
    ];
    for hello in hellos {
        let refused = node.connect_saying(&running, hello).await.err().expect("refused");
        assert_eq!(reason(&refused), "PROTOCOL_VIOLATION");
    }
    // One more would be none.
    node.held = vec![v1::HeldTask { task_id: task, generation: u64::MAX, ..Default::default() }];
    let refused = node.connect(&running).await.err().expect("refused");
    assert_eq!(reason(&refused), "PROTOCOL_VIOLATION");
    assert_eq!(sequence(&mut admin).await, before, "nothing changed");
}

/// Each time would end every session.
#[tokio::test]
async fn a_node_has_the_term_raised_once() {
    let running = start().await;
    let node = joined(&running, "node").await;
    let first = node.connect(&running).await.unwrap().hello.term;
    let above = |term: u64| v1::NodeHello { term: term + 1, ..node.hello() };
    let refused = node.connect_saying(&running, above(first)).await.err().unwrap();
    assert_eq!(reason(&refused), "STATE_RELOADED");
    until("a higher term", async || match node.connect(&running).await {
        Ok(session) => session.hello.term > first + 1,
        Err(_) => false,
    })
    .await;
    let term = node.connect(&running).await.unwrap().hello.term;
    let refused = node.connect_saying(&running, above(term)).await.err().unwrap();
    assert_eq!(reason(&refused), "PROTOCOL_VIOLATION");
    assert_eq!(node.connect(&running).await.unwrap().hello.term, term);
}

/// Names are the node's own choice; an id is not.
#[tokio::test]
async fn nobody_is_reached_by_the_id_of_another() {
    let running = start().await;
    let mut admin = running.admin().await;
    let node = joined(&running, "web-1").await;
    drop(node.connect(&running).await.unwrap());
    let token = running.handle.create_join_token().await.unwrap();
    let refused = crate::fake_node::join(&running, &token, &node.id).await.err().expect("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(crate::support::describe_instance(&mut admin, &node.id).await.name, "web-1");
}

/// Some bytes, and then nothing.
struct Unending(Option<Bytes>);

impl http_body::Body for Unending {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

/// The server would have to hold it.
#[tokio::test]
async fn what_a_stranger_says_is_short_and_comes_in_time() {
    let running = start_with(|config| config.handshake_timeout_ms = 1_000).await;
    let channel = running.tls(None).await;
    for path in ["/lighter.v1.Node/Join", "/grpc.health.v1.Health/Check"] {
        // A message that says it has 3 MiB, of which some come, and the rest does not.
        for begun in [64 << 10, 16] {
            let mut head = vec![0];
            head.extend_from_slice(&(3u32 << 20).to_be_bytes());
            head.extend(std::iter::repeat_n(0, begun));
            let body = tonic::body::Body::new(Unending(Some(head.into())));
            let request = http::Request::post(format!("https://control.lighter.internal{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(body)
                .unwrap();
            let answer = tokio::time::timeout(PATIENCE, channel.clone().oneshot(request)).await;
            let answer = answer.expect("an answer in time").unwrap();
            let status = tonic::Status::from_header_map(answer.headers()).expect("refused");
            assert_ne!(status.code(), Code::Ok, "{path}: {status}");
            if begun == 16 {
                assert_eq!(status.code(), Code::DeadlineExceeded, "{path}: {status}");
            }
        }
    }
    // Who has a name may say more.
    let mut admin = LighterClient::new(running.admin_tls().await);
    let json = definition_json(&"x".repeat(40_000), 100, 64, None);
    let request = v1::RegisterTaskDefinitionRequest { json };
    let refused = admin.register_task_definition(request).await.unwrap_err();
    assert!(refused.message().contains("family"), "{refused}");
}
