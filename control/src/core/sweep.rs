//! Removes what nobody may ask for any more, in chunks: stopped tasks, spent tokens, deleted revisions,
//! clusters and instances that have been INACTIVE for long.
//! In: nothing but time. Out: whether more is left. Finishes what a replaced node left behind.
//! Never: removes a task STOPPED less than an hour ago while its cluster has fewer than the most that
//! are kept, or so many records at once that a commit grows with what has gathered.

use crate::core::instance::given_up;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::TaskRecord;
use crate::core::{Command, Settings};
use crate::core::{definition, deregister};
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::status::ContainerInstanceStatus;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How long a STOPPED task stays describable, unless too many are (ECS: at least one hour).
pub const STOPPED_KEPT_MS: u64 = 3_600_000;
/// STOPPED tasks that a cluster keeps at most; about 100 MB in the store.
pub const STOPPED_PER_CLUSTER: usize = 100_000;
/// How long a client token or an expired join token is remembered.
pub const TOKENS_KEPT_MS: u64 = 86_400_000;
/// How long clusters and instances can be described once they are INACTIVE.
pub const INACTIVE_KEPT_MS: u64 = 86_400_000;
/// Removals of each kind in one command.
const CHUNK: usize = deregister::CHUNK;

/// Records changed by one command before the rest is left to the next, so that it stays within a group.
const ENOUGH: usize = 20;

/// Removes one chunk of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Sweep;

impl Command for Sweep {
    /// Whether more is left: give the command again.
    type Answer = bool;

