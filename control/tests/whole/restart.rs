//! A control plane killed with SIGKILL in the middle of writing loses nothing it acknowledged.

use crate::support::{config, definition_json, describe_task, register, run_request};
use lighter_control::{Control, ControlConfig};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// In the environment of the child process: the directory to serve from.
pub(crate) const CHILD_DIR: &str = "LIGHTER_TEST_CONTROL_DIR";

/// The socket only, in a directory that another process made.
pub(crate) fn child_config(dir: &std::path::Path) -> ControlConfig {
    ControlConfig {
        data_dir: dir.join("data"),
        listen: Vec::new(),
        listen_plaintext: vec![dir.join("control.sock").to_str().unwrap().parse().unwrap()],
        ..ControlConfig::default()
    }
}

/// Ends the child whatever becomes of the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &TempDir) -> Killed {
    let this_test = "restart::a_killed_control_plane_has_kept_all_it_acknowledged";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this_test, "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child)
}

async fn connect(dir: &TempDir) -> LighterClient<Channel> {
    connect_at(dir.path()).await
}

/// Waits for the server on the socket in that directory.
pub(crate) async fn connect_at(dir: &std::path::Path) -> LighterClient<Channel> {
    let url = format!("unix:{}", dir.join("control.sock").display());
    let endpoint = Endpoint::from_shared(url).unwrap();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return LighterClient::new(channel),
            Err(error) => assert!(std::time::Instant::now() < deadline, "no server: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_killed_control_plane_has_kept_all_it_acknowledged() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        let handle = Control::start(child_config(dir.as_ref())).await.unwrap();
        handle.join().await;
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut acknowledged: BTreeSet<u32> = BTreeSet::new();
    for round in 1..=3u64 {
        let mut child = spawn(&dir);
        let admin = connect(&dir).await;
        // Writers until the server is gone.
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut admin = admin.clone();
            writers.spawn(async move {
                let mut mine = Vec::new();
                let json = definition_json("f", 0, 6, None);
                while let Ok(answer) = admin
                    .register_task_definition(v1::RegisterTaskDefinitionRequest { json: json.clone() })
                    .await
                {
                    mine.push(answer.into_inner().task_definition.unwrap().revision);
                }
                mine
            });
        }
        tokio::time::sleep(Duration::from_millis(100 * round)).await;
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        for revision in writers.join_all().await.into_iter().flatten() {
            assert!(acknowledged.insert(revision), "revision {revision} was given twice");
        }
    }
    assert!(acknowledged.len() > 10, "only {} were written", acknowledged.len());
    let handle = Control::start(child_config(dir.path())).await.unwrap();
    let mut admin = connect(&dir).await;
    for revision in &acknowledged {
        let task_definition = format!("f:{revision}");
        admin.describe_task_definition(v1::DescribeTaskDefinitionRequest { task_definition }).await.unwrap();
    }
    let next = register(&mut admin, &definition_json("f", 0, 6, None)).await.revision;
    assert!(next > *acknowledged.last().unwrap());
    handle.shutdown();
    handle.join().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_every_node_counts_as_just_seen() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 100, 64, Some(8080))).await;
    let mut node = crate::fake_node::joined(&running, "node").await;
    let mut session = node.connect(&running).await.unwrap();
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let task = ran.tasks[0].task_id.clone();
    session.report(vec![crate::fake_node::report(&task, 1, v1::TaskStatus::Running)]).await;
    let (incarnation, term) = (session.hello.incarnation.clone(), session.hello.term);
    let before = describe_task(&mut admin, &task).await;
    drop(session);
    let running = running.restart().await;
    let mut admin = running.admin().await;
    assert_eq!(describe_task(&mut admin, &task).await, before);
    let instance = crate::support::describe_instance(&mut admin, "node").await;
    assert!(instance.agent_connected);
    assert_eq!(instance.remaining_resources.unwrap().ports_tcp, [8080]);
    node.incarnation = incarnation.clone();
    node.held =
        vec![v1::HeldTask { task_id: task.clone(), generation: 1, last_status: 4, ..Default::default() }];
    let session = node.connect(&running).await.unwrap();
    assert!(session.hello.term > term);
    assert_eq!(session.hello.incarnation, incarnation);
    assert_eq!(session.manifest[0].task_id, task);
}

#[tokio::test]
async fn a_restored_backup_has_a_higher_term_and_starts_nothing_twice() {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let mut node = crate::fake_node::joined(&running, "node").await;
    drop(node.connect(&running).await.unwrap());
    let ran = admin.run_task(run_request("web", 1)).await.unwrap().into_inner();
    let task = ran.tasks[0].task_id.clone();
    let running = running.restart().await;
    running.handle.shutdown();
    running.handle.join().await;
    let (dir, clock) = (running.dir, running.clock_ahead_ms);
    let store = dir.path().join("data/control.redb");
    let backup = dir.path().join("backup.redb");
    std::fs::copy(&store, &backup).unwrap();
    // Life goes on: the task runs, ends and is forgotten, with some restarts in between.
    let mut running = crate::support::start_at(dir, clock).await;
    for _ in 0..2 {
        running = running.restart().await;
    }
    let mut session = node.connect(&running).await.unwrap();
    session.report(vec![crate::fake_node::stopped_report(&task, 1, 0)]).await;
    session.assignments().await;
    (node.incarnation, node.revision) = (session.hello.incarnation.clone(), session.revision);
    let term = session.hello.term;
    drop(session);
    running.handle.shutdown();
    running.handle.join().await;
    std::fs::copy(&backup, &store).unwrap();
    let running = crate::support::start_at(running.dir, running.clock_ahead_ms).await;
    let session = node.connect(&running).await.unwrap();
    assert!(session.hello.term > term, "a node refuses a lower term");
    assert!(session.manifest.is_empty(), "the task may have run: {:?}", session.manifest);
    let lost = describe_task(&mut running.admin().await, &task).await;
    assert_eq!(lost.last_status(), v1::TaskStatus::Stopped);
}

#[tokio::test]
async fn a_second_control_plane_on_the_same_directory_does_not_start() {
    let running = crate::support::start().await;
    let refused = Control::start(config(&running.dir)).await.err().expect("the store is in use");
    assert!(matches!(refused, lighter_control::StartError::Store { .. }), "{refused:?}");
}
