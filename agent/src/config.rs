//! The agent's configuration: `/etc/lighter/agent.toml`, overridden by flags and `LIGHTER_*`.
//! In: a file, overrides as text. Out: `AgentConfig`, checked; an unknown key is refused by name.
//! Owns nothing. Never: creates a directory, reads credentials.
//! What a task may ask of this node (`allow_*`) is decided here alone; the control plane cannot.

pub mod overrides;

pub use overrides::ConfigOverrides;

use lighter_model::address::is_loopback_host;
use lighter_model::resources::IdRange;
use lighter_model::task_definition::PullBehavior;
use lighter_model::task_definition::log::LOG_DRIVERS;
use lighter_model::task_definition::options::CAPABILITIES;
use lighter_runtime::ids::IDS_PER_TASK;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the file is when nothing else is said; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/lighter/agent.toml";

/// Everything an operator can choose. Every key may also be given as a flag or as `LIGHTER_<KEY>`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// `https://host:port`; plaintext only as `unix:/path` or to a loopback address. Several control
    /// planes stand in one text with commas; the one that leads is found. Empty: the one
    /// `lighter agent join` wrote down.
    pub control_endpoint: String,
    /// Name of this container instance; empty: the host name.
    pub name: String,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// `None`: `logs` below `data_dir`.
    pub log_dir: Option<PathBuf>,
    /// Certificate, key and CA in one PEM file; `None`: `node.pem` below `data_dir`.
    pub credentials: Option<PathBuf>,
    /// The bridge's name; two agents on one machine need two.
    pub bridge: String,
    /// Addresses of the bridge and the containers; empty: the network crate's default.
    pub bridge_subnet: String,
    /// Name of the nf_tables table.
    pub nft_table: String,
    /// Directories for tasks' cgroups start here; `None`: chosen from the machine.
    pub cgroup_root: Option<String>,
    /// By host (`registry.example:5000`): CA, mirrors, plaintext.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Logins as `docker login` writes them; `None`: /root/.docker/config.json when it exists.
    pub docker_config: Option<PathBuf>,
    /// Memory kept for agent, shims and kernel; not offered to tasks.
    pub reserve_memory_mib: u64,
    /// CPU units kept likewise; 1024 are one core.
    pub reserve_cpu_units: u32,
    /// Whether a container's `cpu` is a hard limit. If not, it is a share, as on ECS's own instances:
    /// CPU that nobody else wants is anyone's. A task's `cpu` is a hard limit always.
    pub cpu_quota: bool,
    /// tcp ports that tasks never get.
    pub reserved_ports: Vec<u16>,
    /// udp ports that tasks never get.
    pub reserved_ports_udp: Vec<u16>,
    pub allow_privileged: bool,
    /// `false`, `true`, or a list of directories below which host paths may be mounted.
    pub allow_host_paths: AllowHostPaths,
    pub allow_devices: bool,
    /// `false`, `true`, or a list of directories below which files of variables may be.
    pub allow_environment_files: AllowHostPaths,
    /// Capabilities that containers may add to Docker's default set, without `CAP_`; `ALL` for every one.
    pub allow_capabilities: Vec<String>,
    /// `seccomp:unconfined` and `apparmor:unconfined`.
    pub allow_unconfined: bool,
    /// networkMode, pidMode and ipcMode host.
    pub allow_host_namespaces: bool,
    /// Let containers reach the instance metadata service at 169.254.169.254.
    pub allow_instance_metadata: bool,
    /// Development machines only: run on a v1 or hybrid cgroup host and say what is not enforced.
    pub allow_cgroup_v1_hybrid: bool,
    /// `None`: beside the executable, then /usr/lib/lighter, then /usr/bin.
    pub shim_path: Option<PathBuf>,
    /// As `shim_path`.
    pub oci_path: Option<PathBuf>,
    /// Name servers for containers when all of the host's are loopback addresses.
    pub dns_fallback: Vec<IpAddr>,
    /// Devices that containers get to themselves by resourceRequirements, by kind (`GPU`).
    pub devices: BTreeMap<String, DeviceConfig>,
    /// Ids of the host for tasks with `usernsMode` `auto`.
    pub user_namespaces: UserNamespacesConfig,
    /// Attributes reported to placement, over those found on the machine: `ecs.availability-zone`,
    /// `ecs.region`, `ecs.vpc-id`, `ecs.subnet-id`, `lighter.capacity-type` and names of one's own.
    pub attributes: BTreeMap<String, String>,
    /// Whom to ask for them: `auto` (EC2's metadata service, on EC2 only), `off`, or the service's URL.
    pub instance_metadata: String,
    pub logs: LogConfig,
    /// Answer tasks' questions for their metadata at 169.254.170.2. An agent beside another one on
    /// the same machine has to leave it to that one.
    pub task_metadata: bool,
    /// Where introspection is served; empty: nowhere.
    pub introspection_address: String,
    /// Where Prometheus' numbers are served; empty: nowhere.
    pub metrics_address: String,
    /// CPU and memory of each running container among the numbers.
    pub metrics_containers: bool,
    /// OTLP collector (gRPC), like `http://127.0.0.1:4317`; empty: no traces.
    pub otlp_endpoint: String,
    pub notices: NoticeConfig,
    pub images: ImagesConfig,
}

