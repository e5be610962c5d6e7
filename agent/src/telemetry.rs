//! What this agent tells about itself and its tasks while it works: journals, waits, numbers, spans.
//! In: what task actors note. Out: a `TaskLog` for each task; the same to the local socket, the
//! session and the metadata endpoint. Owns: the list of task logs, the metrics, the tracer.
//! Never: makes a task wait or fail: what cannot be written down is lost, with a warning.

pub(crate) mod families;
pub(crate) mod file;
pub(crate) mod serve;
pub(crate) mod task_log;

use file::EventFile;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_event::TaskEvent;
use lighter_telemetry::metrics::Metrics;
use lighter_telemetry::trace::Tracer;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use task_log::{Snapshot, TaskLog};

/// Shared by all parts; clones are the same.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub metrics: Metrics,
    pub tracer: Tracer,
    events_dir: PathBuf,
    // Held for the time of one map operation, never over an await.
    tasks: Arc<Mutex<BTreeMap<TaskId, TaskLog>>>,
}

impl Telemetry {
    /// Journals are kept in `events_dir`.
    pub(crate) fn new(events_dir: PathBuf, tracer: Tracer) -> Self {
        let metrics = Metrics::new(families::FAMILIES);
        Self { metrics, tracer, events_dir, tasks: Arc::default() }
    }

    pub(crate) fn events_dir(&self) -> &std::path::Path {
        &self.events_dir
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, TaskLog>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of a task; goes on with what an earlier agent had written.
    pub(crate) fn task(&self, task: &TaskId) -> TaskLog {
        let mut tasks = self.tasks();
        let make = || TaskLog::open(task, EventFile::new(&self.events_dir, task), self);
        tasks.entry(task.clone()).or_insert_with(make).clone()
    }

    /// The task is forgotten: its file stays, for as long as its logs do.
    pub(crate) fn forget(&self, task: &TaskId) {
        self.tasks().remove(task);
    }

    /// The task and container with this id.
    pub(crate) fn container(&self, id: &str) -> Option<(TaskId, ContainerName)> {
        self.tasks().iter().find_map(|(task, log)| Some((task.clone(), log.container(id)?)))
    }

    /// A task as its actor last told it; `None` before it is defined.
    pub(crate) fn snapshot(&self, task: &TaskId) -> Option<Snapshot> {
        self.tasks().get(task)?.snapshot()
    }

    /// Every task that is defined.
    pub(crate) fn snapshots(&self) -> Vec<Snapshot> {
        self.tasks().values().filter_map(TaskLog::snapshot).collect()
    }

    /// Everything kept of a task's journal, oldest first. Reads a file.
    pub(crate) fn events(&self, task: &TaskId) -> Vec<TaskEvent> {
        let log = self.tasks().get(task).cloned();
        match log {
            Some(log) => log.events(),
            None => EventFile::new(&self.events_dir, task).read(),
        }
    }
}
