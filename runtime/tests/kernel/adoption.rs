//! The agent goes, the containers stay; a new agent finds everything as it is.

use crate::support::{DEADLINE, Node, eventually, exit_of, is_alive, shell};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_runtime::{AdoptError, Adopted, Phase, ShimEvent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_new_agent_finds_the_same_processes_ports_and_exits() {
    let node = Node::new();
    let shim = node.shim().await;
    let port = lighter_runtime::HostPortBind {
        protocol: lighter_model::task_definition::TransportProtocol::Tcp,
        ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        port: 0,
    };
    let bound = shim.bind_ports(&[port]).await.unwrap();
    let stays = node.start(&shim, shell("stays", "while :; do echo tick; sleep 0.02; done")).await.unwrap();
    node.start(&shim, shell("ends", "while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 5")).await.unwrap();
    drop(shim);
    // Nobody is connected while this one ends.
    fs::write(node.rootfs.join("tmp/end"), "").unwrap();
    eventually("the exit is on record", async || {
        node.runtime.recorded_exits(&node.task).contains_key(&name("ends"))
    })
    .await;
    let Adopted { handle, status } = node.runtime.adopt(&node.task).await.unwrap();
    let find = |text: &str| status.containers.iter().find(|container| container.name == name(text)).unwrap();
    assert_eq!((find("stays").phase, find("stays").pid), (Phase::Running, Some(stays.pid)));
    assert_eq!(find("stays").start_time_ticks, stays.start_time_ticks);
    assert_eq!(find("stays").limits, stays.limits);
    assert_eq!(find("ends").exit.as_ref().unwrap().status, ExitStatus::Exited(5));
    assert_eq!(status.ports, bound);
    // The log went on without a gap in time that a reader would see as an end.
    let lines = node.output("stays").lines().count();
    eventually("the log goes on", async || node.output("stays").lines().count() > lines).await;
    let mut events = handle.events();
    handle.signal(&name("stays"), 9).await.unwrap();
    assert_eq!(exit_of(&mut events, "stays").await.status, ExitStatus::Signaled(9));
    node.leave_nothing(&handle).await;
}

#[tokio::test]
async fn the_newest_agent_wins_and_the_older_is_told() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let adopted = node.runtime.adopt(&node.task).await.unwrap();
    let event = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, ShimEvent::Disconnected);
    assert!(shim.status().await.is_err());
    assert_eq!(adopted.status.containers.len(), 1);
    node.leave_nothing(&adopted.handle).await;
}

#[tokio::test]
async fn sigterm_to_the_shim_leaves_the_container_alone() {
    let node = Node::new();
    let shim = node.shim().await;
    let started = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let pid = shim.status().await.unwrap().shim_pid;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(Pid::from_raw(pid), signal).unwrap();
    }
    assert_eq!(shim.status().await.unwrap().shim_pid, pid);
    assert!(is_alive(started.pid));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_dead_shim_is_noticed_and_its_containers_are_killed() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let started = node
        .start(&shim, shell("c", "trap '' TERM; while :; do sleep 0.02 2>/dev/null; done"))
        .await
        .unwrap();
    node.start(&shim, shell("done", "exit 6")).await.unwrap();
    assert_eq!(exit_of(&mut events, "done").await.status, ExitStatus::Exited(6));
    let pid = shim.status().await.unwrap().shim_pid;
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(
        tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap(),
        ShimEvent::Disconnected
    );
    match node.runtime.adopt(&node.task).await {
        Err(AdoptError::ShimGone { exits, killed, .. }) => {
            assert_eq!(exits.len(), 1);
            assert_eq!(exits[&name("done")].status, ExitStatus::Exited(6));
            assert!(killed.contains(&started.pid) || !is_alive(started.pid));
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("a dead shim was adopted"),
    }
    assert!(!is_alive(started.pid));
    node.remove().await;
    assert!(matches!(node.runtime.adopt(&node.task).await, Err(AdoptError::NotFound)));
}

#[tokio::test]
async fn a_record_of_another_process_or_boot_is_not_believed() {
    let node = Node::new();
    let shim = node.shim().await;
    let path = node.task_dir().join("shim.record");
    let record = fs::read_to_string(&path).unwrap();
    for (from, to) in [("boot_id=", "boot_id=0000"), ("start_time_ticks=", "start_time_ticks=1")] {
        fs::write(&path, record.replace(from, to)).unwrap();
        assert!(matches!(node.runtime.adopt(&node.task).await, Err(AdoptError::ShimGone { .. })), "{to}");
    }
    fs::write(&path, &record).unwrap();
    let adopted = node.runtime.adopt(&node.task).await.unwrap();
    drop(shim);
    assert_eq!(node.runtime.list_tasks_on_disk(), vec![node.task.clone()]);
    node.leave_nothing(&adopted.handle).await;
}
