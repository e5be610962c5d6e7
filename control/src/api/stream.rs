//! Exec, attach, copy: asks the task's node, over its session, for a stream on a second connection
//! and passes frames on both ways. In: who asks, for what, and their frames. Out: the node's frames.
//! Owns: nothing but what is under way: two frames each way (session/streams.rs). When either side
//! goes away the other is ended, and the audit record is completed.
//! Never: lets a byte flow before the audit record is durable; looks into a frame but for its size.

use super::{Context, existing_cluster};
use crate::core::audit::{Asker, AuditEnded, AuditStarted};
use crate::core::queue::require_node;
use crate::core::record::TaskRecord;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::session::convert::{StreamInput, StreamOrder, StreamOutput, input_bytes, query, said};
use crate::session::streams::{Counted, FRAME_BYTES, Said, StreamRequest, UserEnd};
use futures_util::{Stream, StreamExt};
use lighter_model::ids::{ContainerInstanceId, ContainerName};
use lighter_model::status::TaskStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a node may take to begin.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is not told why its stream ended.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);
/// The most bytes of an answer to a query.
const QUERY_BYTES: usize = 1 << 20;

/// What somebody wants a stream for.
#[derive(Debug, Clone)]
pub struct StreamStart {
    pub cluster: String,
    pub task: String,
    /// Empty: the first essential container.
    pub container: String,
    pub order: StreamOrder,
    /// As the audit calls it.
    pub action: &'static str,
    pub command: Vec<String>,
}

/// A frame for the person, or why there are no more.
pub type Item = Result<StreamOutput, ApiError>;

/// Where the answer goes: first whether the stream began, then its frames.
pub struct Reply {
    pub ready: oneshot::Sender<Result<(), ApiError>>,
    pub out: mpsc::Sender<Item>,
}

#[derive(Default)]
struct Bytes {
    to_container: AtomicU64,
    from_container: AtomicU64,
}

/// A task's container on its node.
struct Place {
    task: Arc<TaskRecord>,
    container: ContainerName,
}

/// Serves one stream from its start to the completed audit record; runs on when its caller is
/// dropped, for a record has to be completed whatever happens.
pub async fn serve(
    context: Context,
    asker: Asker,
    start: StreamStart,
    incoming: impl Stream<Item = Result<StreamInput, ApiError>> + Send + Unpin,
    reply: Reply,
) {
    let begun = match locate(&context, &start) {
        Ok(place) => begin_audit(&context, &asker, &start, &place).await.map(|number| (place, number)),
        Err(error) => Err(error),
    };
    let (place, sequence) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // A caller who is gone needs no answer.
            let _ = reply.ready.send(Err(error));
            return;
        }
    };
    let Reply { ready, out } = reply;
    let mut ready = Some(ready);
    let call = Call { context, asker, place, out, bytes: Bytes::default() };
    let ended = call.relay(start.order, incoming, &mut ready).await;
    let result = match &ended {
        Ok((_, result)) => result.clone(),
        Err(error) => format!("failed: {error}"),
    };
    let [bytes_in, bytes_out] =
        [&call.bytes.to_container, &call.bytes.from_container].map(|count| count.load(Ordering::Relaxed));
    let record = AuditEnded { sequence, result, bytes_in, bytes_out };
    if let Err(error) = call.context.writer.submit(record).await {
        tracing::warn!(%error, audit = sequence, "an audit record could not be completed");
    }
    tell_end(ended.map(|(frame, _)| frame), ready, &call.out).await;
}

async fn tell_end(
    ended: Item,
    ready: Option<oneshot::Sender<Result<(), ApiError>>>,
    out: &mpsc::Sender<Item>,
) {
    match (ready, ended) {
        (Some(ready), Err(error)) => drop(ready.send(Err(error))),
        (_, last) => drop(out.send_timeout(last, LAST_WORD_LIMIT).await),
    }
}

fn locate(context: &Context, start: &StreamStart) -> Result<Place, ApiError> {
    let task = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &start.cluster)?;
        find_task(&shown.state, &cluster, &start.task)
    })?;
    let container = match start.container.as_str() {
        "" => task.containers.iter().find(|container| container.essential).or(task.containers.first()),
        name => task.containers.iter().find(|container| container.name.as_str() == name),
    };
    let container = container.map(|container| container.name.clone()).ok_or_else(|| {
        ApiError::ContainerNotFound { container: start.container.clone(), task: task.id.to_string() }
    })?;
    if task.last == TaskStatus::Stopped {
        let (task, status) = (task.id.to_string(), task.last.as_str().to_owned());
        return Err(ApiError::TaskNotRunning { task, status });
    }
    require_node(&task)?;
    Ok(Place { task, container })
}

async fn begin_audit(
    context: &Context,
    asker: &Asker,
    start: &StreamStart,
    place: &Place,
) -> Result<u64, ApiError> {
    let record = AuditStarted {
        user: asker.user.clone(),
        address: asker.address.clone(),
        action: start.action,
        cluster: place.task.cluster.to_string(),
        task: place.task.id.to_string(),
        container: place.container.to_string(),
        instance: place.task.instance.to_string(),
        command: start.command.clone(),
        outcome: None,
    };
    context.writer.submit(record).await
}

/// One stream at work.
struct Call {
    context: Context,
    asker: Asker,
    place: Place,
    out: mpsc::Sender<Item>,
    bytes: Bytes,
}

