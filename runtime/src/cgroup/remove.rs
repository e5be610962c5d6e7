//! Killing and removing: every process by cgroup, then every directory from the leaves up.
//! In: a task, or a container of it. Out: nothing left, or every error. Idempotent.
//! Never: stops at the first error; sleeps where the kernel can tell.

use super::wait::{processes, until_empty};
use super::{CgroupError, CgroupRoot, io_error};
use lighter_model::ids::{ContainerName, TaskId};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone; a process in uninterruptible sleep takes longer.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(10);

impl CgroupRoot {
    /// SIGKILL to every process of every container of the task, and waits until they are gone.
    pub(crate) fn kill_task(&self, task: &TaskId) -> Result<(), CgroupError> {
        let directories = self.task_dirs(task);
        collect(directories.iter().map(|directory| kill_below(directory)))
    }

    /// Pids of a task's containers; on v1 as the pids controller has them.
    pub(crate) fn task_processes(&self, task: &TaskId) -> Vec<i32> {
        let mut pids: Vec<i32> =
            self.task_dirs(task).iter().flat_map(|directory| processes(directory)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    pub(crate) fn remove_container(
        &self,
        task: &TaskId,
        container: &ContainerName,
    ) -> Result<(), CgroupError> {
        let directories = self.directories(&self.below_container(task, container));
        collect(
            directories.iter().map(|directory| kill_below(directory).and_then(|()| remove_tree(directory))),
        )
    }

    /// Kills and removes the cgroups of a task's containers and of its shim.
    pub(crate) fn remove_task(&self, task: &TaskId) -> Result<(), CgroupError> {
        let mut directories = self.task_dirs(task);
        directories.extend(self.shim_dirs(task));
        collect(
            directories.iter().map(|directory| kill_below(directory).and_then(|()| remove_tree(directory))),
        )
    }

    /// Tasks that have a cgroup.
    pub(crate) fn tasks(&self) -> Vec<TaskId> {
        let mut tasks: Vec<TaskId> = [self.tasks_name(), "shims"]
            .iter()
            .flat_map(|below| self.directories(below))
            .flat_map(|directory| children(&directory))
            .filter_map(|child| child.file_name()?.to_str()?.parse().ok())
            .collect();
        tasks.sort();
        tasks.dedup();
        tasks
    }

    /// Removes the root itself when no task is left; for tests and uninstalling.
    pub fn remove_root(&self) -> Result<(), CgroupError> {
        let directories = self.directories("");
        collect(directories.iter().map(|directory| remove_tree(directory)))
    }
}

fn collect(results: impl Iterator<Item = Result<(), CgroupError>>) -> Result<(), CgroupError> {
    let mut errors: Vec<CgroupError> = results.filter_map(Result::err).collect();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(CgroupError::Several(errors)),
    }
}

fn kill_below(directory: &Path) -> Result<(), CgroupError> {
    if !directory.exists() {
        return Ok(());
    }
    let kill = directory.join("cgroup.kill");
    match fs::write(&kill, "1") {
        Ok(()) => until_empty(directory, EMPTY_TIMEOUT),
        // v1 has no such file, and creating one in a cgroup directory is refused.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EACCES | libc::EPERM)) => {
            kill_one_by_one(directory)
        }
        Err(error) => Err(io_error("write", &kill)(error)),
    }
}

/// v1: until a pass finds nobody. A pid could be used again between reading and opening; the
/// window is closed by reading the list again after the pidfd is open.
fn kill_one_by_one(directory: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + EMPTY_TIMEOUT;
    loop {
        let pids = processes(directory);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            if processes(directory).contains(&pid) {
                let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if until_empty(directory, left.min(Duration::from_millis(100))).is_ok() {
            return Ok(());
        }
        if left.is_zero() {
            return until_empty(directory, Duration::ZERO);
        }
    }
}

/// rmdir from the leaves up. EBUSY is a process that has not been reaped yet: waited for.
pub(crate) fn remove_tree(directory: &Path) -> Result<(), CgroupError> {
    for child in children(directory) {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + EMPTY_TIMEOUT;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                until_empty(directory, deadline.saturating_duration_since(Instant::now()))?;
                // A zombie no longer counts as a process but still holds the directory.
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(io_error("remove cgroup", directory)(error)),
        }
    }
}

/// Child cgroups; none when the directory is gone.
pub(crate) fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}
