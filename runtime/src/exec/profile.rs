//! What a process beside the main one of a container is: the container's own config.json, with what
//! an order changes. In: config.json, an order. Out: `ExecProcess`, all of it resolved; failures in
//! Docker's words. The user of an order is looked up in the container's own files.
//! Never: reads what the container can write, but through `user`, which expects it to be hostile.

use super::ExecOrder;
use crate::user::{self, UserError};
use lighter_shim_wire::exec::{Capabilities, ExecFailure, ExecProcess, ExecStep, ResourceLimit};
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};

/// The part of config.json that matters here (OCI config.md).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Profile {
    process: Process,
    root: Root,
}

#[derive(Debug, Clone, Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    user: ProcessUser,
    #[serde(default)]
    env: Vec<String>,
    cwd: String,
    #[serde(default)]
    capabilities: CapabilityNames,
    #[serde(default)]
    rlimits: Vec<Limit>,
    #[serde(default)]
    no_new_privileges: bool,
    apparmor_profile: Option<String>,
    oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProcessUser {
    uid: u32,
    gid: u32,
    #[serde(default)]
    additional_gids: Vec<u32>,
    umask: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct CapabilityNames {
    #[serde(default)]
    bounding: Vec<String>,
    #[serde(default)]
    effective: Vec<String>,
    #[serde(default)]
    permitted: Vec<String>,
    #[serde(default)]
    inheritable: Vec<String>,
    #[serde(default)]
    ambient: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Limit {
    #[serde(rename = "type")]
    kind: String,
    soft: u64,
    hard: u64,
}

impl Profile {
    /// Blocks for well under a millisecond.
    pub(crate) fn read(bundle: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(bundle.join("config.json"))?;
        serde_json::from_slice(&bytes).map_err(io::Error::other)
    }

    /// Reads the container's user files if the order names a user.
    pub(crate) fn process(&self, order: &ExecOrder, terminal: bool) -> Result<ExecProcess, UserError> {
        let own = &self.process;
        let mut environment = own.env.clone();
        let mut capabilities = own.capabilities.bits();
        let (mut uid, mut gid) = (own.user.uid, own.user.gid);
        let mut groups = own.user.additional_gids.clone();
        if terminal && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
            environment.push("TERM=xterm".to_owned());
        }
        if let Some(text) = &order.user {
            let user = user::resolve(text, &[], &self.root.path)?;
            set(&mut environment, "HOME", &user.home);
            capabilities = capabilities_of(capabilities, user.uid);
            (uid, gid, groups) = (user.uid, user.gid, user.additional_gids);
        }
        order.environment_added.iter().for_each(|(name, value)| set(&mut environment, name, value));
        Ok(ExecProcess {
            programs: programs(order.argv.first().map_or("", String::as_str), &environment),
            arguments: order.argv.clone(),
            environment,
            working_directory: order.working_directory.clone().unwrap_or_else(|| own.cwd.clone()),
            uid,
            gid,
            groups,
            capabilities,
            no_new_privileges: own.no_new_privileges,
            apparmor_profile: own.apparmor_profile.clone(),
            oom_score_adj: own.oom_score_adj,
            umask: own.user.umask,
            limits: own.rlimits.iter().filter_map(Limit::resolve).collect(),
        })
    }
}

fn set(environment: &mut Vec<String>, name: &str, value: &str) {
    environment.retain(|entry| entry.split('=').next() != Some(name));
    environment.push(format!("{name}={value}"));
}

/// As Docker: another user has the bounding set if it is root, and nothing but it otherwise.
fn capabilities_of(container: Capabilities, uid: u32) -> Capabilities {
    let held = if uid == 0 { container.bounding } else { 0 };
    Capabilities { effective: held, permitted: held, inheritable: 0, ambient: 0, ..container }
}

/// The paths that execvp(3) would try.
fn programs(name: &str, environment: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let in_directory = |directory: &str| match directory {
        "" => format!("./{name}"),
        directory => format!("{directory}/{name}"),
    };
    if name.is_empty() { Vec::new() } else { path.split(':').map(in_directory).collect() }
}

impl CapabilityNames {
    fn bits(&self) -> Capabilities {
        let bits = |names: &[String]| names.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit);
        Capabilities {
            bounding: bits(&self.bounding),
            effective: bits(&self.effective),
            permitted: bits(&self.permitted),
            inheritable: bits(&self.inheritable),
            ambient: bits(&self.ambient),
        }
    }
}

fn bit(name: &str) -> Option<u64> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    CAPABILITIES.iter().position(|known| *known == short).map(|number| 1 << number)
}

/// linux/capability.h, in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Limit {
    fn resolve(&self) -> Option<ResourceLimit> {
        let resource = RESOURCES.iter().find(|(name, _)| *name == self.kind)?.1;
        Some(ResourceLimit { resource, soft: self.soft, hard: self.hard })
    }
}

/// asm-generic/resource.h, as on x86 and arm.
const RESOURCES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];

/// Why a program does not run, as Docker says it.
pub(crate) fn failure_text(failure: ExecFailure, order: &ExecOrder) -> String {
    let name = order.argv.first().map_or("", String::as_str);
    let error = io::Error::from_raw_os_error(failure.errno);
    let what = match failure.step {
        ExecStep::Execute => {
            let why = match failure.errno {
                libc::ENOENT if !name.contains('/') => "executable file not found in $PATH".to_owned(),
                libc::ENOENT => "no such file or directory".to_owned(),
                libc::EACCES => "permission denied".to_owned(),
                libc::ENOEXEC => "exec format error".to_owned(),
                _ => error.to_string(),
            };
            return format!("exec: {name:?}: {why}");
        }
        ExecStep::Fork => "make a process (the container is ending, or at its limit of processes)",
        ExecStep::JoinCgroup => "join the container's cgroup",
        ExecStep::SetLimits => "set resource limits",
        ExecStep::JoinNamespaces => "join the container's namespaces",
        ExecStep::OpenTerminal => "open a terminal in the container",
        ExecStep::ChangeDirectory => "enter the working directory",
        ExecStep::SetUser => "change to the user",
        ExecStep::SetCapabilities => "set capabilities",
        ExecStep::Confine => "put the confinement in force",
    };
    format!("exec: {name:?}: cannot {what}: {error}")
}

#[cfg(test)]
mod tests;
