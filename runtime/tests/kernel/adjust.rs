//! Pause, resume, other limits for what runs: as the kernel's own files show it.

use crate::support::{DEADLINE, Node, shell};
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::cgroup;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// utime + stime in clock ticks (proc(5), fields 14 and 15).
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file of the process's cgroup of this controller.
fn cgroup_file(pid: i32, controller: &str, file: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = if cgroup::is_v2() { names.is_empty() } else { names.split(',').any(|n| n == controller) };
        ours.then(|| path.to_owned())
    });
    let mount = if cgroup::is_v2() { String::new() } else { format!("/{controller}") };
    fs::read_to_string(format!("/sys/fs/cgroup{mount}{}/{file}", path.unwrap())).unwrap().trim().to_owned()
}

fn frozen(pid: i32) -> bool {
    if cgroup::is_v2() {
        cgroup_file(pid, "", "cgroup.events").contains("frozen 1")
    } else {
        cgroup_file(pid, "freezer", "freezer.state") == "FROZEN"
    }
}

#[tokio::test]
async fn a_paused_task_does_nothing_and_goes_on_where_it_was() {
    let node = Node::new();
    let shim = node.shim().await;
    let pid = node.start(&shim, shell("busy", "while :; do :; done")).await.unwrap().pid;
    wait_until("it runs", || ticks(pid) > 2);
    for _ in 0..2 {
        node.runtime.set_frozen(&node.task, true).await.unwrap();
    }
    assert!(frozen(pid));
    let before = ticks(pid);
    // The quantity measured is the absence of progress: it needs a span of time.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ticks(pid), before);
    node.runtime.set_frozen(&node.task, false).await.unwrap();
    assert!(!frozen(pid));
    wait_until("it goes on", || ticks(pid) > before);
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_paused_task_can_be_removed() {
    let node = Node::new();
    let shim = node.shim().await;
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    node.runtime.set_frozen(&node.task, true).await.unwrap();
    node.runtime.remove_task(&node.task).await.unwrap();
    wait_until("it is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    // Nothing is there to be thawed, which is what was wanted.
    node.runtime.set_frozen(&node.task, false).await.unwrap();
}

fn definition(container: &Value) -> TaskDefinition {
    serde_json::from_value(json!({ "family": "f", "containerDefinitions": [container] })).unwrap()
}

#[tokio::test]
async fn a_running_container_gets_other_limits_and_keeps_its_process() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut container = shell("c", "exec sleep 1000");
    (container["cpu"], container["memory"]) = (json!(256), json!(20));
    let pid = node.start(&shim, container.clone()).await.unwrap().pid;
    let sleeps = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("sleep");
    wait_until("the shell has become sleep", sleeps);
    let names = ["c".parse().unwrap()];
    let (max, quota) = if cgroup::is_v2() {
        ("memory.max", "cpu.max")
    } else {
        ("memory.limit_in_bytes", "cpu.cfs_quota_us")
    };
    for (cpu, memory) in [(512, 40), (128, 10), (1024, 64)] {
        (container["cpu"], container["memory"]) = (json!(cpu), json!(memory));
        let found = node.runtime.set_limits(&node.task, &definition(&container), &names).await.unwrap();
        assert_eq!(found[0].1.memory_max_bytes, Some(memory << 20));
        assert_eq!(found[0].1.cpu_quota_us, Some(cpu * 100_000 / 1024));
        assert_eq!(cgroup_file(pid, "memory", max), (memory << 20).to_string());
        let text = cgroup_file(pid, "cpu", quota);
        assert_eq!(text.split(' ').next(), Some((cpu * 100_000 / 1024).to_string().as_str()));
    }
    assert!(sleeps());
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_limit_below_what_is_in_use_is_refused_with_words_and_changes_nothing() {
    let node = Node::new();
    let shim = node.shim().await;
    // Some 24 MiB that cannot be given back.
    let script = r#"BEGIN { x = "0123456789abcdef"; while (length(x) < 8388608) x = x x; while (1) system("sleep 1000") }"#;
    let mut hog = json!({ "name": "hog", "image": "i", "memory": 128, "entryPoint": ["/bin/awk", script] });
    let pid = node.start(&shim, hog.clone()).await.unwrap().pid;
    let usage = if cgroup::is_v2() { "memory.current" } else { "memory.usage_in_bytes" };
    wait_until("it has its memory", || cgroup_file(pid, "memory", usage).parse::<u64>().unwrap() > (9 << 20));
    hog["memory"] = json!(6);
    let names = ["hog".parse().unwrap()];
    let refused = node.runtime.set_limits(&node.task, &definition(&hog), &names).await.unwrap_err();
    assert!(refused.to_string().contains("6 MiB is below what container hog uses"), "{refused}");
    let max = if cgroup::is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(cgroup_file(pid, "memory", max), (128 << 20).to_string());
    assert!(!fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().is_empty(), "nothing was killed");
    node.leave_nothing(&shim).await;
}
