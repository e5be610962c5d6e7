//! The CPU time of health checks: many containers with a `sh -c` every 10 s, by cgroup, everything that
//! belongs to them included (agent or daemon, monitors, helpers, the containers themselves).
//! In: containers that run and are healthy. Out: percent of one core over the window.

use crate::Plan;
use crate::account::CpuAccount;
use crate::latency::FirstInstruction;
use crate::ours::Cluster;
use crate::processes::{cpu_ns, cpu_ns_of_single_threaded};
use anyhow::Result;
use std::time::Duration;

/// Between two probes of a container, in seconds.
pub(crate) const INTERVAL_S: u64 = 10;

/// What is used during the window, in percent of one core.
pub(crate) async fn percent(account: &CpuAccount, plan: &Plan) -> Result<f64> {
    let before = account.cpu_ns()?;
    tokio::time::sleep(Duration::from_secs(plan.probe_window_s)).await;
    let used = account.cpu_ns()? - before;
    Ok(used as f64 / (plan.probe_window_s as f64 * 1e9) * 100.0)
}

/// Ours, in percent of one core, and how much of it the agent and the monitors use themselves; what is left is
/// the probes'.
pub(crate) struct Ours {
    pub(crate) total: f64,
    pub(crate) agent: f64,
    pub(crate) monitors: f64,
}

pub(crate) async fn ours(cluster: &Cluster, plan: &Plan) -> Result<Ours> {
    let first = FirstInstruction::listen(&cluster.socket_dir())?;
    let (mut tasks, mut held) = (Vec::new(), Vec::new());
    for _ in 0..plan.tasks {
        tasks.push(cluster.run_probed().await?);
        held.push(first.next().await?.1);
    }
    for task in &tasks {
        cluster.wait_healthy(task).await?;
    }
    let share = |ns: u64| ns as f64 / (plan.probe_window_s as f64 * 1e9) * 100.0;
    let shims = cluster.shim_pids()?;
    let (agent, monitors) = (cpu_ns(cluster.agent_pid())?, cpu_ns_of_single_threaded(&shims)?);
    let total = percent(cluster.account(), plan).await?;
    let ours = Ours {
        total,
        agent: share(cpu_ns(cluster.agent_pid())? - agent),
        monitors: share(cpu_ns_of_single_threaded(&shims)? - monitors),
    };
    drop(held);
    for task in &tasks {
        cluster.wait_stopped(task).await?;
    }
    Ok(ours)
}
