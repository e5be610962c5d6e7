//! A registered task definition: what ECS's `RegisterTaskDefinition` takes, after validation.
//! The serde form is ECS's JSON (camelCase). Reading text from outside goes through
//! `task_definition::input`, which refuses unknown and unsupported members by name.
//! Source: Amazon ECS API reference, ContainerDefinition and TaskDefinition.

pub mod amount;
pub mod input;
mod lifecycle;
pub mod log;
mod members;
pub mod options;
pub(crate) mod strict_json;
pub mod support;
mod validate;
mod walk;

pub use lifecycle::{
    Dependency, DependencyCondition, HEALTH_INTERVAL_S, HEALTH_RETRIES, HEALTH_TIMEOUT_S, HealthCheck,
    OnUnhealthy, RESTART_ATTEMPT_PERIOD_S, RestartPolicy,
};
pub use options::{
    EnvironmentFile, HostEntry, IpcMode, KernelCapabilities, Link, PidMode, PortRange, ResourceRequirement,
    SecurityOption, SystemControl, Ulimit, UsernsMode,
};

pub use members::{MEMORY_MIB_MIN, TMPFS_OPTIONS, TMPFS_OPTIONS_WITH_VALUE};

use crate::ids::{ContainerName, Family, VolumeName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The template of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskDefinition {
    pub family: Family,
    #[serde(default)]
    pub network_mode: NetworkMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid_mode: PidMode,
    /// Ours.
    #[serde(default, skip_serializing_if = "is_default")]
    pub userns_mode: UsernsMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc_mode: IpcMode,
    pub container_definitions: Vec<ContainerDefinition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Task-level CPU in units; a limit on the whole task.
    #[serde(default, rename = "cpu", with = "amount::cpu_text", skip_serializing_if = "Option::is_none")]
    pub cpu_units: Option<u32>,
    /// Task-level memory in MiB; a limit on the whole task.
    #[serde(
        default,
        rename = "memory",
        with = "amount::memory_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub memory_mib: Option<u64>,
    /// When the registry is asked for this task's images; ours, not ECS's, where it is a setting of
    /// the node alone. Absent: the node's own `images.pull_behavior`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_behavior: Option<PullBehavior>,
    /// As given when it was registered; the control plane keeps them beside the definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
}

/// A tag; its rules are those of `crate::tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// When the registry is asked for an image. Names and meanings are those of ECS's
/// ECS_IMAGE_PULL_BEHAVIOR.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullBehavior {
    /// Ask; whenever the pull fails and the image is here, use what is here.
    #[default]
    Default,
    /// Ask; when the pull fails, the task fails.
    Always,
    /// Ask unless the image was pulled before; when the pull fails, the task fails.
    Once,
    /// Ask only when the image is not here.
    PreferCached,
}

impl PullBehavior {
    /// As a task definition and the node's settings write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Always => "always",
            Self::Once => "once",
            Self::PreferCached => "prefer-cached",
        }
    }

    /// `None` for a word that is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Default, Self::Always, Self::Once, Self::PreferCached];
        all.into_iter().find(|behavior| behavior.as_str() == text)
    }
}

/// Whether all tasks of a revision run the digest that the first of them resolved its tag to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionConsistency {
    #[default]
    Enabled,
    Disabled,
}

impl TaskDefinition {
    /// In host mode a container listens on the node itself: an absent host port is the container port.
    pub(crate) fn fill_in_host_ports(&mut self) {
        if self.network_mode != NetworkMode::Host {
            return;
        }
        for container in &mut self.container_definitions {
            for mapping in &mut container.port_mappings {
                if mapping.host_port == 0 && mapping.container_port_range.is_none() {
                    mapping.host_port = mapping.container_port;
                }
            }
        }
    }
}

/// How the containers of a task meet the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Each container has its own network namespace, address and port mappings.
    #[default]
    Bridge,
    /// Containers use the node's network namespace.
    Host,
    /// A namespace with a loopback interface and nothing else.
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportProtocol {
    #[default]
    Tcp,
    Udp,
}

