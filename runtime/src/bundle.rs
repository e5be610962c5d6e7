//! OCI bundles: looks up what the spec needs (user, devices), makes a missing working directory,
//! writes `<run_dir>/tasks/<task>/bundles/<container>/config.json`.
//! In: `BundleRequest`. Out: a `Bundle`, which is all that a start needs. Writing it again with the
//! same request gives an equal file. Blocks for well under a millisecond; no tokio.
//! Never: mounts, creates cgroups.

mod devices;
pub(crate) mod seccomp;
mod workdir;

use crate::apparmor;
use crate::config::{LogConfig, RuntimeConfig};
use crate::spec::{self, BindMount, Privileges, SpecError, SpecRequest, UserNamespace};
use crate::user::{self, UserError};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::task_definition::log::SinkSettings;
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition, UsernsMode};
use lighter_shim_wire::codec::{DecodeError, Reader, Wire};
use lighter_shim_wire::exec::StartWith;
use lighter_shim_wire::{CgroupPaths, Limits, LogPolicy, StartContainer};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a container is made of.
#[derive(Debug, Clone)]
pub struct BundleRequest<'a> {
    pub task: &'a TaskId,
    pub container: &'a ContainerDefinition,
    pub definition: &'a TaskDefinition,
    pub image: &'a ImageConfig,
    /// The mounted root file system.
    pub rootfs: &'a Path,
    /// `None`: the node's own network namespace.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    /// Volumes, and the hosts, hostname and resolv.conf files.
    pub mounts: Vec<BindMount>,
    /// `KEY=value` of each of the definition's files of variables, in its order.
    pub environment_files: Vec<Vec<String>>,
    /// Device files of the host that the node gave to this container, whatever `privileges` say.
    pub granted_devices: Vec<PathBuf>,
    /// `KEY=value`, after those of image and definition.
    pub env_extra: Vec<String>,
    /// What the node's own file allows.
    pub privileges: Privileges,
}

/// A container ready to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub directory: PathBuf,
    pub(crate) task: TaskId,
    pub(crate) container: ContainerName,
    pub(crate) state_root: PathBuf,
    pub(crate) cgroup: CgroupPaths,
    pub(crate) expected: Limits,
    pub(crate) seccomp_filter: Option<PathBuf>,
    pub(crate) log_path: PathBuf,
    pub(crate) log: LogPolicy,
    pub(crate) terminal: bool,
    pub(crate) interactive: bool,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("container {container}: its user cannot be resolved")]
    User { container: String, source: UserError },
    #[error("container {container}: device {path} cannot be used")]
    Device { container: String, path: String, source: io::Error },
    #[error("container {container}: its working directory {path} cannot be made")]
    WorkingDirectory { container: String, path: String, source: io::Error },
    #[error("container {container}: its seccomp profile cannot be compiled")]
    Seccomp { container: String, source: io::Error },
    #[error("container {container}: its task has no user namespace")]
    NoIds { container: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

impl BundleError {
    /// The name ECS gives to such a failure.
    pub fn ecs_name(&self) -> &'static str {
        match self {
            Self::Write { .. } => "ResourceInitializationError",
            _ => "CannotCreateContainerError",
        }
    }
}

