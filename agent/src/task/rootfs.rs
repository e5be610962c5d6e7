//! Row 6: a writable root file system for each container, all at once.
//! The snapshot's key is (task, container): the assignment's record, durable before any of this,
//! names it. In: images. Out: a directory each, or why not. Owns nothing; removed by `teardown`.
//! Never: mounts; that is the image crate's.

use super::TaskContext;
use super::prepare::Failure;
use crate::errors::chain;
use crate::facilities::Image;
use futures_util::future::join_all;
use lighter_model::ids::{AttachmentKey, ContainerName, TaskId};
use lighter_runtime::MappedIds;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `<run_dir>/rootfs/<task>`: where the root file systems of a task are mounted.
pub(crate) fn dir_of(context: &TaskContext, task: &TaskId) -> PathBuf {
    context.config.run_dir.join("rootfs").join(task.as_str())
}

pub(super) async fn prepare_all(
    context: &TaskContext,
    task: &TaskId,
    images: &BTreeMap<ContainerName, Image>,
    mapped: Option<&MappedIds>,
) -> BTreeMap<ContainerName, Result<PathBuf, Failure>> {
    let dir = dir_of(context, task);
    let each = images.iter().map(|(name, image)| {
        let dir = dir.join(name.as_str());
        async move {
            let key = AttachmentKey::new(task.clone(), name.clone());
            let made = context.facilities.image.prepare_rootfs(&key, image, &dir, mapped).await;
            let made = made.map(|_| dir).map_err(|error| {
                Failure::words(
                    "CannotCreateContainerError",
                    format!("container {name}: {}", chain(error.as_ref())),
                )
            });
            (name.clone(), made)
        }
    });
    // Every one is awaited, also when another fails: teardown must find nothing under way.
    join_all(each).await.into_iter().collect()
}
