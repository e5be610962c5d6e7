//! Removing what a task leaves: processes, cgroups, run directory. Every step runs whatever the
//! others did, and every error is kept. In: a task id. Out: nothing left.
//! Never: touches logs (they outlive the task) or anything of another task.

use super::adopt::live_shim;
use super::{Runtime, namespaces};
use crate::cgroup::CgroupError;
use lighter_model::ids::TaskId;
use rustix::process::{Signal, pidfd_send_signal};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Steps of `remove_task` that failed; repeating the call repeats them.
#[derive(Debug, thiserror::Error)]
#[error("the task could not be removed completely: {}", .errors.iter().map(|e| crate::cgroup::error_chain(e)).collect::<Vec<_>>().join("; "))]
pub struct RemoveError {
    pub errors: Vec<RemoveStepError>,
}

/// One failed step.
#[derive(Debug, thiserror::Error)]
pub enum RemoveStepError {
    #[error("its cgroups remain")]
    Cgroup(#[source] CgroupError),
    #[error("cannot remove {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the node is shutting down")]
    Cancelled,
}

impl Runtime {
    /// Kills whatever runs of a task, its shim included, and removes its cgroups and its run
    /// directory. A task that is not there is success.
    pub async fn remove_task(&self, task: &TaskId) -> Result<(), RemoveError> {
        let (this, id) = (self.clone(), task.clone());
        let errors = tokio::task::spawn_blocking(move || this.remove_task_now(&id)).await;
        let errors = errors.unwrap_or_else(|_| vec![RemoveStepError::Cancelled]);
        if errors.is_empty() { Ok(()) } else { Err(RemoveError { errors }) }
    }

    fn remove_task_now(&self, task: &TaskId) -> Vec<RemoveStepError> {
        let mut errors = Vec::new();
        let task_dir = self.config.task_dir(task);
        // The shim may be outside its cgroup on v1 machines: it is ended by its record too.
        if let Ok(pidfd) = live_shim(&task_dir) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        // On v1 a frozen process does not even die; without a freezer there is none.
        let _ = self.config.cgroup.set_frozen(task, false);
        if let Err(error) = self.config.cgroup.remove_task(task) {
            errors.push(RemoveStepError::Cgroup(error));
        }
        errors.extend(self.config.cgroup.protect_parents().err().map(RemoveStepError::Cgroup));
        // Nobody is left in them.
        namespaces::clear(&self.config.namespaces_dir(task));
        namespaces::clear(&self.config.namespaces_dir(task).with_extension("new"));
        self.unmap_ids(task);
        match fs::remove_dir_all(&task_dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                errors.push(RemoveStepError::Directory { path: task_dir, source });
            }
            _ => {}
        }
        errors
    }

    /// Removes the log files of a task; the agent does so when its record is forgotten.
    pub fn remove_logs(&self, task: &TaskId) -> io::Result<()> {
        match fs::remove_dir_all(self.config.task_log_dir(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