/// What the machine is told of its own end, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoticeConfig {
    /// Where the instance metadata service is, `http://169.254.169.254` on EC2; empty: not asked.
    pub imds_endpoint: String,
    /// Tasks are stopped so long before the machine goes; `None`: they are left alone.
    pub stop_tasks_before_s: Option<u64>,
}

/// One registry host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// PEM file with the certificate authority to trust for this host, beside the system's.
    pub ca: Option<PathBuf>,
    /// Hosts to ask first, in this order.
    pub mirrors: Vec<String>,
    /// Speak HTTP to this host. Off by default, and never a fallback.
    pub http: bool,
}

/// User and group ids that are nobody's on the host; each task has 65,536 of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserNamespacesConfig {
    pub first_id: u32,
    /// So many tasks can have a user namespace at a time.
    pub tasks_max: u32,
}

impl Default for UserNamespacesConfig {
    fn default() -> Self {
        let IdRange { first, count } = lighter_runtime::config::DEFAULT_USER_IDS;
        Self { first_id: first, tasks_max: count / IDS_PER_TASK }
    }
}

impl UserNamespacesConfig {
    /// All of them; the check has seen that they are there.
    pub(crate) fn ids(&self) -> IdRange {
        IdRange { first: self.first_id, count: self.tasks_max.saturating_mul(IDS_PER_TASK) }
    }

    /// From the first id on that no image uses, up to the last that the kernel has.
    fn problem(&self) -> Option<(&'static str, &'static str, u32)> {
        let last = u64::from(self.first_id) + u64::from(self.tasks_max) * u64::from(IDS_PER_TASK);
        if self.first_id < IDS_PER_TASK {
            return Some(("user_namespaces.first_id", "must be at least 65536", self.first_id));
        }
        let too_many = last >= u64::from(u32::MAX);
        too_many.then_some(("user_namespaces.tasks_max", "needs more ids than there are", self.tasks_max))
    }
}

/// The devices of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceConfig {
    /// The device files of each device, by its id.
    pub ids: BTreeMap<String, Vec<PathBuf>>,
    /// Device files that every container with one of them gets as well.
    pub common: Vec<PathBuf>,
    /// The variable that names the ids to the container, with commas; for a GPU
    /// `NVIDIA_VISIBLE_DEVICES` when nothing else is said.
    pub variable: Option<String>,
}

/// How container output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A log file is rotated before it grows beyond this.
    pub file_mib_max: u64,
    /// Files kept of each container, the current one included.
    pub files_max: u32,
    /// Logs of a stopped task are kept this long, so that `lighter logs` works after the stop …
    pub keep_stopped_hours: u64,
    /// … but only of this many stopped tasks, the newest.
    pub keep_stopped_tasks: usize,
    /// Log drivers that tasks may use. Those that send elsewhere do so as the node, so whoever may
    /// register a task definition could reach with them what the node can reach: off by default.
    pub drivers: Vec<String>,
    /// How long the teardown of a task waits for its log drivers to send the rest. What is not sent
    /// by then is sent later, so waiting only matters where the node goes away with its last task.
    pub drain_wait_seconds: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            file_mib_max: 10,
            files_max: 3,
            keep_stopped_hours: 24,
            keep_stopped_tasks: 200,
            drivers: ["json-file", "none", "journald"].map(str::to_owned).to_vec(),
            drain_wait_seconds: 0,
        }
    }
}

/// When images are pulled, and when those that nobody uses are removed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// `default`, `always`, `once` or `prefer-cached`, for tasks that do not say themselves
    /// (ECS_IMAGE_PULL_BEHAVIOR).
    pub pull_behavior: PullBehavior,
    /// Clean up by itself. Unset: yes, unless `pull_behavior` is `prefer-cached`, as in ECS.
    pub cleanup: Option<bool>,
    /// Clean up when so much of the file system of the images is used …
    pub high_percent: u8,
    /// … until no more than so much is.
    pub low_percent: u8,
    /// Kept free on that file system, for the tasks that run; no pull goes into it.
    pub min_free_mib: u64,
    /// Younger images are left alone (ECS_IMAGE_MINIMUM_CLEANUP_AGE).
    pub minimum_cleanup_age_s: u64,
    /// Images unused for so long are removed however empty the disk is; 0: never.
    pub maximum_unused_hours: u64,
    /// Between two looks at the disk (ECS_IMAGE_CLEANUP_INTERVAL).
    pub cleanup_interval_s: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            pull_behavior: PullBehavior::Default,
            cleanup: None,
            // The kubelet's marks, age and, but for a look being cheap here, its period.
            high_percent: 85,
            low_percent: 80,
            min_free_mib: 512,
            minimum_cleanup_age_s: 120,
            maximum_unused_hours: 0,
            cleanup_interval_s: 60,
        }
    }
}

