//! The lease of a task with real processes: its shim ends it at the time it was told, whether anybody
//! is connected or not. In: short leases on the boot-time clock. Out: exits with their moments.
//! Never: sleeps for the sake of the result; exits are waited for.

use crate::support::{DEADLINE, Node, eventually, exit_of, shell};
use lighter_model::exit::ExitStatus;
use lighter_runtime::{LeaseOrder, Leased, ShimEvent, ShimHandle, StartError};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

const TERM: i32 = 15;

fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
    now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000
}

fn order(ends_at_boot_ms: u64, stops: &[(&str, u64)]) -> LeaseOrder {
    let stop = |(name, ms): &(&str, u64)| (name.parse().unwrap(), TERM, Duration::from_millis(*ms));
    LeaseOrder { ends_at_boot_ms, stops: stops.iter().map(stop).collect() }
}

/// Says when it was asked to end, and does not.
const STUBBORN: &str = "trap 'read up rest < /proc/uptime; echo told $up' TERM; while :; do sleep 0.05; done";
const OBEDIENT: &str = "trap 'exit 5' TERM; while :; do sleep 0.05; done";

/// Milliseconds since boot at which the container was told, from its log.
fn told_ms(node: &Node, name: &str) -> u64 {
    let output = node.output(name);
    let told: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("told ")).collect();
    assert_eq!(told.len(), 1, "one stop signal: {output}");
    (told[0].parse::<f64>().unwrap() * 1000.0) as u64
}

async fn status_exit(shim: &ShimHandle, name: &str) -> Option<ExitStatus> {
    let status = shim.status().await.unwrap();
    status.containers.into_iter().find(|c| c.name.as_str() == name)?.exit.map(|exit| exit.status)
}

#[tokio::test]
async fn a_lease_that_nobody_renews_ends_the_task_without_an_agent() {
    let node = Node::new();
    let shim = node.shim().await;
    for (name, script) in [("stubborn", STUBBORN), ("obedient", OBEDIENT)] {
        node.start(&shim, shell(name, script)).await.unwrap();
    }
    let end = boot_ms() + 2_500;
    let leased = shim.lease(&order(end, &[("stubborn", 1_000), ("obedient", 2_000)])).await.unwrap();
    assert_eq!(leased, Leased { ends_at_boot_ms: Some(end), over: false });
    // As when the agent is killed: nobody is connected any more.
    drop(shim);
    let exits = node.task_dir().join("exits");
    eventually("both exits are written down", async || {
        ["stubborn", "obedient"].iter().all(|name| exits.join(name).exists())
    })
    .await;
    let ended = boot_ms();
    assert!(fs::read_to_string(exits.join("stubborn")).unwrap().contains("signaled=9"));
    assert!(fs::read_to_string(exits.join("obedient")).unwrap().contains("exited=5"));
    let told = told_ms(&node, "stubborn");
    // /proc/uptime counts hundredths, and a loaded machine is late, never early.
    assert!(told + 20 >= end - 1_000, "told at {told}, the lease ended at {end}");
    assert!(ended >= end, "killed {} ms early", end - ended);
    // The next agent learns what happened, may not rescue it, and may start nothing.
    let shim = node.runtime.adopt(&node.task).await.unwrap().handle;
    let late = shim.lease(&order(boot_ms() + 60_000, &[])).await.unwrap();
    assert_eq!(late, Leased { ends_at_boot_ms: Some(end), over: true });
    let refused = node.start(&shim, shell("another", "true")).await.unwrap_err();
    assert!(
        matches!(&refused, StartError::CannotStart { message } if message.contains("lease")),
        "{refused:?}"
    );
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn renewals_keep_it_alive_and_never_shorten_it() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("c", OBEDIENT)).await.unwrap();
    assert_eq!(
        shim.lease(&order(0, &[])).await.unwrap(),
        Leased { ends_at_boot_ms: None, over: false },
        "a question sets nothing"
    );
    let first = boot_ms() + 2_000;
    shim.lease(&order(first, &[("c", 1_000)])).await.unwrap();
    let end = first + 1_000;
    assert_eq!(shim.lease(&order(end, &[])).await.unwrap().ends_at_boot_ms, Some(end));
    assert_eq!(shim.lease(&order(first - 900, &[])).await.unwrap().ends_at_boot_ms, Some(end), "never back");
    let event = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert_eq!(event, ShimEvent::LeaseOver, "said before the first exit");
    assert!(boot_ms() + 1_000 >= end, "the first lease's end did nothing");
    // The agent now stops the task as it always does; the program has had its signal.
    shim.signal(&"c".parse().unwrap(), TERM).await.unwrap();
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(5));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_paused_task_goes_on_to_take_its_signal() {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("c", OBEDIENT)).await.unwrap();
    shim.lease(&order(boot_ms() + 10_000, &[("c", 9_500)])).await.unwrap();
    node.runtime.set_frozen(&node.task, true).await.unwrap();
    eventually("the program ends by itself", async || {
        status_exit(&shim, "c").await == Some(ExitStatus::Exited(5))
    })
    .await;
    node.leave_nothing(&shim).await;
}

/// As one that waits for a disk: the task ends in time all the same, and what the shim then does is
/// to look at the clock first.
#[tokio::test]
async fn a_task_whose_shim_stands_still_ends_with_its_lease() {
    let node = Node::new();
    let shim = node.shim().await;
    let end = boot_ms() + 600;
    // The second container comes after the lease.
    let first = node.start(&shim, shell("c", STUBBORN)).await.unwrap();
    shim.lease(&order(end, &[("c", 300)])).await.unwrap();
    shim.lease(&order(end + 600, &[("c", 300)])).await.unwrap();
    let second = node.start(&shim, shell("d", STUBBORN)).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(shim.status().await.unwrap().shim_pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    eventually("both end", async || !is_running(first.pid) && !is_running(second.pid)).await;
    assert!(boot_ms() >= end + 600, "ended before the lease's renewed end");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    for name in ["c", "d"] {
        eventually("its end is known", async || {
            status_exit(&shim, name).await == Some(ExitStatus::Signaled(9))
        })
        .await;
        assert!(!node.output(name).contains("told"), "no time is given any more");
    }
    node.leave_nothing(&shim).await;
}

/// Without its shim nobody records the end; the lease is kept.
#[tokio::test]
async fn a_task_whose_shim_was_killed_ends_with_its_lease() {
    let node = Node::new();
    let shim = node.shim().await;
    let started = node.start(&shim, shell("c", STUBBORN)).await.unwrap();
    let end = boot_ms() + 1_000;
    shim.lease(&order(end, &[("c", 300)])).await.unwrap();
    let pid = nix::unistd::Pid::from_raw(shim.status().await.unwrap().shim_pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("the shim is gone", async || !is_running(pid.as_raw())).await;
    eventually("the program ends", async || !is_running(started.pid)).await;
    assert!(boot_ms() >= end, "ended before the lease");
    node.remove().await;
}

/// A zombie does nothing any more; whoever should reap it may stand still.
fn is_running(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}
