//! Has services tended: those that a change may concern at once, and all of them once a second.
//! In: what changed. Out: commands. Never: decides: the core does; keeps a service from being tended
//! because of another; starts tasks of a store that was set back before its nodes had their time to say
//! what they hold.

use crate::api::{Context, now_ms};
use crate::core::recovery::is_awaited;
use crate::core::service::record::{ServiceKey, ServiceRecord};
use crate::core::service::tend::{Tend, Tended, is_needed};
use crate::error::ApiError;
use crate::time::Ticks;
use crate::view::Touched;
use lighter_model::ids::ClusterName;
use lighter_model::service::SchedulingStrategy;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks of the clock; what fits nowhere is tried again then.
const INTERVAL: Duration = Duration::from_secs(1);
/// Commands for one service before the others have their turn.
const MOST: usize = 64;

/// Tends services until the control plane stops.
pub async fn tend_services(context: Context) {
    let mut tick = Ticks::new(INTERVAL);
    let mut changes = context.view.service_changes();
    let (mut unplaced, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let mut looked_at = tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            _ = tick.tick() => Touched { all: true, ..Touched::default() },
            changed = changes.changed() => match changed {
                Ok(()) => Touched::default(),
                Err(_) => return,
            },
        };
        changes.borrow_and_update();
        let touched = context.view.take_touched();
        // A state that was loaded anew may be another store.
        if looked_at.all || touched.all || !waiting.is_empty() {
            waiting = waiting_clusters(&context);
        }
        if looked_at.all {
            unplaced.clear();
        } else {
            looked_at = touched;
        }
        for key in needed(&context, &looked_at, &unplaced) {
            let may_start = !waiting.contains(&key.0);
            if tend(&context, &key, may_start).await {
                unplaced.insert(key);
            }
        }
    }
}

/// Clusters with nodes that have not told this store what they hold and are not silent for too long:
/// tasks that it does not know may be there.
pub(crate) fn waiting_clusters(context: &Context) -> BTreeSet<ClusterName> {
    context.view.read(|shown| {
        let instances = shown.state.instances.values();
        let awaited = instances.filter(|instance| {
            is_awaited(instance, &shown.incarnation) && !context.sessions.is_silent(&instance.id)
        });
        awaited.map(|instance| instance.cluster.clone()).collect()
    })
}

/// Services that need something done: DAEMON services first, so that theirs are the first tasks of a node.
fn needed(context: &Context, touched: &Touched, unplaced: &BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
    context.view.read(|shown| {
        let (state, now) = (&shown.state, now_ms(context, shown));
        let is_meant = |key: &ServiceKey| touched.is(key) && !unplaced.contains(key);
        let is_needed = |service: &Arc<ServiceRecord>| is_needed(state, service, now);
        let needed: Vec<&Arc<ServiceRecord>> = if touched.all || !touched.clusters.is_empty() {
            let services = state.services.iter().filter(|(key, _)| is_meant(key));
            services.map(|(_, service)| service).filter(|service| is_needed(service)).collect()
        } else {
            let keys = touched.services.iter().filter(|key| is_meant(key));
            keys.filter_map(|key| state.services.get(key)).filter(|service| is_needed(service)).collect()
        };
        let (daemons, others): (Vec<_>, Vec<_>) =
            needed.into_iter().partition(|service| service.strategy == SchedulingStrategy::Daemon);
        daemons.into_iter().chain(others).map(|service| service.key()).collect()
    })
}

/// Gives the command until nothing more can be done. Whether tasks fit nowhere, or may not start yet.
async fn tend(context: &Context, key: &ServiceKey, mut may_start: bool) -> bool {
    let waits = !may_start;
    for _ in 0..MOST {
        match context.writer.submit(Tend { key: key.clone(), may_start }).await {
            Ok(Tended { more: true, .. }) => {}
            Ok(Tended { unplaced, .. }) => return unplaced || waits,
            Err(ApiError::StoreFull { .. }) if may_start => may_start = false,
            Err(error) => {
                tracing::warn!(service = %key.1, %error, "a service could not be tended");
                return true;
            }
        }
    }
    false
}