impl ImagesConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong =
            |key, problem, value: u64| Err(ConfigError::Invalid { key, problem, value: value.to_string() });
        if !(1..=100).contains(&self.high_percent) {
            return wrong("images.high_percent", "must be 1 to 100", self.high_percent.into());
        }
        if self.low_percent > self.high_percent {
            return wrong(
                "images.low_percent",
                "must not be above images.high_percent",
                self.low_percent.into(),
            );
        }
        if self.cleanup_interval_s == 0 {
            return wrong("images.cleanup_interval_s", "must be at least 1", 0);
        }
        Ok(())
    }

    /// Whether images are cleaned up without being asked.
    pub fn cleans_up(&self) -> bool {
        self.cleanup.unwrap_or(self.pull_behavior != PullBehavior::PreferCached)
    }
}

/// Which host paths tasks may mount.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum AllowHostPaths {
    All(bool),
    /// These directories and what is below them.
    Below(Vec<PathBuf>),
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            control_endpoint: String::new(),
            name: String::new(),
            data_dir: "/var/lib/lighter".into(),
            run_dir: "/run/lighter".into(),
            log_dir: None,
            credentials: None,
            bridge: "lighter0".into(),
            bridge_subnet: String::new(),
            nft_table: "lighter".into(),
            cgroup_root: None,
            registries: BTreeMap::new(),
            docker_config: None,
            reserve_memory_mib: 256,
            reserve_cpu_units: 128,
            cpu_quota: true,
            // ssh, Docker's own, and ECS's introspection, metadata and metrics.
            reserved_ports: vec![22, 2375, 2376, 51678, 51679, 51680],
            reserved_ports_udp: Vec::new(),
            allow_privileged: false,
            allow_host_paths: AllowHostPaths::All(false),
            allow_devices: false,
            allow_environment_files: AllowHostPaths::All(false),
            allow_capabilities: Vec::new(),
            allow_unconfined: false,
            allow_host_namespaces: false,
            allow_instance_metadata: false,
            allow_cgroup_v1_hybrid: false,
            shim_path: None,
            oci_path: None,
            dns_fallback: Vec::new(),
            devices: BTreeMap::new(),
            user_namespaces: UserNamespacesConfig::default(),
            attributes: BTreeMap::new(),
            instance_metadata: "auto".into(),
            logs: LogConfig::default(),
            task_metadata: true,
            introspection_address: "127.0.0.1:51678".into(),
            metrics_address: String::new(),
            metrics_containers: false,
            otlp_endpoint: String::new(),
            notices: NoticeConfig::default(),
            images: ImagesConfig::default(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read the configuration file {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Names the key and the line.
    #[error("the configuration file {path:?} is not right")]
    Parse {
        path: PathBuf,
        #[source]
        source: toml::de::Error,
    },
    #[error("{origin} is not right")]
    Override {
        /// The flag or variable.
        origin: String,
        #[source]
        source: toml::de::Error,
    },
    #[error("there is no configuration key {key:?} (given by {origin})")]
    UnknownKey { key: String, origin: String },
    #[error("{key}: {problem}, got {value:?}")]
    Invalid { key: &'static str, problem: &'static str, value: String },
}

impl AgentConfig {
    /// Reads `path`, or `DEFAULT_PATH` if that exists, then applies the overrides in their order.
    pub fn load(path: Option<&Path>, overrides: &ConfigOverrides) -> Result<Self, ConfigError> {
        let (table, origin) = read_table(path)?;
        // The file is checked on its own first, so that the message has its line.
        Self::deserialize(toml::Value::Table(table.clone()))
            .map_err(|source| ConfigError::Parse { path: origin, source })?;
        let table = overrides.apply(table)?;
        let config = Self::deserialize(toml::Value::Table(table))
            .map_err(|source| ConfigError::Override { origin: overrides.origins(), source })?;
        config.check()?;
        Ok(config)
    }

    /// Where container output is.
    pub fn log_dir(&self) -> PathBuf {
        self.log_dir.clone().unwrap_or_else(|| self.data_dir.join("logs"))
    }

    /// The image store.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// Where the network namespaces of attachments are.
    pub(crate) fn netns_dir(&self) -> PathBuf {
        self.run_dir.join("netns")
    }

    /// Where the node's certificate, key and CA are.
    pub fn credentials(&self) -> PathBuf {
        self.credentials.clone().unwrap_or_else(|| self.data_dir.join("node.pem"))
    }

    /// The Unix socket for local questions.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let absolute = [
            ("data_dir", Some(&self.data_dir)),
            ("run_dir", Some(&self.run_dir)),
            ("log_dir", self.log_dir.as_ref()),
        ];
        for (key, path) in absolute {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                let value = path.display().to_string();
                return Err(ConfigError::Invalid { key, problem: "must be an absolute path", value });
            }
        }
        self.check_attributes()?;
        let unknown = |name: &&String| !CAPABILITIES.contains(&name.as_str());
        if let Some(name) = self.allow_capabilities.iter().find(unknown) {
            return Err(ConfigError::Invalid {
                key: "allow_capabilities",
                problem: "must be names of capabilities without CAP_, or ALL",
                value: name.clone(),
            });
        }
        if self.logs.files_max == 0 {
            return Err(ConfigError::Invalid {
                key: "logs.files_max",
                problem: "must be at least 1",
                value: "0".into(),
            });
        }
        if self.logs.file_mib_max == 0 {
            return Err(ConfigError::Invalid {
                key: "logs.file_mib_max",
                problem: "must be at least 1",
                value: "0".into(),
            });
        }
        if let Some(unknown) = self.logs.drivers.iter().find(|name| !LOG_DRIVERS.contains(&name.as_str())) {
            return Err(ConfigError::Invalid {
                key: "logs.drivers",
                problem: "must name log drivers that exist (docs/logging.md)",
                value: unknown.clone(),
            });
        }
        let addresses = [
            ("introspection_address", &self.introspection_address),
            ("metrics_address", &self.metrics_address),
        ];
        for (key, value) in addresses.into_iter().filter(|(_, value)| !value.is_empty()) {
            if value.parse::<std::net::SocketAddr>().is_err() {
                let problem = "must be an address and a port, like 127.0.0.1:51680";
                return Err(ConfigError::Invalid { key, problem, value: value.clone() });
            }
        }
        self.images.check()?;
        if let Some((key, problem, value)) = self.user_namespaces.problem() {
            return Err(ConfigError::Invalid { key, problem, value: value.to_string() });
        }
        check_endpoints(&self.control_endpoint)
    }

    /// What placement is told, and whom it is asked of.
    fn check_attributes(&self) -> Result<(), ConfigError> {
        for (name, value) in &self.attributes {
            if let Err(value) = lighter_model::attribute::check(name, value) {
                let (key, problem) = ("attributes", "must be names and values as ECS has them");
                return Err(ConfigError::Invalid { key, problem, value });
            }
        }
        let value = self.instance_metadata.clone();
        if !matches!(value.as_str(), "auto" | "off") && !value.starts_with("http://") {
            let (key, problem) =
                ("instance_metadata", "must be auto, off, or a URL that begins with http://");
            return Err(ConfigError::Invalid { key, problem, value });
        }
        Ok(())
    }
}

