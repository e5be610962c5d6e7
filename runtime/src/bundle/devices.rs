//! Host devices a container gets: those it names, those the node gave it, or for a privileged one
//! all of /dev.
//! In: definition. Out: numbers and modes by stat(2). Never: opens a device.

use super::{BundleError, BundleRequest};
use crate::spec::{HostDevice, SpecError};
use rustix::fs::{FileType, major, minor, stat};
use std::fs;
use std::io;
use std::path::Path;

/// Below /dev, but made by the container's own mounts.
const OWN_DIRECTORIES: [&str; 4] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"];
/// Made by libcontainer, or the host's terminal and log.
const OWN_NODES: [&str; 9] = [
    "/dev/console",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/log",
];

pub(super) fn find(request: &BundleRequest<'_>) -> Result<Vec<HostDevice>, BundleError> {
    let container = request.container.name.to_string();
    let mut list = Vec::new();
    if request.container.privileged && request.privileges.privileged {
        collect(Path::new("/dev"), &mut list);
    }
    for asked in request.container.linux_parameters.iter().flat_map(|parameters| &parameters.devices) {
        if !request.privileges.devices {
            let device = asked.host_path.clone();
            return Err(SpecError::DevicesNotAllowed { container, device }.into());
        }
        let path = asked.container_path.clone().unwrap_or_else(|| asked.host_path.clone());
        let access = access(&container, &asked.permissions)?;
        let found = inspect(Path::new(&asked.host_path)).map_err(|source| BundleError::Device {
            container: container.clone(),
            path: asked.host_path.clone(),
            source,
        })?;
        list.retain(|device: &HostDevice| device.path != path);
        list.push(HostDevice { path, access, ..found });
    }
    for path in &request.granted_devices {
        let failed = |source| BundleError::Device {
            container: request.container.name.to_string(),
            path: path.to_string_lossy().into_owned(),
            source,
        };
        let found = inspect(path).map_err(failed)?;
        list.retain(|device: &HostDevice| device.path != found.path);
        // To use, not to make.
        list.push(HostDevice { access: "rw".to_owned(), ..found });
    }
    Ok(list)
}

/// Empty means all three.
fn access(container: &str, permissions: &[String]) -> Result<String, SpecError> {
    if permissions.is_empty() {
        return Ok("rwm".to_owned());
    }
    permissions
        .iter()
        .map(|word| match word.as_str() {
            "read" => Ok('r'),
            "write" => Ok('w'),
            "mknod" => Ok('m'),
            _ => Err(SpecError::DevicePermission { container: container.to_owned(), word: word.clone() }),
        })
        .collect()
}

fn inspect(path: &Path) -> io::Result<HostDevice> {
    let stat = stat(path)?;
    let block = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => true,
        FileType::CharacterDevice => false,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a device")),
    };
    Ok(HostDevice {
        path: path.to_string_lossy().into_owned(),
        host_path: path.to_string_lossy().into_owned(),
        block,
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
        mode: stat.st_mode,
        access: "rwm".to_owned(),
    })
}

fn collect(directory: &Path, list: &mut Vec<HostDevice>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let text = path.to_string_lossy().into_owned();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !OWN_DIRECTORIES.contains(&text.as_str()) => collect(&path, list),
            Ok(kind) if !kind.is_symlink() && !OWN_NODES.contains(&text.as_str()) => {
                list.extend(inspect(&path))
            }
            _ => {}
        }
    }
}
