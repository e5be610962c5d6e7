//! The members of a container definition that say how its process is set up beside command and
//! limits: name resolution, files of variables, user limits, kernel parameters, capabilities,
//! confinement. In: nothing. Out: the types, in ECS's JSON form, and the words they understand.
//! Never: judges; `validate` does.
//! Source: Amazon ECS API reference, ContainerDefinition and LinuxParameters.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Whose processes the containers of a task see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// Each container its own.
    #[default]
    Private,
    /// The task's.
    Task,
    /// The node's; refused by nodes whose own file does not allow it.
    Host,
}

/// Whose user ids the containers of a task have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsernsMode {
    /// The node's: root in a container is root.
    #[default]
    Host,
    /// Ids of the task's own, which are nobody's on the node.
    Auto,
}

/// Whose System V and POSIX message queues, semaphores and shared memory the containers use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// Each container its own.
    #[default]
    Private,
    /// Each container its own, and no /dev/shm.
    None,
    /// The task's, /dev/shm included.
    Task,
    /// The node's; refused by nodes whose own file does not allow it.
    Host,
}

/// A file of `NAME=value` lines on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvironmentFile {
    /// An absolute path of the node, ending in `.env`.
    pub value: String,
    #[serde(rename = "type")]
    pub kind: EnvironmentFileKind,
}

/// Where a file of variables is. ECS knows `s3` only; `file` is Lighter's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentFileKind {
    /// On the node, below a directory of its `allow_environment_files`.
    File,
}

/// A line of the container's /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostEntry {
    pub hostname: String,
    /// An IPv4 or IPv6 address, or `host-gateway`.
    pub ip_address: String,
}

/// Docker's word for the node as its containers see it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// One of the process's own limits (setrlimit(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ulimit {
    /// One of `ULIMITS`.
    pub name: String,
    /// In setrlimit(2)'s unit; -1 is no limit.
    pub soft_limit: i64,
    pub hard_limit: i64,
}

/// The limits of ECS's list, which is Docker's: setrlimit(2)'s names without `RLIMIT_`.
pub const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A kernel parameter of the container's namespaces (sysctl(8)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemControl {
    /// Like `net.core.somaxconn`.
    pub namespace: String,
    pub value: String,
}

/// Which namespace a kernel parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlNamespace {
    Ipc,
    Network,
}

/// Parameters of the ipc namespace (ipc_namespaces(7)).
const IPC_CONTROLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

impl SystemControl {
    /// `None` for a parameter of the whole machine, and for what is no parameter's name.
    pub fn belongs_to(&self) -> Option<ControlNamespace> {
        let part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        let name = self.namespace.as_str();
        if !name.split('.').all(part) {
            return None;
        }
        if IPC_CONTROLS.contains(&name) || name.starts_with("fs.mqueue.") {
            return Some(ControlNamespace::Ipc);
        }
        name.starts_with("net.").then_some(ControlNamespace::Network)
    }
}

/// Changes to Docker's default set of capabilities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelCapabilities {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// ECS's list of capabilities: capabilities(7) without `CAP_`; `ALL` stands for every one.
pub const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// Docker's default set; what a container's root needs to set up and run a service.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// One of `dockerSecurityOptions`, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityOption<'a> {
    /// In force in every container that is not privileged, asked for or not.
    NoNewPrivileges,
    AppArmor {
        profile: &'a str,
    },
    SeccompUnconfined,
}

impl<'a> SecurityOption<'a> {
    /// Reads `name:value` or `name=value`, as Docker does.
    ///
    /// # Errors
    /// What is wrong with it, going on from the member's name.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (name, value) = match text.find([':', '=']) {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        match (name, value) {
            ("no-new-privileges", "" | "true") => Ok(Self::NoNewPrivileges),
            ("no-new-privileges", _) => {
                Err("is refused: every container but a privileged one has no-new-privileges".into())
            }
            ("apparmor", profile) if !profile.is_empty() => Ok(Self::AppArmor { profile }),
            ("seccomp", "unconfined") => Ok(Self::SeccompUnconfined),
            ("seccomp", _) => Err("names a seccomp profile; only `seccomp:unconfined` is supported".into()),
            ("label", _) => Err("is refused: SELinux labels are not supported".into()),
            ("credentialspec", _) => Err("is refused: only Windows has it".into()),
            _ => Err(format!("{text:?} is none of no-new-privileges, apparmor:PROFILE, seccomp:unconfined")),
        }
    }
}

/// Devices that the container has to itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRequirement {
    /// `GPU`, or another kind that a node's own file names.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many, as text.
    pub value: String,
}

impl ResourceRequirement {
    /// How many; what is no number was refused with the definition.
    pub fn count(&self) -> u32 {
        self.value.parse().unwrap_or(0)
    }
}

/// Ports in a row, written `first-last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// At least 1.
    pub first: u16,
    /// Not below `first`.
    pub last: u16,
}

impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let port = |word: &str| word.trim().parse::<u16>().ok().filter(|port| *port > 0);
        let range = text.split_once('-').and_then(|(first, last)| Some((port(first)?, port(last)?)));
        match range {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is not a range of ports like 8000-8010")),
        }
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

/// A link to another container of the task: its name, and what this container calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    pub container: &'a str,
    pub alias: &'a str,
}

impl<'a> Link<'a> {
    /// `name:alias`, or `name` for both.
    pub fn parse(text: &'a str) -> Self {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        Self { container, alias }
    }
}

/// The addresses of `dnsServers`; what is no address was refused with the definition.
pub fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
