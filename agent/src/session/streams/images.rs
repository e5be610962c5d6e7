//! This node's images by order of the control plane: pulled before any task wants them, listed, pruned.
//! In: an order. Out: reports while it goes on. Owns nothing: a pull ends with its reader, and what was
//! fetched stays. Never: takes credentials from an order; removes what a task of this node uses; reports
//! progress faster than it is read, or than `INTERVAL`.

use super::convert::{
    End, Fault, ImagesOrder, Wanted, image_pulled, image_rows, image_step, images_pruned, started,
};
use super::{Gone, Pipe};
use crate::errors::{Cause, chain};
use crate::facilities::{ImageRow, ImagesInUse, PrunedImages, PullOrder, PullStep};
use crate::task::TaskContext;
use crate::time::{BootInstant, sleep_until};
use crate::{image_cleanup, image_pull};
use lighter_model::task_definition::PullBehavior;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two reports of one pull at least.
const INTERVAL: Duration = Duration::from_millis(200);
/// Images of one report; with the longest names they stay below a frame's 64 KiB.
const ROWS: usize = 50;

/// Does what is ordered and says how it goes on.
pub(super) async fn run(
    context: &TaskContext,
    wanted: &Wanted,
    order: ImagesOrder,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    pipe.send(started(wanted, false)).await?;
    match order {
        ImagesOrder::Pull { images, behavior } => {
            let behavior = behavior.unwrap_or(context.config.images.pull_behavior);
            pull_all(context, images, behavior, pipe).await
        }
        ImagesOrder::List => match list(context).await {
            Ok(rows) => {
                let count = rows.len() as u64;
                for rows in rows.chunks(ROWS) {
                    pipe.send(image_rows(rows)).await?;
                }
                Ok(Ok(End::Done(count)))
            }
            Err(fault) => Ok(Err(fault)),
        },
        ImagesOrder::Prune => match prune(context).await {
            Ok(pruned) => {
                pipe.send(images_pruned(&pruned)).await?;
                Ok(Ok(End::Done(pruned.images)))
            }
            Err(fault) => Ok(Err(fault)),
        },
    }
}

/// One after the other, so that a node that works keeps room for its tasks' own pulls.
async fn pull_all(
    context: &TaskContext,
    images: Vec<String>,
    behavior: PullBehavior,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let mut failed = Vec::new();
    let count = images.len();
    for reference in images {
        let pulled = pull_one(context, PullOrder { reference: reference.clone(), behavior }, pipe).await?;
        if let Err(words) = &pulled {
            failed.push(words.clone());
        }
        pipe.send(image_pulled(&reference, pulled)).await?;
    }
    Ok(match failed.as_slice() {
        [] => Ok(End::Done(count as u64)),
        words => Err(Fault::new("IMAGE_NOT_PULLED", words.join("; "))),
    })
}

/// The digest that the registry answered, or why it failed, in words.
async fn pull_one(
    context: &TaskContext,
    order: PullOrder,
    pipe: &mut Pipe,
) -> Result<Result<String, String>, Gone> {
    let (step, mut steps) = watch::channel(PullStep::default());
    let watcher = Arc::new(move |now| {
        step.send_replace(now);
    });
    let pulled = image_pull::pull(context, &order, watcher, |_| {});
    tokio::pin!(pulled);
    let mut next = BootInstant::now();
    loop {
        let changed = async {
            sleep_until(next).await;
            // The sender lives as long as the pull.
            let _ = steps.changed().await;
        };
        tokio::select! {
            done = &mut pulled => {
                return Ok(match done {
                    Ok(image) => Ok(image.image_digest.unwrap_or_default()),
                    Err(failure) => Err(chain(&failure)),
                });
            }
            () = changed => {
                next = BootInstant::now().after(INTERVAL);
                let step = steps.borrow_and_update().clone();
                pipe.send(image_step(&order.reference, &step)).await?;
            }
            // Frames of the reader mean nothing here; that there are no more means that it is gone.
            () = async { while pipe.inputs.message().await.ok().flatten().is_some() {} } => return Err(Gone),
        }
    }
}

async fn list(context: &TaskContext) -> Result<Vec<ImageRow>, Fault> {
    let used = in_use(context).await?;
    context.facilities.image.list(&used).await.map_err(failed)
}

async fn prune(context: &TaskContext) -> Result<PrunedImages, Fault> {
    let used = in_use(context).await?;
    context.facilities.image.prune(&used).await.map_err(failed)
}

async fn in_use(context: &TaskContext) -> Result<ImagesInUse, Fault> {
    let tasks = image_cleanup::tasks(context).await;
    let tasks = tasks.ok_or_else(|| Fault::new("AGENT_LEAVES", "the node's agent leaves"))?;
    Ok(image_cleanup::in_use(&tasks))
}

fn failed(error: Cause) -> Fault {
    Fault::new("IMAGES_FAILED", chain(error.as_ref()))
}
