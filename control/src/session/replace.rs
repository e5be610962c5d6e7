//! Has tasks of silent nodes replaced: looks once a second, cluster by cluster.
//! In: how long nodes have said nothing, in memory only. Out: commands, words and numbers of what came
//! of them. Never: decides: the core does, with what it is told; replaces more than the core's most a second.

use super::monitor::listened;
use crate::api::Context;
use crate::core::silence::brake::Step;
use crate::core::silence::most_a_second;
use crate::core::silence::replace::{Look, ReplaceLost, Replaced, Silence, counts, is_needed};
use crate::metrics;
use crate::time::Ticks;
use crate::view::Shown;
use lighter_model::ids::{ClusterName, TaskDefinitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks; what one look replaces at most is what a second may.
const INTERVAL: Duration = Duration::from_secs(1);

/// Replaces lost tasks until the control plane stops.
pub async fn replace_lost(context: Context) {
    let mut tick = Ticks::new(INTERVAL);
    let mut unplaced = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return,
            late = tick.tick() => listened(&context, late),
        }
        let mut fits_nowhere = BTreeSet::new();
        for (look, most) in context.view.read(|shown| looks(&context, shown)) {
            fits_nowhere.extend(replace(&context, Arc::new(look), most).await);
        }
        for definition in fits_nowhere.difference(&unplaced) {
            tracing::warn!(%definition, "lost tasks are not replaced: no node has room for one");
        }
        unplaced = fits_nowhere;
    }
}

/// The clusters that need something done, each with how many of its tasks may be replaced now.
fn looks(context: &Context, shown: &Shown) -> Vec<(Look, usize)> {
    let state = &shown.state;
    let watched_from_unix_ms = context.sessions.look(shown.epoch, state.meta.cluster_time_ms);
    let heartbeat_ms = ms(context.heartbeat_interval);
    let watched_ms = ms(context.sessions.watched_for());
    let mut silent: BTreeMap<ClusterName, BTreeMap<_, _>> = BTreeMap::new();
    for (id, instance) in state.instances.iter().filter(|(_, instance)| counts(instance.status)) {
        if let Some(silent_for) = context.sessions.silent_for(id) {
            let fell_at_unix_ms = instance.silent_since_unix_ms.filter(|_| !instance.connected);
            let silence = Silence { silent_ms: ms(silent_for), fell_at_unix_ms };
            silent.entry(instance.cluster.clone()).or_default().insert(id.clone(), silence);
        }
    }
    let braked = state.clusters.values().filter(|cluster| cluster.brake.is_some());
    for cluster in braked {
        silent.entry(cluster.name.clone()).or_default();
    }
    let looks = silent.into_iter().map(|(cluster, silent)| Look {
        cluster,
        silent,
        watched_ms,
        watched_from_unix_ms,
    });
    let needed = looks.filter(|look| is_needed(state, look, heartbeat_ms, state.meta.cluster_time_ms));
    needed
        .map(|look| {
            let instances = state.instances.values().filter(|i| i.cluster == look.cluster);
            let tasks = instances.map(|i| state.reserved(&i.id).tasks.len()).sum();
            (look, most_a_second(tasks))
        })
        .collect()
}

/// Gives the command until nothing more can be done; of which definitions none could be placed.
async fn replace(context: &Context, look: Arc<Look>, mut most: usize) -> BTreeSet<TaskDefinitionId> {
    loop {
        let replaced = match context.writer.submit(ReplaceLost { look: look.clone(), most }).await {
            Ok(replaced) => replaced,
            Err(error) => {
                tracing::warn!(cluster = %look.cluster, %error, "lost tasks could not be replaced");
                return BTreeSet::new();
            }
        };
        tell(context, &look, &replaced);
        most = most.saturating_sub(replaced.count);
        if !replaced.more || most == 0 {
            return replaced.unplaced;
        }
    }
}

fn tell(context: &Context, look: &Look, replaced: &Replaced) {
    let cluster = &look.cluster;
    match replaced.brake {
        Step::Keep => {}
        Step::On(brake) => tracing::error!(
            %cluster, silent = brake.silent, nodes = brake.nodes,
            "too many nodes fell silent at once: no lost task is replaced until they return or the brake is released"
        ),
        Step::Off => {
            tracing::warn!(%cluster, "the silent nodes have returned: lost tasks are replaced again")
        }
    }
    if replaced.count > 0 {
        tracing::warn!(%cluster, tasks = replaced.count, "tasks of silent nodes were replaced");
        context.writer.metrics().add(metrics::REPLACED, &[], replaced.count as f64);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
