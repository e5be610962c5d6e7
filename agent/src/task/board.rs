//! How to reach the monitors of this node's tasks from outside their actors.
//! In: what each actor notes of its own task. Out: the same, to exec, attach, copies and counters.
//! Owns the list. Never: keeps a task alive: a noted monitor may be gone, and then it says so.

use crate::facilities::Shim;
use lighter_model::ids::TaskId;
use lighter_model::task_definition::TaskDefinition;
use lighter_net::AttachmentRecord;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A task that has a monitor.
#[derive(Clone)]
pub(crate) struct Monitor {
    pub shim: Arc<dyn Shim>,
    pub definition: Arc<TaskDefinition>,
    pub attachments: Vec<AttachmentRecord>,
}

/// All of them.
#[derive(Clone, Default)]
pub(crate) struct MonitorBoard {
    // Held for the time of one map operation, never over an await.
    tasks: Arc<Mutex<BTreeMap<TaskId, Monitor>>>,
}

impl MonitorBoard {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Monitor>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest of a task; `None`: it has none (any more).
    pub(crate) fn note(&self, task: &TaskId, monitor: Option<Monitor>) {
        match monitor {
            Some(monitor) => drop(self.tasks().insert(task.clone(), monitor)),
            None => drop(self.tasks().remove(task)),
        }
    }

    pub(crate) fn get(&self, task: &TaskId) -> Option<Monitor> {
        self.tasks().get(task).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(TaskId, Monitor)> {
        self.tasks().iter().map(|(task, monitor)| (task.clone(), monitor.clone())).collect()
    }
}