impl TransportProtocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One container of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefinition {
    pub name: ContainerName,
    /// An image reference, `registry/repository:tag` or `…@sha256:…`.
    pub image: String,
    /// CPU units, 1024 to a vCPU; 0 means no reservation and no quota.
    #[serde(default, rename = "cpu")]
    pub cpu_units: u32,
    /// Hard limit in MiB (memory.max).
    #[serde(default, rename = "memory", skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What placement reserves, in MiB.
    #[serde(default, rename = "memoryReservation", skip_serializing_if = "Option::is_none")]
    pub memory_reservation_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    #[serde(default = "yes")]
    pub essential: bool,
    /// Overrides the image's ENTRYPOINT, and then its CMD is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<KeyValuePair>,
    /// Variables from files of the node; those of `environment` win, then the first file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_files: Vec<EnvironmentFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumeFrom>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_parameters: Option<LinuxParameters>,
    /// Seconds between the stop signal and SIGKILL; 30 when absent.
    #[serde(default, rename = "stopTimeout", skip_serializing_if = "Option::is_none")]
    pub stop_timeout_s: Option<u32>,
    /// Containers that have to come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// Seconds after its start in which what others wait for must become true of it; no bound when absent or 0.
    #[serde(default, rename = "startTimeout", skip_serializing_if = "Option::is_none")]
    pub start_timeout_s: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; overrides the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Refused by nodes whose own file does not allow it.
    #[serde(default)]
    pub privileged: bool,
    #[serde(default)]
    pub readonly_root_filesystem: bool,
    /// The main process has a terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pseudo_terminal: bool,
    /// The main process's standard input stays open, for attachers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub docker_labels: BTreeMap<String, String>,
    /// Absent: files of the node, as large as its own file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<log::LogConfiguration>,
    /// `enabled` when absent, as in ECS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version_consistency: VersionConsistency,
    /// Groups beside those of `user`, by name or number; Lighter's own member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// `name:alias` of other containers, which /etc/hosts then knows; bridge mode only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// A network namespace with a loopback interface only, whatever the task's mode.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disable_networking: bool,
    /// Addresses; instead of the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    /// Instead of the node's; `.` alone means none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search_domains: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<HostEntry>,
    /// See `SecurityOption`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker_security_options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system_controls: Vec<SystemControl>,
    /// GPUs and other devices given out whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_requirements: Vec<ResourceRequirement>,
}

impl ContainerDefinition {
    /// `dockerSecurityOptions`, understood; what is not was refused with the definition.
    pub fn security_options(&self) -> impl Iterator<Item = SecurityOption<'_>> {
        self.docker_security_options.iter().filter_map(|text| SecurityOption::parse(text).ok())
    }
}

impl ContainerDefinition {
    /// Everything that has to come first, by name, and what must be true of it: dependsOn, and as START
    /// the containers whose volumes it takes and that it links to.
    pub fn comes_after(&self) -> impl Iterator<Item = (&str, DependencyCondition)> {
        let depends = self.depends_on.iter().map(|d| (d.container_name.as_str(), d.condition));
        let volumes = self.volumes_from.iter().map(|from| from.source_container.as_str());
        let links = self.links.iter().map(|text| Link::parse(text).container);
        depends.chain(volumes.chain(links).map(|name| (name, DependencyCondition::Start)))
    }

    /// It has a health check, its own or perhaps its image's.
    pub fn is_checked(&self) -> bool {
        self.health_check
            .as_ref()
            .is_some_and(|check| check.command.first().is_none_or(|word| word != "NONE"))
    }

    /// Whether what the image's tag means is settled by the first task of the revision: not when
    /// the definition switches it off, nor when it names a digest itself.
    pub fn pins_its_tag(&self) -> bool {
        self.version_consistency == VersionConsistency::Enabled && !self.image.contains('@')
    }

    /// What a node pulls when the revision has settled this digest (`sha256:…`) for the container.
    pub fn image_to_pull(&self, digest: Option<&str>) -> String {
        match digest.filter(|_| self.pins_its_tag()) {
            Some(digest) => format!("{}@{digest}", self.image),
            None => self.image.clone(),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// ECS's default time between the stop signal and SIGKILL.
pub const DEFAULT_STOP_TIMEOUT_S: u32 = 30;

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyValuePair {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// 0 when there is a range instead.
    #[serde(default, skip_serializing_if = "is_default")]
    pub container_port: u16,
    /// Several ports in a row, which meet as many host ports in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port_range: Option<PortRange>,
    /// 0 or absent: the node picks one from its ephemeral range; in host mode it is the container port.
    #[serde(default)]
    pub host_port: u16,
    #[serde(default)]
    pub protocol: TransportProtocol,
}

impl PortMapping {
    /// The port, or the whole range.
    pub fn container_ports(&self) -> RangeInclusive<u16> {
        match &self.container_port_range {
            Some(range) => range.first..=range.last,
            None => self.container_port..=self.container_port,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountPoint {
    pub source_volume: VolumeName,
    pub container_path: String,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeFrom {
    pub source_container: ContainerName,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxParameters {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// A first process that reaps and hands signals on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init_process_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<KernelCapabilities>,
    /// Size of /dev/shm; absent or 0 means Docker's 64 MiB.
    #[serde(default, rename = "sharedMemorySize", skip_serializing_if = "Option::is_none")]
    pub shared_memory_mib: Option<u64>,
    /// Swap beyond `memory`; absent or 0 means none.
    #[serde(default, rename = "maxSwap", skip_serializing_if = "Option::is_none")]
    pub max_swap_mib: Option<u64>,
}

/// A host device shown to a container; refused by nodes whose own file does not allow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    pub host_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path: Option<String>,
    /// Any of `read`, `write`, `mknod`; empty means all three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tmpfs {
    pub container_path: String,
    #[serde(rename = "size")]
    pub size_mib: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    pub name: VolumeName,
    /// A directory of the node; an empty one is managed by Lighter and lives as long as the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostVolume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_volume_configuration: Option<DockerVolumeConfiguration>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostVolume {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerVolumeConfiguration {
    #[serde(default)]
    pub scope: VolumeScope,
    /// Shared volumes only: make the volume when it does not exist.
    #[serde(default)]
    pub autoprovision: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How long a named volume lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeScope {
    /// As long as the task.
    #[default]
    Task,
    /// Until someone removes it.
    Shared,
}
