//! The OCI runtime spec of a container: task definition + image configuration + attachment.
//! In: `SpecRequest`, all of it values. Out: a `Spec`, or which member is wrong. Pure: what has to
//! be looked up (user, host devices) is in the request.
//! Defaults are Docker's, so that an image behaves as its author saw it: capabilities, seccomp
//! profile, device rules, masked paths, mounts, environment. no-new-privileges is ours.
//! Source: OCI runtime spec 1.2, config.md and config-linux.md.
//! The seccomp profile is not in it: libcontainer would compile it anew for every start, which took
//! 10 of a start's 17 ms of processor time. `Runtime::open` has it compiled once and the helper
//! installs the result right before the program.
//! Never: reads a file.

mod capabilities;
mod devices;
mod mounts;
mod process;
mod resources;
pub mod seccomp;

pub(crate) use process::working_directory;

use crate::user::User;
use lighter_model::image_config::ImageConfig;
use lighter_model::resources::IdRange;
use lighter_model::task_definition::{ContainerDefinition, IpcMode, PidMode, SecurityOption, TaskDefinition};
use lighter_shim_wire::{CgroupVersion, Limits};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A host path shown inside the container: a volume, or one of hosts, hostname, resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    /// Absolute, inside the container.
    pub destination: String,
    pub read_only: bool,
    /// In a user namespace: files of the container's ids are on disk as theirs.
    pub mapped: bool,
}

/// The user namespace that the containers of a task share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    pub path: PathBuf,
    pub ids: IdRange,
}

/// What the node's own file allows; all off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    pub privileged: bool,
    pub devices: bool,
    /// pidMode and ipcMode `host`.
    pub host_namespaces: bool,
    /// Containers without seccomp or outside the AppArmor profile.
    pub unconfined: bool,
    /// Beyond Docker's default set, without `CAP_`; `ALL` allows every one.
    pub capabilities: Vec<String>,
}

/// A host device that the definition asks for, as stat(2) found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// Absolute, inside the container, below /dev.
    pub path: String,
    pub host_path: String,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    /// Some of `r`, `w`, `m`.
    pub access: String,
}

/// Everything a spec is made of.
#[derive(Debug, Clone)]
pub struct SpecRequest<'a> {
    pub container: &'a ContainerDefinition,
    pub definition: &'a TaskDefinition,
    pub image: &'a ImageConfig,
    pub rootfs: &'a Path,
    /// `None`: the node's own network namespace.
    pub netns: Option<&'a Path>,
    pub hostname: &'a str,
    pub mounts: &'a [BindMount],
    /// `KEY=value` of each of the definition's files, in its order.
    pub environment_files: &'a [Vec<String>],
    /// `KEY=value`, after all others.
    pub env_extra: &'a [String],
    pub privileges: &'a Privileges,
    pub user_namespace: Option<&'a UserNamespace>,
    /// Where the namespaces are that the containers of the task share.
    pub namespaces: &'a Path,
    /// The program that is the first process of a container that asks for one.
    pub init: &'a Path,
    /// The profiles that the host has loaded; `None`: it has no AppArmor.
    pub apparmor: Option<&'a [String]>,
    pub user: &'a User,
    pub host_devices: &'a [HostDevice],
    pub cgroups_path: &'a Path,
    pub cgroup_version: CgroupVersion,
    pub pids_max: u64,
    pub nofile: (u64, u64),
    /// Whether `cpu` is a hard limit; else it is a share only.
    pub cpu_quota: bool,
}

/// Why a container cannot be described.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("container {container}: neither the image nor the definition names a command")]
    NoCommand { container: String },
    #[error("container {container}: {member} contains a NUL byte")]
    NulByte { container: String, member: &'static str },
    #[error("container {container}: {member} must be an absolute path, got {path:?}")]
    NotAbsolute { container: String, member: &'static str, path: String },
    #[error("container {container} asks for privileged, which this node does not allow (allow_privileged)")]
    PrivilegedNotAllowed { container: String },
    #[error("container {container} asks for device {device}, which this node does not allow (allow_devices)")]
    DevicesNotAllowed { container: String, device: String },
    #[error(
        "container {container} asks for {member} host, which this node does not allow (allow_host_namespaces)"
    )]
    HostNamespaceNotAllowed { container: String, member: &'static str },
    #[error(
        "container {container} asks for capability {capability}, which this node does not allow (allow_capabilities)"
    )]
    CapabilityNotAllowed { container: String, capability: String },
    #[error("container {container} asks for {option}, which this node does not allow (allow_unconfined)")]
    UnconfinedNotAllowed { container: String, option: &'static str },
    #[error("container {container} asks for AppArmor profile {profile}, but this node has no AppArmor")]
    NoAppArmor { container: String, profile: String },
    #[error(
        "container {container} asks for AppArmor profile {profile}, which this node has not loaded (apparmor_parser)"
    )]
    ProfileNotLoaded { container: String, profile: String },
    #[error("container {container}: id {id} is not one of the {count} that a task with usernsMode auto has")]
    IdNotMapped { container: String, id: u32, count: u32 },
    #[error("container {container}: device path {path:?} is not below /dev")]
    DevicePath { container: String, path: String },
    #[error("container {container}: device permission {word:?} is none of read, write, mknod")]
    DevicePermission { container: String, word: String },
    #[error("container {container}: the spec is not valid OCI")]
    NotOci { container: String, source: serde_json::Error },
}

