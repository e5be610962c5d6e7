//! What the shim needs of cgroups: OOM kills, the processes of a container, killing them all.
//! In: the directories the agent named. Out: numbers; signals. Never: makes or removes a cgroup.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst (cgroup.kill, memory.events) and
//! cgroup-v1/memory.rst (memory.oom_control).

use crate::sys;
use lighter_shim_wire::limits::parse_keyed;
use lighter_shim_wire::{CgroupPaths, CgroupVersion};
use std::fs;
use std::io;

/// How many processes of this cgroup an OOM killer has ended; 0 when it cannot be read.
pub(crate) fn oom_kills(paths: &CgroupPaths) -> u64 {
    let file = match paths.version {
        CgroupVersion::V2 => format!("{}/memory.events", paths.memory),
        CgroupVersion::V1 => format!("{}/memory.oom_control", paths.memory),
    };
    fs::read_to_string(file).ok().and_then(|text| parse_keyed(&text, "oom_kill")).unwrap_or(0)
}

/// SIGKILL to every process. On v2 the kernel does it at once; on v1 the list is walked until it
/// is empty or nothing new can be killed. A cgroup that is gone has no processes: success.
pub(crate) fn kill_all(paths: &CgroupPaths) -> io::Result<()> {
    match paths.version {
        CgroupVersion::V2 => match fs::write(format!("{}/cgroup.kill", paths.pids), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        CgroupVersion::V1 => {
            // Three passes catch what was forked during a pass; a pid namespace dies with its init.
            for _ in 0..3 {
                for pid in processes(paths) {
                    if let Ok(pidfd) = sys::pidfd_open(pid) {
                        let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
                    }
                }
            }
            Ok(())
        }
    }
}

fn processes(paths: &CgroupPaths) -> Vec<i32> {
    let text = fs::read_to_string(format!("{}/cgroup.procs", paths.pids)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Moves this process into each of `directories`.
pub(crate) fn join(directories: &[String]) -> Result<(), String> {
    for directory in directories {
        fs::write(format!("{directory}/cgroup.procs"), "0")
            .map_err(|error| format!("cannot join cgroup {directory}: {error}"))?;
    }
    Ok(())
}
