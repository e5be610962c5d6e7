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
    first: Option<LogBatch>,
    rest: OpenStream,
}

/// Opens a stream of the containers wanted and waits for the node's first message.
pub async fn open(context: &Context, request: LogsRequest) -> Result<Logs, ApiError> {
    let task = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        find_task(&shown.state, &cluster, &request.task)
    })?;
    let all = task.containers.iter().map(|container| container.name.to_string());
    let containers: Vec<String> =
        all.filter(|name| request.container.is_empty() || *name == request.container).collect();
    if containers.is_empty() {
        let (container, task) = (request.container, task.id.to_string());
        return Err(ApiError::ContainerNotFound { container, task });
    }
    let stream_id = context.environment.random_hex();
    let mut rest = context.logs.open(&stream_id, &task.instance);
    let wanted = LogRequest {
        stream_id,
        task: task.id.clone(),
        containers,
        follow: request.follow,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
    };
    let instance = task.instance.to_string();
    if !context.sessions.ask_for_logs(&task.instance, wanted) {
        return Err(ApiError::NodeNotConnected { instance });
    }
    let first = tokio::time::timeout(ANSWER_LIMIT, rest.next()).await;
    let seconds = ANSWER_LIMIT.as_secs();
    let first = first.map_err(|_| ApiError::NodeDidNotAnswer { instance, seconds })?;
    // A log that cannot be read at all is the answer itself, not the end of a stream.
    Ok(Logs { first: first.transpose()?, rest })
}

impl Logs {
    /// The next lines; `None` when the node has ended the stream well. The first message of a node for
    /// a log that is empty so far has no lines; it is passed on, for the reader to see that the stream
    /// is open.
    pub async fn next(&mut self) -> Option<Result<LogBatch, ApiError>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.rest.next().await,
        }
    }
}
