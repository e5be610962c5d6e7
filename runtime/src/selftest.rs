//! Proves that containers are confined on this machine, by running lighter-shim's own `self-test`
//! as a container in an otherwise empty root file system and reading what it could do.
//! In: a directory to work in. Out: `SelfTestReport`; `problems()` is empty on a sound machine.
//! Never: leaves the container or its task behind.

mod report;

pub use report::{DeviceRules, SelfTestReport};

use crate::bundle::{BundleError, BundleRequest};
use crate::cgroup::TaskLimits;
use crate::handle::{RequestError, ShimEvent, ShimHandle, StartError};
use crate::logs::{self, LogOptions};
use crate::runtime::{RemoveError, Runtime, StartShimError};
use crate::spec::{BindMount, Privileges};
use lighter_model::ids::TaskId;
use lighter_model::image_config::ImageConfig;
use lighter_model::task_definition::TaskDefinition;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the self-test could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error("cannot prepare {path} for the self-test")]
    Prepare { path: PathBuf, source: io::Error },
    #[error("the self-test's bundle cannot be made")]
    Bundle(#[source] BundleError),
    #[error("the self-test's shim does not start")]
    Shim(#[source] StartShimError),
    #[error("the self-test's container does not start")]
    Start(#[source] StartError),
    #[error("the self-test's container did not end within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the self-test's container cannot be followed")]
    Request(#[source] RequestError),
    #[error("the self-test's output cannot be read")]
    Output(#[source] io::Error),
    #[error("the self-test leaves something behind")]
    Remove(#[source] RemoveError),
}

/// Far more than the few milliseconds it takes; an emulated machine is slow.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The definition the self-test runs with: defaults, except for small limits.
const DEFINITION: &str = r#"{
    "family": "lighter-self-test",
    "networkMode": "none",
    "containerDefinitions": [{
        "name": "self-test", "image": "none", "cpu": 256, "memory": 64,
        "entryPoint": ["/lighter-shim", "self-test"], "readonlyRootFilesystem": true
    }]
}"#;

impl Runtime {
    /// Runs the self-test in `work_dir/<task>`, which it makes and removes. `task` is an id that
    /// is used for nothing else.
    pub async fn self_test(&self, task: &TaskId, work_dir: &Path) -> Result<SelfTestReport, SelfTestError> {
        let rootfs = work_dir.join(task.as_str());
        let result = self.run_self_test(task, &rootfs).await;
        let removed = self.remove_task(task).await;
        // Leftovers of a directory in /tmp are no reason to fail.
        let _ = fs::remove_dir_all(&rootfs);
        let _ = self.remove_logs(task);
        let lines = result?;
        removed.map_err(SelfTestError::Remove)?;
        Ok(SelfTestReport::new(&lines, self.controllers(), self.config().cgroup.cannot_enforce()))
    }

    async fn run_self_test(&self, task: &TaskId, rootfs: &Path) -> Result<Vec<String>, SelfTestError> {
        self.prepare_rootfs(rootfs)
            .map_err(|source| SelfTestError::Prepare { path: rootfs.to_owned(), source })?;
        let mut definition: TaskDefinition =
            serde_json::from_str(DEFINITION).map_err(|error| SelfTestError::Output(error.into()))?;
        if let Some((major, minor)) = report::block_device() {
            let words = ["--block".to_owned(), format!("{major}:{minor}")];
            definition.container_definitions[0].entry_point.extend(words);
        }
        let bundle = self
            .write_bundle(&BundleRequest {
                task,
                container: &definition.container_definitions[0],
                definition: &definition,
                image: &ImageConfig::default(),
                rootfs,
                netns: None,
                hostname: "self-test",
                mounts: self.library_mounts(rootfs),
                environment_files: Vec::new(),
                granted_devices: Vec::new(),
                env_extra: Vec::new(),
                privileges: Privileges::default(),
            })
            .map_err(SelfTestError::Bundle)?;
        let handle = self.start_shim(task, TaskLimits::default()).await.map_err(SelfTestError::Shim)?;
        let mut events = handle.events();
        handle.start_container(&bundle).await.map_err(SelfTestError::Start)?;
        tokio::time::timeout(TIMEOUT, ended(&handle, &mut events))
            .await
            .map_err(|_| SelfTestError::Timeout)??;
        let name = &definition.container_definitions[0].name;
        let mut log = logs::read(&self.config().task_log_dir(task), name, LogOptions::default())
            .map_err(SelfTestError::Output)?;
        let mut lines = Vec::new();
        while let Some(line) = log.next().await.map_err(SelfTestError::Output)? {
            lines.push(String::from_utf8_lossy(&line.text).into_owned());
        }
        Ok(lines)
    }

    fn prepare_rootfs(&self, rootfs: &Path) -> io::Result<()> {
        fs::create_dir_all(rootfs)?;
        fs::copy(&self.config().shim_path, rootfs.join("lighter-shim"))?;
        for directory in ["proc", "dev", "sys"] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        for directory in LIBRARIES.iter().filter(|directory| Path::new(directory).is_dir()) {
            fs::create_dir_all(rootfs.join(directory.trim_start_matches('/')))?;
        }
        Ok(())
    }

    /// A shim of a development build is linked dynamically and needs the host's libraries.
    fn library_mounts(&self, _: &Path) -> Vec<BindMount> {
        let present = LIBRARIES.iter().filter(|directory| Path::new(directory).is_dir());
        present
            .map(|directory| BindMount {
                source: PathBuf::from(directory),
                destination: (*directory).to_owned(),
                read_only: true,
                mapped: false,
            })
            .collect()
    }
}

const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

async fn ended(
    handle: &ShimHandle,
    events: &mut tokio::sync::broadcast::Receiver<ShimEvent>,
) -> Result<(), SelfTestError> {
    loop {
        match events.recv().await {
            Ok(ShimEvent::Exited { .. }) => return Ok(()),
            // It has none.
            Ok(ShimEvent::LeaseOver) => {}
            Ok(ShimEvent::Disconnected) => return Err(SelfTestError::Request(RequestError::Disconnected)),
            Err(_) => {
                let status = handle.status().await.map_err(SelfTestError::Request)?;
                if status.containers.iter().all(|container| container.exit.is_some()) {
                    return Ok(());
                }
            }
        }
    }
}
