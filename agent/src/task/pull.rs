//! Row 5: pulls the images of all containers, each image once.
//! In: the definition. Out: an `Image` a container, or CannotPullContainerError. May be dropped at
//! any await: what was fetched stays and the next pull goes on from there.
//! Owns nothing. Never: retries what a retry cannot help, or retries for ever.

use super::TaskContext;
use super::prepare::Failure;
use crate::errors::chain;
use crate::facilities::{Image, PullFailure};
use crate::time::sleep;
use futures_util::future::try_join_all;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::TaskDefinition;
use lighter_model::wait::WaitKind;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Tries of one pull; the image crate has already retried each of its requests.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// `cached`: an earlier agent had pulled them already.
pub(super) async fn pull_all(
    context: &TaskContext,
    task: &TaskId,
    definition: &TaskDefinition,
    cached: bool,
) -> Result<BTreeMap<ContainerName, Image>, Failure> {
    let references: BTreeSet<&str> =
        definition.container_definitions.iter().map(|c| c.image.as_str()).collect();
    let pulls = references.into_iter().map(|reference| async move {
        let image = pull_one(context, task, reference, cached).await?;
        Ok::<_, Failure>((reference, image))
    });
    let images: BTreeMap<&str, Image> = try_join_all(pulls).await?.into_iter().collect();
    let containers = definition.container_definitions.iter();
    Ok(containers.filter_map(|c| Some((c.name.clone(), images.get(c.image.as_str())?.clone()))).collect())
}

async fn pull_one(
    context: &TaskContext,
    task: &TaskId,
    reference: &str,
    cached: bool,
) -> Result<Image, Failure> {
    let watch = context.pulls.watcher(task, reference);
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let failure = match context.facilities.image.pull(reference, cached, watch.clone()).await {
            Ok(image) => return Ok(image),
            Err(failure) => failure,
        };
        if !failure.retriable || attempt >= ATTEMPTS {
            return Err(cannot_pull(&failure));
        }
        tracing::warn!(%task, attempt, cause = %chain(&failure), "the pull failed; trying again");
        let what = format!("the next try of pulling {reference}: {}", chain(&failure));
        let log = context.telemetry.task(task);
        log.wait(WaitKind::PullRetry, None, what, Some(pause), "the next try, or an order to stop");
        sleep(pause).await;
        log.wait_over(WaitKind::PullRetry, None);
        pause *= 2;
    }
    // `1..` has no end that is reached.
    Err(Failure::words("CannotPullContainerError", "no attempt was made"))
}

fn cannot_pull(failure: &PullFailure) -> Failure {
    Failure::words("CannotPullContainerError", chain(failure))
}
