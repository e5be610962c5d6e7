//! Resource limits as the kernel's files show them, where those files are, and the comparison of
//! what was asked with what is in force. In: file texts. Out: numbers or the first difference.
//! Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
//! Never: reads a file.

use crate::codec::{wire_enum, wire_struct};

wire_enum!(
    /// Which kind of hierarchy a container's limits are in.
    #[derive(Copy)]
    CgroupVersion {
        /// One directory, cpu.max and friends.
        2 => V2,
        /// One directory for each controller; development machines only.
        1 => V1,
    }
);

wire_struct!(
    /// Absolute directories of one cgroup. On v2 all three are the same.
    CgroupPaths {
        version: CgroupVersion,
        cpu: String,
        memory: String,
        pids: String,
    }
);

wire_struct!(
    /// Limits of one cgroup. In what the kernel has, `None` means "max"; in what is asked for,
    /// `None` means "do not care".
    #[derive(Default, Copy)]
    Limits {
        cpu_quota_us: Option<u64>,
        cpu_period_us: Option<u64>,
        /// cpu.weight on v2, cpu.shares on v1.
        cpu_weight: Option<u64>,
        memory_max_bytes: Option<u64>,
        /// Swap beyond memory; 0 forbids it.
        swap_max_bytes: Option<u64>,
        pids_max: Option<u64>,
    }
);

impl Limits {
    /// The first limit that is not as asked, in words; `None` when all are.
    /// The kernel rounds memory down to whole pages, so one page of difference is none.
    pub fn difference(&self, in_force: &Limits) -> Option<String> {
        let near = |asked: u64, found: u64| asked.abs_diff(found) < PAGE_BYTES_MAX && found <= asked;
        let exact = |asked: u64, found: u64| asked == found;
        let pairs: [Comparison<'_>; 6] = [
            ("cpu quota (us)", self.cpu_quota_us, in_force.cpu_quota_us, &exact),
            ("cpu period (us)", self.cpu_period_us, in_force.cpu_period_us, &exact),
            ("cpu weight", self.cpu_weight, in_force.cpu_weight, &exact),
            ("memory (bytes)", self.memory_max_bytes, in_force.memory_max_bytes, &near),
            ("swap (bytes)", self.swap_max_bytes, in_force.swap_max_bytes, &near),
            ("pids", self.pids_max, in_force.pids_max, &exact),
        ];
        pairs.iter().find_map(|(name, asked, found, same)| {
            let asked = (*asked)?;
            match found {
                Some(found) if same(asked, *found) => None,
                Some(found) => Some(format!("{name}: asked for {asked}, the kernel has {found}")),
                None => Some(format!("{name}: asked for {asked}, the kernel has no limit")),
            }
        })
    }
}

/// The limits in force of a cgroup. `read(directory, file)` gives a file's text, and an empty one for
/// a file that is not there: that is "no limit", and a comparison then names what was asked for.
pub fn in_force(paths: &CgroupPaths, read: impl Fn(&str, &str) -> String) -> Limits {
    let pids_max = parse_limit(&read(&paths.pids, "pids.max"));
    match paths.version {
        CgroupVersion::V2 => {
            let (cpu_quota_us, cpu_period_us) = parse_cpu_max(&read(&paths.cpu, "cpu.max"));
            Limits {
                cpu_quota_us,
                cpu_period_us,
                cpu_weight: parse_limit(&read(&paths.cpu, "cpu.weight")),
                memory_max_bytes: parse_limit(&read(&paths.memory, "memory.max")),
                swap_max_bytes: parse_limit(&read(&paths.memory, "memory.swap.max")),
                pids_max,
            }
        }
        CgroupVersion::V1 => {
            let memory = parse_v1_bytes(&read(&paths.memory, "memory.limit_in_bytes"));
            // Memory and swap together.
            let both = parse_v1_bytes(&read(&paths.memory, "memory.memsw.limit_in_bytes"));
            Limits {
                cpu_quota_us: parse_limit(&read(&paths.cpu, "cpu.cfs_quota_us")),
                cpu_period_us: parse_limit(&read(&paths.cpu, "cpu.cfs_period_us")),
                cpu_weight: parse_limit(&read(&paths.cpu, "cpu.shares")),
                memory_max_bytes: memory,
                swap_max_bytes: memory.zip(both).map(|(memory, both)| both.saturating_sub(memory)),
                pids_max,
            }
        }
    }
}