/// The profile of a container with Docker's default capabilities.
pub fn default_seccomp() -> Value {
    seccomp::default_profile(&capabilities::default_set())
}

/// The profile of this container: more capabilities let more system calls through. `None`: no filter.
pub(crate) fn seccomp_profile(request: &SpecRequest<'_>) -> Result<Option<Value>, SpecError> {
    let unconfined =
        request.container.security_options().any(|option| option == SecurityOption::SeccompUnconfined);
    if unconfined && !request.privileges.unconfined {
        let container = request.container.name.to_string();
        return Err(SpecError::UnconfinedNotAllowed { container, option: "seccomp:unconfined" });
    }
    if unconfined || request.container.privileged {
        return Ok(None);
    }
    Ok(Some(seccomp::default_profile(&capabilities::of(request)?)))
}

/// The spec and the limits that it asks for.
pub fn oci_spec(request: &SpecRequest<'_>) -> Result<(Spec, Limits), SpecError> {
    let container = request.container.name.to_string();
    if request.container.privileged && !request.privileges.privileged {
        return Err(SpecError::PrivilegedNotAllowed { container });
    }
    let (resources, limits) = resources::resources(request);
    let mut linux = json!({
        "cgroupsPath": request.cgroups_path,
        "namespaces": namespaces(request)?,
        "resources": resources,
        "rootfsPropagation": "private",
    });
    let devices = devices::nodes(request)?;
    // In a user namespace no device can be made; those of the host are shown instead.
    if !devices.is_empty() && request.user_namespace.is_none() {
        linux["devices"] = json!(devices);
    }
    if let Some(mappings) = mappings(request)? {
        linux["uidMappings"] = mappings.clone();
        linux["gidMappings"] = mappings;
    }
    if !request.container.privileged {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        linux["readonlyPaths"] = json!(READONLY_PATHS);
    }
    let controls = &request.container.system_controls;
    if !controls.is_empty() {
        let pairs = controls.iter().map(|control| (control.namespace.clone(), json!(control.value)));
        linux["sysctl"] = Value::Object(pairs.collect());
    }
    let mut value = json!({
        "ociVersion": "1.0.2",
        "hostname": request.hostname,
        "root": { "path": request.rootfs, "readonly": request.container.readonly_root_filesystem },
        "process": process::process(request)?,
        "mounts": mounts::mounts(request)?,
        "linux": linux,
    });
    if !request.container.docker_labels.is_empty() {
        value["annotations"] = json!(request.container.docker_labels);
    }
    let spec = serde_json::from_value(value).map_err(|source| SpecError::NotOci { container, source })?;
    Ok((spec, limits))
}

/// The ids of the task's user namespace; every id of the process must be among them.
fn mappings(request: &SpecRequest<'_>) -> Result<Option<Value>, SpecError> {
    let Some(UserNamespace { ids, .. }) = request.user_namespace else { return Ok(None) };
    let mut own =
        [request.user.uid, request.user.gid].into_iter().chain(request.user.additional_gids.clone());
    if let Some(id) = own.find(|id| ids.on_host(*id).is_none()) {
        let container = request.container.name.to_string();
        return Err(SpecError::IdNotMapped { container, id, count: ids.count });
    }
    Ok(Some(json!([{ "containerID": 0, "hostID": ids.first, "size": ids.count }])))
}

fn namespaces(request: &SpecRequest<'_>) -> Result<Vec<Value>, SpecError> {
    let not_allowed =
        |member| SpecError::HostNamespaceNotAllowed { container: request.container.name.to_string(), member };
    let shared = |kind: &str| json!({ "type": kind, "path": request.namespaces.join(kind) });
    let mut list: Vec<Value> = Vec::new();
    match request.definition.pid_mode {
        PidMode::Private => list.push(json!({ "type": "pid" })),
        PidMode::Task => list.push(shared("pid")),
        PidMode::Host if request.privileges.host_namespaces => {}
        PidMode::Host => return Err(not_allowed("pidMode")),
    }
    match request.definition.ipc_mode {
        IpcMode::Private | IpcMode::None => list.push(json!({ "type": "ipc" })),
        IpcMode::Task => list.push(shared("ipc")),
        IpcMode::Host if request.privileges.host_namespaces => {}
        IpcMode::Host => return Err(not_allowed("ipcMode")),
    }
    list.extend(request.user_namespace.map(|user| json!({ "type": "user", "path": user.path })));
    list.extend(["uts", "mount", "cgroup"].iter().map(|kind| json!({ "type": kind })));
    if let Some(path) = request.netns {
        list.push(json!({ "type": "network", "path": path }));
    }
    Ok(list)
}

/// Docker's, as of 27: parts of /proc and /sys that tell of or change the host.
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

#[cfg(test)]
mod tests;
