//! ListOrphans, AdoptOrphan, StopOrphan: tasks that run on nodes and that this store does not know.
//! In: a cluster, a task. Out: orphans; the task that one has become.
//! Never: decides by itself; without the node's own word on the task nothing is decided.

use super::{Context, existing_cluster, stream};
use crate::core::audit::Asker;
use crate::core::instance::find_instance;
use crate::core::orphan::{DecideOrphan, find_orphan};
use crate::core::record::{InstanceRecord, OrphanFacts, TaskRecord};
use crate::error::ApiError;
use lighter_model::held::{HELD_TASK_TOPIC, HeldTask};
use lighter_model::ids::TaskId;
use std::sync::Arc;

/// An orphan with where it runs.
#[derive(Debug, Clone)]
pub struct Orphan {
    pub task: TaskId,
    pub instance: Arc<InstanceRecord>,
    pub facts: OrphanFacts,
}

/// All of a cluster, or of one instance, by node and id.
pub fn list(context: &Context, cluster: &str, instance: &str) -> Result<Vec<Orphan>, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let only = match instance {
            "" => None,
            name => Some(find_instance(&shown.state, &cluster, name)?.id.clone()),
        };
        let instances = shown.state.instances.values().filter(|instance| {
            instance.cluster == cluster && only.as_ref().is_none_or(|only| *only == instance.id)
        });
        let orphans = instances.flat_map(|instance| {
            instance.orphans.iter().map(|task| Orphan {
                task: task.clone(),
                instance: instance.clone(),
                facts: instance.orphan_facts.get(task).cloned().unwrap_or_default(),
            })
        });
        Ok(orphans.collect())
    })
}

/// Asks the node what the task is, and makes it one of the cluster that runs on, or that stops.
pub async fn decide(
    context: &Context,
    asker: Asker,
    cluster: &str,
    task: &str,
    stop: Option<String>,
) -> Result<Arc<TaskRecord>, ApiError> {
    if stop.as_ref().is_some_and(|reason| reason.chars().count() > 255) {
        return Err(ApiError::invalid("reason", "must be at most 255 characters"));
    }
    let (cluster, instance, task) = context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let (instance, task) = find_orphan(&shown.state, &cluster, task)?;
        Ok::<_, ApiError>((cluster, instance.id.clone(), task))
    })?;
    let answer = stream::ask(context, &asker, &instance, task.as_str(), HELD_TASK_TOPIC, "{}").await?;
    let held: HeldTask = serde_json::from_str(&answer).map_err(|error| ApiError::ProtocolViolation {
        message: format!("the node's word on task {task}: {error}"),
    })?;
    if held.task != task {
        let message = format!("asked about task {task}, the node tells of {}", held.task);
        return Err(ApiError::ProtocolViolation { message });
    }
    context.change(asker, DecideOrphan { cluster, instance, held, stop }).await
}
