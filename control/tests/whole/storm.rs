//! A control plane killed with SIGKILL, again and again, in the middle of 10,000 RunTask calls:
//! each call was acknowledged once, its tasks are there once, and its client token gives them again.

use crate::restart::{CHILD_DIR, Killed, connect_at};
use crate::support::{PATIENCE, definition_json, register, start_at};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

const CALLS: usize = 10_000;
const CALLERS: usize = 32;
/// After so many acknowledgements the control plane is killed.
const KILLED_AFTER: [usize; 3] = [2_000, 5_000, 8_000];
const NODES: usize = 4;

/// What the callers know together.
struct Storm {
    dir: PathBuf,
    next: AtomicUsize,
    /// By call: the task of its first acknowledgement.
    acknowledged: Mutex<BTreeMap<usize, String>>,
    /// Calls that were asked again because their answer did not come.
    asked_again: AtomicUsize,
}

fn request(call: usize) -> v1::RunTaskRequest {
    let token = format!("call-{call}");
    v1::RunTaskRequest {
        task_definition: "web".to_owned(),
        count: 1,
        started_by: token.clone(),
        client_token: token,
        ..Default::default()
    }
}

/// Asks until there is an answer; a refusal is one only when nobody was asked before.
async fn run(storm: &Storm, client: &mut LighterClient<Channel>, call: usize) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.run_task(request(call)).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                assert!(answer.failures.is_empty(), "{:?}", answer.failures);
                assert_eq!(answer.tasks.len(), 1, "call {call}");
                return answer.tasks[0].task_id.clone();
            }
            Err(status) => assert!(Instant::now() < deadline, "call {call}: {status}"),
        }
        storm.asked_again.fetch_add(1, Ordering::Relaxed);
        *client = connect_at(&storm.dir).await;
    }
}

async fn call(storm: Arc<Storm>) {
    let mut client = connect_at(&storm.dir).await;
    loop {
        let call = storm.next.fetch_add(1, Ordering::Relaxed);
        if call >= CALLS {
            return;
        }
        let task = run(&storm, &mut client, call).await;
        storm.acknowledged.lock().unwrap().insert(call, task);
    }
}

fn spawn(dir: &Path) -> Killed {
    let this_test = "storm::killed_in_the_middle_of_10000_run_task_calls";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this_test, "--nocapture"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child)
}

/// Nodes with room for all of it. They count as just seen after each start.
async fn prepare() -> (Arc<tempfile::TempDir>, Vec<String>) {
    let running = crate::support::start().await;
    let mut admin = running.admin().await;
    register(&mut admin, &definition_json("web", 0, 6, None)).await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let mut node = crate::fake_node::joined(&running, &format!("node-{number}")).await;
        node.resources.memory_mib = 6 * CALLS as u64;
        drop(node.connect(&running).await.unwrap());
        nodes.push(node.id);
    }
    running.handle.shutdown();
    running.handle.join().await;
    (running.dir, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_10000_run_task_calls() {
    if let Ok(dir) = std::env::var(CHILD_DIR) {
        let mut config = crate::restart::child_config(dir.as_ref());
        // Nobody's session: the nodes are not taken for silent while the test lasts.
        config.heartbeat_interval_ms = 60_000;
        let handle = lighter_control::Control::start(config).await.unwrap();
        handle.join().await;
        return;
    }
    let (dir, nodes) = prepare().await;
    let mut child = spawn(dir.path());
    let storm = Arc::new(Storm {
        dir: dir.path().to_owned(),
        next: AtomicUsize::new(0),
        acknowledged: Mutex::default(),
        asked_again: AtomicUsize::new(0),
    });
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(call(storm.clone()))).collect();
    for after in KILLED_AFTER {
        while storm.acknowledged.lock().unwrap().len() < after {
            assert!(!callers.iter().any(tokio::task::JoinHandle::is_finished), "a caller gave up");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        child = spawn(dir.path());
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let asked_again = storm.asked_again.load(Ordering::Relaxed);
    assert!(asked_again >= KILLED_AFTER.len(), "no call was in flight when it died");
    drop(child);
    let running = start_at(dir, Arc::default()).await;
    let acknowledged = storm.acknowledged.lock().unwrap().clone();
    all_there_once(&mut running.admin().await, &acknowledged, &nodes).await;
    // The same token, the same tasks: of those asked around each death, and of some others.
    let mut admin = running.admin().await;
    for (call, task) in acknowledged.iter().filter(|(call, _)| *call % 20 == 0) {
        let again = admin.run_task(request(*call)).await.unwrap().into_inner();
        assert_eq!((again.tasks.len(), &again.tasks[0].task_id), (1, task), "call {call}");
    }
    assert_eq!(all_tasks(&mut admin).await.len(), CALLS, "a token made another task");
}

/// Every task there is, by pages.
async fn all_tasks(client: &mut LighterClient<Channel>) -> Vec<String> {
    let (mut tasks, mut next_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListTasksRequest { next_token, ..Default::default() };
        let page = client.list_tasks(request).await.unwrap().into_inner();
        tasks.extend(page.task_ids);
        next_token = page.next_token;
        if next_token.is_empty() {
            return tasks;
        }
    }
}

/// Each call has the task it was told of, on one of the nodes, and no other.
async fn all_there_once(
    client: &mut LighterClient<Channel>,
    acknowledged: &BTreeMap<usize, String>,
    nodes: &[String],
) {
    assert_eq!(acknowledged.len(), CALLS);
    let mut by_call: BTreeMap<String, String> = BTreeMap::new();
    for tasks in all_tasks(client).await.chunks(100) {
        let request = v1::DescribeTasksRequest { tasks: tasks.to_vec(), ..Default::default() };
        for task in client.describe_tasks(request).await.unwrap().into_inner().tasks {
            assert!(nodes.contains(&task.container_instance_id), "{task:?}");
            let before = by_call.insert(task.started_by.clone(), task.task_id);
            assert_eq!(before, None, "{} has two tasks", task.started_by);
        }
    }
    for (call, task) in acknowledged {
        assert_eq!(by_call.get(&format!("call-{call}")), Some(task), "call {call}");
    }
    assert_eq!(by_call.len(), CALLS);
}
