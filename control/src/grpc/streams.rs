//! The bidirectional calls: the first message says what is wanted, the others are frames.
//! In: a person's messages, or a node's. Out: frames. Never: holds more than one frame itself.

use super::{Answer, FIRST_BATCH, Streamed};
use crate::api::Context;
use crate::api::stream::{Reply, StreamStart, serve};
use crate::convert;
use crate::error::ApiError;
use futures_util::StreamExt;
use lighter_proto::v1;
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What a person's message is.
pub(super) enum Message {
    Start(Box<StreamStart>),
    Input(v1::StreamInput),
}

type Read = Result<Message, ApiError>;

fn violation(message: &str) -> ApiError {
    ApiError::ProtocolViolation { message: message.to_owned() }
}

fn start(
    target: Option<v1::StreamTarget>,
    order: v1::stream_order::Order,
    action: &'static str,
    command: Vec<String>,
) -> Message {
    let v1::StreamTarget { cluster, task, container } = target.unwrap_or_default();
    let order = v1::StreamOrder { order: Some(order) };
    Message::Start(Box::new(StreamStart { cluster, task, container, order, action, command }))
}

pub(super) fn exec(request: v1::ExecRequest) -> Read {
    use v1::exec_request::Message as Wire;
    match request.message.ok_or_else(|| violation("an empty message"))? {
        Wire::Input(input) => Ok(Message::Input(input)),
        Wire::Start(v1::ExecStart { target, order }) => {
            let order = order.unwrap_or_default();
            if order.command.is_empty() {
                return Err(ApiError::invalid("command", "must be given"));
            }
            let command = order.command.clone();
            Ok(start(target, v1::stream_order::Order::Exec(order), "exec", command))
        }
    }
}

pub(super) fn attach(request: v1::AttachRequest) -> Read {
    use v1::attach_request::Message as Wire;
    match request.message.ok_or_else(|| violation("an empty message"))? {
        Wire::Input(input) => Ok(Message::Input(input)),
        Wire::Start(v1::AttachStart { target, order }) => {
            let order = v1::stream_order::Order::Attach(order.unwrap_or_default());
            Ok(start(target, order, "attach", Vec::new()))
        }
    }
}

pub(super) fn copy(request: v1::CopyRequest) -> Read {
    use v1::copy_request::Message as Wire;
    use v1::copy_start::Order as Copy;
    match request.message.ok_or_else(|| violation("an empty message"))? {
        Wire::Input(input) => Ok(Message::Input(input)),
        Wire::Start(v1::CopyStart { target, order }) => {
            match order.ok_or_else(|| ApiError::invalid("order", "say copyIn or copyOut"))? {
                Copy::CopyIn(order) => {
                    let path = vec![order.path.clone()];
                    Ok(start(target, v1::stream_order::Order::CopyIn(order), "copy-in", path))
                }
                Copy::CopyOut(order) => {
                    let path = vec![order.path.clone()];
                    Ok(start(target, v1::stream_order::Order::CopyOut(order), "copy-out", path))
                }
            }
        }
    }
}

/// Reads the first message, then serves in a task of its own: the record of what was done has to be
/// completed even when the caller is gone.
pub(super) async fn open<T: Send + 'static>(
    context: &Context,
    request: Request<Streaming<T>>,
    read: fn(T) -> Read,
) -> Answer<Streamed<v1::StreamOutput>> {
    let asker = convert::asker(request.extensions());
    let mut messages = request.into_inner();
    let first = tokio::time::timeout(FIRST_BATCH, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
    let Message::Start(wanted) = read(first.ok_or_else(|| violation("no first message"))?)? else {
        return Err(violation("the first message says what is wanted").into());
    };
    let incoming = messages.filter_map(move |message| async move {
        match message.map(read) {
            Ok(Ok(Message::Input(input))) => Some(Ok(input)),
            Ok(Ok(Message::Start(_))) => Some(Err(violation("a second start"))),
            Ok(Err(error)) => Some(Err(error)),
            // The caller's side broke; what counts is whether the answer is still read.
            Err(_) => None,
        }
    });
    let (ready, opened) = oneshot::channel();
    // One frame is written while the next is read.
    let (out, answers) = mpsc::channel(1);
    // Ends when the node, the caller or the control plane goes away.
    tokio::spawn(serve(context.clone(), asker, *wanted, Box::pin(incoming), Reply { ready, out }));
    opened.await.map_err(|_| Status::from(ApiError::ShuttingDown))??;
    let answers = ReceiverStream::new(answers).map(|frame| frame.map_err(Status::from));
    Ok(Response::new(Box::pin(answers)))
}

/// A node's end of a stream: its frames go to the person, the person's frames are the answer, which
/// ends when the person is gone.
pub(super) async fn answered(
    context: &Context,
    request: Request<Streaming<v1::NodeFrame>>,
) -> Answer<Pin<Box<dyn futures_util::Stream<Item = Result<v1::ControlFrame, Status>> + Send>>> {
    let me = convert::identity(request.extensions())?;
    let mut frames = request.into_inner();
    let first = tokio::time::timeout(FIRST_BATCH, frames.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("the first message did not come"))??;
    let mut frame = first.ok_or_else(|| violation("no first message"))?;
    let end = context.streams.take(&frame.stream_id, &me.id)?;
    let output = end.output;
    // Ends with the node's frames, or when nobody takes them any more.
    tokio::spawn(async move {
        loop {
            if let Some(said) = frame.output.take()
                && output.send(Ok(said)).await.is_err()
            {
                return;
            }
            tokio::select! {
                () = output.closed() => return,
                next = frames.message() => match next {
                    Ok(Some(next)) => frame = next,
                    // Without its last frame the stream counts as broken.
                    Ok(None) | Err(_) => return,
                },
            }
        }
    });
    let answer = ReceiverStream::new(end.input);
    let answer = answer.map(|input| Ok(v1::ControlFrame { input: Some(input) }));
    Ok(Response::new(Box::pin(answer)))
}
