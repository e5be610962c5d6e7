//! The runtime of a node: opens the cgroup tree, starts and adopts shims, writes bundles, removes
//! what a task leaves. In: configuration, task ids. Out: handles; errors that say what is missing.
//! Owns no task of its own. Every operation may be repeated.
//! Never: decides; remembers: what is on disk and in the kernel is the truth.

mod adjust;
mod adopt;
mod launch;
pub(crate) mod namespaces;
mod teardown;

pub use adjust::AdjustError;
pub use adopt::{AdoptError, Adopted};
pub use launch::StartShimError;
pub(crate) use launch::private_directory;
pub use namespaces::{ShareError, SharedNamespaces};
pub use teardown::RemoveError;

use crate::bundle::{self, Bundle, BundleError, BundleRequest, OpenBundleError, seccomp};
use crate::cgroup::stats::ContainerStats;
use crate::cgroup::{CgroupError, TaskUsage};
use crate::config::{RuntimeConfig, attainable_nofile};
use crate::spec;
use lighter_model::ids::{ContainerName, TaskId};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the runtime cannot work on this machine.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is not an executable file; is Lighter installed completely?")]
    NoProgram { path: PathBuf },
    #[error("cannot make {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("the seccomp profile cannot be compiled")]
    Seccomp(#[source] io::Error),
    #[error("cgroups are not usable")]
    Cgroup(#[source] CgroupError),
}

/// The runtime of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    config: Arc<RuntimeConfig>,
    controllers: Vec<String>,
}

impl Runtime {
    /// Checks the binaries, makes the directories and the cgroup tree. Blocks; for start-up.
    pub fn open(mut config: RuntimeConfig) -> Result<Self, OpenError> {
        for path in [&config.shim_path, &config.oci_path] {
            if !path.is_file() {
                return Err(OpenError::NoProgram { path: path.clone() });
            }
        }
        for path in [config.tasks_dir(), config.log_dir.clone(), config.seccomp_dir()] {
            launch::private_directory(&path).map_err(|source| OpenError::Directory { path, source })?;
        }
        config.nofile_default = attainable_nofile(config.nofile_default);
        let controllers = config.cgroup.prepare().map_err(OpenError::Cgroup)?;
        let default = seccomp::DEFAULT;
        seccomp::compile(&config, default, &spec::default_seccomp()).map_err(OpenError::Seccomp)?;
        Ok(Self { config: Arc::new(config), controllers })
    }

    pub fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// The cgroup controllers in force for tasks.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Writes config.json for a container. Blocks for well under a millisecond.
    pub fn write_bundle(&self, request: &BundleRequest<'_>) -> Result<Bundle, BundleError> {
        bundle::write(&self.config, request)
    }

    /// The bundle of a container that an earlier agent wrote.
    pub fn open_bundle(&self, task: &TaskId, container: &ContainerName) -> Result<Bundle, OpenBundleError> {
        bundle::open(&self.config, task, container)
    }

    /// What a task uses now. Reads a few files of the kernel.
    pub fn task_usage(&self, task: &TaskId) -> TaskUsage {
        self.config.cgroup.task_usage(task)
    }

    /// What a container, or with `None` the whole task, has used; `None` when it has no cgroup.
    /// Reads a dozen files of the kernel: some tens of microseconds.
    pub fn stats(&self, task: &TaskId, container: Option<&ContainerName>) -> Option<ContainerStats> {
        match container {
            Some(container) => self.config.cgroup.container_stats(task, container),
            None => self.config.cgroup.task_stats(task),
        }
    }

    /// Every task that has a directory or a cgroup here, sorted.
    pub fn list_tasks_on_disk(&self) -> Vec<TaskId> {
        let entries = std::fs::read_dir(self.config.tasks_dir()).into_iter().flatten().flatten();
        let mut tasks: Vec<TaskId> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        tasks.extend(self.config.cgroup.tasks());
        tasks.sort();
        tasks.dedup();
        tasks
    }
}
