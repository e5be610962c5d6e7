//! Taking up a task that an earlier agent started: is its shim the process the record names, in
//! this boot? Then connect. Else its containers have nobody to reap them: they are killed by
//! cgroup, and what ended before is in the exit records.
//! In: a task id. Out: handle and status, or the exits that are known.
//! Never: signals a pid that has not been compared with its start time through an open pidfd.

use super::Runtime;
use crate::cgroup::CgroupError;
use crate::connection::{self, ConnectError};
use crate::handle::{ShimHandle, TaskStatus, exit_of, status_of};
use lighter_model::exit::ContainerExit;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_shim_wire::{ShimRecord, WireExit};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How long a shim that closed its socket may take to end; it has nothing left to do then.
const ENDING_TIMEOUT_S: i64 = 2;

/// A task that goes on.
pub struct Adopted {
    pub handle: ShimHandle,
    /// As the shim gave it when the connection was made; exits since then come as events.
    pub status: TaskStatus,
}

/// Why a task does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("nothing of this task is here")]
    NotFound,
    /// The shim is gone, or of another boot. Whatever ran has been killed.
    #[error("the task's shim is gone ({why}); {} exits are on record, {} processes were killed", .exits.len(), .killed.len())]
    ShimGone { why: String, exits: BTreeMap<ContainerName, ContainerExit>, killed: Vec<i32> },
    #[error("the task's shim is gone and its processes cannot be killed")]
    Kill(#[source] CgroupError),
    /// The shim lives and does not answer, or speaks no common version. Its containers go on.
    #[error("the task's shim is there but cannot be spoken to")]
    Connect(#[source] ConnectError),
    #[error("the node is shutting down")]
    Cancelled,
}

impl Runtime {
    /// Connects to the shim of a task, or says what is known of a task without one.
    pub async fn adopt(&self, task: &TaskId) -> Result<Adopted, AdoptError> {
        let (this, id) = (self.clone(), task.clone());
        let checked = tokio::task::spawn_blocking(move || this.check_shim(&id)).await;
        // Held until connected, so that the pid cannot go to another process meanwhile.
        let pidfd = checked.map_err(|_| AdoptError::Cancelled)??;
        let task_dir = self.config.task_dir(task);
        let connection = match connection::connect(&task_dir).await {
            Ok(connection) => connection,
            Err(error) => return Err(self.unreachable(task, pidfd, error).await),
        };
        let status = status_of(&connection.status);
        let handle = ShimHandle::new(task.clone(), task_dir, self.config.cgroup.clone(), connection);
        Ok(Adopted { handle, status })
    }

    /// Exits on record: what `adopt` would give, for a task whose shim ended properly too.
    pub fn recorded_exits(&self, task: &TaskId) -> BTreeMap<ContainerName, ContainerExit> {
        read_exits(&self.config.task_dir(task))
    }

    /// A process that ends closes its socket before it is seen to have ended: that is waited for.
    async fn unreachable(&self, task: &TaskId, pidfd: OwnedFd, error: ConnectError) -> AdoptError {
        let (this, id) = (self.clone(), task.clone());
        let gone = tokio::task::spawn_blocking(move || {
            let timeout = Timespec { tv_sec: ENDING_TIMEOUT_S, tv_nsec: 0 };
            let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
            ended.is_ok_and(|count| count > 0).then(|| this.shim_gone(&id, "it has just ended".to_owned()))
        });
        match gone.await {
            Ok(Some(gone)) => gone,
            Ok(None) => AdoptError::Connect(error),
            Err(_) => AdoptError::Cancelled,
        }
    }

    /// Kills what a dead shim has left and collects the exits it had recorded.
    fn shim_gone(&self, task: &TaskId, why: String) -> AdoptError {
        let killed = self.config.cgroup.task_processes(task);
        match self.config.cgroup.kill_task(task) {
            Ok(()) => AdoptError::ShimGone { why, exits: read_exits(&self.config.task_dir(task)), killed },
            Err(error) => AdoptError::Kill(error),
        }
    }

    fn check_shim(&self, task: &TaskId) -> Result<OwnedFd, AdoptError> {
        let task_dir = self.config.task_dir(task);
        if !task_dir.exists() && self.config.cgroup.task_processes(task).is_empty() {
            return Err(AdoptError::NotFound);
        }
        match live_shim(&task_dir) {
            Ok(pidfd) => Ok(pidfd),
            Err(why) => Err(self.shim_gone(task, why)),
        }
    }
}

/// A pidfd of the shim that the record names, or why it is not that process.
pub(super) fn live_shim(task_dir: &Path) -> Result<OwnedFd, String> {
    let text = fs::read_to_string(task_dir.join("shim.record"))
        .map_err(|error| format!("no record of it: {error}"))?;
    let record = ShimRecord::from_text(&text).map_err(|error| error.to_string())?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if record.boot_id != boot.trim() {
        return Err("it is of an earlier boot".to_owned());
    }
    let pid = Pid::from_raw(record.pid).ok_or("its pid is 0")?;
    let pidfd =
        pidfd_open(pid, PidfdFlags::empty()).map_err(|_| format!("process {} has ended", record.pid))?;
    // After the open: the pidfd is of whatever has the pid now, and this compares that.
    if start_time_ticks(record.pid) == Some(record.start_time_ticks) && !is_zombie(record.pid) {
        Ok(pidfd)
    } else {
        Err(format!("process {} is another one", record.pid))
    }
}

/// The fields of /proc/pid/stat after the name, from field 3 on.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}

fn start_time_ticks(pid: i32) -> Option<u64> {
    stat_fields(pid)?.get(19)?.parse().ok()
}

fn is_zombie(pid: i32) -> bool {
    stat_fields(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"))
}

fn read_exits(task_dir: &Path) -> BTreeMap<ContainerName, ContainerExit> {
    let entries = fs::read_dir(task_dir.join("exits")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name: ContainerName = entry.file_name().to_str()?.parse().ok()?;
            let exit = WireExit::from_text(&fs::read_to_string(entry.path()).ok()?).ok()?;
            Some((name, exit_of(exit)))
        })
        .collect()
}
