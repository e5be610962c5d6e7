//! ListTaskEvents: the control plane's lines and the node's, merged in the order of their times.
//! In: a task's name. Out: lines, and why the node's are missing when they are.
//! Never: keeps the node's lines; waits for a silent node for long.

use super::{Context, existing_cluster};
use crate::core::journal;
use crate::core::queue::nowhere;
use crate::core::record::TaskRecord;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::session::questions::Question;
use lighter_model::task_event::TaskEvent;
use std::time::Duration;

/// How long a node may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A task's journal.
#[derive(Debug, Clone, Default)]
pub struct TaskJournal {
    /// True: of the node.
    pub lines: Vec<(bool, TaskEvent)>,
    /// Why the node's lines are missing.
    pub node_missing: Option<String>,
}

/// Reads both sides.
pub async fn list(context: &Context, cluster: &str, task: &str) -> Result<TaskJournal, ApiError> {
    let (task, own) = context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        let task = find_task(&shown.state, &cluster, task)?;
        let own = journal::events(&shown.state, &task);
        Ok::<_, ApiError>((task, own))
    })?;
    let (node, node_missing) = match ask(context, &task).await {
        Ok(events) => (events, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let lines = own.into_iter().map(|event| (false, event));
    let mut lines: Vec<_> = lines.chain(node.into_iter().map(|event| (true, event))).collect();
    // Stable: lines of one side and one millisecond keep their order.
    lines.sort_by_key(|(_, event)| event.time_unix_ms);
    Ok(TaskJournal { lines, node_missing })
}

async fn ask(context: &Context, task: &TaskRecord) -> Result<Vec<TaskEvent>, String> {
    if task.instance == nowhere() {
        return Err("the task is on no node".to_owned());
    }
    let id = context.environment.random_hex();
    let mut asked = context.questions.ask(&id, &task.instance);
    let question = Question { id, task: task.id.clone() };
    if !context.sessions.ask(&task.instance, question) {
        return Err(format!("the node {} is not connected", task.instance));
    }
    match tokio::time::timeout(ANSWER_LIMIT, asked.answer()).await {
        Ok(Some(events)) => Ok(events),
        Ok(None) => Err(format!("the node {} left without an answer", task.instance)),
        Err(_) => {
            Err(format!("the node {} has not answered for {} s", task.instance, ANSWER_LIMIT.as_secs()))
        }
    }
}
