//! Resident memory of the control plane with all nodes connected and all tasks running, and its split.
//! In: a bed. Out: MiB: of the program with the nodes' records, of the sessions, of the tasks.

use super::account::memory;
use super::bed::{Bed, PATIENCE, Running};
use super::callers::Callers;
use super::placements::settled;
use super::plan::{Figure, Plan};
use super::report::{Machine, Report, Run};
use super::workload::Workload;
use anyhow::Result;

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    for done in 0..plan.runs.min(3) {
        if !report.goes_on(Figure::Memory, bed.agents, done) {
            break;
        }
        let dir = bed.copy()?;
        let machine = Machine::now(dir.path())?;
        let plane = bed.plane(&dir.path().join("control"), None)?;
        let client = plane.serving(PATIENCE).await?;
        let started = memory(plane.pid())?;
        let mut fleet = bed.fleet(&[plane.address])?;
        fleet.wait("the connections", PATIENCE, |status| status.in_sync == bed.agents).await?;
        let connected = memory(plane.pid())?;
        let mut running = Running { fleet, plane, client, etcd: None, dir };
        let callers = Callers::connect(&running.plane, plan.connections).await?;
        callers.place(&Workload::plain("light", 10), plan.tasks, plan.callers).await?;
        settled(&mut running, plan.tasks).await?;
        let full = memory(running.plane.pid())?;
        let words = format!(
            "{:.0} the program with the records of {} nodes, +{:.0} their sessions, +{:.0} {} tasks placed; \
             {:.0} anonymous, {:.0} file",
            started.all,
            bed.agents,
            connected.all - started.all,
            full.all - connected.all,
            plan.tasks,
            full.anonymous,
            full.file,
        );
        report.run(Run { figure: Figure::Memory, agents: bed.agents, value: full.all, words, machine });
    }
    Ok(())
}
