//! What tasks may ask of this node (decision 15): its own file decides, never the control plane.
//! In: a definition and the `allow_*` settings. Out: yes, or which setting forbids it.
//! Owns nothing; pure but for `resolve_host_path`, which follows symbolic links before it judges.
//! Never: widens what the file says.

use crate::config::{AgentConfig, AllowHostPaths};
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::options::DEFAULT_CAPABILITIES;
use lighter_model::task_definition::{
    ContainerDefinition, IpcMode, NetworkMode, PidMode, SecurityOption, TaskDefinition,
};
use lighter_runtime::Privileges;
use std::io;
use std::path::{Path, PathBuf};

/// What is not allowed, and the setting that would allow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "container {container} asks for privileged, which this node does not allow; set allow_privileged = true in the agent's file to allow it"
    )]
    Privileged { container: ContainerName },
    #[error(
        "container {container} asks for device {device}, which this node does not allow; set allow_devices = true in the agent's file to allow it"
    )]
    Device { container: ContainerName, device: String },
    #[error(
        "container {container} adds capability {capability}, which this node does not allow; add it to allow_capabilities in the agent's file to allow it"
    )]
    Capability { container: ContainerName, capability: String },
    #[error(
        "container {container} asks for {option}, which this node does not allow; set allow_unconfined = true in the agent's file to allow it"
    )]
    Unconfined { container: ContainerName, option: String },
    #[error(
        "container {container} takes variables from {path}, which this node does not allow; add it to allow_environment_files in the agent's file to allow it"
    )]
    EnvironmentFile { container: ContainerName, path: String },
    #[error(
        "networkMode host is not allowed on this node; set allow_host_namespaces = true in the agent's file to allow it"
    )]
    HostNetwork,
    #[error(
        "{member} host is not allowed on this node; set allow_host_namespaces = true in the agent's file to allow it"
    )]
    HostNamespace { member: &'static str },
    #[error(
        "volume {volume} is the host path {path}, which this node does not allow; add it to allow_host_paths in the agent's file to allow it"
    )]
    HostPath { volume: String, path: String },
    #[error(
        "container {container} asks for log driver {driver}, which this node does not allow; add it to drivers in [logs] of the agent's file to allow it"
    )]
    LogDriver { container: ContainerName, driver: String },
}

/// What the runtime may give to a container of this node.
pub(crate) fn privileges(config: &AgentConfig) -> Privileges {
    Privileges {
        privileged: config.allow_privileged,
        devices: config.allow_devices,
        host_namespaces: config.allow_host_namespaces,
        unconfined: config.allow_unconfined,
        capabilities: config.allow_capabilities.clone(),
    }
}

/// Everything but what only the runtime sees, and where host paths really lead.
pub(crate) fn check(definition: &TaskDefinition, config: &AgentConfig) -> Result<(), Refusal> {
    if definition.network_mode == NetworkMode::Host && !config.allow_host_namespaces {
        return Err(Refusal::HostNetwork);
    }
    let host = [
        ("pidMode", definition.pid_mode == PidMode::Host),
        ("ipcMode", definition.ipc_mode == IpcMode::Host),
    ];
    if let Some((member, _)) = host.into_iter().find(|(_, host)| *host && !config.allow_host_namespaces) {
        return Err(Refusal::HostNamespace { member });
    }
    for container in &definition.container_definitions {
        if container.privileged && !config.allow_privileged {
            return Err(Refusal::Privileged { container: container.name.clone() });
        }
        let driver = container.log_configuration.as_ref().map(|configuration| &configuration.log_driver);
        if let Some(driver) = driver.filter(|driver| !config.logs.drivers.contains(driver)) {
            return Err(Refusal::LogDriver { container: container.name.clone(), driver: driver.clone() });
        }
        let device = container.linux_parameters.iter().flat_map(|linux| &linux.devices).next();
        if let Some(device) = device.filter(|_| !config.allow_devices) {
            return Err(Refusal::Device {
                container: container.name.clone(),
                device: device.host_path.clone(),
            });
        }
        confinement(container, config)?;
        let files = &container.environment_files;
        let outside = |path: &&str| !is_allowed(Path::new(path), &config.allow_environment_files);
        if let Some(path) = files.iter().map(|file| file.value.as_str()).find(outside) {
            let container = container.name.clone();
            return Err(Refusal::EnvironmentFile { container, path: path.to_owned() });
        }
    }
    for volume in &definition.volumes {
        let path =
            volume.host.as_ref().and_then(|host| host.source_path.as_deref()).filter(|path| !path.is_empty());
        if let Some(path) = path.filter(|path| !is_allowed(Path::new(path), &config.allow_host_paths)) {
            return Err(Refusal::HostPath { volume: volume.name.to_string(), path: path.to_owned() });
        }
    }
    Ok(())
}

