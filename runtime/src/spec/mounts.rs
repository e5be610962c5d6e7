//! What a container sees mounted: Docker's standard file systems, then tmpfs, then binds, outer
//! paths before inner ones. In: definition and bind mounts. Out: OCI `mounts`.
//! Never: creates a source; libcontainer makes missing mount points inside the root file system.

use super::{SpecError, SpecRequest, process};
use crate::runtime::namespaces::SHARED_MEMORY_MIB;
use lighter_model::task_definition::IpcMode;
use lighter_shim_wire::CgroupVersion;
use serde_json::{Value, json};

pub(super) fn mounts(request: &SpecRequest<'_>) -> Result<Vec<Value>, SpecError> {
    let privileged = request.container.privileged;
    let mut list = standard(request);
    // On v1 the controllers would show the host's tree; development machines do without.
    if request.cgroup_version == CgroupVersion::V2 {
        let access = if privileged { "rw" } else { "ro" };
        list.push(mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ));
    }
    let mut own = Vec::new();
    for tmpfs in request.container.linux_parameters.iter().flat_map(|parameters| &parameters.tmpfs) {
        let path = absolute(request, "linuxParameters.tmpfs.containerPath", &tmpfs.container_path)?;
        let size = format!("size={}m", tmpfs.size_mib);
        let mut options = vec!["nosuid", "nodev", "noexec", size.as_str()];
        options.extend(tmpfs.mount_options.iter().map(String::as_str));
        own.push((path, mount(path, "tmpfs", "tmpfs", &options)));
    }
    for bind in request.mounts {
        let path = absolute(request, "mountPoints.containerPath", &bind.destination)?;
        let access = if bind.read_only { "ro" } else { "rw" };
        let source = bind.source.to_string_lossy();
        let mut value = mount(path, "bind", &source, &["rbind", "rprivate", access]);
        if let Some(mappings) = super::mappings(request)?.filter(|_| bind.mapped) {
            value["uidMappings"] = mappings.clone();
            value["gidMappings"] = mappings;
        }
        own.push((path, value));
    }
    for device in request.host_devices.iter().filter(|_| request.user_namespace.is_some()) {
        let options = ["bind", "rprivate", "rw", "nosuid", "noexec"];
        own.push((&device.path, mount(&device.path, "bind", &device.host_path, &options)));
    }
    own.sort_by_key(|(path, _)| path.trim_end_matches('/').matches('/').count());
    list.extend(own.into_iter().map(|(_, value)| value));
    Ok(list)
}

fn standard(request: &SpecRequest<'_>) -> Vec<Value> {
    let sys_access = if request.container.privileged { "rw" } else { "ro" };
    let wanted_mib = request.container.linux_parameters.as_ref().and_then(|linux| linux.shared_memory_mib);
    let shared_memory_kib = wanted_mib.filter(|mib| *mib > 0).unwrap_or(SHARED_MEMORY_MIB) << 10;
    let shared_memory = format!("size={shared_memory_kib}k");
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_access]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    let shared = |source: &str| mount("/dev/shm", "bind", source, &["rbind", "rprivate", "rw"]);
    match request.definition.ipc_mode {
        IpcMode::None => {}
        IpcMode::Private => list.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shared_memory],
        )),
        IpcMode::Task => list.push(shared(&request.namespaces.join("shm").to_string_lossy())),
        IpcMode::Host => list.push(shared("/dev/shm")),
    }
    if process::has_init(request) {
        let source = request.init.to_string_lossy();
        list.push(mount(
            lighter_shim_wire::INIT_PROGRAM,
            "bind",
            &source,
            &["bind", "rprivate", "ro", "nosuid", "nodev"],
        ));
    }
    list
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn absolute<'a>(
    request: &SpecRequest<'_>,
    member: &'static str,
    path: &'a str,
) -> Result<&'a str, SpecError> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(path);
    }
    let container = request.container.name.to_string();
    Err(SpecError::NotAbsolute { container, member, path: path.to_owned() })
}