/// Each of a list with commas.
pub(crate) fn check_endpoints(endpoints: &str) -> Result<(), ConfigError> {
    crate::session::connect::each(endpoints).try_for_each(check_endpoint)
}

/// Plaintext is for a Unix socket or this machine; everything else is TLS.
fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let refuse =
        |problem| Err(ConfigError::Invalid { key: "control_endpoint", problem, value: endpoint.to_owned() });
    if endpoint.is_empty() || endpoint.starts_with("https://") || endpoint.starts_with("unix:") {
        return Ok(());
    }
    let Some(rest) = endpoint.strip_prefix("http://") else {
        return refuse("must be https://host:port");
    };
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    if is_loopback_host(host) {
        Ok(())
    } else {
        refuse("plaintext is only for a loopback address; use https://")
    }
}

fn read_table(path: Option<&Path>) -> Result<(toml::Table, PathBuf), ConfigError> {
    let wanted = path.unwrap_or(Path::new(DEFAULT_PATH)).to_path_buf();
    let text = match std::fs::read_to_string(&wanted) {
        Ok(text) => text,
        Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Read { path: wanted, source }),
    };
    // From the text, not from a table, for the sake of line numbers in the message.
    if let Err(source) = toml::from_str::<AgentConfig>(&text) {
        return Err(ConfigError::Parse { path: wanted, source });
    }
    let table = text.parse().map_err(|source| ConfigError::Parse { path: wanted.clone(), source })?;
    Ok((table, wanted))
}

#[cfg(test)]
mod tests;
