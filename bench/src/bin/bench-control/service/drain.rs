//! Drain of a tenth of the nodes: those with the most tasks of a service. In: a bed. Out: seconds from the first
//! UpdateContainerInstancesState until none of them has a task and the service is at its desired count again.

use super::{LOOK, NAME, Served};
use crate::bed::{Bed, PATIENCE};
use crate::placements::cpu;
use crate::plan::{Figure, Plan};
use crate::quality;
use crate::report::{Machine, Report, Run};
use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use lighter_proto::v1;
use std::cmp::Reverse;
use std::time::Instant;

/// The most that one call may name.
const OF_A_CALL: usize = 10;
/// Calls at a time.
const AT_ONCE: usize = 16;

pub(crate) async fn measure(bed: &Bed, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut served = Served::start(bed, plan).await?;
    for done in 0..plan.runs_of(Figure::Drain) {
        if !report.goes_on(Figure::Drain, bed.agents, done) {
            break;
        }
        let (tenth, tasks) = fullest_tenth(&mut served).await?;
        anyhow::ensure!(tasks > 0, "there is nothing to drain");
        let machine = Machine::now(served.running.dir.path())?;
        let before = cpu(&served.running)?;
        let begun = Instant::now();
        set(&served, &tenth, v1::ContainerInstanceStatus::Draining).await?;
        drained(&mut served, &tenth).await?;
        let took = begun.elapsed();
        let words = served.cpu_since(before)?;
        let left = served.verify(None).await?;
        let left = left.iter().filter(|task| tenth.contains(&task.container_instance_id)).count();
        anyhow::ensure!(left == 0, "{left} tasks of {NAME} are on nodes that were drained");
        report.run(Run {
            figure: Figure::Drain,
            agents: bed.agents,
            value: took.as_secs_f64(),
            words: format!("{tasks} of {} tasks moved from {} nodes; {words}", served.desired, tenth.len()),
            machine,
        });
        set(&served, &tenth, v1::ContainerInstanceStatus::Active).await?;
    }
    Ok(())
}

/// The ids of a tenth of the nodes, and how many tasks are on them.
async fn fullest_tenth(served: &mut Served) -> Result<(Vec<String>, usize)> {
    let client = &mut served.running.client;
    let ids = quality::ids(client).await?;
    let mut nodes = quality::describe(client, &ids).await?;
    nodes.sort_by_key(|node| Reverse(node.tasks));
    nodes.truncate(nodes.len().div_ceil(10));
    let tasks = nodes.iter().map(|node| node.tasks).sum();
    Ok((nodes.into_iter().map(|node| node.id).collect(), tasks))
}

async fn set(served: &Served, nodes: &[String], status: v1::ContainerInstanceStatus) -> Result<()> {
    let calls = nodes.chunks(OF_A_CALL).map(|some| {
        let mut client = served.running.client.clone();
        let request = v1::UpdateContainerInstancesStateRequest {
            container_instances: some.to_vec(),
            status: status.into(),
            ..Default::default()
        };
        async move {
            let answer = client.update_container_instances_state(request).await?.into_inner();
            anyhow::ensure!(answer.failures.is_empty(), "not {status:?}: {:?}", answer.failures.first());
            Ok(())
        }
    });
    stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await
}

/// Waits until these nodes have no task and the service has what it shall have.
async fn drained(served: &mut Served, nodes: &[String]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let service = served.describe().await?;
        let mut left = 0;
        if served.is_at_desired(&service) {
            let nodes = quality::describe(&mut served.running.client, nodes).await?;
            left = nodes.iter().map(|node| node.tasks).sum();
            if left == 0 {
                return Ok(());
            }
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the drain took longer than {PATIENCE:?}: {} tasks run, {} are pending, {left} are on the nodes",
            service.running_count,
            service.pending_count
        );
        tokio::time::sleep(LOOK).await;
    }
}
