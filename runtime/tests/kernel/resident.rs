//! What a shim costs while it watches: one thread, little memory, nothing of its starter.

use crate::support::{Node, own_memory_kib, shell, status_field};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_shim_has_one_thread_little_memory_and_nothing_inherited() {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("c", "echo hello; exec sleep 1000")).await.unwrap();
    let pid = shim.status().await.unwrap().shim_pid;
    assert_eq!(status_field(pid, "Threads"), "1");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "lighter-shim");
    let own = own_memory_kib(pid);
    println!("shim: {own} KiB of its own");
    assert!(own <= 205, "0.2 MiB are allowed, {own} KiB are its own");
    let open: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .map(|target| target.split(':').next().unwrap().to_owned())
        .collect();
    let known = ["/dev/null", "socket", "pipe", "anon_inode"];
    let log = node.log_path("c").display().to_string();
    let foreign: Vec<_> =
        open.iter().filter(|target| !known.contains(&target.as_str()) && **target != log).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // Own session, and not a child of this process.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<i32> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(1)
        .take(3)
        .map(|text| text.parse().unwrap())
        .collect();
    assert_ne!(fields[0], std::process::id() as i32);
    assert_eq!(fields[2], pid);
    node.leave_nothing(&shim).await;
}

/// Not a limit, so that a busy machine does not fail it: figures for the log.
#[tokio::test]
async fn latency_is_printed() {
    let node = Node::new();
    let begin = Instant::now();
    let shim = node.shim().await;
    println!("start_shim: {:?}", begin.elapsed());
    let mut times: Vec<Duration> = Vec::new();
    for number in 0..20 {
        let container = serde_json::json!({ "name": format!("c{number}"), "image": "i", "entryPoint": ["/bin/true"], "memory": 64, "cpu": 256 });
        let bundle = node.bundle(container).unwrap();
        let begin = Instant::now();
        shim.start_container(&bundle).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort();
    // What a busy machine does not blur: processor time of helpers and containers, in ticks of 10 ms.
    let pid = shim.status().await.unwrap().shim_pid;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let children: Vec<u64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(|text| text.parse().unwrap())
        .collect();
    println!(
        "processor time of a start: user {} ms, system {} ms",
        children[0] * 10 / 20,
        children[1] * 10 / 20
    );
    println!("start_container: p50 {:?}, p90 {:?}", times[10], times[18]);
    node.leave_nothing(&shim).await;
}
