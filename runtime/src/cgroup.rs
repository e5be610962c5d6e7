//! The cgroups of tasks: `<root>/shims/<task>` for the monitor, `<root>/tasks/<task>` with the
//! task's own limits, `<root>/tasks/<task>/<container>` which libcontainer makes.
//! In: names and limits. Out: directories, OOM counts, empty cgroups. All calls block for a moment;
//! `Runtime` makes them on blocking threads.
//! cgroups-rs sets the task's limits, on groups that exist only: on its own it would enable
//! controllers from the hierarchy's root and hide the errors. The rest is ours, because no crate
//! watches cgroup.events, uses cgroup.kill or removes recursively without sleeping.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/.
//! Never: touches a cgroup outside its root.

pub mod cpu;
mod freeze;
mod layout;
pub(crate) mod limits;
mod protect;
mod remove;
pub(crate) mod resize;
pub mod stats;
mod wait;

pub use limits::{TaskLimits, TaskUsage};

use lighter_model::ids::{ContainerName, TaskId};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the cgroup file system is mounted.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// The controllers a task needs.
pub const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// The part of the cgroup tree that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupRoot {
    /// An absolute directory below /sys/fs/cgroup on a cgroup v2 host: that of
    /// `lighter-tasks.service` (Delegate=yes), or `/sys/fs/cgroup/lighter` without systemd.
    V2 { path: PathBuf },
    /// A name below each cgroup v1 controller. Development machines only: no cgroup.kill, no
    /// task-wide freeze, no PSI.
    V1Hybrid { name: String },
}

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("the cgroup root {path} is not a directory below {MOUNT}")]
    OutsideMount { path: PathBuf },
    #[error(
        "cgroup v2 is not mounted at {MOUNT}; on a development machine with cgroup v1, allow the v1 hybrid mode"
    )]
    NoV2,
    #[error(
        "the kernel offers no {controller} controller here (it has: {available}); Lighter needs {CONTROLLERS:?}"
    )]
    NoController { controller: &'static str, available: String },
    #[error("cannot {action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot set the limits of task cgroup {path}: {message}")]
    Limits { path: PathBuf, message: String },
    #[error("a limit of task cgroup {path} is not in force: {difference}")]
    NotInForce { path: PathBuf, difference: String },
    #[error("the cgroup {path} still has processes after {waited_ms} ms: {pids:?}")]
    Populated { path: PathBuf, waited_ms: u64, pids: Vec<i32> },
    #[error("this kernel has no freezer controller, so tasks cannot be paused")]
    NoFreezer,
    #[error("the processes in {path} did not stand still, or go on, within {waited:?}")]
    NotFrozen { path: PathBuf, waited: Duration },
    #[error(
        "a memory limit of {wanted_mib} MiB is below what container {container} uses and cannot give back, {used_mib} MiB"
    )]
    BelowUse { container: String, wanted_mib: u64, used_mib: u64 },
    #[error("several steps failed: {}", joined(.0))]
    Several(Vec<CgroupError>),
}

fn joined(errors: &[CgroupError]) -> String {
    errors.iter().map(|error| error_chain(error)).collect::<Vec<_>>().join("; ")
}

/// An error with its causes in one line; for lists, where `source` has room for one only.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError + use<> {
    let path = path.to_owned();
    move |source| CgroupError::Io { action, path, source }
}

impl CgroupRoot {
    /// The root named `name` in the hierarchy this host has.
    pub fn detect(name: &str) -> Self {
        if is_v2() {
            Self::V2 { path: Path::new(MOUNT).join(name) }
        } else {
            Self::V1Hybrid { name: name.to_owned() }
        }
    }

    /// What this hierarchy cannot do for a task; empty on cgroup v2.
    pub fn cannot_enforce(&self) -> Vec<&'static str> {
        match self {
            Self::V2 { .. } => Vec::new(),
            Self::V1Hybrid { .. } => vec![
                "io limits",
                "killing a whole task at once (processes are signalled one after the other)",
                "pressure (PSI) of a task",
                "protection of the shims' cgroup from the tasks'",
            ],
        }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// The directory of all tasks, below our root. On v1 every cgroup has a file called `tasks`.
    pub(crate) fn tasks_name(&self) -> &'static str {
        match self {
            Self::V2 { .. } => "tasks",
            Self::V1Hybrid { .. } => "task",
        }
    }

    pub(crate) fn below_task(&self, task: &TaskId) -> String {
        format!("{}/{task}", self.tasks_name())
    }

    pub(crate) fn below_container(&self, task: &TaskId, container: &ContainerName) -> String {
        format!("{}/{task}/{container}", self.tasks_name())
    }

    pub(crate) fn task_dirs(&self, task: &TaskId) -> Vec<PathBuf> {
        self.directories(&self.below_task(task))
    }

    pub(crate) fn shim_dirs(&self, task: &TaskId) -> Vec<PathBuf> {
        self.directories(&format!("shims/{task}"))
    }
}

/// Whether /sys/fs/cgroup is cgroup v2 alone.
pub fn is_v2() -> bool {
    rustix::fs::statfs(MOUNT).is_ok_and(|stat| stat.f_type == nix::libc::CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests;
