//! What the containers of a task share: a pid namespace, an ipc namespace with its /dev/shm.
//! In: a task whose cgroups are there. Out: `<task directory>/namespaces/{pid,ipc,shm}`, all mounts;
//! a process that stays in the pid namespace, in a cgroup of its own below the task's.
//! Owns nothing here; `remove_task` takes it away. Repeating it changes nothing.
//! Never: enters a namespace; `lighter-shim namespaces` makes them.

use super::{Runtime, launch};
use crate::cgroup::CgroupError;
use crate::config::RuntimeConfig;
use lighter_model::ids::TaskId;
use lighter_model::task_definition::{IpcMode, PidMode, TaskDefinition};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Docker's size of /dev/shm.
pub(crate) const SHARED_MEMORY_MIB: u64 = 64;

/// Which namespaces the containers of a task share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedNamespaces {
    pub pid: bool,
    /// The size of the common /dev/shm.
    pub ipc_shared_memory_mib: Option<u64>,
}

impl SharedNamespaces {
    /// What a definition asks for. /dev/shm is as large as the largest that a container asks for.
    pub fn of(definition: &TaskDefinition) -> Self {
        let containers = definition.container_definitions.iter();
        let sizes = containers.filter_map(|c| c.linux_parameters.as_ref()?.shared_memory_mib);
        let largest = sizes.max().filter(|mib| *mib > 0).unwrap_or(SHARED_MEMORY_MIB);
        Self {
            pid: definition.pid_mode == PidMode::Task,
            ipc_shared_memory_mib: (definition.ipc_mode == IpcMode::Task).then_some(largest),
        }
    }
}

/// Why a task has no namespaces to share.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("cannot make {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the cgroup for the task's pid namespace cannot be made")]
    Cgroup(#[source] CgroupError),
    #[error("cannot mount {path}")]
    Mount { path: PathBuf, source: io::Error },
    #[error("cannot run {path}")]
    Spawn { path: PathBuf, source: io::Error },
    #[error("lighter-shim could not make the task's namespaces: {message}")]
    Refused { message: String },
}

impl Runtime {
    /// Makes what is wanted and not there yet; to be called after `start_shim`.
    pub async fn share_namespaces(&self, task: &TaskId, wanted: SharedNamespaces) -> Result<(), ShareError> {
        let directory = self.config.namespaces_dir(task);
        if wanted == SharedNamespaces::default() || directory.exists() {
            return Ok(());
        }
        // Under another name until all is there: a half-made one is never taken for whole.
        let unfinished = directory.with_extension("new");
        clear(&unfinished);
        launch::private_directory(&unfinished)
            .map_err(|source| ShareError::Directory { path: unfinished.clone(), source })?;
        if let Some(mib) = wanted.ipc_shared_memory_mib {
            shared_memory(&unfinished.join("shm"), mib)?;
        }
        self.hold(task, &unfinished, wanted).await?;
        // A mount moves with the directory it is in.
        std::fs::rename(&unfinished, &directory)
            .map_err(|source| ShareError::Directory { path: directory, source })
    }

    async fn hold(
        &self,
        task: &TaskId,
        directory: &Path,
        wanted: SharedNamespaces,
    ) -> Result<(), ShareError> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments = vec!["--dir".to_owned(), text(directory)];
        if wanted.pid {
            arguments.push("--pid".to_owned());
            for cgroup in self.config.cgroup.create_holder(task).map_err(ShareError::Cgroup)? {
                arguments.extend(["--cgroup".to_owned(), text(&cgroup)]);
            }
        }
        if wanted.ipc_shared_memory_mib.is_some() {
            arguments.push("--ipc".to_owned());
        }
        if self.config.ids_of(task).is_some() {
            arguments.extend(["--join-user".to_owned(), text(&self.config.user_namespace(task))]);
        }
        run_helper(&self.config, &arguments).await
    }
}

/// `lighter-shim namespaces`, to its end.
pub(crate) async fn run_helper(config: &RuntimeConfig, arguments: &[String]) -> Result<(), ShareError> {
    let path = &config.shim_path;
    let mut command = Command::new(path);
    command.arg("namespaces").args(arguments);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().await.map_err(|source| ShareError::Spawn { path: path.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(ShareError::Refused { message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

fn shared_memory(path: &Path, mib: u64) -> Result<(), ShareError> {
    let failed = |source| ShareError::Mount { path: path.to_path_buf(), source };
    std::fs::create_dir(path).map_err(failed)?;
    let options = CString::new(format!("mode=1777,size={mib}m")).map_err(|error| failed(error.into()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", path, "tmpfs", flags, options.as_c_str()).map_err(|error| failed(error.into()))
}

/// Unmounts and removes what `share_namespaces` made in a directory. What is not there is no error;
/// what remains is found by the removal of the task's directory.
pub(super) fn clear(directory: &Path) {
    for name in ["pid", "ipc", "shm"] {
        let path = directory.join(name);
        if path.exists() {
            // EINVAL: it is no mount.
            let _ = unmount(&path, UnmountFlags::DETACH);
        }
    }
    let _ = std::fs::remove_dir_all(directory);
}

#[cfg(test)]
mod tests {
    use super::SharedNamespaces;

    #[test]
    fn shared_memory_is_as_large_as_the_largest() {
        let of = |task: &str, size: &str| {
            let json = format!(
                r#"{{"family":"f",{task}"containerDefinitions":[{{"name":"a","image":"i","linuxParameters":{{"sharedMemorySize":{size}}}}},{{"name":"b","image":"i"}}]}}"#
            );
            SharedNamespaces::of(&serde_json::from_str(&json).unwrap())
        };
        assert_eq!(of("", "128"), SharedNamespaces::default());
        let task = SharedNamespaces { pid: true, ipc_shared_memory_mib: Some(128) };
        assert_eq!(of(r#""pidMode":"task","ipcMode":"task","#, "128"), task);
        assert_eq!(of(r#""ipcMode":"task","#, "0").ipc_shared_memory_mib, Some(64));
        assert_eq!(of(r#""pidMode":"host","ipcMode":"host","#, "0"), SharedNamespaces::default());
    }
}
