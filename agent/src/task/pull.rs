//! Row 5: pulls the images of all containers, each image once.
//! In: the definition, and what its tags mean for this revision. Out: for each container an `Image` or
//! CannotPullContainerError; as in ECS, with the behaviours always and once any such failure is the
//! task's. May be dropped at any await: what was fetched stays and the next pull
//! goes on from there.
//! Owns nothing. Never: asks what a tag means now when the revision has settled it.

use super::TaskContext;
use super::prepare::Failure;
use crate::errors::chain;
use crate::facilities::{Image, PullFailure, PullOrder};
use crate::image_pull;
use futures_util::future::try_join_all;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::{ContainerDefinition, PullBehavior, TaskDefinition};
use lighter_model::wait::WaitKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What one task wants pulled.
pub(super) struct Orders<'a> {
    pub task: TaskId,
    pub definition: &'a TaskDefinition,
    /// From the assignment: the digests that the revision's first task found.
    pub image_digests: Arc<BTreeMap<ContainerName, String>>,
    /// An earlier agent had begun the task: what it pulled is what the task runs.
    pub begun: bool,
}

/// One image of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    /// As in the definition.
    image: String,
    /// The same, with the revision's digest where its tag is pinned.
    reference: String,
}

impl Wanted {
    /// The digest that the tag is pinned to.
    fn pinned(&self) -> Option<&str> {
        self.reference.strip_prefix(&self.image)?.strip_prefix('@')
    }
}

impl Orders<'_> {
    fn wanted(&self, container: &ContainerDefinition) -> Wanted {
        let reference = container.image_to_pull(self.image_digests.get(&container.name).map(String::as_str));
        Wanted { image: container.image.clone(), reference }
    }

    fn behavior(&self, context: &TaskContext) -> PullBehavior {
        match self.begun {
            true => PullBehavior::PreferCached,
            false => self.definition.pull_behavior.unwrap_or(context.config.images.pull_behavior),
        }
    }
}

/// For each container what its pull came to. `Err`: the task cannot go on.
pub(super) async fn pull_all(
    context: &TaskContext,
    orders: &Orders<'_>,
) -> Result<BTreeMap<ContainerName, Result<Image, Failure>>, Failure> {
    let behavior = orders.behavior(context);
    let containers = &orders.definition.container_definitions;
    let wanted: BTreeSet<Wanted> = containers.iter().map(|container| orders.wanted(container)).collect();
    let pulls = wanted.into_iter().map(|wanted| async move {
        let pulled = pull_one(context, &orders.task, &wanted, behavior).await;
        let needed = matches!(behavior, PullBehavior::Always | PullBehavior::Once)
            || containers.iter().any(|c| c.essential && orders.wanted(c) == wanted);
        match pulled {
            // The other pulls are dropped: the task has failed.
            Err(failure) if needed => Err(failure),
            pulled => Ok((wanted, pulled)),
        }
    });
    let images: BTreeMap<Wanted, Result<Image, Failure>> = try_join_all(pulls).await?.into_iter().collect();
    let each = containers.iter();
    Ok(each.filter_map(|c| Some((c.name.clone(), images.get(&orders.wanted(c))?.clone()))).collect())
}

async fn pull_one(
    context: &TaskContext,
    task: &TaskId,
    wanted: &Wanted,
    behavior: PullBehavior,
) -> Result<Image, Failure> {
    let order = PullOrder { reference: wanted.reference.clone(), behavior };
    let watch = context.pulls.watcher(task, &wanted.image);
    let log = context.telemetry.task(task);
    let waits = |pause: Option<(&PullFailure, Duration)>| match pause {
        Some((failure, pause)) => {
            let what = format!("the next try of pulling {}: {}", wanted.image, chain(failure));
            log.wait(WaitKind::PullRetry, None, what, Some(pause), "the next try, or an order to stop");
        }
        None => log.wait_over(WaitKind::PullRetry, None),
    };
    let pulled = image_pull::pull(context, &order, watch, waits).await;
    pulled.map_err(|failure| cannot_pull(wanted, &failure))
}

fn cannot_pull(wanted: &Wanted, failure: &PullFailure) -> Failure {
    let mut words = chain(failure);
    if let Some(digest) = wanted.pinned().filter(|_| failure.missing) {
        words.push_str(&format!(
            "; all tasks of this revision run {} as the first one found it, {digest}, and that is gone \
             from the registry: register the task definition again to run what the tag means now, or \
             set versionConsistency to disabled",
            wanted.image
        ));
    }
    Failure::words("CannotPullContainerError", words)
}
