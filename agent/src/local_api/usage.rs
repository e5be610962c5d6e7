//! What is on the disk, and removing what nobody uses: images by the image crate, volumes here.
//! In: the tasks of this node. Out: rows; what was removed.
//! Owns nothing. Never: removes a shared volume that a task of this node names, or anything else
//! than images and, when asked, shared volumes.

use crate::errors::Cause;
use crate::facilities::{PrunedImages, UsageRow};
use crate::image_cleanup;
use crate::reconcile::LocalTask;
use crate::task::{TaskContext, volumes};
use lighter_model::task_definition::VolumeScope;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a prune removed.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub images: PrunedImages,
    pub volumes: u64,
    pub volume_bytes: u64,
}

pub(super) async fn rows(context: &TaskContext, tasks: &[LocalTask]) -> Result<Vec<UsageRow>, Cause> {
    let mut rows = context.facilities.image.usage(&image_cleanup::in_use(tasks)).await?;
    let root = volumes::root(&context.config.data_dir);
    let logs = context.config.log_dir();
    let used = named_volumes(tasks);
    let held: BTreeSet<String> = tasks.iter().map(|task| task.assignment.task.to_string()).collect();
    let counted = tokio::task::spawn_blocking(move || {
        let volumes = volume_row(&root, &used);
        [volumes, log_row(&logs, &held)]
    });
    rows.extend(counted.await?);
    Ok(rows)
}

fn volume_row(root: &Path, used: &BTreeSet<String>) -> UsageRow {
    let mut row = UsageRow { kind: "volumes", ..UsageRow::default() };
    for task in entries(&root.join("task")) {
        let volumes = entries(&task).len() as u64;
        (row.count, row.in_use) = (row.count + volumes, row.in_use + volumes);
        row.bytes += size(&task);
    }
    for volume in entries(&root.join("shared")) {
        let bytes = size(&volume);
        row.count += 1;
        row.bytes += bytes;
        if name(&volume).is_some_and(|name| used.contains(&name)) {
            row.in_use += 1
        } else {
            row.reclaimable_bytes += bytes
        }
    }
    row
}

/// Logs of tasks this node no longer holds go when the disk fills (`image_cleanup`).
fn log_row(logs: &Path, held: &BTreeSet<String>) -> UsageRow {
    let mut row = UsageRow { kind: "logs", ..UsageRow::default() };
    for task in entries(logs) {
        let bytes = size(&task);
        row.count += 1;
        row.bytes += bytes;
        if name(&task).is_some_and(|name| held.contains(&name)) {
            row.in_use += 1;
        } else {
            row.reclaimable_bytes += bytes;
        }
    }
    row
}

pub(super) async fn prune(
    context: &TaskContext,
    tasks: &[LocalTask],
    with_volumes: bool,
) -> Result<Pruned, Cause> {
    let images = context.facilities.image.prune(&image_cleanup::in_use(tasks)).await?;
    let mut pruned = Pruned { images, ..Pruned::default() };
    if with_volumes {
        let shared = volumes::root(&context.config.data_dir).join("shared");
        let used = named_volumes(tasks);
        let removed = tokio::task::spawn_blocking(move || remove_volumes(&shared, &used)).await?;
        (pruned.volumes, pruned.volume_bytes) = removed?;
    }
    Ok(pruned)
}

fn remove_volumes(shared: &Path, used: &BTreeSet<String>) -> Result<(u64, u64), Cause> {
    let (mut count, mut bytes) = (0, 0);
    for volume in entries(shared) {
        let Some(name) = name(&volume).filter(|name| !used.contains(name) && !name.starts_with('.')) else {
            continue;
        };
        let size = size(&volume);
        // Out of sight at once: a task that comes meanwhile makes a fresh one.
        let going = shared.join(format!(".gone-{name}"));
        std::fs::rename(&volume, &going)?;
        std::fs::remove_dir_all(&going)?;
        (count, bytes) = (count + 1, bytes + size);
    }
    Ok((count, bytes))
}

/// Shared volumes that tasks of this node name.
fn named_volumes(tasks: &[LocalTask]) -> BTreeSet<String> {
    let volumes =
        tasks.iter().filter_map(|task| task.definition.as_ref()).flat_map(|definition| &definition.volumes);
    let shared = volumes.filter(|v| {
        v.docker_volume_configuration.as_ref().is_some_and(|docker| docker.scope == VolumeScope::Shared)
    });
    shared.map(|volume| volume.name.to_string()).collect()
}

fn name(path: &Path) -> Option<String> {
    path.file_name()?.to_str().map(str::to_owned)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Bytes of the files below, links not followed.
fn size(dir: &Path) -> u64 {
    let Ok(meta) = dir.symlink_metadata() else { return 0 };
    if meta.is_dir() { entries(dir).iter().map(|entry| size(entry)).sum() } else { meta.len() }
}
