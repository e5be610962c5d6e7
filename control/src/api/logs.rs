//! StreamTaskLogs: asks the node that has the logs, over its session, for a stream on a second
//! connection.
//! In: whose lines are wanted. Out: batches of lines as the node sends them.
//! Never: keeps a line; the channel between node and reader is bounded and slows the node down.

use super::{Context, existing_cluster};
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::session::logs::{LogBatch, LogRequest, OpenStream};
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

/// An open stream; dropping it ends the node's side too.
pub struct Logs {
    stream: OpenStream,
    first: Option<LogBatch>,
}

/// Opens a stream and waits for the node's first message.
pub async fn open(context: &Context, request: LogsRequest) -> Result<Logs, ApiError> {
    let task = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        find_task(&shown.state, &cluster, &request.task)
    })?;
    let known = task.containers.iter().any(|container| container.name.as_str() == request.container);
    if !request.container.is_empty() && !known {
        let (container, task) = (request.container, task.id.to_string());
        return Err(ApiError::ContainerNotFound { container, task });
    }
    let id = context.environment.random_hex();
    let mut stream = context.logs.open(&id, &task.instance);
    let wanted = LogRequest {
        stream_id: id,
        task: task.id.clone(),
        container: request.container,
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
    Ok(Logs { stream, first: first.transpose()? })
}

impl Logs {
    /// The next lines; `None` when the node has ended the stream well.
    pub async fn next(&mut self) -> Option<Result<LogBatch, ApiError>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.stream.next().await,
        }
    }
}