impl Call {
    /// Opens the stream and passes frames on until it ends: the node's last frame and its result in
    /// words.
    async fn relay(
        &self,
        order: StreamOrder,
        incoming: impl Stream<Item = Result<StreamInput, ApiError>> + Send + Unpin,
        ready: &mut Option<oneshot::Sender<Result<(), ApiError>>>,
    ) -> Result<(StreamOutput, String), ApiError> {
        let task = &self.place.task;
        let wanted = Wanted {
            instance: &task.instance,
            task: task.id.to_string(),
            container: self.place.container.to_string(),
            order,
        };
        let mut end = open(&self.context, Counted::Call(&self.asker.user), wanted)?;
        let gone = async {
            match ready {
                Some(ready) => ready.closed().await,
                None => std::future::pending().await,
            }
        };
        let first = tokio::select! {
            first = first(&mut end, &task.instance) => first?,
            () = gone => return Err(ApiError::CallerGone),
        };
        if let Said::Ended { result: Err(refused) } = said(&first) {
            return Err(refused);
        }
        if ready.take().is_none_or(|ready| ready.send(Ok(())).is_err()) {
            return Err(ApiError::CallerGone);
        }
        let UserEnd { input, output, .. } = &mut end;
        tokio::select! {
            ended = outbound(first, output, &self.out, &self.bytes) => ended,
            error = inbound(incoming, input, &self.bytes) => Err(error),
            () = self.out.closed() => Err(ApiError::CallerGone),
            () = self.context.stop.cancelled() => Err(ApiError::ShuttingDown),
        }
    }
}

/// Passes a person's frames on; returns only when something is wrong with them. That there are no
/// more of them ends nothing: the output may go on.
async fn inbound(
    mut incoming: impl Stream<Item = Result<StreamInput, ApiError>> + Send + Unpin,
    input: &mpsc::Sender<StreamInput>,
    bytes: &Bytes,
) -> ApiError {
    while let Some(frame) = incoming.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        let size = input_bytes(&frame);
        if size > FRAME_BYTES {
            return ApiError::ProtocolViolation { message: format!("a frame of {size} bytes") };
        }
        bytes.to_container.fetch_add(size as u64, Ordering::Relaxed);
        if input.send(frame).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

async fn outbound(
    first: StreamOutput,
    output: &mut mpsc::Receiver<Item>,
    out: &mpsc::Sender<Item>,
    bytes: &Bytes,
) -> Result<(StreamOutput, String), ApiError> {
    let mut frame = first;
    loop {
        match said(&frame) {
            Said::Ended { result } => return result.map(|words| (frame, words)),
            Said::Data(size) if size > FRAME_BYTES => {
                return Err(ApiError::ProtocolViolation { message: format!("a frame of {size} bytes") });
            }
            Said::Data(size) => drop(bytes.from_container.fetch_add(size as u64, Ordering::Relaxed)),
            Said::Started | Said::Stats | Said::Images => {}
        }
        out.send(Ok(frame)).await.map_err(|_| ApiError::CallerGone)?;
        frame = output.recv().await.ok_or(ApiError::StreamBroken)??;
    }
}

/// What is asked of which node.
pub(super) struct Wanted<'a> {
    pub instance: &'a ContainerInstanceId,
    /// Empty: the node itself.
    pub task: String,
    pub container: String,
    pub order: StreamOrder,
}

/// Asks the node for a stream.
pub(super) fn open(context: &Context, counted: Counted<'_>, wanted: Wanted<'_>) -> Result<UserEnd, ApiError> {
    let stream_id = context.environment.random_hex();
    let end = context.streams.open(stream_id.clone(), counted, wanted.instance)?;
    let Wanted { instance, task, container, order } = wanted;
    let user = counted.user().to_owned();
    let request = StreamRequest { stream_id, task, container, order, user };
    context.sessions.ask_for_stream(instance, request)?;
    Ok(end)
}

/// The node's first frame, which has to come soon.
pub(super) async fn first(
    end: &mut UserEnd,
    instance: &ContainerInstanceId,
) -> Result<StreamOutput, ApiError> {
    let first = tokio::time::timeout(ANSWER_LIMIT, end.output.recv()).await;
    let (instance, seconds) = (instance.to_string(), ANSWER_LIMIT.as_secs());
    let first = first.map_err(|_| ApiError::NodeDidNotAnswer { instance, seconds })?;
    first.ok_or(ApiError::StreamBroken)?
}

/// Asks a node's agent a question by topic; both argument and answer are JSON. Reading only, and
/// not in the audit.
pub async fn ask(
    context: &Context,
    asker: &Asker,
    instance: &ContainerInstanceId,
    task: &str,
    topic: &str,
    argument_json: &str,
) -> Result<String, ApiError> {
    let order = query(topic, argument_json);
    let wanted = Wanted { instance, task: task.to_owned(), container: String::new(), order };
    let mut end = open(context, Counted::Call(&asker.user), wanted)?;
    let mut frame = first(&mut end, instance).await?;
    let mut answer = Vec::new();
    loop {
        match said(&frame) {
            Said::Ended { result } => {
                result?;
                let broken = |_| ApiError::Internal { message: "an answer that is no text".to_owned() };
                return String::from_utf8(answer).map_err(broken);
            }
            Said::Data(_) => answer.extend_from_slice(crate::session::convert::data(&frame)),
            Said::Started | Said::Stats | Said::Images => {}
        }
        if answer.len() > QUERY_BYTES {
            return Err(ApiError::Internal { message: "an answer of more than 1 MiB".to_owned() });
        }
        let next = tokio::time::timeout(ANSWER_LIMIT, end.output.recv()).await;
        let late = |_| ApiError::NodeDidNotAnswer {
            instance: instance.to_string(),
            seconds: ANSWER_LIMIT.as_secs(),
        };
        frame = next.map_err(late)?.ok_or(ApiError::StreamBroken)??;
    }
}
