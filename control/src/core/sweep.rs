//! Removes what nobody may ask for any more, in chunks: stopped tasks, spent tokens, deleted revisions,
//! clusters and instances that have been INACTIVE for long.
//! In: nothing but time. Out: whether more is left. Finishes what a replaced node left behind.
//! Never: removes a task STOPPED less than an hour ago.

use crate::core::Command;
use crate::core::instance::given_up;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::TaskRecord;
use crate::core::{definition, deregister};
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::status::ContainerInstanceStatus;
use std::sync::Arc;

/// How long a STOPPED task stays describable at least (ECS: one hour).
pub const STOPPED_KEPT_MS: u64 = 3_600_000;
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
        const KINDS: [fn(&mut Changes<'_>) -> usize; 8] = [
            give_up_tasks_of_replaced,
            finish_deregistering,
            remove_stopped,
            remove_definitions,
            remove_instances,
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

fn remove_stopped(changes: &mut Changes<'_>) -> usize {
    let state = changes.state();
    let surplus = state.stopped().len().saturating_sub(changes.settings().stopped_tasks_kept);
    let before = changes.now_ms().saturating_sub(STOPPED_KEPT_MS);
    let old = state.stopped().iter().take(surplus.min(CHUNK)).take_while(|(at, _)| *at < before);
    let old: Vec<TaskId> = old.map(|(_, id)| id.clone()).collect();
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
