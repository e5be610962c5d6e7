//! `lighter image …` on this node: pull, list, inspect, remove, load, save.
//! In: requests of the local socket. Out: rows, bytes, progress. Owns one tokio task for each pull, load
//! and save, which ends when the client goes away.
//! Never: removes what a task of this node uses.

use super::{LocalApi, failed};
use crate::errors::chain;
use crate::facilities::PullStep;
use crate::image_cleanup;
use crate::image_pull;
use crate::session::convert;
use crate::task::TaskContext;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lighter_proto::v1;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Parts of an archive on their way; each has at most a message's size.
const PARTS: usize = 4;

pub(super) type Streamed<T> = BoxStream<'static, Result<T, Status>>;

pub(super) fn pull(
    context: Arc<TaskContext>,
    request: v1::PullImageRequest,
) -> Result<Streamed<v1::PullImageResponse>, Status> {
    let order = convert::pull_order(request, context.config.images.pull_behavior)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (answers, stream) = mpsc::channel(PARTS);
    tokio::spawn(async move {
        let (step, mut steps) = watch::channel(PullStep::default());
        let watcher = Arc::new(move |now| {
            step.send_replace(now);
        });
        let pulled = image_pull::pull(&context, &order, watcher, |_| {});
        tokio::pin!(pulled);
        loop {
            let said = tokio::select! {
                () = context.leaving.cancelled() => Err(Status::unavailable("the agent leaves")),
                // The client has gone; what was fetched stays.
                () = answers.closed() => return,
                done = &mut pulled => match done {
                    Ok(image) => {
                        let image_digest = image.image_digest.clone().unwrap_or_default();
                        let _ = answers.send(Ok(v1::PullImageResponse { progress: None, image_digest })).await;
                        return;
                    }
                    Err(failure) if failure.missing => Err(Status::not_found(chain(&failure))),
                    Err(failure) => Err(Status::failed_precondition(chain(&failure))),
                },
                Ok(()) = steps.changed() => {
                    let progress = Some(convert::pull_progress(&order.reference, &steps.borrow_and_update()));
                    Ok(v1::PullImageResponse { progress, image_digest: String::new() })
                }
            };
            let failed = said.is_err();
            if answers.send(said).await.is_err() || failed {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(stream).boxed())
}

pub(super) async fn list(api: &LocalApi) -> Result<v1::ListImagesResponse, Status> {
    let used = image_cleanup::in_use(&api.tasks().await?);
    let rows = api.context.facilities.image.list(&used).await.map_err(failed("list the images"))?;
    Ok(v1::ListImagesResponse { images: rows.into_iter().map(convert::local_image).collect() })
}

pub(super) async fn inspect(api: &LocalApi, name: &str) -> Result<v1::InspectImageResponse, Status> {
    let used = image_cleanup::in_use(&api.tasks().await?);
    let found = api.context.facilities.image.inspect(name, &used).await;
    let found = found.map_err(failed("inspect the image"))?;
    let found = found.ok_or_else(|| Status::not_found(format!("there is no image {name} on this node")))?;
    Ok(v1::InspectImageResponse {
        image: Some(convert::local_image(found.row)),
        manifest_json: found.manifest,
        config_json: found.config,
    })
}

pub(super) async fn remove(api: &LocalApi, name: &str) -> Result<v1::PruneResponse, Status> {
    let used = image_cleanup::in_use(&api.tasks().await?);
    let removed = api.context.facilities.image.remove(name, &used).await;
    let removed = removed.map_err(|error| Status::failed_precondition(chain(error.as_ref())))?;
    Ok(v1::PruneResponse { images: removed.images, layers: removed.layers, volumes: 0, bytes: removed.bytes })
}

pub(super) async fn load(
    api: &LocalApi,
    mut incoming: Streaming<v1::LoadImageRequest>,
) -> Result<v1::LoadImageResponse, Status> {
    let Some(first) = incoming.message().await? else {
        return Err(Status::invalid_argument("data: there is none"));
    };
    let name = (!first.name.is_empty()).then_some(first.name);
    let (parts, taken) = mpsc::channel(PARTS);
    let feed = async move {
        let mut data = first.data;
        // Whoever takes no more has failed, and says why.
        while parts.send(data).await.is_ok() {
            match incoming.message().await? {
                Some(next) => data = next.data,
                None => return Ok(()),
            }
        }
        Ok::<(), Status>(())
    };
    let (fed, loaded) = tokio::join!(feed, api.context.facilities.image.load(taken, name));
    fed?;
    let references = loaded.map_err(|error| Status::failed_precondition(chain(error.as_ref())))?;
    Ok(v1::LoadImageResponse { references })
}

pub(super) fn save(context: Arc<TaskContext>, name: String) -> Streamed<v1::SaveImageResponse> {
    let (parts, mut taken) = mpsc::channel(PARTS);
    let (answers, stream) = mpsc::channel(PARTS);
    tokio::spawn(async move {
        let pass_on = async {
            while let Some(data) = taken.recv().await {
                if answers.send(Ok(v1::SaveImageResponse { data })).await.is_err() {
                    return;
                }
            }
        };
        // The client is gone when `pass_on` ends early: its end of the parts closes, and the save ends.
        let (saved, ()) = tokio::join!(context.facilities.image.save(&name, parts), pass_on);
        if let Err(error) = saved {
            let _ = answers.send(Err(Status::failed_precondition(chain(error.as_ref())))).await;
        }
    });
    ReceiverStream::new(stream).boxed()
}
