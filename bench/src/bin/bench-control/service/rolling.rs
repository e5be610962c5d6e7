//! A rolling update of a service: from UpdateService until its deployment is COMPLETED and as many tasks of the
//! new revision as desired are RUNNING, none of the old. In: a bed. Out: seconds.
//! At 100 and 200 percent all new tasks may start at once, and an old one stops when a new one is HEALTHY.

use super::{NAME, Served};
use crate::bed::Bed;
use crate::placements::cpu;
use crate::plan::{Figure, Plan};
use crate::report::{Machine, Report, Run};
use anyhow::Result;
use lighter_proto::v1;
use std::time::Instant;

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut served = Served::start(bed, plan).await?;
    for done in 0..plan.runs_of(Figure::Rolling) {
        if !report.goes_on(Figure::Rolling, bed.agents, done) {
            break;
        }
        let revision = served.register().await?;
        let machine = Machine::now(served.running.dir.path())?;
        let before = cpu(&served.running)?;
        let json = serde_json::json!({"service": NAME, "taskDefinition": revision}).to_string();
        let begun = Instant::now();
        served.running.client.update_service(v1::UpdateServiceRequest { json, expected_version: 0 }).await?;
        let fewest = served.completed(&revision).await?;
        let took = begun.elapsed();
        let words = served.cpu_since(before)?;
        served.verify(Some(&revision)).await?;
        anyhow::ensure!(fewest >= served.desired, "once no more than {fewest} tasks were RUNNING");
        report.run(Run {
            figure: Figure::Rolling,
            agents: bed.agents,
            value: took.as_secs_f64(),
            words: format!("{} tasks, never fewer RUNNING; {words}", served.desired),
            machine,
        });
    }
    Ok(())
}
