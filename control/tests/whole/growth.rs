//! A store does not grow with what has passed through it: many short tasks, through the real writer,
//! and what is left of them when they are collected. `LIGHTER_GROWTH_TASKS` says how many; the figures
//! of 200,000 are in docs/reliability.md.

use lighter_control::core::Settings;
use lighter_control::core::definition::RegisterDefinition;
use lighter_control::core::instance::{EnsureClusters, NodeConnected, NodeFacts};
use lighter_control::core::join::{CreateJoinToken, Join};
use lighter_control::core::report::ApplyReports;
use lighter_control::core::run_task::RunTask;
use lighter_control::core::sweep::Sweep;
use lighter_control::store::redb::RedbStore;
use lighter_control::store::{Loaded, Store};
use lighter_control::view::View;
use lighter_control::writer::{self, WriterHandle};
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::report::TaskReport;
use lighter_model::resources::Resources;
use lighter_model::status::{StopCode, TaskStatus};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Callers at a time.
const CALLERS: u64 = 40;
/// Of one call; as many reports of a node are one command.
const TOGETHER: u32 = 10;

fn tasks(usual: u64) -> u64 {
    std::env::var("LIGHTER_GROWTH_TASKS").map_or(usual, |text| text.parse().unwrap())
}

fn cluster() -> ClusterName {
    "default".parse().unwrap()
}

/// A cluster with one large node.
async fn prepare(writer: &WriterHandle) -> ContainerInstanceId {
    writer.submit(EnsureClusters { clusters: vec![cluster()] }).await.unwrap();
    let json = crate::support::definition_json("f", 0, 6, None);
    let definition = lighter_model::task_definition::input::parse(&json).unwrap();
    writer.submit(RegisterDefinition { definition, registered_by: String::new() }).await.unwrap();
    let secret_sha256 = "00".to_owned();
    let token = CreateJoinToken {
        cluster: cluster(),
        time_to_live_s: 60,
        attributes: BTreeMap::new(),
        secret_sha256: secret_sha256.clone(),
    };
    let token_id = writer.submit(token).await.unwrap().id.clone();
    let join = Join { token_id, secret_sha256, public_key_sha256: "k".to_owned(), name: "n".to_owned() };
    let instance = writer.submit(join).await.unwrap().id.clone();
    let offered = Resources { cpu_units: 1_000_000, memory_mib: 10_000_000, ..Resources::default() };
    let connected = NodeConnected {
        leases: false,
        instance: instance.clone(),
        facts: NodeFacts { offered, ..NodeFacts::default() },
        agent_version: "1".to_owned(),
        boot_id: "b".to_owned(),
        address: None,
        held: BTreeMap::new(),
        trusted: true,
        learned: Default::default(),
    };
    while writer.submit(connected.clone()).await.unwrap() {}
    instance
}

fn stopped(id: &TaskId) -> TaskReport {
    TaskReport {
        task: id.clone(),
        sequence: 1,
        status: TaskStatus::Stopped,
        stop_code: Some(StopCode::EssentialContainerExited),
        stopped_reason: Some("Essential container in task exited".to_owned()),
        waiting_reason: None,
        waits: Vec::new(),
        containers: Vec::new(),
        paused: false,
        settled: Default::default(),
        refusal: None,
        pull_started_at_unix_ms: None,
        pull_stopped_at_unix_ms: None,
        started_at_unix_ms: None,
        stopping_at_unix_ms: None,
        execution_stopped_at_unix_ms: None,
        stopped_at_unix_ms: None,
    }
}

/// Runs ten tasks and has them STOPPED.
async fn run_and_stop(writer: &WriterHandle, instance: &ContainerInstanceId) {
    let run = RunTask { count: TOGETHER, ..RunTask::new(cluster(), "f") };
    let ran = writer.submit(run).await.unwrap().tasks;
    assert_eq!(ran.len(), TOGETHER as usize);
    let reports = ran.iter().map(|task| stopped(&task.id)).collect();
    writer.submit(ApplyReports { instance: instance.clone(), reports }).await.unwrap();
}

/// Has so many short tasks pass through a store; each is kept for a minute, in which ten thousand end.
fn pass_through(store: Box<dyn Store>, tasks: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ahead_ms = Arc::new(AtomicU64::new(0));
        let settings = Settings { stopped_tasks_kept_ms: 60_000, ..Settings::default() };
        let environment = crate::support::clock(ahead_ms.clone());
        let started = writer::start(store, settings, environment, Arc::new(View::default()), None);
        let (writer, running) = started.await.unwrap();
        let instance = prepare(&writer).await;
        for _ in 0..tasks / (CALLERS * u64::from(TOGETHER)) {
            let calls = (0..CALLERS).map(|_| run_and_stop(&writer, &instance));
            futures_util::future::join_all(calls).await;
            ahead_ms.fetch_add(6 * CALLERS * u64::from(TOGETHER), Ordering::Relaxed);
            while writer.submit(Sweep).await.unwrap() {}
        }
        drop(writer);
        running.await.unwrap();
    });
}

fn live_bytes(loaded: &Loaded) -> u64 {
    loaded.records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

#[test]
fn redb_is_at_most_twice_what_lives_after_many_short_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.redb");
    let tasks = tasks(6_000);
    pass_through(Box::new(RedbStore::open(&path, "one").unwrap()), tasks);
    let size = || std::fs::metadata(&path).unwrap().blocks() * 512;
    let before = size();
    let mut store = RedbStore::open(&path, "one").unwrap();
    store.compact().unwrap();
    let live = live_bytes(&store.load("").unwrap());
    drop(store);
    println!("redb: {tasks} tasks, {before} bytes, {} after compaction, {live} live", size());
    assert!(size() <= 2 * live, "{} bytes for {live}", size());
}

#[test]
fn etcd_is_at_most_twice_what_lives_after_many_short_tasks() {
    let etcd = crate::etcd::Etcd::start();
    let tasks = tasks(2_000);
    pass_through(Box::new(etcd.open("/")), tasks);
    let mut store = etcd.open("/");
    let room = store.room();
    assert!(matches!(store.campaign(0), Ok(lighter_control::store::Campaign::Elected { .. })));
    let live = live_bytes(&store.load("").unwrap());
    // etcd gives its history up in the background, a thousand revisions at a time.
    let giving_up = std::time::Duration::from_millis(3 * tasks);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE + giving_up;
    while room.size().used_bytes == 0 {
        assert!(std::time::Instant::now() < deadline, "etcd's size is not looked at");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let before = room.size().used_bytes;
    // The first says up to where, the second does it: standbys have had the time between.
    store.compact().unwrap();
    store.compact().unwrap();
    while room.size().used_bytes > 2 * live {
        let used = room.size().used_bytes;
        assert!(std::time::Instant::now() < deadline, "{used} bytes in use for {live}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    println!("etcd: {tasks} tasks, {before} bytes, {} after compaction, {live} live", room.size().used_bytes);
}
