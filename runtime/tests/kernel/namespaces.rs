//! What the containers of a task share, and the first process of a container, seen from /proc.

use crate::support::{Node, eventually, exit_of, is_alive, shell, status_field};
use lighter_model::exit::ExitStatus;
use lighter_model::task_definition::options::{IpcMode, PidMode};
use lighter_runtime::SharedNamespaces;
use serde_json::json;
use std::fs;

fn namespace(pid: i32, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[tokio::test]
async fn containers_of_a_task_share_processes_until_the_last_ends() {
    let mut node = Node::new();
    node.modes.0 = PidMode::Task;
    let shim = node.shim().await;
    let shared = SharedNamespaces { pid: true, ipc_shared_memory_mib: None };
    node.runtime.share_namespaces(&node.task, shared).await.unwrap();
    node.runtime.share_namespaces(&node.task, shared).await.expect("twice is once");
    let mut events = shim.events();
    // The first leaves a process behind, which must go with it, and ends.
    let first = node.start(&shim, shell("first", "sleep 4321 & sleep 0.3; exit 5")).await.unwrap();
    let second = node.start(&shim, shell("second", "exec sleep 1000")).await.unwrap();
    assert_eq!(namespace(first.pid, "pid"), namespace(second.pid, "pid"));
    assert_ne!(namespace(first.pid, "ipc"), namespace(second.pid, "ipc"));
    assert_ne!(namespace(second.pid, "pid"), fs::read_link("/proc/self/ns/pid").unwrap());
    let third =
        node.start(&shim, shell("third", "ps | grep -c '[s]leep 1000'; ps | head -n 2")).await.unwrap();
    assert_ne!(third.pid, second.pid);
    assert_eq!(exit_of(&mut events, "third").await.status, ExitStatus::Exited(0));
    let output = node.output("third");
    assert!(output.starts_with('1') && output.contains("lighter-shim"), "{output}");
    let mut events = shim.events();
    eventually("the first container ends", async || {
        let status = shim.status().await.unwrap();
        status
            .containers
            .iter()
            .any(|container| container.name.as_str() == "first" && container.exit.is_some())
    })
    .await;
    assert!(is_alive(second.pid), "the end of the first container ended the second");
    eventually("what the first left is gone", async || sleepers(second.pid, "4321") == 0).await;
    shim.kill(&"second".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "second").await;
    node.leave_nothing(&shim).await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.task.as_str()), "a namespace is still mounted");
}

/// Processes in the pid namespace of `pid` that sleep so long.
fn sleepers(pid: i32, seconds: &str) -> usize {
    let space = namespace(pid, "pid");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == space))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(seconds))
        })
        .filter(|pid| is_alive(*pid))
        .count()
}

#[tokio::test]
async fn containers_of_a_task_share_memory_and_nobody_else_does() {
    let mut node = Node::new();
    node.modes.1 = IpcMode::Task;
    let shim = node.shim().await;
    let shared = SharedNamespaces { pid: false, ipc_shared_memory_mib: Some(3) };
    node.runtime.share_namespaces(&node.task, shared).await.unwrap();
    let mut events = shim.events();
    let writer =
        node.start(&shim, shell("writer", "echo hello > /dev/shm/x; exec sleep 1000")).await.unwrap();
    assert_ne!(namespace(writer.pid, "ipc"), fs::read_link("/proc/self/ns/ipc").unwrap());
    let script = "while ! [ -s /dev/shm/x ]; do sleep 0.05; done; cat /dev/shm/x; df -k /dev/shm | tail -n 1; readlink /proc/self/ns/ipc";
    node.start(&shim, shell("reader", script)).await.unwrap();
    assert_eq!(exit_of(&mut events, "reader").await.status, ExitStatus::Exited(0));
    let output = node.output("reader");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "hello", "{output}");
    assert_eq!(lines[1].split_whitespace().nth(1), Some("3072"), "{output}");
    assert_eq!(lines[2], namespace(writer.pid, "ipc").to_str().unwrap());
    shim.kill(&"writer".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "writer").await;
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn host_modes_are_the_node_s_own_namespaces() {
    let mut node = Node::new();
    node.modes = (PidMode::Host, IpcMode::Host);
    node.privileges.host_namespaces = true;
    let shim = node.shim().await;
    let mut events = shim.events();
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    for kind in ["pid", "ipc"] {
        assert_eq!(namespace(pid, kind), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), "{kind}");
    }
    shim.kill(&"c".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "c").await;
    node.leave_nothing(&shim).await;
}

