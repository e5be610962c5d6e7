//! Until all nodes are in sync again after the control plane was away: killed, then started anew.
//! In: a bed whose nodes hold tasks. Out: seconds from the start of the program to the last manifest.

use super::account::memory;
use super::bed::{Bed, PATIENCE, Running};
use super::callers::{Callers, running};
use super::placements::settled;
use super::plan::{Figure, Plan};
use super::report::{Machine, Report, Run};
use super::workload::Workload;
use anyhow::Result;
use std::time::{Duration, Instant};

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut run = bed.start().await?;
    let callers = Callers::connect(&run.plane, plan.connections).await?;
    callers.place(&Workload::plain("light", 10), plan.tasks, plan.callers).await?;
    settled(&mut run, plan.tasks).await?;
    drop(callers);
    for (kind, outage) in plan.outages.iter().enumerate() {
        for done in 0..if kind == 0 { plan.runs } else { 1 } {
            if !report.goes_on(Figure::Reconnect, bed.agents, kind + done) {
                break;
            }
            run = once(bed, plan, run, *outage, report).await?;
        }
    }
    Ok(())
}

async fn once(bed: &Bed, plan: &Plan, run: Running, outage: u64, report: &mut Report) -> Result<Running> {
    let Running { mut fleet, plane, dir, etcd, .. } = run;
    let address = plane.address;
    plane.kill();
    let ended = fleet.wait("the end of the sessions", PATIENCE, |status| status.in_sync == 0).await?.ended;
    tokio::time::sleep(Duration::from_secs(outage)).await;
    let machine = Machine::now(dir.path())?;
    let begun = Instant::now();
    let plane = bed.plane_at(&dir.path().join("control"), address, None)?;
    let mut client = plane.serving(PATIENCE).await?;
    let served = begun.elapsed();
    let status = fleet.wait("the manifests", PATIENCE, |status| status.in_sync == bed.agents).await?;
    let took = begun.elapsed();
    anyhow::ensure!(status.held == plan.tasks, "{} tasks are held of {}", status.held, plan.tasks);
    let words = format!(
        "after {outage} s; it served after {:.1} s, {} tries, then {:.0} MiB",
        served.as_secs_f64(),
        status.ended - ended,
        memory(plane.pid())?.all
    );
    report.run(Run {
        figure: Figure::Reconnect,
        agents: bed.agents,
        value: took.as_secs_f64(),
        words,
        machine,
    });
    anyhow::ensure!(running(&mut client).await? == plan.tasks, "a task no longer runs");
    Ok(Running { fleet, plane, client, etcd, dir })
}
