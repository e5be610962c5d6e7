//! memory.low along the whole way: the kernel gives a cgroup no more protection than its parents
//! have, so what containers reserve is also written to their task, to `tasks` and to our root.
//! In: what the containers of a task reserve. Out: memory.low at every level, read back.
//! What is above our root is its owner's: docs/operations.md says what to set there.
//! v1 has soft limits instead, which know no parents; libcontainer writes those.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, "memory.low".
//! Never: remembers a sum; it is made anew from the kernel's files whenever a task comes or goes.

use super::remove::children;
use super::{CgroupError, CgroupRoot, io_error};
use lighter_model::ids::TaskId;
use lighter_shim_wire::limits::parse_limit;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const FILE: &str = "memory.low";

/// A sum that is being made must not be overtaken by one that knows less.
static SUMS: Mutex<()> = Mutex::new(());

impl CgroupRoot {
    /// Protects the `bytes` that a task's containers reserve together.
    pub(super) fn protect_task(&self, task: &TaskId, bytes: u64) -> Result<(), CgroupError> {
        let Self::V2 { path } = self else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        set(&path.join(self.below_task(task)), bytes)?;
        self.protect_parents()
    }

    /// Makes `tasks` and our root protect what all tasks have together.
    pub(crate) fn protect_parents(&self) -> Result<(), CgroupError> {
        let Self::V2 { path } = self else { return Ok(()) };
        let tasks = path.join(self.tasks_name());
        if !tasks.exists() {
            return Ok(());
        }
        let _guard = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has just gone protects nothing.
        let sum = children(&tasks).iter().filter_map(|task| get(task)).fold(0, u64::saturating_add);
        [tasks.as_path(), path]
            .into_iter()
            .filter(|level| get(level) != Some(sum))
            .try_for_each(|level| set(level, sum))
    }
}

/// `None`: no such cgroup, or the kernel's `max`.
fn get(directory: &Path) -> Option<u64> {
    parse_limit(&fs::read_to_string(directory.join(FILE)).ok()?)
}

fn set(directory: &Path, bytes: u64) -> Result<(), CgroupError> {
    let file = directory.join(FILE);
    fs::write(&file, bytes.to_string()).map_err(io_error("write", &file))?;
    match get(directory) {
        // The kernel counts in pages.
        Some(found) if found.abs_diff(bytes) < 1 << 16 => Ok(()),
        found => Err(CgroupError::NotInForce {
            path: directory.to_path_buf(),
            difference: format!("{FILE} is {found:?}, asked were {bytes}"),
        }),
    }
}
