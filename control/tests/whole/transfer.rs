//! The state moved between stores and set back to a snapshot: nodes hear of a new incarnation and
//! of the tasks that are known, and what is not known is an orphan that nobody stops.

use crate::etcd::Etcd;
use crate::fake_node::FakeNode;
use crate::support::{Running, clock, config, describe_task, register, run_request};
use lighter_control::config::{StoreConfig, StoreKind};
use lighter_control::{Control, ControlConfig, snapshot, transfer};
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as FromControl;
use lighter_proto::v1::node_message::Message as FromNode;

async fn start(settings: &ControlConfig, before: Running) -> Running {
    let (dir, clock_ahead_ms) = (before.dir, before.clock_ahead_ms);
    let handle = Control::start_in(settings.clone(), clock(clock_ahead_ms.clone())).await.unwrap();
    Running { handle, dir, clock_ahead_ms }
}

async fn stop(running: Running) -> Running {
    let Running { handle, dir, clock_ahead_ms } = running;
    handle.shutdown();
    handle.join().await;
    // A handle that is not served any more, only for its directory and clock.
    let handle = crate::support::start().await.handle;
    handle.shutdown();
    Running { handle, dir, clock_ahead_ms }
}

/// The node connects and is given exactly these tasks, by a store of another incarnation.
async fn moved(node: &mut FakeNode, running: &Running, tasks: &[&str]) {
    let session = node.connect(running).await.unwrap();
    let given: Vec<&str> = session.manifest.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!(given, tasks);
    assert_ne!(session.hello.incarnation, node.incarnation);
    (node.incarnation, node.revision) = (session.hello.incarnation.clone(), session.revision);
}

fn held(task: &str) -> v1::HeldTask {
    v1::HeldTask {
        task_id: task.to_owned(),
        generation: 1,
        last_status: v1::TaskStatus::Running.into(),
        ..Default::default()
    }
}

/// Off the runtime: the calls of a store block.
async fn offline<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_cluster_moves_to_etcd_and_back_and_to_a_snapshot_of_before() {
    let etcd = Etcd::start();
    let running = crate::support::start().await;
    let on_redb = config(&running.dir);
    let store = StoreConfig { kind: StoreKind::Etcd, endpoints: vec![etcd.endpoint()], ..Default::default() };
    let on_etcd = ControlConfig { store, ..on_redb.clone() };
    let mut admin = running.admin().await;
    register(&mut admin, &crate::support::definition_json("web", 0, 6, None)).await;
    let mut node = crate::fake_node::joined(&running, "node").await;
    drop(node.connect(&running).await.unwrap());
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let first = ran.tasks[0].task_id.clone();
    node.held = vec![held(&first)];
    let file = running.dir.path().join("a.snapshot");
    let (settings, path) = (on_redb.clone(), file.clone());
    assert!(offline(move || transfer::save(&settings, &path)).await.is_err(), "the store is in use");

    let running = stop(running).await;
    let (from, to, path) = (on_redb.clone(), on_etcd.clone(), file.clone());
    let (saved, moved_records) = offline(move || {
        let saved = transfer::save(&from, &path).unwrap();
        (saved, transfer::migrate(&from, &to, false).unwrap())
    })
    .await;
    assert_eq!(saved.records, moved_records);
    assert_eq!(snapshot::read(&file).unwrap().0, saved);
    let running = start(&on_etcd, running).await;
    moved(&mut node, &running, &[&first]).await;
    let mut admin = running.admin().await;
    assert_eq!(describe_task(&mut admin, &first).await.task_id, first);
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let second = ran.tasks[0].task_id.clone();
    node.held.push(held(&second));

    let (from, to) = (on_etcd.clone(), on_redb.clone());
    let led = offline(move || transfer::migrate(&from, &to, true)).await.unwrap_err();
    assert!(matches!(led, transfer::TransferError::Led { .. }), "{led:?}");
    let running = stop(running).await;
    let (from, to) = (on_etcd, on_redb.clone());
    offline(move || {
        let refused = transfer::migrate(&from, &to, false).unwrap_err();
        assert!(matches!(refused, transfer::TransferError::NotEmpty { .. }), "{refused:?}");
        transfer::migrate(&from, &to, true).unwrap();
    })
    .await;
    let running = start(&on_redb, running).await;
    moved(&mut node, &running, &[&first, &second]).await;

    // Back to before the second task: it goes on, and is shown for someone to decide.
    let running = stop(running).await;
    let (settings, path) = (on_redb.clone(), file.clone());
    offline(move || transfer::restore(&settings, &path, true).unwrap()).await;
    let running = start(&on_redb, running).await;
    moved(&mut node, &running, &[&first]).await;
    // Also once the node knows this store: the orphan's stop is not confirmed, only the heartbeat answered.
    let mut session = node.connect(&running).await.unwrap();
    session.say(FromNode::ConfirmStop(v1::ConfirmStop { task_ids: vec![second] })).await;
    session.say(FromNode::Heartbeat(v1::Heartbeat { number: 1 })).await;
    let said = session.receive().await.unwrap();
    assert!(matches!(said, FromControl::HeartbeatAnswer(_)), "{said:?}");
}
