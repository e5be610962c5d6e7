//! Starts a second with eight clients at once, each start counted when it is seen running.

use crate::Plan;
use crate::latency::FirstInstruction;
use crate::ours::Cluster;
use anyhow::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Starts a second: `plan.starts` tasks by `plan.clients` clients.
pub(crate) async fn ours(cluster: &Cluster, plan: &Plan) -> Result<f64> {
    let first = FirstInstruction::listen(&cluster.socket_dir())?;
    let held = tokio::spawn(accept(first, plan.starts));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..plan.clients {
        let (cluster, next, starts) = (cluster.clone(), next.clone(), plan.starts);
        clients.push(tokio::spawn(async move {
            let mut tasks = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < starts {
                let task = cluster.run_one_of_many().await?;
                cluster.wait_running(&task).await?;
                tasks.push(task);
            }
            anyhow::Ok(tasks)
        }));
    }
    let mut tasks = Vec::new();
    for client in clients {
        tasks.extend(client.await??);
    }
    let rate = plan.starts as f64 / began.elapsed().as_secs_f64();
    drop(held.await??);
    for task in &tasks {
        cluster.wait_stopped(task).await?;
    }
    Ok(rate)
}

/// Holds every program's stream until all have come, so that all run at once.
async fn accept(first: FirstInstruction, count: usize) -> Result<Vec<tokio::net::UnixStream>> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(first.next().await?.1);
    }
    Ok(held)
}
