//! The process of a container: arguments, environment, user, capabilities, limits of its own.
//! In: definition and image. Out: OCI `process`. Source: Docker's rules for ENTRYPOINT and CMD
//! (Dockerfile reference), moby's default capabilities.
//! Never: expands variables or runs a shell; the definition's words are used as they are.

use super::{SpecError, SpecRequest};
use serde_json::{Value, json};

/// Docker's default set; what a container's root needs to set up and run a service.
pub(crate) const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability up to CAP_CHECKPOINT_RESTORE (Linux 5.9).
const ALL_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
];

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(request: &SpecRequest<'_>) -> Result<Value, SpecError> {
    let privileged = request.container.privileged;
    let capabilities = if privileged { ALL_CAPABILITIES } else { DEFAULT_CAPABILITIES };
    // As runc: a user other than root keeps the bounding set only, so that set-uid programs of the
    // image can still gain them where no-new-privileges allows.
    let held: &[&str] = if request.user.uid == 0 { capabilities } else { &[] };
    Ok(json!({
        "terminal": false,
        "user": {
            "uid": request.user.uid,
            "gid": request.user.gid,
            "additionalGids": request.user.additional_gids,
        },
        "args": arguments(request)?,
        "env": environment(request)?,
        "cwd": working_directory(request)?,
        "capabilities": {
            "bounding": capabilities,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": request.nofile.0, "hard": request.nofile.1 }],
        "noNewPrivileges": !privileged,
        "oomScoreAdj": 0,
    }))
}

/// The definition's entryPoint replaces the image's and then its CMD does not count; the
/// definition's command replaces CMD.
fn arguments(request: &SpecRequest<'_>) -> Result<Vec<String>, SpecError> {
    let (container, image) = (request.container, request.image);
    let (head, tail) = if !container.entry_point.is_empty() {
        (&container.entry_point, &container.command)
    } else if !container.command.is_empty() {
        (&image.entrypoint, &container.command)
    } else {
        (&image.entrypoint, &image.cmd)
    };
    let all: Vec<String> = head.iter().chain(tail).cloned().collect();
    let name = container.name.to_string();
    if all.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoCommand { container: name });
    }
    without_nul(&all, name, "command")
}

/// Later entries replace earlier ones of the same name, in the place of the earlier.
fn environment(request: &SpecRequest<'_>) -> Result<Vec<String>, SpecError> {
    let mut list: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or("").to_owned();
        match list.iter_mut().find(|present| present.split('=').next() == Some(name.as_str())) {
            Some(present) => *present = entry,
            None => list.push(entry),
        }
    };
    set(format!("PATH={DEFAULT_PATH}"));
    set(format!("HOSTNAME={}", request.hostname));
    // libcontainer would ask the C library for a missing HOME, with the image's name service
    // libraries; so it is never missing.
    set(format!("HOME={}", request.user.home));
    request.image.env.iter().filter(|entry| entry.contains('=')).for_each(|entry| set(entry.clone()));
    request.container.environment.iter().for_each(|pair| set(format!("{}={}", pair.name, pair.value)));
    request.env_extra.iter().for_each(|entry| set(entry.clone()));
    without_nul(&list, request.container.name.to_string(), "environment")
}

/// The definition's, the image's, or `/`.
pub(crate) fn working_directory(request: &SpecRequest<'_>) -> Result<String, SpecError> {
    let wanted = request.container.working_directory.as_deref().filter(|path| !path.is_empty());
    let path =
        wanted.unwrap_or(if request.image.working_dir.is_empty() { "/" } else { &request.image.working_dir });
    if !path.starts_with('/') {
        let container = request.container.name.to_string();
        return Err(SpecError::NotAbsolute { container, member: "workingDirectory", path: path.to_owned() });
    }
    Ok(path.to_owned())
}

fn without_nul(list: &[String], container: String, member: &'static str) -> Result<Vec<String>, SpecError> {
    if list.iter().any(|text| text.contains('\0')) {
        return Err(SpecError::NulByte { container, member });
    }
    Ok(list.to_vec())
}
