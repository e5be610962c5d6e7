//! The few facts read from /proc. In: pids. Out: numbers and ids. Never: trusts a pid without its
//! start time. Source: proc(5).

use std::fs;

/// Field 22 of /proc/pid/stat, in clock ticks since boot; 0 when the process is gone.
pub(crate) fn start_time_ticks(pid: i32) -> u64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0 };
    // The second field is the program's name in brackets and may itself hold brackets and blanks.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Children of a process, theirs, and so on; those of the whole tree as it was when it was read.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut list = children(pid);
    let mut next = 0;
    while let Some(parent) = list.get(next).copied() {
        list.extend(children(parent));
        next += 1;
    }
    list
}

fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let files = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    files
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
