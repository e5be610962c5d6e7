//! Has the queues tended: whenever room may have come, and once a second for what waits too long.
//! In: what changed. Out: commands. Never: decides: the core does; gives one while nothing waits.

use crate::api::Context;
use crate::core::queue::tend::{TendQueue, Tended};
use crate::error::ApiError;
use crate::session::tend::waiting_clusters;
use crate::time::Ticks;
use lighter_model::ids::ClusterName;
use std::time::Duration;

/// Between two looks of the clock.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tends queues until the control plane stops.
pub async fn tend_queues(context: Context) {
    let mut tick = Ticks::new(INTERVAL);
    let mut room = context.view.room_changes();
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            _ = tick.tick() => {}
            changed = room.changed() => if changed.is_err() { return },
        }
        room.borrow_and_update();
        let clusters: Vec<ClusterName> =
            context.view.read(|shown| shown.state.queue().keys().cloned().collect());
        if clusters.is_empty() {
            continue;
        }
        let waiting = waiting_clusters(&context);
        for cluster in clusters {
            tend(&context, &cluster, !waiting.contains(&cluster)).await;
        }
    }
}

/// Steps until every entry was looked at once.
async fn tend(context: &Context, cluster: &ClusterName, mut may_start: bool) {
    let (mut after, mut head) = (None, None);
    loop {
        let step =
            TendQueue { cluster: cluster.clone(), after: after.clone(), head: head.clone(), may_start };
        match context.writer.submit(step).await {
            Ok(Tended { next: None, .. }) => return,
            Ok(Tended { next, head: found, .. }) => (after, head) = (next, found),
            Err(ApiError::StoreFull { .. }) if may_start => may_start = false,
            Err(error) => {
                tracing::warn!(%cluster, %error, "the queue could not be tended");
                return;
            }
        }
    }
}
