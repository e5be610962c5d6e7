//! The clocks of the control plane: who has missed its heartbeats, and what is old enough to go.
//! In: intervals. Out: commands. Never: decides: the core does, with the time it is given.

use crate::api::Context;
use crate::core::drain::StopDrained;
use crate::core::instance::NodeSilent;
use crate::core::sweep::Sweep;
use crate::time::Ticks;
use lighter_model::ids::ContainerInstanceId;
use std::time::Duration;

/// Between two looks for tasks whose node shall be empty.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks for what is old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// Marks silent nodes as away, until the control plane stops.
pub async fn watch_heartbeats(context: Context) {
    let mut tick = Ticks::new(context.heartbeat_interval);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            late = tick.tick() => listened(&context, late),
        }
        let silent: Vec<ContainerInstanceId> = context.view.read(|shown| {
            context.sessions.look(shown.epoch, shown.state.meta.cluster_time_ms);
            let connected = shown.state.instances.values().filter(|instance| instance.connected);
            let silent = connected.map(|i| &i.id).filter(|id| context.sessions.is_silent(id));
            silent.cloned().collect()
        });
        for instance in silent {
            // It may have come back while the one before was marked.
            if !context.sessions.is_silent(&instance) {
                continue;
            }
            tracing::warn!(%instance, "three heartbeats missed; no new tasks for this node");
            if let Err(error) = context.writer.submit(NodeSilent { instance }).await {
                tracing::warn!(%error, "a silent node could not be marked");
            }
        }
    }
}

/// Who was stopped himself has listened to nobody meanwhile: what the nodes said waits to be read.
pub(super) fn listened(context: &Context, late: Duration) {
    if late >= context.heartbeat_interval {
        tracing::warn!(late_ms = late.as_millis(), "stood still; every node counts as just seen");
        context.sessions.count_as_just_seen();
    }
}

/// Stops tasks of drained nodes whose time has come, until the control plane stops.
pub async fn drain(context: Context) {
    let mut tick = Ticks::new(DRAIN_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let stopping = context.view.read(|shown| {
            let mut instances = shown.state.instances.values();
            instances.any(|instance| instance.drain.as_ref().is_some_and(|drain| drain.stop_tasks))
        });
        while stopping && context.writer.submit(StopDrained).await.unwrap_or(false) {}
    }
}

/// Removes what is old, until the control plane stops.
pub async fn sweep(context: Context) {
    let mut tick = Ticks::new(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        while context.writer.submit(Sweep).await.unwrap_or(false) {}
    }
}
