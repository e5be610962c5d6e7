//! What tasks may ask of this node (decision 15): its own file decides, never the control plane.
//! In: a definition and the `allow_*` settings. Out: yes, or which setting forbids it.
//! Owns nothing; pure but for `resolve_host_path`, which follows symbolic links before it judges.
//! Never: widens what the file says.

use crate::config::{AgentConfig, AllowHostPaths};
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::{NetworkMode, TaskDefinition};
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
    #[error("container {container} asks for {member}, which this agent does not do yet")]
    NotYet { container: ContainerName, member: &'static str },
    #[error(
        "networkMode host is not allowed on this node; set allow_host_namespaces = true in the agent's file to allow it"
    )]
    HostNetwork,
    #[error(
        "volume {volume} is the host path {path}, which this node does not allow; add it to allow_host_paths in the agent's file to allow it"
    )]
    HostPath { volume: String, path: String },
}

/// Everything but where host paths really lead.
pub(crate) fn check(definition: &TaskDefinition, config: &AgentConfig) -> Result<(), Refusal> {
    if definition.network_mode == NetworkMode::Host && !config.allow_host_namespaces {
        return Err(Refusal::HostNetwork);
    }
    for container in &definition.container_definitions {
        for (asked, member) in [
            (!container.depends_on.is_empty(), "dependsOn"),
            (container.health_check.is_some(), "healthCheck"),
            (container.restart_policy.is_some(), "restartPolicy"),
        ] {
            if asked {
                return Err(Refusal::NotYet { container: container.name.clone(), member });
            }
        }
        if container.privileged && !config.allow_privileged {
            return Err(Refusal::Privileged { container: container.name.clone() });
        }
        let device = container.linux_parameters.iter().flat_map(|linux| &linux.devices).next();
        if let Some(device) = device.filter(|_| !config.allow_devices) {
            return Err(Refusal::Device {
                container: container.name.clone(),
                device: device.host_path.clone(),
            });
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
        "host path {path:?} leads to {real:?}, which this node does not allow; add that to allow_host_paths in the agent's file to allow it"
    )]
    LeadsOutside { path: PathBuf, real: PathBuf },
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

fn judge(path: &Path, real: &Path, allowed: &AllowHostPaths) -> Result<(), HostPathError> {
    let outside = || HostPathError::LeadsOutside { path: path.to_path_buf(), real: real.to_path_buf() };
    match allowed {
        AllowHostPaths::All(true) => Ok(()),
        AllowHostPaths::All(false) => Err(outside()),
        AllowHostPaths::Below(prefixes) => {
            // The prefix may itself be reached through a link, like /var/run.
            let inside = prefixes
                .iter()
                .any(|prefix| real.starts_with(prefix.canonicalize().unwrap_or_else(|_| prefix.clone())));
            if inside { Ok(()) } else { Err(outside()) }
        }
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
        let host = r#"{"family":"f","networkMode":"host","containerDefinitions":[{"name":"a","image":"i"}]}"#;
        assert!(refusal(host).contains("allow_host_namespaces"));
        let path = r#"{"family":"f","containerDefinitions":[{"name":"a","image":"i"}],"volumes":[{"name":"v","host":{"sourcePath":"/etc"}}]}"#;
        assert!(refusal(path).contains("allow_host_paths"));
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