    fn decide(self, changes: &mut Changes<'_>) -> Result<bool, ApiError> {
        const KINDS: [fn(&mut Changes<'_>) -> usize; 9] = [
            give_up_tasks_of_replaced,
            finish_deregistering,
            remove_stopped,
            remove_definitions,
            remove_instances,
            remove_services,
            remove_clusters,
            remove_client_tokens,
            remove_join_tokens,
        ];
        let mut more = false;
        for kind in KINDS {
            if changes.count() > ENOUGH {
                return Ok(true);
            }
            more |= kind(changes) == CHUNK;
        }
        Ok(more)
    }
}

fn give_up_tasks_of_replaced(changes: &mut Changes<'_>) -> usize {
    let state = changes.state();
    let inactive = state.instances.values().filter(|i| i.status == ContainerInstanceStatus::Inactive);
    let ids = inactive.flat_map(|instance| &state.reserved(&instance.id).tasks);
    let tasks: Vec<Arc<TaskRecord>> = ids.filter_map(|id| state.tasks.get(id)).take(CHUNK).cloned().collect();
    for task in &tasks {
        let now = changes.now_ms();
        changes.put_task(given_up(task, "The container instance was replaced by another of its name", now));
    }
    tasks.len()
}

/// The oldest of each cluster: those past their time, and those beyond the most that are kept.
fn remove_stopped(changes: &mut Changes<'_>) -> usize {
    let Settings { stopped_tasks_kept_ms, stopped_tasks_per_cluster, .. } = *changes.settings();
    let before = changes.now_ms().saturating_sub(stopped_tasks_kept_ms);
    let of_cluster = |stopped: &BTreeSet<(u64, TaskId)>| {
        let surplus = stopped.len().saturating_sub(stopped_tasks_per_cluster);
        let oldest = stopped.iter().take(CHUNK).enumerate();
        let gone = oldest.take_while(|(place, (at, _))| *place < surplus || *at < before);
        gone.map(|(_, (_, id))| id.clone()).collect::<Vec<TaskId>>()
    };
    let old: Vec<TaskId> = changes.state().stopped().values().flat_map(of_cluster).take(CHUNK).collect();
    let count = old.len();
    for id in old {
        changes.remove(Mutation::TaskGone(id));
    }
    count
}

fn finish_deregistering(changes: &mut Changes<'_>) -> usize {
    let leaving = changes.state().instances.values();
    let leaving = leaving.filter(|i| i.status == ContainerInstanceStatus::Deregistering);
    let Some(first) = leaving.map(|instance| instance.id.clone()).next() else { return 0 };
    deregister::go_on(changes, &first);
    // Another look is needed, for this one or the next.
    CHUNK
}

fn remove_definitions(changes: &mut Changes<'_>) -> usize {
    let unused = definition::unused_deleted(changes.state());
    let count = unused.len().min(CHUNK);
    for id in unused.into_iter().take(CHUNK) {
        changes.remove(Mutation::DefinitionGone(id));
    }
    count
}

fn remove_instances(changes: &mut Changes<'_>) -> usize {
    let before = changes.now_ms().saturating_sub(INACTIVE_KEPT_MS);
    let state = changes.state();
    let old = state.instances.values().filter(|instance| {
        instance.status == ContainerInstanceStatus::Inactive
            && instance.deregistered_at_unix_ms.is_some_and(|at| at < before)
            && state.reserved(&instance.id).tasks.is_empty()
    });
    let old: Vec<ContainerInstanceId> = old.take(CHUNK).map(|instance| instance.id.clone()).collect();
    let count = old.len();
    for id in old {
        changes.remove(Mutation::InstanceGone(id));
    }
    count
}

/// Services that have been INACTIVE for long, each after its events.
fn remove_services(changes: &mut Changes<'_>) -> usize {
    let before = changes.now_ms().saturating_sub(INACTIVE_KEPT_MS);
    let state = changes.state();
    let mut services = state.services.values();
    let old = services.find(|service| service.inactive_at_unix_ms.is_some_and(|at| at < before));
    let Some(key) = old.map(|service| service.key()) else { return 0 };
    let range = (key.clone(), 0)..=(key.clone(), u64::MAX);
    let events: Vec<u64> = state.service_events.range(range).map(|((_, number), _)| *number).collect();
    for number in events.iter().take(CHUNK) {
        changes.record(Mutation::ServiceEventGone(key.clone(), *number));
    }
    if events.len() <= CHUNK {
        changes.remove(Mutation::ServiceGone(key));
    }
    // Another look is needed, for this one or the next.
    CHUNK
}

/// A cluster goes after its instances and tasks have.
fn remove_clusters(changes: &mut Changes<'_>) -> usize {
    let before = changes.now_ms().saturating_sub(INACTIVE_KEPT_MS);
    let state = changes.state();
    let old = state.clusters.values().filter(|c| c.deleted_at_unix_ms.is_some_and(|at| at < before));
    let old = old.filter(|cluster| {
        !state.instances.values().any(|instance| instance.cluster == cluster.name)
            && !state.tasks.values().any(|task| task.cluster == cluster.name)
    });
    let old: Vec<ClusterName> = old.take(CHUNK).map(|cluster| cluster.name.clone()).collect();
    let count = old.len();
    for name in old {
        changes.remove(Mutation::ClusterGone(name));
    }
    count
}

fn remove_client_tokens(changes: &mut Changes<'_>) -> usize {
    let before = changes.now_ms().saturating_sub(TOKENS_KEPT_MS);
    let tokens = changes.state().client_tokens.values();
    let old: Vec<_> = tokens.filter(|token| token.created_at_unix_ms < before).take(CHUNK).cloned().collect();
    let count = old.len();
    for token in old {
        changes.record(Mutation::ClientTokenGone(token));
    }
    count
}

fn remove_join_tokens(changes: &mut Changes<'_>) -> usize {
    let before = changes.moment().wall_unix_ms.saturating_sub(TOKENS_KEPT_MS);
    let tokens = changes.state().join_tokens.values();
    let old: Vec<String> =
        tokens.filter(|token| token.expires_at_unix_ms < before).take(CHUNK).map(|t| t.id.clone()).collect();
    let count = old.len();
    for id in old {
        changes.record(Mutation::JoinTokenGone(id));
    }
    count
}
