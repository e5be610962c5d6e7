//! Who may watch a pull: one `watch` channel a task and image, while the task is prepared.
//! In: steps of pulls. Out: the newest step of each image of a task, and its changes.
//! Owns the channels. Never: keeps a pull waiting; only the newest step is kept.

use crate::facilities::{PullStep, PullWatcher};
use lighter_model::ids::TaskId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// By image reference.
type Images = BTreeMap<String, PullStep>;

/// The pulls of all tasks that are being prepared.
#[derive(Debug, Clone, Default)]
pub(crate) struct PullBoard {
    // Held for the time of one map operation, never over an await: a pull's callback cannot wait.
    tasks: Arc<Mutex<BTreeMap<TaskId, watch::Sender<Images>>>>,
}

impl PullBoard {
    /// What the puller of one image calls.
    pub(crate) fn watcher(&self, task: &TaskId, reference: &str) -> PullWatcher {
        let sender = self.sender(task);
        let reference = reference.to_owned();
        sender.send_modify(|images| {
            images.entry(reference.clone()).or_default();
        });
        Arc::new(move |step| {
            sender.send_modify(|images| {
                images.insert(reference.clone(), step);
            });
        })
    }

    /// Changes of a task's pulls; ends when the task is forgotten here.
    pub(crate) fn watch(&self, task: &TaskId) -> Option<watch::Receiver<Images>> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.get(task).map(watch::Sender::subscribe)
    }

    /// The task is prepared, or ended.
    pub(crate) fn forget(&self, task: &TaskId) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(task);
    }

    fn sender(&self, task: &TaskId) -> watch::Sender<Images> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.entry(task.clone()).or_insert_with(|| watch::channel(Images::new()).0).clone()
    }
}
