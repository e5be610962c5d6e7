//! From the sending of a RunTask call to its assignment's arrival on the node, at a steady rate.
//! The call is accepted later than it is sent, so this is no less than accepted → assigned.
//! In: a bed. Out: the 99th percentile of each run, all on one cluster that fills from 0 to 80 %.

use super::bed::Bed;
use super::callers::{Callers, Placed, verify};
use super::placements::settled;
use super::plan::{Figure, Plan};
use super::report::{Machine, Report, Run};
use super::workload::Workload;
use anyhow::{Context, Result};
use std::collections::HashMap;

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut running = bed.start().await?;
    let callers = Callers::connect(&running.plane, plan.connections).await?;
    let mut before = 0;
    for _ in 0..plan.runs {
        let machine = Machine::now(running.dir.path())?;
        let placed =
            callers.place_steadily(&Workload::plain("bench", 1), plan.tasks / plan.runs, plan.rate).await?;
        before += placed.len();
        settled(&mut running, before).await?;
        let came: HashMap<String, u64> = running.fleet.came(running.dir.path())?.into_iter().collect();
        let took = |Placed { task, sent_ns, .. }: &Placed| -> Result<f64> {
            let came_ns = came.get(task).context("a task that never came")?;
            Ok(came_ns.saturating_sub(*sent_ns) as f64 / 1e6)
        };
        let mut took_ms: Vec<f64> = placed.iter().map(took).collect::<Result<_>>()?;
        took_ms.sort_by(f64::total_cmp);
        let percentile = |percent: usize| took_ms[(took_ms.len() * percent / 100).min(took_ms.len() - 1)];
        let words = format!(
            "p50 {:.1}, longest {:.1} ms of {} tasks",
            percentile(50),
            percentile(100),
            took_ms.len()
        );
        report.run(Run {
            figure: Figure::Latency,
            agents: bed.agents,
            value: percentile(99),
            words,
            machine,
        });
        verify(&mut running.client, &placed).await?;
    }
    Ok(())
}
