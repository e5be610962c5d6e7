//! Images of nodes through the relay: who is asked for what, that one node's failure ends no other, and
//! the audit. In: two nodes that do what the test says, and one that is away. Out: reports, records.

use crate::fake_node::{FakeNode, FakeSession, joined, report};
use crate::support::{Running, definition_json, reason, register, run_request, start, until};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::image_order::Order;
use lighter_proto::v1::image_report::Report;
use lighter_proto::v1::lighter_client::LighterClient;
use lighter_proto::v1::node_image_report::Said;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_output::Output;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

async fn node(running: &Running, name: &str) -> (FakeNode, FakeSession) {
    let node = joined(running, name).await;
    let mut hello = node.hello();
    hello.features = vec!["streams".to_owned()];
    let session = node.connect_saying(running, hello).await.unwrap();
    (node, session)
}

async fn asked(session: &mut FakeSession) -> v1::OpenStream {
    loop {
        if let FromControl::OpenStream(open) = session.receive().await.unwrap() {
            return open;
        }
    }
}

/// The node says these things and ends.
async fn answer(running: &Running, node: &FakeNode, id: &str, said: Vec<Report>, end: Ended) {
    let (to, frames) = mpsc::channel(16);
    let output = |output| v1::NodeFrame {
        stream_id: id.to_owned(),
        output: Some(v1::StreamOutput { output: Some(output) }),
    };
    to.send(output(Output::Started(v1::StreamStarted::default()))).await.unwrap();
    for report in said {
        to.send(output(Output::Images(v1::ImageReport { report: Some(report) }))).await.unwrap();
    }
    to.send(output(Output::Ended(v1::StreamEnded { result: Some(end) }))).await.unwrap();
    let mut client = node.client(running).await;
    let mut from = client.stream(ReceiverStream::new(frames)).await.unwrap().into_inner();
    while let Ok(Some(_)) = from.message().await {}
}

fn pull(images: &[&str]) -> Option<v1::ImageOrder> {
    let images = images.iter().map(|image| (*image).to_owned()).collect();
    let order = Order::Pull(v1::ImagePull { images, pull_behavior: String::new() });
    Some(v1::ImageOrder { order: Some(order) })
}

fn order_of(open: v1::OpenStream) -> Order {
    match open.order.unwrap().order {
        Some(v1::stream_order::Order::Images(order)) => order.order.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_node_reports_for_itself_and_the_one_that_is_away_is_named() {
    let running = start().await;
    let (good, mut good_session) = node(&running, "good").await;
    let (bad, mut bad_session) = node(&running, "bad").await;
    let (_, away) = node(&running, "away").await;
    drop(away);
    let mut admin = running.admin().await;
    let request = v1::OrderImagesRequest { all: true, order: pull(&["r/web:1"]), ..Default::default() };
    let mut reports = admin.order_images(request).await.unwrap().into_inner();
    let serve = async {
        let open = asked(&mut good_session).await;
        let done = Report::Pulled(v1::ImagePulled { image: "r/web:1".to_owned(), ..Default::default() });
        let step = Report::Progress(v1::PullProgress { layers_total: 3, ..Default::default() });
        answer(&running, &good, &open.stream_id, vec![step, done], Ended::Done(v1::StreamDone::default()))
            .await;
        let open = asked(&mut bad_session).await;
        let (reason, message) = ("IMAGE_NOT_PULLED".to_owned(), "no such image".to_owned());
        let failed = Ended::Failed(v1::StreamFailure { reason, message });
        answer(&running, &bad, &open.stream_id, Vec::new(), failed).await;
        assert_eq!(order_of(open), pull(&["r/web:1"]).unwrap().order.unwrap());
    };
    let mut said: BTreeMap<String, Vec<Option<Said>>> = BTreeMap::new();
    let read = async {
        while let Some(report) = reports.message().await.unwrap() {
            said.entry(report.name).or_default().push(report.said);
        }
    };
    tokio::join!(serve, read);
    let end = |name: &str| match said[name].last().unwrap() {
        Some(Said::Ended(ended)) => ended.reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (end("good"), end("bad"), end("away")),
        (String::new(), "IMAGE_NOT_PULLED".to_owned(), "NODE_NOT_CONNECTED".to_owned())
    );
    assert_eq!(said["good"].len(), 4, "concerned, a step, the image, the end: {:?}", said["good"]);
    let audit = async || {
        let mut admin = running.admin().await;
        admin.list_audit(v1::ListAuditRequest::default()).await.unwrap().into_inner().records
    };
    until("the record is completed", async || !audit().await[0].result.is_empty()).await;
    let record = audit().await.remove(0);
    assert_eq!(
        (record.action.as_str(), record.command.as_slice()),
        ("image-pull", &["r/web:1".to_owned()][..])
    );
    assert!(record.result.starts_with("failed on 2 of 3 nodes: "), "{}", record.result);
    assert!(
        record.result.contains("bad: no such image") && record.result.contains("away: "),
        "{}",
        record.result
    );
}

#[tokio::test]
async fn a_task_definition_is_pulled_by_the_digests_its_revision_is_pinned_to() {
    let running = start().await;
    let (instance, mut session) = node(&running, "node").await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 1, 6, None)).await;
    let request = |task_definition: &str, instances: &[&str]| v1::OrderImagesRequest {
        container_instances: instances.iter().map(|name| (*name).to_owned()).collect(),
        order: pull(&[]),
        task_definition: task_definition.to_owned(),
        ..Default::default()
    };
    let ask = async |session: &mut FakeSession, client: &mut LighterClient<Channel>| {
        let _reports = client.order_images(request("web:1", &["node"])).await.unwrap();
        match order_of(asked(session).await) {
            Order::Pull(pull) => pull.images,
            other => panic!("{other:?}"),
        }
    };
    let tag = ask(&mut session, &mut admin).await;
    assert!(tag.len() == 1 && !tag[0].contains('@'), "{tag:?}");
    let task = admin.run_task(run_request("web", 1)).await.unwrap().into_inner().tasks.remove(0).task_id;
    let digest = format!("sha256:{}", "a".repeat(64));
    let mut ran = report(&task, 1, v1::TaskStatus::Running);
    ran.containers = vec![v1::Container {
        name: "web".to_owned(),
        image_digest: digest.clone(),
        last_status: v1::ContainerStatus::Running.into(),
        ..Default::default()
    }];
    session.report(vec![ran]).await;
    assert_eq!(ask(&mut session, &mut admin).await, [format!("{}@{digest}", tag[0])]);
    for (wrong, expected) in [
        (request("web:9", &["node"]), "TASK_DEFINITION_NOT_FOUND"),
        (request("", &["node"]), "INVALID_PARAMETER"),
        (request("web:1", &[]), "INVALID_PARAMETER"),
        (request("web:1", &["nobody"]), "CONTAINER_INSTANCE_NOT_FOUND"),
        (v1::OrderImagesRequest { all: true, ..request("web:1", &["node"]) }, "INVALID_PARAMETER"),
        (v1::OrderImagesRequest { order: None, ..request("web:1", &["node"]) }, "INVALID_PARAMETER"),
    ] {
        assert_eq!(reason(&admin.order_images(wrong).await.err().unwrap()), expected);
    }
    drop(instance);
}