/// In the host's pid namespace what the main process has not reaped comes to the shim, behind its end.
#[tokio::test]
async fn the_end_of_a_program_is_not_lost_among_the_ends_of_its_children() {
    let mut node = Node::new();
    node.modes.0 = PidMode::Host;
    node.privileges.host_namespaces = true;
    let shim = node.shim().await;
    let mut events = shim.events();
    // The shell is awk when they end, which waits for none of them but its own.
    let script = "i=0; while [ $i -lt 120 ]; do sleep 0.5 & i=$((i+1)); done; \
        exec awk 'BEGIN { system(\"sleep 1.5\"); exit 7 }'";
    node.start(&shim, shell("c", script)).await.unwrap();
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(7));
    node.leave_nothing(&shim).await;
}

/// A container that may trace can look through whatever process it sees.
#[tokio::test]
async fn the_first_process_of_a_shared_pid_namespace_has_nothing_of_the_host() {
    let mut node = Node::new();
    node.modes.0 = PidMode::Task;
    node.privileges.capabilities = vec!["SYS_PTRACE".to_owned()];
    let shim = node.shim().await;
    let shared = SharedNamespaces { pid: true, ipc_shared_memory_mib: None };
    node.runtime.share_namespaces(&node.task, shared).await.unwrap();
    let mut events = shim.events();
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    let first = first_process(pid);
    for (field, value) in [("CapPrm", 0), ("CapEff", 0), ("CapBnd", 0), ("CapInh", 0), ("NoNewPrivs", 1)] {
        assert_eq!(u64::from_str_radix(&status_field(first, field), 16).unwrap(), value, "{field}");
    }
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    assert!(status.contains("Groups:\t \n"), "{status}");
    for kind in ["mnt", "net", "uts", "ipc", "cgroup"] {
        assert_ne!(namespace(first, kind), fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), "{kind}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{first}/root/")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(format!("/proc/{first}/fd")).unwrap().count(), 4);
    let mut looks = shell("looks", "ls /proc/1/root/ | wc -l; ls /proc/1/root/etc 2>&1 | tail -n 1");
    looks["linuxParameters"] = json!({ "capabilities": { "add": ["SYS_PTRACE"] } });
    node.start(&shim, looks).await.unwrap();
    exit_of(&mut events, "looks").await;
    let output = node.output("looks");
    assert!(output.starts_with('0') && output.contains("No such file"), "{output}");
    shim.kill(&"c".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "c").await;
    node.leave_nothing(&shim).await;
}

/// Process 1 of the pid namespace of `pid`, as the host numbers it.
fn first_process(pid: i32) -> i32 {
    let space = namespace(pid, "pid");
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let is_first = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|other| other == space)
            && status_field(*pid, "NSpid").split_whitespace().last() == Some("1")
    };
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_first).unwrap()
}

#[tokio::test]
async fn an_init_process_reaps_and_hands_signals_on() {
    let node = Node::new();
    let with_init = |name: &str, script: &str| {
        let mut container = shell(name, script);
        container["linuxParameters"] = json!({ "initProcessEnabled": true });
        container
    };
    let shim = node.shim().await;
    let mut events = shim.events();
    // An orphan that has ended, a handled signal, and the exit code of the program.
    let script = "trap 'echo caught; exit 7' TERM; (true & exec true); sleep 0.2; ps; echo ready; while :; do sleep 0.05; done";
    node.start(&shim, with_init("c", script)).await.unwrap();
    eventually("the program runs", async || node.output("c").contains("ready")).await;
    let processes = node.output("c");
    assert!(processes.contains("lighter-init") && !processes.contains("[true]"), "{processes}");
    shim.signal(&"c".parse().unwrap(), 15).await.unwrap();
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(7));
    assert!(node.output("c").ends_with("caught"));
    // A program without a handler ends by the signal all the same, though it is not the first process.
    node.start(&shim, with_init("d", "exec sleep 1000")).await.unwrap();
    shim.signal(&"d".parse().unwrap(), 15).await.unwrap();
    assert_eq!(exit_of(&mut events, "d").await.status, ExitStatus::Exited(128 + 15));
    let mut missing = with_init("e", "");
    missing["entryPoint"] = json!(["/bin/no-such-program"]);
    node.start(&shim, missing).await.unwrap();
    assert_eq!(exit_of(&mut events, "e").await.status, ExitStatus::Exited(127));
    node.leave_nothing(&shim).await;
}
