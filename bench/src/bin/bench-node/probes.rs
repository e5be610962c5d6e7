//! The CPU time of health checks: many containers with a `sh -c` every 10 s, by cgroup, everything that
//! belongs to them included (agent or daemon, monitors, helpers, the containers themselves).
//! Twice where it can be, for a shell's own start may cost more than all the rest: with the machine's
//! /bin/sh (Debian: dash, dynamically linked with glibc) and with one linked statically with musl, as the
//! images of Alpine have it. Before that without any check.
//! In: containers that run and are healthy. Out: percent of one core over the window.

use crate::Plan;
use crate::account::CpuAccount;
use crate::latency::FirstInstruction;
use crate::ours::Cluster;
use crate::processes::{cpu_ns, cpu_ns_of_single_threaded};
use anyhow::Result;
use std::path::Path;
use std::time::Duration;

/// Between two probes of a container, in seconds.
pub(crate) const INTERVAL_S: u64 = 10;

/// A shell in the benchmark's image.
pub(crate) struct Shell {
    /// The figure it belongs to.
    pub(crate) figure: &'static str,
    /// The task definition with its check.
    pub(crate) family: &'static str,
    pub(crate) on_host: &'static str,
    pub(crate) inside: &'static str,
}

impl Shell {
    /// The check, as Docker and ECS write it.
    pub(crate) fn test(&self) -> [&'static str; 4] {
        ["CMD", self.inside, "-c", "true"]
    }
}

const SHELLS: [Shell; 2] = [
    Shell { figure: "probes_percent_100", family: "bench-probed", on_host: "/bin/sh", inside: "/bin/sh" },
    // Of Debian's package mksh.
    Shell {
        figure: "probes_musl_percent_100",
        family: "bench-probed-musl",
        on_host: "/usr/lib/x86_64-linux-musl/bin/mksh",
        inside: "/bin/sh-musl",
    },
];

/// Those that the machine has.
pub(crate) fn shells() -> impl Iterator<Item = &'static Shell> {
    SHELLS.iter().filter(|shell| Path::new(shell.on_host).exists())
}

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

impl Ours {
    pub(crate) fn parts(&self) -> String {
        let rest = self.total - self.agent - self.monitors;
        format!(
            "{:.2} % of a core, of which agent {:.2}, monitors {:.2}, the checks themselves {rest:.2}",
            self.total, self.agent, self.monitors
        )
    }
}

/// `None`: the same containers without a check.
pub(crate) async fn ours(cluster: &Cluster, plan: &Plan, shell: Option<&Shell>) -> Result<Ours> {
    let first = FirstInstruction::listen(&cluster.socket_dir())?;
    let (mut tasks, mut held) = (Vec::new(), Vec::new());
    for _ in 0..plan.tasks {
        tasks.push(match shell {
            Some(shell) => cluster.run_probed(shell).await?,
            None => cluster.run_one_of_many().await?,
        });
        held.push(first.next().await?.1);
    }
    for task in &tasks {
        match shell {
            Some(_) => cluster.wait_healthy(task).await?,
            None => cluster.wait_running(task).await?,
        }
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
