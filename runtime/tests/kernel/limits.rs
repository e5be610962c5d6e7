//! Limits as the kernel has them, and what they do.

use crate::support::{Node, exit_of, shell};
use lighter_model::exit::ExitStatus;
use lighter_runtime::{CgroupError, StartShimError, TaskLimits, cgroup};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

#[tokio::test]
async fn limits_are_read_back_from_the_kernel() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut container = shell("c", "exec sleep 1000");
    container["cpu"] = json!(256);
    container["memory"] = json!(20);
    let started = node.start(&shim, container).await.unwrap();
    assert_eq!(started.limits.cpu_quota_us, Some(25_000));
    assert_eq!(started.limits.cpu_period_us, Some(100_000));
    assert_eq!(started.limits.memory_max_bytes, Some(20 << 20));
    assert_eq!(started.limits.pids_max, Some(200));
    // And the files say the same, found through the process.
    let (file, expected) =
        if cgroup::is_v2() { ("cpu.max", "25000 100000") } else { ("cpu.cfs_quota_us", "25000") };
    assert_eq!(read_limit(started.pid, "cpu", file), expected);
    let file = if cgroup::is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(read_limit(started.pid, "memory", file), (20 << 20).to_string());
    let file = if cgroup::is_v2() { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    assert_eq!(
        read_limit(started.pid, "memory", file),
        if cgroup::is_v2() { "0".to_owned() } else { (20 << 20).to_string() }
    );
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_program_beyond_its_memory_is_killed_and_the_reason_is_known() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let mut hog = json!({ "name": "hog", "image": "i", "memory": 20,
        "entryPoint": ["/bin/awk", "BEGIN { x = \"0123456789abcdef\"; while (1) x = x x }"] });
    node.start(&shim, hog.take()).await.unwrap();
    let exit = exit_of(&mut events, "hog").await;
    assert_eq!(exit.status, ExitStatus::Signaled(9));
    assert!(exit.oom_killed);
    assert_eq!(exit.status.exit_code(), 137);
    assert_eq!(node.runtime.recorded_exits(&node.task)[&"hog".parse().unwrap()], exit);
    node.leave_nothing(&shim).await;
}

/// The kernel takes the large process, and the first one only tells of it by its exit code.
#[tokio::test]
async fn a_program_beyond_its_memory_is_told_of_by_an_init_and_by_a_shell() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let hog = "x=0123456789abcdef; while :; do x=$x$x; done";
    let mut behind_init = shell("init", hog);
    behind_init["linuxParameters"] = json!({ "initProcessEnabled": true });
    let behind_shell = shell("shell", &format!("sh -c '{hog}'; exit $?"));
    for (name, mut container) in [("init", behind_init), ("shell", behind_shell)] {
        container["memory"] = json!(20);
        node.start(&shim, container).await.unwrap();
        let exit = exit_of(&mut events, name).await;
        assert_eq!(exit.status, ExitStatus::Exited(137), "{name}");
        assert!(exit.oom_killed, "{name}");
    }
    // The code alone says nothing.
    node.start(&shim, shell("says", "exit 137")).await.unwrap();
    assert!(!exit_of(&mut events, "says").await.oom_killed);
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_busy_loop_gets_its_quota_and_no_more() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut busy = shell("busy", "while :; do :; done");
    busy["cpu"] = json!(256);
    let pid = node.start(&shim, busy).await.unwrap().pid;
    let begin = (Instant::now(), cpu_time(pid));
    // The quantity measured is a rate: it needs a span of time.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let used = (cpu_time(pid) - begin.1).as_secs_f64() / begin.0.elapsed().as_secs_f64();
    assert!(used < 0.30, "a quarter of a CPU was allowed, {used:.2} used");
    let stats = node.runtime.stats(&node.task, Some(&"busy".parse().unwrap())).unwrap();
    let by_process = cpu_time(pid);
    let by_stats = Duration::from_nanos(stats.cpu.usage_ns);
    assert!(by_stats + Duration::from_millis(30) >= by_process, "{by_stats:?} {by_process:?}");
    assert!(stats.cpu.throttled_periods > 0 && stats.cpu.throttled_ns > 0, "{:?}", stats.cpu);
    assert!(stats.cpu.periods >= stats.cpu.throttled_periods);
    assert!(stats.memory.current_bytes > 0 && stats.memory.anon_bytes > 0, "{:?}", stats.memory);
    assert_eq!((stats.pids, stats.pids_limit), (1, Some(200)));
    assert_eq!(stats.pressure.cpu.is_some(), cgroup::is_v2());
    let of_task = node.runtime.stats(&node.task, None).unwrap();
    assert!(of_task.cpu.usage_ns >= stats.cpu.usage_ns);
    assert_eq!(node.runtime.stats(&node.task, Some(&"other".parse().unwrap())), None);
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn processes_beyond_the_limit_are_refused() {
    let node = Node::with_config(|config| config.pids_max_default = 10);
    let (_, output) =
        node.run("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do sleep 5 & done; echo survived").await;
    assert!(output.contains("an't fork") || output.contains("temporarily unavailable"), "{output}");
}

#[tokio::test]
async fn a_limit_of_the_task_holds_for_its_containers_together() {
    let node = Node::new();
    let limits = TaskLimits { cpu_units: Some(512), memory_mib: Some(32), ..TaskLimits::default() };
    let shim = node.runtime.start_shim(&node.task, limits).await.unwrap();
    let mut events = shim.events();
    // Each container may have 32 MiB, both together too: one of them has to go.
    let hog = |name: &str| {
        json!({ "name": name, "image": "i",
        "entryPoint": ["/bin/awk", "BEGIN { x = \"0123456789abcdef\"; while (length(x) < 9000000) x = x x; print \"grown\"; while (1) ; }"] })
    };
    node.start(&shim, hog("a")).await.unwrap();
    node.start(&shim, hog("b")).await.unwrap();
    let first = tokio::time::timeout(crate::support::DEADLINE, events.recv()).await.unwrap().unwrap();
    match first {
        lighter_runtime::ShimEvent::Exited { exit, .. } => assert!(exit.oom_killed, "{exit:?}"),
        other => panic!("{other:?}"),
    }
    assert!(node.runtime.task_usage(&node.task).cpu_usage_us > 0);
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_task_limit_the_kernel_does_not_take_is_an_error() {
    let node = Node::new();
    let limits = TaskLimits { memory_mib: Some(u64::MAX >> 20), ..TaskLimits::default() };
    match node.runtime.start_shim(&node.task, limits).await {
        Err(StartShimError::Cgroup(CgroupError::NotInForce { difference, .. })) => {
            assert!(difference.contains("memory"))
        }
        Err(StartShimError::Cgroup(CgroupError::Limits { .. })) => {}
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a limit that is not in force was accepted"),
    }
    node.remove().await;
}

/// A file of the cgroup that a process is in.
fn read_limit(pid: i32, controller: &str, file: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = if cgroup::is_v2() {
        format!("/sys/fs/cgroup{}", text.lines().find_map(|line| line.strip_prefix("0::")).unwrap())
    } else {
        let line = text
            .lines()
            .find(|line| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller))
            .unwrap();
        format!("/sys/fs/cgroup/{controller}{}", line.splitn(3, ':').nth(2).unwrap())
    };
    fs::read_to_string(format!("{path}/{file}")).unwrap().trim().to_owned()
}

/// User and system time of a process, from /proc/pid/stat in ticks of 10 ms.
fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|text| text.parse().unwrap())
        .collect();
    Duration::from_millis((fields[0] + fields[1]) * 10)
}