/// Capabilities and profiles; a privileged container has left them behind.
fn confinement(container: &ContainerDefinition, config: &AgentConfig) -> Result<(), Refusal> {
    let named = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let allowed = &config.allow_capabilities;
    let changes = container.linux_parameters.as_ref().and_then(|linux| linux.capabilities.as_ref());
    let refused = changes.iter().flat_map(|changes| &changes.add).find(|name| {
        !DEFAULT_CAPABILITIES.contains(&name.as_str()) && !named(allowed, "ALL") && !named(allowed, name)
    });
    if let Some(capability) = refused.filter(|_| !container.privileged) {
        let container = container.name.clone();
        return Err(Refusal::Capability { container, capability: capability.clone() });
    }
    let unconfined = |option: &String| {
        matches!(
            SecurityOption::parse(option),
            Ok(SecurityOption::SeccompUnconfined | SecurityOption::AppArmor { profile: "unconfined" })
        )
    };
    match container.docker_security_options.iter().find(|option| unconfined(option)) {
        Some(option) if !config.allow_unconfined => {
            Err(Refusal::Unconfined { container: container.name.clone(), option: option.clone() })
        }
        _ => Ok(()),
    }
}

/// By the text of the path; `..` is never allowed.
fn is_allowed(path: &Path, allowed: &AllowHostPaths) -> bool {
    let plain = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
    plain
        && match allowed {
            AllowHostPaths::All(all) => *all,
            AllowHostPaths::Below(prefixes) => prefixes.iter().any(|prefix| path.starts_with(prefix)),
        }
}

