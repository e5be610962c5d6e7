//! Counters of one task's containers, or of all of this node's, again and again.
//! In: an interval. Out: samples. Never: works anything out: rates are the reader's; samples faster
//! than they are read: a slow reader gets fewer.

use super::convert::{End, Fault, Sample, Wanted, row, sample, started};
use super::{Gone, Pipe, monitor};
use crate::errors::chain;
use crate::task::TaskContext;
use crate::task::board::Monitor;
use crate::time::{BootInstant, sleep_until, unix_ms};
use lighter_model::ids::TaskId;
use std::time::Duration;

/// Samples until the reader goes away, or the one task it asked about has ended.
pub(super) async fn watch(
    context: &TaskContext,
    wanted: &Wanted,
    interval: Duration,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    if wanted.task.is_some()
        && let Err(fault) = monitor(context, wanted)
    {
        return Ok(Err(fault));
    }
    pipe.send(started(wanted, false)).await?;
    loop {
        let next = BootInstant::now().after(interval);
        let tasks = match &wanted.task {
            None => context.monitors.all(),
            Some(task) => match context.monitors.get(task) {
                Some(monitor) => vec![(task.clone(), monitor)],
                None => return Ok(Ok(End::Done(0))),
            },
        };
        pipe.send(sample(look(context, tasks).await)).await?;
        tokio::select! {
            () = sleep_until(next) => {}
            // Frames of the reader mean nothing here; that there are no more means that it is gone.
            () = async { while pipe.input().await.is_some() {} } => return Err(Gone),
        }
    }
}

async fn look(context: &TaskContext, tasks: Vec<(TaskId, Monitor)>) -> Sample {
    let attachments: Vec<_> =
        tasks.iter().flat_map(|(_, monitor)| monitor.attachments.iter().cloned()).collect();
    let traffic = context.facilities.network.traffic(&attachments).await.unwrap_or_else(|error| {
        tracing::debug!(cause = %chain(error.as_ref()), "the counters of the network cannot be read");
        Default::default()
    });
    let mut containers = Vec::new();
    for (task, monitor) in &tasks {
        for definition in &monitor.definition.container_definitions {
            let name = &definition.name;
            let stats = match context.facilities.runtime.stats(task, Some(name)).await {
                Ok(Some(stats)) => stats,
                // Not started yet, or ended.
                Ok(None) => continue,
                Err(error) => {
                    tracing::debug!(%task, container = %name, cause = %chain(error.as_ref()), "the counters cannot be read");
                    continue;
                }
            };
            let mut row = row(task, name, BootInstant::now().as_nanos(), &stats);
            let own = traffic.iter().find(|(key, _)| key.task == *task && key.container == *name);
            if let Some((_, traffic)) = own {
                row.network_received_bytes = Some(traffic.received_bytes);
                row.network_sent_bytes = Some(traffic.sent_bytes);
            }
            containers.push(row);
        }
    }
    let time_unix_ms = i64::try_from(unix_ms()).unwrap_or(0);
    // Whose they are the control plane knows.
    Sample { time_unix_ms, containers, ..Sample::default() }
}
