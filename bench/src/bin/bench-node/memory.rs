//! Memory of agent, shims and helpers by PSS, idle and with many one-port tasks; kernel memory
//! (slab and kernel stacks of the whole machine) beside it as a difference.

use crate::Plan;
use crate::latency::FirstInstruction;
use crate::ours::Cluster;
use crate::processes::memory_kib;
use anyhow::Result;

/// Figures with `plan.tasks` tasks running, in MiB.
pub(crate) struct Loaded {
    pub(crate) pss: f64,
    pub(crate) shim_private: f64,
    pub(crate) kernel: f64,
    pub(crate) tasks: usize,
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// PSS of the agent with no task, in MiB.
pub(crate) fn idle(cluster: &Cluster) -> Result<f64> {
    Ok(mib(memory_kib(cluster.agent_pid())?.0))
}

pub(crate) async fn loaded(cluster: &Cluster, plan: &Plan) -> Result<Loaded> {
    let first = FirstInstruction::listen(&cluster.socket_dir())?;
    let kernel_before = kernel_kib()?;
    let (mut tasks, mut held) = (Vec::new(), Vec::new());
    for _ in 0..plan.tasks {
        tasks.push(cluster.run_one_of_many().await?);
        held.push(first.next().await?.1);
    }
    for task in &tasks {
        cluster.wait_running(task).await?;
    }
    let mut pss = memory_kib(cluster.agent_pid())?.0;
    let shims = cluster.shim_pids()?;
    anyhow::ensure!(shims.len() == plan.tasks, "{} shims for {} tasks", shims.len(), plan.tasks);
    let mut private = 0;
    for shim in &shims {
        let (shim_pss, shim_private) = memory_kib(*shim)?;
        pss += shim_pss;
        private = private.max(shim_private);
    }
    let kernel = kernel_kib()?.saturating_sub(kernel_before);
    drop(held);
    for task in &tasks {
        cluster.wait_stopped(task).await?;
    }
    Ok(Loaded { pss: mib(pss), shim_private: mib(private), kernel: mib(kernel), tasks: plan.tasks })
}

/// Slab and kernel stacks of the machine (proc(5), meminfo).
fn kernel_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    Ok(field("Slab:") + field("KernelStack:") + field("PageTables:"))
}
