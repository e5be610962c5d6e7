//! The process of a container: arguments, environment, user, capabilities, limits of its own.
//! In: definition and image. Out: OCI `process`. Source: Docker's rules for ENTRYPOINT and CMD
//! (Dockerfile reference), moby's default capabilities.
//! Never: expands variables or runs a shell; the definition's words are used as they are.

use crate::apparmor::DEFAULT_PROFILE;

use super::{SpecError, SpecRequest, capabilities};
use lighter_model::task_definition::SecurityOption;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// AppArmor's word for no profile.
const UNCONFINED: &str = "unconfined";

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(request: &SpecRequest<'_>) -> Result<Value, SpecError> {
    let privileged = request.container.privileged;
    let bounding = capabilities::of(request)?;
    // As runc: a user other than root keeps the bounding set only, so that set-uid programs of the
    // image can still gain them where no-new-privileges allows.
    let held: &[&str] = if request.user.uid == 0 { &bounding } else { &[] };
    let mut process = json!({
        // Ours, not libcontainer's: lighter-oci opens it from inside, as the container's user.
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
            "bounding": bounding,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": rlimits(request),
        "noNewPrivileges": !privileged,
        "oomScoreAdj": 0,
    });
    if let Some(profile) = apparmor_profile(request)? {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

/// The node's limit on open files, and the definition's own; one of each kind.
fn rlimits(request: &SpecRequest<'_>) -> Vec<Value> {
    // setrlimit(2)'s RLIM_INFINITY is the largest number.
    let amount = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let mut limits = BTreeMap::from([("nofile", request.nofile)]);
    for ulimit in &request.container.ulimits {
        limits.insert(&ulimit.name, (amount(ulimit.soft_limit), amount(ulimit.hard_limit)));
    }
    let value = |(name, (soft, hard)): (&str, (u64, u64))| json!({ "type": format!("RLIMIT_{}", name.to_ascii_uppercase()), "soft": soft, "hard": hard });
    limits.into_iter().map(value).collect()
}

/// A named profile that the node has loaded; without a name the default one, where it is loaded.
/// Leaving that is a privilege, which a privileged container has; a name on a host without AppArmor is
/// an error, because it would confine nothing.
fn apparmor_profile<'a>(request: &SpecRequest<'a>) -> Result<Option<&'a str>, SpecError> {
    let container = || request.container.name.to_string();
    let profile = request.container.security_options().find_map(|option| match option {
        SecurityOption::AppArmor { profile } => Some(profile),
        _ => None,
    });
    match profile {
        Some(UNCONFINED) if !request.privileges.unconfined => {
            Err(SpecError::UnconfinedNotAllowed { container: container(), option: "apparmor:unconfined" })
        }
        Some(UNCONFINED) => Ok(None),
        None if request.container.privileged => Ok(None),
        None => {
            let default = request.apparmor.unwrap_or_default().iter().find(|name| *name == DEFAULT_PROFILE);
            Ok(default.map(String::as_str))
        }
        Some(profile) => match request.apparmor {
            None => Err(SpecError::NoAppArmor { container: container(), profile: profile.to_owned() }),
            Some(loaded) if loaded.iter().any(|name| name == profile) => Ok(Some(profile)),
            Some(_) => {
                Err(SpecError::ProfileNotLoaded { container: container(), profile: profile.to_owned() })
            }
        },
    }
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
    let all = without_nul(&all, name, "command")?;
    if !has_init(request) {
        return Ok(all);
    }
    Ok([lighter_shim_wire::INIT_PROGRAM, "init", "--"].into_iter().map(str::to_owned).chain(all).collect())
}

pub(super) fn has_init(request: &SpecRequest<'_>) -> bool {
    request.container.linux_parameters.as_ref().is_some_and(|linux| linux.init_process_enabled)
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
    if request.container.pseudo_terminal {
        set("TERM=xterm".to_owned());
    }
    request.image.env.iter().filter(|entry| entry.contains('=')).for_each(|entry| set(entry.clone()));
    // The first file wins over later ones, so it is set last.
    request.environment_files.iter().rev().flatten().for_each(|entry| set(entry.clone()));
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
