//! Freezing a whole task: no process of it runs until it is thawed, and none can tell.
//! In: a task. Out: the kernel's word that every process stands still, or goes on. Idempotent.
//! On v2 the kernel signals `frozen` in cgroup.events; on v1 the freezer has no signal and is asked
//! again and again, for well under a second.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/freezer-subsystem.rst.
//! Never: leaves a task half frozen: when it cannot be frozen in time it is thawed again.

use super::layout::v1_mounts;
use super::{CgroupError, CgroupRoot, io_error};
use lighter_model::ids::TaskId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process in uninterruptible sleep, waiting for a slow disk say, freezes only when that ends.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// v1 only.
const ASK_AGAIN: Duration = Duration::from_millis(2);

impl CgroupRoot {
    /// Freezes or thaws every process of the task. Thawing a task without a cgroup is success.
    pub(crate) fn set_frozen(&self, task: &TaskId, frozen: bool) -> Result<(), CgroupError> {
        let Some(directory) = self.freezer_dir(task) else { return Err(CgroupError::NoFreezer) };
        match write_and_wait(self, &directory, frozen) {
            Ok(true) => Ok(()),
            Err(error) if !frozen && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(false) if frozen => {
                // Not half frozen: everything goes on as before.
                let thawed = write_and_wait(self, &directory, false);
                let stuck = CgroupError::NotFrozen { path: directory.clone(), waited: FREEZE_TIMEOUT };
                match thawed {
                    Ok(_) => Err(stuck),
                    Err(error) => Err(CgroupError::Several(vec![stuck, io_error("thaw", &directory)(error)])),
                }
            }
            Ok(false) => Err(CgroupError::NotFrozen { path: directory, waited: FREEZE_TIMEOUT }),
            Err(source) => Err(io_error(if frozen { "freeze" } else { "thaw" }, &directory)(source)),
        }
    }

    /// The file that lets a paused task go on, and what is written to it: for the task's shim, which must
    /// do so without an agent.
    pub(crate) fn thaw_file(&self, task: &TaskId) -> Option<(PathBuf, &'static str)> {
        let directory = self.freezer_dir(task)?;
        Some(match self {
            Self::V2 { .. } => (directory.join("cgroup.freeze"), "0"),
            Self::V1Hybrid { .. } => (directory.join("freezer.state"), "THAWED"),
        })
    }

    fn freezer_dir(&self, task: &TaskId) -> Option<PathBuf> {
        let below = self.below_task(task);
        match self {
            Self::V2 { path } => Some(path.join(below)),
            Self::V1Hybrid { .. } => Some(v1_mounts().get("freezer")?.join(self.relative()).join(below)),
        }
    }
}

/// Whether the kernel says so before the time is over.
fn write_and_wait(root: &CgroupRoot, directory: &Path, frozen: bool) -> io::Result<bool> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    match root {
        CgroupRoot::V2 { .. } => {
            fs::write(directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
            until_frozen_is(&directory.join("cgroup.events"), frozen, deadline)
        }
        CgroupRoot::V1Hybrid { .. } => {
            let (file, wanted) = (directory.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" });
            loop {
                // Written each time: a process forked meanwhile is caught by the next try.
                fs::write(&file, wanted)?;
                if fs::read_to_string(&file)?.trim() == wanted {
                    return Ok(true);
                }
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                std::thread::sleep(ASK_AGAIN);
            }
        }
    }
}

fn until_frozen_is(events: &Path, frozen: bool, deadline: Instant) -> io::Result<bool> {
    let line = if frozen { "frozen 1" } else { "frozen 0" };
    let mut file = File::open(events)?;
    loop {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        if text.lines().any(|found| found == line) {
            return Ok(true);
        }
        let left = deadline.checked_duration_since(Instant::now()).map(Timespec::try_from);
        let Some(Ok(left)) = left else { return Ok(false) };
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left))?;
    }
}
