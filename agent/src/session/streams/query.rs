//! Questions to the agent by topic, with JSON both ways: what only the node knows, asked from
//! anywhere. In: a topic, a task. Out: JSON, or why not. Never: changes anything.

use super::convert::Fault;
use crate::reconcile::{CoreInput, LocalTask};
use lighter_model::held::{HELD_TASK_TOPIC, HeldTask};
use lighter_model::ids::TaskId;
use lighter_model::task_definition::input;
use tokio::sync::{mpsc, oneshot};

/// Answers one question. A topic of a newer control plane is refused by name; none there is has an
/// argument beside its task.
pub(super) async fn answer(
    reconciler: &mpsc::Sender<CoreInput>,
    task: Option<&TaskId>,
    topic: &str,
) -> Result<String, Fault> {
    match (topic, task) {
        (HELD_TASK_TOPIC, Some(task)) => held_task(reconciler, task).await,
        (HELD_TASK_TOPIC, None) => Err(Fault::new("INVALID", "a task has to be named")),
        _ => Err(Fault::new(
            "NOT_SUPPORTED",
            format!("this node's agent knows no topic {topic:?}; upgrade it"),
        )),
    }
}

async fn held_task(reconciler: &mpsc::Sender<CoreInput>, task: &TaskId) -> Result<String, Fault> {
    let leaving = || Fault::new("TASK_NOT_RUNNING", "the agent leaves");
    let (answer, got) = oneshot::channel();
    reconciler.send(CoreInput::LocalTasks { answer }).await.map_err(|_| leaving())?;
    let all = got.await.map_err(|_| leaving())?;
    let held = all.into_iter().find(|local| local.assignment.task == *task);
    let held = held
        .ok_or_else(|| Fault::new("TASK_NOT_RUNNING", format!("task {task} is not on its node any more")))?;
    serde_json::to_string(&told(held)).map_err(|error| Fault::new("INVALID", error.to_string()))
}

fn told(local: LocalTask) -> HeldTask {
    let record = local.assignment;
    HeldTask {
        task: record.task,
        generation: record.generation,
        definition: record.definition,
        definition_json: local.definition.map(|definition| input::to_json(&definition)),
        group: record.group,
        paused: record.paused,
        container_resources: record.resources,
        image_digests: record.image_digests,
        resources: local.needs.unwrap_or_default(),
        report: local.report,
    }
}
