//! Removes what nobody may ask for any more, in chunks: stopped tasks, spent tokens.
//! In: nothing but time. Out: whether more is left. Finishes what a replaced node left behind.
//! Never: removes a task STOPPED less than an hour ago.

use crate::core::Command;
use crate::core::instance::given_up;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::TaskRecord;
use crate::error::ApiError;
use lighter_model::ids::TaskId;
use lighter_model::status::ContainerInstanceStatus;
use std::sync::Arc;

/// How long a STOPPED task stays describable at least (ECS: one hour).
pub const STOPPED_KEPT_MS: u64 = 3_600_000;
/// How long a client token or an expired join token is remembered.
pub const TOKENS_KEPT_MS: u64 = 86_400_000;
/// Removals of each kind in one command.
const CHUNK: usize = 5;

/// Removes one chunk of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Sweep;

impl Command for Sweep {
    /// Whether more is left: give the command again.
    type Answer = bool;

    fn decide(self, changes: &mut Changes<'_>) -> Result<bool, ApiError> {
        let found = [
            give_up_tasks_of_replaced(changes),
            remove_stopped(changes),
            remove_client_tokens(changes),
            remove_join_tokens(changes),
        ];
        Ok(found.contains(&CHUNK))
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
        changes.record(Mutation::TaskGone(id));
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
