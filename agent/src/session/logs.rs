//! Sends a container's log when the control plane asks for it, on a connection of its own, so that a
//! flood of output never delays the session. In: what is wanted. Out: lines, in batches; those of
//! several containers in the order of their times.
//! Owns: that connection. Never: keeps more than one batch in memory.

mod merge;
mod open;

use super::connect::ControlEndpoint;
use super::convert::{self, LogRequest};
use super::link::words;
use crate::errors::chain;
use crate::facilities::{LogLine, RuntimeFacility};
use crate::reconcile::CoreInput;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lighter_proto::v1;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Lines in one message; at 16 KiB a line at most this stays below gRPC's 4 MiB.
const BATCH_LINES: usize = 200;
const BATCH_BYTES: usize = 256 * 1024;

/// What a log stream works with.
pub(super) struct LogSource {
    pub endpoint: ControlEndpoint,
    pub runtime: Arc<dyn RuntimeFacility>,
    pub reconciler: mpsc::Sender<CoreInput>,
    pub leaving: CancellationToken,
}

pub(super) async fn send(source: LogSource, request: LogRequest) {
    let id = request.stream_id.clone();
    let sent = tokio::select! {
        () = source.leaving.cancelled() => return,
        sent = try_send(&source, request) => sent,
    };
    if let Err(error) = sent {
        tracing::debug!(stream = %id, cause = %error, "a log stream ended");
    }
}

async fn try_send(source: &LogSource, request: LogRequest) -> Result<(), String> {
    let channel = source.endpoint.connect().await.map_err(|error| chain(&error))?;
    // One message is read while the next is on its way.
    let (send, messages) = mpsc::channel(2);
    let pump = pump(source, request, send);
    let mut client = v1::node_client::NodeClient::new(channel);
    let call = client.send_logs(ReceiverStream::new(messages));
    // The call ends when the messages do, or earlier when nobody wants them any more.
    let (answer, ()) = tokio::join!(call, pump);
    answer.map(drop).map_err(|status| words(&status))
}

async fn pump(source: &LogSource, request: LogRequest, send: mpsc::Sender<v1::SendLogsRequest>) {
    let id = request.stream_id.clone();
    if send.send(convert::log_batch(&id, Vec::new())).await.is_err() {
        return;
    }
    let opened = request.containers.iter().map(|container| open::open(source, &request, container));
    let mut lines = merge::merged(join_all(opened).await);
    loop {
        let next = tokio::select! {
            // Asked for again on the next turn.
            next = lines.next() => next,
            () = send.closed() => return,
        };
        let Some(first) = next else {
            let ended = v1::SendLogsRequest { ended: true, ..message(&id, Vec::new(), None) };
            // A reader that is gone needs no end.
            let _ = send.send(ended).await;
            return;
        };
        let mut batch = Vec::new();
        let mut failure = None;
        let mut bytes = 0;
        let mut item = Some(first);
        // What is there already goes along.
        while let Some(result) = item {
            match result {
                Ok(line) => {
                    bytes += line.line.len();
                    batch.push(line);
                }
                Err(error) => failure = Some(chain(error.as_ref())),
            }
            let full = batch.len() >= BATCH_LINES || bytes >= BATCH_BYTES || failure.is_some();
            item = if full { None } else { lines.next().now_or_never().flatten() };
        }
        let done = failure.is_some();
        if send.send(message(&id, batch, failure)).await.is_err() || done {
            return;
        }
    }
}

fn message(id: &str, batch: Vec<LogLine>, failure: Option<String>) -> v1::SendLogsRequest {
    let mut message = convert::log_batch(id, batch);
    message.error = failure.unwrap_or_default();
    message
}
