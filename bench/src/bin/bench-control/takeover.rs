//! Two control planes on one etcd: the leader is killed, the other takes over.
//! In: a bed on etcd. Out: seconds from the kill to an answer of the other; and to all nodes in sync.

use super::bed::{Bed, PATIENCE, Running};
use super::callers::{Callers, running};
use super::placements::settled;
use super::plan::{Figure, Plan};
use super::report::{Machine, Report, Run};
use super::workload::Workload;
use anyhow::{Context, Result};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    let dir = bed.copy()?;
    let etcd = super::etcd::Etcd::start(&dir.path().join("etcd"))?;
    let first = dir.path().join("control");
    let second = dir.path().join("second");
    let status = Command::new("cp").arg("-a").args([&first, &second]).status()?;
    anyhow::ensure!(status.success(), "cp ended with {status}");
    let leader = bed.plane(&first, Some(&etcd))?;
    let client = leader.serving(PATIENCE).await?;
    let standby = bed.plane(&second, Some(&etcd))?;
    let mut fleet = bed.fleet(&[leader.address, standby.address])?;
    fleet.wait("the connections", PATIENCE, |status| status.in_sync == bed.agents).await?;
    let mut run = Running { fleet, plane: leader, client, etcd: Some(etcd), dir };
    let callers = Callers::connect(&run.plane, plan.connections).await?;
    callers.place(&Workload::plain("light", 10), plan.tasks, plan.callers).await?;
    settled(&mut run, plan.tasks).await?;
    // The standby follows; what it has not read yet it reads when it takes over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let machine = Machine::now(run.dir.path())?;
    let begun = Instant::now();
    run.plane.kill();
    let mut client = standby.serving(PATIENCE).await.context("the standby")?;
    let served = begun.elapsed();
    anyhow::ensure!(running(&mut client).await? == plan.tasks, "a task is missing");
    run.fleet.wait("the manifests", PATIENCE, |status| status.in_sync == bed.agents).await?;
    let words = format!("and {:.1} s until all nodes were in sync", begun.elapsed().as_secs_f64());
    report.run(Run {
        figure: Figure::Takeover,
        agents: bed.agents,
        value: served.as_secs_f64(),
        words,
        machine,
    });
    Ok(())
}
