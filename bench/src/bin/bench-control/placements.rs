//! Placements a second: answered, recorded and synced, taken over by the node, reported RUNNING, and
//! that committed. In: a bed, what each call asks. Out: a rate, the CPU time of each process for one placement,
//! and how good the places are. Fails when a place is not what was asked for.

use super::account::cpu_seconds;
use super::bed::{Bed, PATIENCE, Running};
use super::callers::{Callers, running, verify};
use super::plan::{Figure, Plan};
use super::quality;
use super::report::{Machine, Report, Run};
use super::workload::Workload;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Runs it as often as the plan says.
pub(crate) async fn measure(
    bed: &Bed,
    plan: &Plan,
    figure: Figure,
    workload: &Workload,
    report: &mut Report,
) -> Result<()> {
    for done in 0..plan.runs_of(figure) {
        if !report.goes_on(figure, bed.agents, done) {
            break;
        }
        let mut running = bed.start().await?;
        let callers = Callers::connect(&running.plane, plan.connections).await?;
        let machine = Machine::now(running.dir.path())?;
        let before = cpu(&running)?;
        let begun = Instant::now();
        let placed = callers.place(workload, plan.tasks, plan.callers).await?;
        settled(&mut running, placed.len()).await?;
        let took = begun.elapsed();
        let after = cpu(&running)?;
        verify(&mut running.client, &placed).await?;
        let good = quality::look(&mut running.client, workload, &placed).await?;
        let us = |which: usize| (after[which] - before[which]) * 1e6 / placed.len() as f64;
        let words = format!(
            "CPU us/placement: server {:.0}, nodes {:.0}, callers {:.0}, etcd {:.0}{good}",
            us(0),
            us(1),
            us(2),
            us(3),
        );
        report.run(Run {
            figure,
            agents: bed.agents,
            value: placed.len() as f64 / took.as_secs_f64(),
            words,
            machine,
        });
    }
    Ok(())
}

/// Waits until every task is known to run: by its node's acknowledged report, then by the state.
pub(crate) async fn settled(running_: &mut Running, tasks: usize) -> Result<()> {
    running_.fleet.wait("the reports", PATIENCE, |status| status.applied >= tasks).await?;
    while running(&mut running_.client).await? < tasks {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// CPU seconds of server, nodes, callers, etcd.
pub(crate) fn cpu(running: &Running) -> Result<[f64; 4]> {
    let etcd = running.etcd.as_ref().map(|etcd| cpu_seconds(etcd.pid())).transpose()?;
    Ok([
        cpu_seconds(running.plane.pid())?,
        cpu_seconds(running.fleet.pid())?,
        cpu_seconds(std::process::id())?,
        etcd.unwrap_or_default(),
    ])
}