pub(crate) fn write(config: &RuntimeConfig, request: &BundleRequest<'_>) -> Result<Bundle, BundleError> {
    let name = &request.container.name;
    let container = name.to_string();
    let wanted_user = request.container.user.as_deref().unwrap_or(&request.image.user);
    let user = user::resolve(wanted_user, &request.container.groups, request.rootfs)
        .map_err(|source| BundleError::User { container: container.clone(), source })?;
    let host_devices = devices::find(request)?;
    let cgroup = config.cgroup.container_paths(request.task, name);
    let cgroups_path = config.cgroup.oci_path(request.task, name);
    let user_namespace = user_namespace(config, request)?;
    let profiles = apparmor::loaded();
    let spec_request = SpecRequest {
        container: request.container,
        definition: request.definition,
        image: request.image,
        rootfs: request.rootfs,
        netns: request.netns,
        hostname: request.hostname,
        mounts: &request.mounts,
        environment_files: &request.environment_files,
        env_extra: &request.env_extra,
        privileges: &request.privileges,
        user_namespace: user_namespace.as_ref(),
        namespaces: &config.namespaces_dir(request.task),
        init: &config.shim_path,
        apparmor: profiles.as_deref(),
        user: &user,
        host_devices: &host_devices,
        cgroups_path: &cgroups_path,
        cgroup_version: cgroup.version,
        pids_max: config.pids_max_default,
        nofile: config.nofile_default,
        cpu_quota: config.cpu_quota,
    };
    let (spec, expected) = spec::oci_spec(&spec_request)?;
    let seccomp_filter = seccomp::filter(config, &spec_request)?;
    workdir::ensure(&spec_request)?;
    let directory = config.bundle_dir(request.task, name);
    let file = directory.join("config.json");
    let bundle = Bundle {
        task: request.task.clone(),
        container: name.clone(),
        state_root: config.state_root(request.task),
        cgroup,
        expected,
        seccomp_filter,
        log_path: config.task_log_dir(request.task).join(format!("{name}.log")),
        log: log_policy(config.log, request.container),
        terminal: request.container.pseudo_terminal,
        interactive: request.container.interactive,
        directory: directory.clone(),
    };
    let write = || {
        fs::create_dir_all(&directory)?;
        let json = serde_json::to_vec(&spec).map_err(io::Error::other)?;
        fs::write(&file, json)?;
        fs::write(directory.join(START), bundle.start_request().to_bytes())
    };
    write().map_err(|source| BundleError::Write { path: file.clone(), source })?;
    Ok(bundle)
}

/// The ids were chosen before anything else of the task was made.
fn user_namespace(
    config: &RuntimeConfig,
    request: &BundleRequest<'_>,
) -> Result<Option<UserNamespace>, BundleError> {
    if request.definition.userns_mode == UsernsMode::Host {
        return Ok(None);
    }
    let none = || BundleError::NoIds { container: request.container.name.to_string() };
    let ids = config.ids_of(request.task).ok_or_else(none)?;
    Ok(Some(UserNamespace { path: config.user_namespace(request.task), ids }))
}

/// Beside config.json: what the shim is told, for an agent that did not write the bundle itself.
const START: &str = "start";

/// Why a bundle that should be on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenBundleError {
    #[error("the bundle's {path} cannot be read")]
    Read { path: PathBuf, source: io::Error },
    #[error("the bundle's {path} is none of this version's: {problem}")]
    Decode { path: PathBuf, problem: DecodeError },
}

/// The bundle that an earlier agent wrote.
pub(crate) fn open(
    config: &RuntimeConfig,
    task: &TaskId,
    container: &ContainerName,
) -> Result<Bundle, OpenBundleError> {
    let directory = config.bundle_dir(task, container);
    let path = directory.join(START);
    let bytes = fs::read(&path).map_err(|source| OpenBundleError::Read { path: path.clone(), source })?;
    let StartWith { start, terminal, interactive } = StartWith::get(&mut Reader::new(&bytes))
        .map_err(|problem| OpenBundleError::Decode { path, problem })?;
    Ok(Bundle {
        directory,
        task: task.clone(),
        container: container.clone(),
        state_root: start.state_root.into(),
        cgroup: start.cgroup,
        expected: start.expected,
        seccomp_filter: start.seccomp_filter.map(PathBuf::from),
        log_path: start.log_path.into(),
        log: start.log,
        terminal,
        interactive,
    })
}

/// What `logConfiguration` says of the files, else what the node does.
fn log_policy(node: LogConfig, container: &ContainerDefinition) -> LogPolicy {
    let configuration = container.log_configuration.as_ref();
    // Definitions were checked when they were registered and taken.
    let settings = configuration.and_then(|configuration| configuration.settings().ok()).unwrap_or_default();
    if settings.sink == SinkSettings::Nothing {
        return LogPolicy { file_bytes_max: 0, files_max: 0 };
    }
    LogPolicy {
        file_bytes_max: settings.ring.file_bytes_max.unwrap_or(node.file_bytes_max),
        files_max: settings.ring.files_max.unwrap_or(node.files_max),
    }
}

impl Bundle {
    pub(crate) fn start_request(&self) -> StartWith {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let start = StartContainer {
            name: self.container.to_string(),
            bundle: text(&self.directory),
            state_root: text(&self.state_root),
            cgroup: self.cgroup.clone(),
            expected: self.expected,
            seccomp_filter: self.seccomp_filter.as_deref().map(text),
            log_path: text(&self.log_path),
            log: self.log,
        };
        StartWith { start, terminal: self.terminal, interactive: self.interactive }
    }
}
