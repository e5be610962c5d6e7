//! Volumes: which directory of the node a container sees where (`plan`, pure), and the directories
//! themselves: `<data_dir>/volumes/task/<task>/<name>` and `<data_dir>/volumes/shared/<name>`.
//! A fresh managed volume gets what the image has at the place it is mounted (owner and mode too)
//! under a temporary name first, so that a half-filled one is never seen.
//! In: definition, images, root file systems. Out: mounts a container. Owns those directories.
//! Never: deletes a shared volume, or anything behind a host path.

mod plan;

pub(crate) use plan::Mounts;
use plan::{PlannedMount, Source};

use super::TaskContext;
use super::prepare::{Failure, Images};
use crate::errors::{Cause, chain};
use crate::facilities::Mount;
use crate::policy;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::MappedIds;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// `<data_dir>/volumes`.
pub(crate) fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("volumes")
}

/// Makes what is missing and says what to mount. One volume after the other: two containers may
/// share one, and the first in the definition's order fills it.
pub(super) async fn prepare(
    context: &TaskContext,
    task: &TaskId,
    definition: &TaskDefinition,
    images: &Images,
    mapped: Option<&MappedIds>,
) -> Result<BTreeMap<ContainerName, Mounts>, Failure> {
    let configs = images.images.iter().map(|(name, image)| (name.clone(), &image.config)).collect();
    let planned = plan::plan(definition, &configs);
    let mut all: BTreeMap<ContainerName, Mounts> = BTreeMap::new();
    for mount in planned {
        let source = make(context, task, &mount, &images.rootfs, mapped).await.map_err(|error| {
            let text =
                format!("{} of container {}: {}", mount.source, mount.container, chain(error.as_ref()));
            Failure::words("ResourceInitializationError", text)
        })?;
        let made = Mount { source, destination: mount.destination, read_only: mount.read_only };
        all.entry(mount.container).or_default().push(made);
    }
    Ok(all)
}

async fn make(
    context: &TaskContext,
    task: &TaskId,
    mount: &PlannedMount,
    rootfs: &BTreeMap<ContainerName, PathBuf>,
    mapped: Option<&MappedIds>,
) -> Result<PathBuf, Cause> {
    let root = root(&context.config.data_dir);
    let dir = match &mount.source {
        Source::Host { path, .. } => {
            return Ok(policy::resolve_host_path(Path::new(path), &context.config.allow_host_paths)?);
        }
        Source::Task { name } => root.join("task").join(task.as_str()).join(name),
        Source::Shared { name, autoprovision } => {
            let dir = root.join("shared").join(name);
            if !autoprovision && !dir.is_dir() {
                return Err(format!("the shared volume does not exist on this node and autoprovision is off; make the directory {} or turn it on", dir.display()).into());
            }
            dir
        }
    };
    if !dir.is_dir() {
        let from = rootfs.get(&mount.seed_from).map(|rootfs| (rootfs.as_path(), mount.seed_path.as_str()));
        fresh(context, &dir, from, mapped).await?;
    }
    Ok(dir)
}

/// Made whole under another name, then renamed.
async fn fresh(
    context: &TaskContext,
    dir: &Path,
    from: Option<(&Path, &str)>,
    mapped: Option<&MappedIds>,
) -> Result<(), Cause> {
    let parent = dir.parent().ok_or("a volume without a directory")?;
    let name = dir.file_name().ok_or("a volume without a name")?.to_string_lossy();
    // Two tasks may make one shared volume at a time: each has its own name for the new one.
    let new = parent.join(format!(".new-{name}-{:016x}", unique()));
    // Nobody but root gets to what volumes hold; the volume itself is open to its containers' users.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root(&context.config.data_dir))?;
    std::fs::create_dir_all(&new)?;
    let mut result = Ok(());
    if let Some((rootfs, path)) = from {
        result = context.facilities.image.seed_volume(rootfs, path, &new, mapped).await;
    }
    if result.is_ok() {
        result = match std::fs::rename(&new, dir) {
            // Somebody else was first; theirs is as good.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                remove_tree(new.clone()).await
            }
            other => other.map_err(Cause::from),
        };
    }
    if result.is_err() {
        remove_tree(new).await?;
    }
    result
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    crate::time::unix_ms().wrapping_shl(16) ^ COUNT.fetch_add(1, Ordering::Relaxed)
}

/// Removes the volumes that live as long as the task.
pub(super) async fn remove_task_scoped(context: &TaskContext, task: &TaskId) -> Result<(), Cause> {
    remove_tree(root(&context.config.data_dir).join("task").join(task.as_str())).await
}

/// Never follows a symbolic link; what is not there is removed already.
async fn remove_tree(dir: PathBuf) -> Result<(), Cause> {
    if !dir.try_exists().unwrap_or(true) {
        return Ok(());
    }
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&dir)).await;
    match removed.map_err(Cause::from)? {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
