//! Serves a data stream when the control plane asks for one (exec, attach, copy, counters, queries),
//! on a connection of its own, so that a slow reader delays neither the session nor other streams.
//! In: what is wanted, a person's frames. Out: frames, the last of which says how it ended.
//! Owns: that connection, two frames each way. Never: outlives its reader: whatever it began is told
//! to end when the other side goes away.

mod convert;
mod copy;
mod exec;
mod images;
mod query;
mod stats;

use super::connect::ControlEndpoint;
use super::link::words;
use crate::errors::chain;
use crate::reconcile::CoreInput;
use crate::task::TaskContext;
use crate::task::board::Monitor;
use crate::time::sleep;
use convert::{End, Fault, Frame, Incoming, Input, Order, Wanted};
use lighter_proto::v1::OpenStream;
use lighter_proto::v1::node_client::NodeClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Frames on their way out: one is read while the other is sent.
const FRAMES: usize = 2;
/// Bytes of one frame; the control plane refuses frames of more than 64 KiB.
const CHUNK_BYTES: usize = 32 * 1024;
/// For the last frame to arrive and the control plane to close.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// What a stream works with.
pub(super) struct StreamSource {
    pub endpoint: ControlEndpoint,
    pub context: Arc<TaskContext>,
    pub reconciler: mpsc::Sender<CoreInput>,
}

/// Both directions of an open stream.
struct Pipe {
    out: mpsc::Sender<Frame>,
    inputs: Streaming<Incoming>,
}

impl Pipe {
    /// Fails when nobody reads any more.
    async fn send(&self, frame: Frame) -> Result<(), Gone> {
        self.out.send(frame).await.map_err(|_| Gone)
    }

    /// The person's next frame; `None` when there is nobody any more.
    async fn input(&mut self) -> Option<Input> {
        self.inputs.message().await.ok().flatten().map(convert::input)
    }
}

/// The other side is not there any more.
#[derive(Debug)]
struct Gone;

/// The task's monitor, or why there is none.
fn monitor(context: &TaskContext, wanted: &Wanted) -> Result<Monitor, Fault> {
    let Some(task) = &wanted.task else { return Err(Fault::new("INVALID", "a task has to be named")) };
    let missing = || Fault::new("TASK_NOT_RUNNING", format!("task {task} does not run on its node"));
    let monitor = context.monitors.get(task).ok_or_else(missing)?;
    if let Some(container) = &wanted.container
        && !monitor.definition.container_definitions.iter().any(|c| c.name == *container)
    {
        let message = format!("container {container} is not part of task {task}");
        return Err(Fault::new("CONTAINER_NOT_FOUND", message));
    }
    Ok(monitor)
}

/// Serves one stream to its end.
pub(super) async fn serve(source: StreamSource, open: OpenStream) {
    let (id, leaving) = (open.stream_id.clone(), source.context.leaving.clone());
    let served = tokio::select! {
        // What was begun is dropped, and with it hung up.
        () = leaving.cancelled() => return,
        served = try_serve(&source, open) => served,
    };
    if let Err(error) = served {
        tracing::debug!(stream = %id, cause = %error, "a stream ended");
    }
}

async fn try_serve(source: &StreamSource, open: OpenStream) -> Result<(), String> {
    let channel = source.endpoint.connect().await.map_err(|error| chain(&error))?;
    let (out, messages) = mpsc::channel(FRAMES);
    // There is room for it: the channel is new.
    out.send(convert::hello(&open.stream_id)).await.map_err(|_| "the stream closed".to_owned())?;
    let call = NodeClient::new(channel).stream(ReceiverStream::new(messages)).await;
    let mut pipe = Pipe { out, inputs: call.map_err(|status| words(&status))?.into_inner() };
    let end = match convert::wanted(open) {
        Ok(wanted) => run(&source.context, &source.reconciler, wanted, &mut pipe).await,
        Err(fault) => Ok(Err(fault)),
    };
    let Ok(end) = end else { return Err("the reader went away".to_owned()) };
    let Pipe { out, mut inputs } = pipe;
    if out.send(convert::ended(end)).await.is_err() {
        return Err("the reader went away before the end".to_owned());
    }
    drop(out);
    // The connection must not be dropped before the control plane has read all of it.
    tokio::select! {
        () = async { while let Ok(Some(_)) = inputs.message().await {} } => Ok(()),
        () = sleep(CLOSING_LIMIT) => Err("the control plane did not close the stream".to_owned()),
    }
}

/// Does what is wanted; the outer error means that nobody waits for the end any more.
async fn run(
    context: &Arc<TaskContext>,
    reconciler: &mpsc::Sender<CoreInput>,
    wanted: Wanted,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    tracing::info!(user = %wanted.user, task = ?wanted.task, order = wanted.order.name(), "a stream begins");
    match wanted.order.clone() {
        Order::Exec { order, terminal, stdin } => {
            exec::exec(context, &wanted, order, terminal, stdin, pipe).await
        }
        Order::Attach { stdin, terminal } => exec::attach(context, &wanted, stdin, terminal, pipe).await,
        Order::CopyIn(order) => copy::copy_in(context, &wanted, order, pipe).await,
        Order::CopyOut { path, follow_link } => {
            copy::copy_out(context, &wanted, path, follow_link, pipe).await
        }
        Order::Stats { interval } => stats::watch(context, &wanted, interval, pipe).await,
        Order::Images(order) => images::run(context, &wanted, order, pipe).await,
        Order::Query { topic } => {
            let answer = query::answer(reconciler, wanted.task.as_ref(), &topic).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(fault) => return Ok(Err(fault)),
            };
            pipe.send(convert::started(&wanted, false)).await?;
            for chunk in answer.as_bytes().chunks(CHUNK_BYTES) {
                pipe.send(convert::stdout(chunk.to_vec())).await?;
            }
            Ok(Ok(End::Done(0)))
        }
    }
}
