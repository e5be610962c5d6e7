//! StreamTaskLogs: asks the node that has the logs, over its session, for a stream on a second
//! connection.
//! In: whose lines are wanted. Out: batches of lines as the node sends them.
//! Never: keeps a line; the channel between node and reader is bounded and slows the node down.

use super::{Context, existing_cluster};
use crate::core::record::TaskRecord;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::session::logs::{LogBatch, LogRequest, OpenStream};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::{BoxStream, SelectAll, select_all};
use std::time::Duration;

/// How long a node may take to begin.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whose lines are wanted.
#[derive(Debug, Clone)]
pub struct LogsRequest {
    pub cluster: String,
    pub task: String,
    /// Empty: all.
    pub container: String,
    pub follow: bool,
    pub tail_lines: Option<u32>,
    pub since_unix_ms: i64,
}

type Item = Result<LogBatch, ApiError>;

/// Open streams, one for each container; dropping them ends the node's side too.
pub struct Logs {
    first: Option<LogBatch>,
    batches: SelectAll<BoxStream<'static, Item>>,
    /// The first container that could not be read; told when the others have ended.
    failed: Option<ApiError>,
}

/// Opens a stream for each container wanted and waits for the node's first messages.
pub async fn open(context: &Context, request: LogsRequest) -> Result<Logs, ApiError> {
    let task = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        find_task(&shown.state, &cluster, &request.task)
    })?;
    let all = task.containers.iter().map(|container| container.name.to_string());
    let wanted: Vec<String> =
        all.filter(|name| request.container.is_empty() || *name == request.container).collect();
    if wanted.is_empty() {
        let (container, task) = (request.container, task.id.to_string());
        return Err(ApiError::ContainerNotFound { container, task });
    }
    let begun = wanted.into_iter().map(|container| begin(context, &request, &task, container));
    let batches = select_all(try_join_all(begun).await?);
    let mut logs = Logs { first: None, batches, failed: None };
    // A log that cannot be read at all is the answer itself, not the end of a stream.
    match logs.next().await {
        Some(Err(error)) => Err(error),
        Some(Ok(first)) => Ok(Logs { first: Some(first), ..logs }),
        None => Ok(logs),
    }
}

async fn begin(
    context: &Context,
    request: &LogsRequest,
    task: &TaskRecord,
    container: String,
) -> Result<BoxStream<'static, Item>, ApiError> {
    let stream_id = context.environment.random_hex();
    let mut stream = context.logs.open(&stream_id, &task.instance);
    let wanted = LogRequest {
        stream_id,
        task: task.id.clone(),
        container,
        follow: request.follow,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
    };
    let instance = task.instance.to_string();
    if !context.sessions.ask_for_logs(&task.instance, wanted) {
        return Err(ApiError::NodeNotConnected { instance });
    }
    let first = tokio::time::timeout(ANSWER_LIMIT, stream.next()).await;
    let seconds = ANSWER_LIMIT.as_secs();
    let first = first.map_err(|_| ApiError::NodeDidNotAnswer { instance, seconds })?;
    let rest = futures_util::stream::unfold(stream, |mut stream: OpenStream| async move {
        let next = stream.next().await?;
        Some((next, stream))
    });
    Ok(futures_util::stream::iter(first).chain(rest).boxed())
}

impl Logs {
    /// The next lines; `None` when the node has ended all streams well. The first message of a node
    /// for a log that is empty so far has no lines; it is passed on, for the reader to see that the
    /// stream is open.
    pub async fn next(&mut self) -> Option<Item> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        loop {
            match self.batches.next().await {
                Some(Ok(batch)) => return Some(Ok(batch)),
                Some(Err(error)) => {
                    self.failed.get_or_insert(error);
                }
                None => return self.failed.take().map(Err),
            }
        }
    }
}
