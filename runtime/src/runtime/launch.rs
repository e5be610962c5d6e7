//! Starting the shim of a task: directory, cgroups, limits of the task, process, connection.
//! In: a task id and its limits. Out: a handle. A shim that is already there is not started again.
//! The shim leaves session, cgroup and descriptors of this process before it answers.
//! Never: leaves a half-started shim: on failure its cgroup is killed.

use super::Runtime;
use crate::cgroup::{CgroupError, TaskLimits};
use crate::connection::{self, ConnectError};
use crate::handle::ShimHandle;
use lighter_model::ids::TaskId;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Why a task has no shim.
#[derive(Debug, thiserror::Error)]
pub enum StartShimError {
    #[error("the task already has a directory {path}; adopt or remove it first")]
    Exists { path: PathBuf },
    #[error("cannot make {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the task's cgroups cannot be made")]
    Cgroup(#[source] CgroupError),
    #[error("cannot run {path}")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("lighter-shim refused to start: {message}")]
    Refused { message: String },
    #[error("the shim started but cannot be spoken to")]
    Connect(#[source] ConnectError),
    #[error("the node is shutting down")]
    Cancelled,
}

impl Runtime {
    /// Starts the monitor of a task whose containers together stay within `limits`.
    pub async fn start_shim(&self, task: &TaskId, limits: TaskLimits) -> Result<ShimHandle, StartShimError> {
        let task_dir = self.config.task_dir(task);
        let (this, id) = (self.clone(), task.clone());
        let prepared = tokio::task::spawn_blocking(move || this.prepare_task(&id, limits)).await;
        let cgroups = prepared.map_err(|_| StartShimError::Cancelled)??;
        self.spawn_shim(task, &task_dir, &cgroups).await?;
        let connection = connection::connect(&task_dir).await.map_err(StartShimError::Connect)?;
        Ok(ShimHandle::new(task.clone(), task_dir, self.config.cgroup.clone(), connection))
    }

    fn prepare_task(&self, task: &TaskId, limits: TaskLimits) -> Result<Vec<PathBuf>, StartShimError> {
        let task_dir = self.config.task_dir(task);
        if task_dir.join("shim.record").exists() {
            return Err(StartShimError::Exists { path: task_dir });
        }
        for path in [task_dir.clone(), self.config.state_root(task), self.config.task_log_dir(task)] {
            private_directory(&path).map_err(|source| StartShimError::Directory { path, source })?;
        }
        let cgroup = &self.config.cgroup;
        cgroup.create_task(task).map_err(StartShimError::Cgroup)?;
        cgroup.limit_task(task, limits).map_err(StartShimError::Cgroup)?;
        cgroup.create_shim(task).map_err(StartShimError::Cgroup)
    }

    /// Returns when the shim's socket accepts: its first process then ends with code 0.
    async fn spawn_shim(
        &self,
        task: &TaskId,
        task_dir: &Path,
        cgroups: &[PathBuf],
    ) -> Result<(), StartShimError> {
        let path = &self.config.shim_path;
        let mut command = Command::new(path);
        command
            .arg("run")
            .arg("--task")
            .arg(task.as_str())
            .arg("--dir")
            .arg(task_dir)
            .arg("--oci")
            .arg(&self.config.oci_path);
        for directory in cgroups {
            command.arg("--cgroup").arg(directory);
        }
        // A cache for each thread and size, worth it for programs with many threads; here it would
        // hold on to what a probe has used for ever.
        command.env_clear().env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output =
            command.output().await.map_err(|source| StartShimError::Spawn { path: path.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = if message.is_empty() { output.status.to_string() } else { message };
        Err(StartShimError::Refused { message })
    }
}

/// Makes a directory and its parents; the last with mode 0700. One that exists stays as it is.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
