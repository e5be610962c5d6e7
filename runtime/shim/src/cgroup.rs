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
                    let Ok(pidfd) = sys::pidfd_open(pid) else { continue };
                    // Still its own pid: it was not given to another process before it was opened.
                    if processes(paths).contains(&pid) {
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

/// The directories of a process's cgroups, given its /proc/pid/cgroup: that of the unified hierarchy,
/// and on v1 one of each other. What a development machine has not mounted is left out.
/// Source: cgroups(7).
pub(crate) fn directories(membership: &str, version: CgroupVersion) -> (Option<String>, Vec<String>) {
    let (mut unified, mut others) = (None, Vec::new());
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        match (version, controllers) {
            (CgroupVersion::V2, "") => unified = Some(format!("/sys/fs/cgroup{path}")),
            (CgroupVersion::V2, _) => {}
            (CgroupVersion::V1, "") => unified = Some(format!("/sys/fs/cgroup/unified{path}")),
            (CgroupVersion::V1, named) => {
                others.push(format!("/sys/fs/cgroup/{}{path}", named.trim_start_matches("name=")));
            }
        }
    }
    let is_mounted = |path: &String| version == CgroupVersion::V2 || std::path::Path::new(path).is_dir();
    others.retain(is_mounted);
    (unified.filter(is_mounted), others)
}

/// Moves this process into each of `directories`.
pub(crate) fn join(directories: &[String]) -> Result<(), String> {
    for directory in directories {
        fs::write(format!("{directory}/cgroup.procs"), "0")
            .map_err(|error| format!("cannot join cgroup {directory}: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::directories;
    use lighter_shim_wire::CgroupVersion;

    #[test]
    fn the_unified_line_is_the_cgroup_of_v2() {
        let text = "4:memory:/a\n0::/lighter/tasks/t/c\n";
        let expected = Some("/sys/fs/cgroup/lighter/tasks/t/c".to_owned());
        assert_eq!(directories(text, CgroupVersion::V2), (expected, Vec::new()));
        assert_eq!(directories("4:memory:/a\n", CgroupVersion::V2), (None, Vec::new()));
    }

    #[test]
    fn hierarchies_that_are_not_mounted_are_left_out() {
        let text = "9:name=lighter-none:/\n0::/no-such-cgroup\n";
        assert_eq!(directories(text, CgroupVersion::V1), (None, Vec::new()));
    }
}