/// Name, asked, found, whether two numbers count as the same.
type Comparison<'a> = (&'a str, Option<u64>, Option<u64>, &'a dyn Fn(u64, u64) -> bool);

/// 64 KiB, the largest page of a supported machine (arm64).
const PAGE_BYTES_MAX: u64 = 65_536;

/// A file that holds a number or `max` (v2), or -1 (v1); `None` is no limit.
pub fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// cpu.max: `quota period` or `max period`.
pub fn parse_cpu_max(text: &str) -> (Option<u64>, Option<u64>) {
    let mut words = text.split_whitespace();
    (words.next().and_then(parse_limit), words.next().and_then(parse_limit))
}

/// The value of `key` in a file of `key value` lines, such as memory.events.
pub fn parse_keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key { value.trim().parse().ok() } else { None }
    })
}

/// v1 shows "no limit" as the largest number of whole pages.
pub fn parse_v1_bytes(text: &str) -> Option<u64> {
    parse_limit(text).filter(|bytes| *bytes < u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpu_max("25000 100000\n"), (Some(25_000), Some(100_000)));
        assert_eq!(parse_cpu_max("max 100000\n"), (None, Some(100_000)));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("-1\n"), None);
        assert_eq!(parse_keyed("low 0\noom 3\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(parse_v1_bytes("9223372036854771712"), None);
    }

    fn paths(version: CgroupVersion) -> CgroupPaths {
        CgroupPaths { version, cpu: "/c".into(), memory: "/m".into(), pids: "/p".into() }
    }

    #[test]
    fn limits_are_read_from_the_files_of_either_version() {
        let v2 = in_force(&paths(CgroupVersion::V2), |directory, file| {
            match (directory, file) {
                ("/c", "cpu.max") => "50000 100000\n",
                ("/c", "cpu.weight") => "50\n",
                ("/m", "memory.max") => "4096\n",
                ("/m", "memory.swap.max") => "0\n",
                ("/p", "pids.max") => "max\n",
                _ => "",
            }
            .to_owned()
        });
        let expected = Limits {
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            cpu_weight: Some(50),
            memory_max_bytes: Some(4096),
            swap_max_bytes: Some(0),
            pids_max: None,
        };
        assert_eq!(v2, expected);
        let v1 = |memory: &'static str, both: &'static str| {
            in_force(&paths(CgroupVersion::V1), |_, file| {
                match file {
                    "cpu.cfs_quota_us" => "-1\n",
                    "cpu.shares" => "256\n",
                    "memory.limit_in_bytes" => memory,
                    "memory.memsw.limit_in_bytes" => both,
                    _ => "",
                }
                .to_owned()
            })
        };
        let none = "9223372036854771712";
        let found = v1("4096", "12288");
        assert_eq!((found.cpu_quota_us, found.cpu_weight), (None, Some(256)));
        assert_eq!((found.memory_max_bytes, found.swap_max_bytes), (Some(4096), Some(8192)));
        assert_eq!(v1("4096", "4096").swap_max_bytes, Some(0));
        assert_eq!(v1("4096", none).swap_max_bytes, None);
        assert_eq!(v1(none, none).memory_max_bytes, None);
        // A kernel without swap accounting has no such file.
        assert_eq!(v1("4096", "").swap_max_bytes, None);
    }

    #[test]
    fn a_difference_names_the_limit() {
        let asked = Limits { memory_max_bytes: Some(20 << 20), pids_max: Some(10), ..Limits::default() };
        assert_eq!(asked.difference(&asked), None);
        let none = Limits { memory_max_bytes: Some(20 << 20), ..Limits::default() };
        assert_eq!(asked.difference(&none).as_deref(), Some("pids: asked for 10, the kernel has no limit"));
        let higher =
            Limits { memory_max_bytes: Some((20 << 20) + 4096), pids_max: Some(10), ..Limits::default() };
        assert!(asked.difference(&higher).is_some_and(|text| text.starts_with("memory")));
    }
}
