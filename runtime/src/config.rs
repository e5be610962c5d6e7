//! Where things are and how large logs may grow. In: the agent's configuration. Out: paths.
//! Owns nothing. Never: reads a file; the agent does.

use crate::cgroup::CgroupRoot;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::resources::IdRange;
use std::path::{Path, PathBuf};

/// How a container's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// A file is closed before it would grow beyond this many bytes.
    pub file_bytes_max: u64,
    /// Files kept for each container, the current one included.
    pub files_max: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { file_bytes_max: 10 * 1024 * 1024, files_max: 3 }
    }
}

/// 1,024 tasks, in ids that neither distributions nor systemd use. Source: systemd, "Users, Groups,
/// UIDs and GIDs on systemd Systems".
pub const DEFAULT_USER_IDS: IdRange = IdRange { first: 0x7000_0000, count: 1024 << 16 };

/// Everything `Runtime::open` needs.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Normally `/run/lighter`; a tmpfs, so that nothing of it survives a reboot.
    pub run_dir: PathBuf,
    /// Normally `/var/lib/lighter/logs`.
    pub log_dir: PathBuf,
    /// The lighter-shim binary.
    pub shim_path: PathBuf,
    /// The lighter-oci binary.
    pub oci_path: PathBuf,
    pub cgroup: CgroupRoot,
    pub log: LogConfig,
    /// pids.max of a container.
    pub pids_max_default: u64,
    /// Soft and hard RLIMIT_NOFILE of a container; `Runtime::open` lowers them to what this
    /// process may set.
    pub nofile_default: (u64, u64),
    /// Whether a container's `cpu` is a hard limit; else it is a share, and idle CPU is anyone's.
    pub cpu_quota: bool,
    /// Ids of the host for tasks with a user namespace, `IDS_PER_TASK` each.
    pub user_ids: IdRange,
}

impl RuntimeConfig {
    /// The defaults of an installed node, for binaries in `bin_dir`.
    pub fn new(bin_dir: &Path, cgroup: CgroupRoot) -> Self {
        Self {
            run_dir: PathBuf::from("/run/lighter"),
            log_dir: PathBuf::from("/var/lib/lighter/logs"),
            shim_path: bin_dir.join("lighter-shim"),
            oci_path: bin_dir.join("lighter-oci"),
            cgroup,
            log: LogConfig::default(),
            pids_max_default: 4096,
            nofile_default: (1024, 524_288),
            cpu_quota: true,
            user_ids: DEFAULT_USER_IDS,
        }
    }

    /// `<run_dir>/tasks`.
    pub fn tasks_dir(&self) -> PathBuf {
        self.run_dir.join("tasks")
    }

    /// `<run_dir>/tasks/<task>`: socket, record, bundles, exits.
    pub fn task_dir(&self, task: &TaskId) -> PathBuf {
        self.tasks_dir().join(task.as_str())
    }

    pub(crate) fn bundle_dir(&self, task: &TaskId, container: &ContainerName) -> PathBuf {
        self.task_dir(task).join("bundles").join(container.as_str())
    }

    /// Compiled seccomp profiles.
    pub(crate) fn seccomp_dir(&self) -> PathBuf {
        self.run_dir.join("seccomp")
    }

    /// The namespaces that the containers of a task share.
    pub(crate) fn namespaces_dir(&self, task: &TaskId) -> PathBuf {
        self.task_dir(task).join("namespaces")
    }

    /// libcontainer's state directories of a task.
    pub(crate) fn state_root(&self, task: &TaskId) -> PathBuf {
        self.task_dir(task).join("oci")
    }

    /// `<log_dir>/<task>`.
    pub fn task_log_dir(&self, task: &TaskId) -> PathBuf {
        self.log_dir.join(task.as_str())
    }
}

/// A process without CAP_SYS_RESOURCE cannot raise a hard limit (setrlimit(2)), nor can one with
/// it beyond fs.nr_open.
pub(crate) fn attainable_nofile((soft, hard): (u64, u64)) -> (u64, u64) {
    use rustix::process::{Resource, getrlimit};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    let most = if effective & (1 << CAP_SYS_RESOURCE) != 0 {
        let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        text.trim().parse().unwrap_or(u64::MAX)
    } else {
        getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
    };
    let hard = hard.min(most);
    (soft.min(hard), hard)
}

/// Its number in capabilities(7).
const CAP_SYS_RESOURCE: u32 = 24;
