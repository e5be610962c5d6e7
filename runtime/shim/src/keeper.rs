//! `lighter-shim keeper`: the process of `lighter-tasks.service` (Delegate=yes). A unit lives as
//! long as it has a process, and cgroups below it may be made only if no process is in the unit's
//! own cgroup; so it moves into the leaf `keeper` and waits for ever.
//! In: /proc/self/cgroup. Out: one directory. Never: enables controllers, touches `tasks` or
//! `shims`; the agent owns those.

use crate::sys;
use std::fs;

pub(crate) fn run() -> Result<(), String> {
    let text = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("cannot read /proc/self/cgroup: {error}"))?;
    let leaf = leaf_of(&text).ok_or("no cgroup v2 hierarchy: the keeper is of use only there")?;
    fs::create_dir_all(&leaf).map_err(|error| format!("cannot make {leaf}: {error}"))?;
    fs::write(format!("{leaf}/cgroup.procs"), "0")
        .map_err(|error| format!("cannot move into {leaf}: {error}"))?;
    loop {
        sys::pause();
    }
}

/// The keeper's own directory, given /proc/self/cgroup. Already in it after a re-exec: the same.
fn leaf_of(proc_self_cgroup: &str) -> Option<String> {
    let path = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.strip_suffix("/keeper").unwrap_or(path).trim_end_matches('/');
    Some(format!("/sys/fs/cgroup{unit}/keeper"))
}

#[cfg(test)]
mod tests {
    use super::leaf_of;

    #[test]
    fn the_leaf_is_below_the_unit() {
        let expected = Some("/sys/fs/cgroup/system.slice/lighter-tasks.service/keeper".to_owned());
        assert_eq!(leaf_of("0::/system.slice/lighter-tasks.service\n"), expected);
        assert_eq!(leaf_of("0::/system.slice/lighter-tasks.service/keeper\n"), expected);
        assert_eq!(leaf_of("4:memory:/\n"), None);
    }
}
