//! Removes images that nobody uses when the disk fills, and makes room for a pull that waits for it;
//! when images are not enough, the logs of tasks that are gone, oldest first.
//! In: the tasks of this node, the disk's marks (`images.*` of the configuration). Out: removed images.
//! Owns: one tokio task that looks at the disk every `images.cleanup_interval_s`.
//! Never: removes the image of a task this node holds and that has not stopped; the store itself never
//! removes what a container or a running pull stands on.

use crate::errors::{Cause, chain};
use crate::facilities::{ImagesInUse, PrunedImages};
use crate::log_retention;
use crate::reconcile::{CoreInput, LocalTask};
use crate::task::TaskContext;
use crate::time::sleep;
use lighter_model::status::TaskStatus;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Looks at the disk now and then, until the agent leaves.
pub(crate) async fn run(context: Arc<TaskContext>) {
    let every = Duration::from_secs(context.config.images.cleanup_interval_s);
    loop {
        tokio::select! {
            () = context.leaving.cancelled() => return,
            () = sleep(every) => {}
        }
        if context.config.images.cleans_up()
            && let Err(error) = look(&context).await
        {
            tracing::warn!(cause = %chain(error.as_ref()), "cleaning up images failed; it is tried again");
        }
    }
}

async fn look(context: &TaskContext) -> Result<(), Cause> {
    let Some(tasks) = tasks(context).await else { return Ok(()) };
    let removed = context.facilities.image.clean_up(&in_use(&tasks), 0).await?;
    told(&removed);
    let log_dir = context.config.log_dir();
    if removed.short_bytes > 0 && same_disk(&log_dir, &context.config.data_dir) {
        let held = tasks.into_iter().map(|task| task.assignment.task).collect();
        log_retention::make_room(log_dir, held, removed.short_bytes).await;
    }
    Ok(())
}

/// Makes room for a pull, if that is wanted and possible; whether it is enough the next try tells.
pub(crate) async fn make_room(context: &TaskContext, bytes: u64) {
    if !context.config.images.cleans_up() {
        return;
    }
    let Some(tasks) = tasks(context).await else { return };
    match context.facilities.image.clean_up(&in_use(&tasks), bytes).await {
        Ok(removed) => told(&removed),
        Err(error) => tracing::warn!(cause = %chain(error.as_ref()), "making room for an image failed"),
    }
}

fn told(removed: &PrunedImages) {
    if removed.layers > 0 {
        let PrunedImages { images, layers, bytes, short_bytes } = removed;
        tracing::info!(images, layers, bytes, short_bytes, "images that nobody used are removed");
    }
}

/// The tasks of this node; `None` when the agent leaves.
pub(crate) async fn tasks(context: &TaskContext) -> Option<Vec<LocalTask>> {
    let (answer, got) = oneshot::channel();
    context.reconciler.send(CoreInput::LocalTasks { answer }).await.ok()?;
    got.await.ok()
}

/// What tasks that have not stopped run, or will run once they are prepared. Pure.
pub(crate) fn in_use(tasks: &[LocalTask]) -> ImagesInUse {
    let mut used = ImagesInUse::default();
    let stopped = |task: &&LocalTask| task.report.as_ref().is_some_and(|r| r.status == TaskStatus::Stopped);
    for task in tasks.iter().filter(|task| !stopped(task)) {
        let containers = task.definition.iter().flat_map(|definition| &definition.container_definitions);
        used.references.extend(containers.map(|container| container.image.clone()));
        used.digests.extend(task.assignment.image_digests.values().cloned());
        let reported = task.report.iter().flat_map(|report| &report.containers);
        used.digests.extend(reported.filter_map(|container| container.image_digest.clone()));
    }
    used
}

fn same_disk(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.dev() == other.dev(),
        _ => false,
    }
}
