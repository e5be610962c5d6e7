//! Device nodes and device rules. By default: everything denied, then Docker's devices allowed.
//! libcontainer adds its own default rules after ours, among them mknod of any device: a node can
//! be made, but not opened. In: host devices as found. Out: OCI `linux.devices` and rules.
//! Never: stats a device.

use super::{SpecError, SpecRequest};
use serde_json::{Value, json};

pub(super) fn nodes(request: &SpecRequest<'_>) -> Result<Vec<Value>, SpecError> {
    let container = || request.container.name.to_string();
    let asked = request.container.linux_parameters.iter().flat_map(|parameters| &parameters.devices);
    for device in asked {
        if !request.privileges.devices {
            return Err(SpecError::DevicesNotAllowed {
                container: container(),
                device: device.host_path.clone(),
            });
        }
    }
    let mut list = Vec::new();
    for device in request.host_devices {
        if !device.path.starts_with("/dev/") || device.path.split('/').any(|part| part == "..") {
            return Err(SpecError::DevicePath { container: container(), path: device.path.clone() });
        }
        list.push(json!({
            "path": device.path,
            "type": kind(device.block),
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode & 0o777,
            "uid": 0,
            "gid": 0,
        }));
    }
    Ok(list)
}

/// linux.resources.devices, in order: the last rule that fits decides.
pub(super) fn rules(request: &SpecRequest<'_>) -> Vec<Value> {
    if request.container.privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // null, zero, full, random, urandom, tty, console, ptmx, and every pts.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    for device in request.host_devices {
        rules.push(json!({
            "allow": true,
            "type": kind(device.block),
            "major": device.major,
            "minor": device.minor,
            "access": device.access,
        }));
    }
    rules
}

fn kind(block: bool) -> &'static str {
    if block { "b" } else { "c" }
}
