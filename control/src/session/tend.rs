//! Has services tended: at every change of a task, an instance or a service, and once a second.
//! In: what changed. Out: commands. Never: decides: the core does; keeps a service from being tended
//! because of another.

use crate::api::{Context, now_ms};
use crate::core::service::record::{ServiceKey, ServiceRecord};
use crate::core::service::tend::{Tend, Tended, is_needed};
use crate::error::ApiError;
use crate::time::Ticks;
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
    let mut unplaced = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            _ = tick.tick() => unplaced.clear(),
            changed = changes.changed() => if changed.is_err() { return },
        }
        changes.borrow_and_update();
        for key in needed(&context, &unplaced) {
            if tend(&context, &key).await {
                unplaced.insert(key);
            }
        }
    }
}

/// Services that need something done: DAEMON services first, so that theirs are the first tasks of a node.
fn needed(context: &Context, unplaced: &BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
    context.view.read(|shown| {
        let (state, now) = (&shown.state, now_ms(context, shown));
        let services = state.services.values().filter(|service| !unplaced.contains(&service.key()));
        let needed: Vec<&Arc<ServiceRecord>> =
            services.filter(|service| is_needed(state, service, now)).collect();
        let (daemons, others): (Vec<_>, Vec<_>) =
            needed.into_iter().partition(|service| service.strategy == SchedulingStrategy::Daemon);
        daemons.into_iter().chain(others).map(|service| service.key()).collect()
    })
}

/// Gives the command until nothing more can be done. Whether tasks fit nowhere.
async fn tend(context: &Context, key: &ServiceKey) -> bool {
    let mut may_start = true;
    for _ in 0..MOST {
        match context.writer.submit(Tend { key: key.clone(), may_start }).await {
            Ok(Tended { more: true, .. }) => {}
            Ok(Tended { unplaced, .. }) => return unplaced,
            Err(ApiError::StoreFull { .. }) if may_start => may_start = false,
            Err(error) => {
                tracing::warn!(service = %key.1, %error, "a service could not be tended");
                return true;
            }
        }
    }
    false
}
