//! A copy of a task's record and definition on the tmpfs of /run, for the day the store is lost: then
//! the tasks that run are adopted with their names, leases and essential flags.
//! In: record and definition at launch. Out: the same. Owns `<run_dir>/records/<task>.json`.
//! Never: the truth while there is a store; gone after a reboot, as the containers are.

use crate::store::records::TaskRecord;
use lighter_model::ids::TaskId;
use lighter_model::task_definition::TaskDefinition;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub record: TaskRecord,
    pub definition: TaskDefinition,
}

fn path(run_dir: &Path, task: &TaskId) -> PathBuf {
    run_dir.join("records").join(format!("{task}.json"))
}

/// A copy that cannot be written is no reason not to start a task.
pub(super) fn write(run_dir: &Path, record: &TaskRecord, definition: &TaskDefinition) {
    let path = path(run_dir, &record.task);
    let copy = Copy { record: record.clone(), definition: definition.clone() };
    let write = || {
        if let Some(dir) = path.parent() {
            // Definitions hold environment variables, and those hold secrets.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(&copy).map_err(std::io::Error::other)?)?;
        std::fs::rename(&temporary, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(task = %record.task, cause = %error, "the copy of the record is not written");
    }
}

pub(super) fn remove(run_dir: &Path, task: &TaskId) {
    let _ = std::fs::remove_file(path(run_dir, task));
}

/// Every copy there is.
pub(crate) fn read_all(run_dir: &Path) -> Vec<Copy> {
    let entries = std::fs::read_dir(run_dir.join("records")).into_iter().flatten().flatten();
    let tasks = entries.filter_map(|entry| entry.path().file_stem()?.to_str()?.parse().ok());
    tasks.filter_map(|task| read(run_dir, &task)).collect()
}

/// The copy of a task; `None` when there is none that can be read.
pub(crate) fn read(run_dir: &Path, task: &TaskId) -> Option<Copy> {
    serde_json::from_slice(&std::fs::read(path(run_dir, task)).ok()?).ok()
}