/// Why a host path cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostPathError {
    #[error(
        "host path {path:?} leads to {real:?}, which this node does not allow; add that to {setting} in the agent's file to allow it"
    )]
    LeadsOutside { path: PathBuf, real: PathBuf, setting: &'static str },
    #[error("host path {path:?} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The real directory or file behind a host path, made as a directory when it does not exist (as
/// Docker does), judged again after every symbolic link is followed.
pub(crate) fn resolve_host_path(path: &Path, allowed: &AllowHostPaths) -> Result<PathBuf, HostPathError> {
    let failed = |source| HostPathError::Io { path: path.to_path_buf(), source };
    // The deepest part that exists decides where the rest would be made.
    let existing = path.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let real_existing = existing.canonicalize().map_err(failed)?;
    judge(path, &real_existing.join(path.strip_prefix(existing).unwrap_or(Path::new(""))), allowed)?;
    if !path.exists() {
        std::fs::create_dir_all(path).map_err(failed)?;
    }
    let real = path.canonicalize().map_err(failed)?;
    judge(path, &real, allowed)?;
    Ok(real)
}

/// The real path of a file of variables that is there.
pub(crate) fn existing_file_below(path: &Path, allowed: &AllowHostPaths) -> Result<PathBuf, HostPathError> {
    let setting = "allow_environment_files";
    let outside = |real: &Path| HostPathError::LeadsOutside {
        path: path.to_path_buf(),
        real: real.to_path_buf(),
        setting,
    };
    // By its text first: what is outside is not even looked for.
    if !is_allowed(path, allowed) {
        return Err(outside(path));
    }
    let real =
        path.canonicalize().map_err(|source| HostPathError::Io { path: path.to_path_buf(), source })?;
    if is_below(&real, allowed) { Ok(real) } else { Err(outside(&real)) }
}

fn judge(path: &Path, real: &Path, allowed: &AllowHostPaths) -> Result<(), HostPathError> {
    if is_below(real, allowed) {
        return Ok(());
    }
    let setting = "allow_host_paths";
    Err(HostPathError::LeadsOutside { path: path.to_path_buf(), real: real.to_path_buf(), setting })
}

/// A real path; the prefix may itself be reached through a link, like /var/run.
fn is_below(real: &Path, allowed: &AllowHostPaths) -> bool {
    match allowed {
        AllowHostPaths::All(all) => *all,
        AllowHostPaths::Below(prefixes) => prefixes
            .iter()
            .any(|prefix| real.starts_with(prefix.canonicalize().unwrap_or_else(|_| prefix.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: &str) -> TaskDefinition {
        serde_json::from_str(json).unwrap()
    }

    fn refusal(json: &str) -> String {
        check(&definition(json), &AgentConfig::default()).unwrap_err().to_string()
    }

    #[test]
    fn each_refusal_names_its_setting() {
        let container = |extra: &str| {
            format!(r#"{{"family":"f","containerDefinitions":[{{"name":"a","image":"i"{extra}}}]}}"#)
        };
        assert!(refusal(&container(r#","privileged":true"#)).contains("allow_privileged"));
        let device = r#","linuxParameters":{"devices":[{"hostPath":"/dev/sda"}]}"#;
        assert!(refusal(&container(device)).contains("allow_devices"));
        let driver = r#","logConfiguration":{"logDriver":"syslog"}"#;
        assert!(refusal(&container(driver)).contains("log driver syslog"));
        let journald = r#","logConfiguration":{"logDriver":"journald"}"#;
        assert_eq!(check(&definition(&container(journald)), &AgentConfig::default()), Ok(()));
        let host = r#"{"family":"f","networkMode":"host","containerDefinitions":[{"name":"a","image":"i"}]}"#;
        assert!(refusal(host).contains("allow_host_namespaces"));
        for member in ["pidMode", "ipcMode"] {
            let json = format!(
                r#"{{"family":"f","{member}":"host","containerDefinitions":[{{"name":"a","image":"i"}}]}}"#
            );
            let words = refusal(&json);
            assert!(words.contains(member) && words.contains("allow_host_namespaces"), "{words}");
        }
        let path = r#"{"family":"f","containerDefinitions":[{"name":"a","image":"i"}],"volumes":[{"name":"v","host":{"sourcePath":"/etc"}}]}"#;
        assert!(refusal(path).contains("allow_host_paths"));
        let capability = r#","linuxParameters":{"capabilities":{"add":["CHOWN","SYS_PTRACE"]}}"#;
        assert!(refusal(&container(capability)).contains("allow_capabilities"));
        let unconfined = r#","dockerSecurityOptions":["no-new-privileges","seccomp=unconfined"]"#;
        assert!(refusal(&container(unconfined)).contains("allow_unconfined"));
        let file = r#","environmentFiles":[{"value":"/etc/a.env","type":"file"}]"#;
        assert!(refusal(&container(file)).contains("allow_environment_files"));
        assert_eq!(check(&definition(&container("")), &AgentConfig::default()), Ok(()));
    }

    #[test]
    fn prefixes_are_whole_names_and_dots_do_not_help() {
        let allowed = AllowHostPaths::Below(vec!["/srv".into()]);
        assert!(is_allowed(Path::new("/srv/a"), &allowed) && is_allowed(Path::new("/srv"), &allowed));
        assert!(!is_allowed(Path::new("/srvx"), &allowed) && !is_allowed(Path::new("/srv/../etc"), &allowed));
        assert!(!is_allowed(Path::new("srv"), &AllowHostPaths::All(true)));
    }

    #[test]
    fn a_link_out_of_the_allowed_directory_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (inside, outside) = (root.join("in"), root.join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let allowed = AllowHostPaths::Below(vec![inside.clone()]);
        assert!(matches!(
            resolve_host_path(&inside.join("link"), &allowed),
            Err(HostPathError::LeadsOutside { .. })
        ));
        assert!(matches!(
            resolve_host_path(&inside.join("link/new"), &allowed),
            Err(HostPathError::LeadsOutside { .. })
        ));
        assert!(!outside.join("new").exists());
        assert_eq!(resolve_host_path(&inside.join("a/b"), &allowed).unwrap(), inside.join("a/b"));
    }
}
