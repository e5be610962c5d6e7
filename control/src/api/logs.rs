//! StreamTaskLogs: asks the node that has the logs, over its session, for a stream on a second
//! connection.
//! In: whose lines are wanted. Out: batches of lines as the node sends them.
//! Who reads which task's output is in the audit before the first line flows.
//! Never: keeps a line; the channel between node and reader is bounded and slows the node down.

use super::open_audit::OpenAudit;
use super::{Context, existing_cluster};
use crate::core::audit::{Asker, AuditStarted};
use crate::core::queue::require_node;
use crate::core::stop_task::find_task;

use crate::error::ApiError;
use crate::session::logs::{LogBatch, LogRequest, OpenStream};
use lighter_model::ids::ContainerInstanceId;
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

/// An open stream; dropping it ends the node's side too, and completes the audit record.
pub struct Logs {
    first: Option<LogBatch>,
    rest: OpenStream,
    audit: OpenAudit,
}

/// Opens a stream of the containers wanted and waits for the node's first message.
pub async fn open(context: &Context, asker: &Asker, request: LogsRequest) -> Result<Logs, ApiError> {
    let (cluster, task) = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        let task = find_task(&shown.state, &cluster, &request.task)?;
        Ok::<_, ApiError>((cluster, task))
    })?;
    let all = task.containers.iter().map(|container| container.name.to_string());
    let containers: Vec<String> =
        all.filter(|name| request.container.is_empty() || *name == request.container).collect();
    if containers.is_empty() {
        let (container, task) = (request.container, task.id.to_string());
        return Err(ApiError::ContainerNotFound { container, task });
    }
    require_node(&task)?;
    let (instance, stream_id) = (&task.instance, context.environment.random_hex());
    // A follower asks again and again while the node is away; nobody has read anything then.
    if !context.sessions.connected().contains(instance) {
        return Err(ApiError::NodeNotConnected { instance: instance.to_string() });
    }
    let record = AuditStarted {
        user: asker.user.clone(),
        address: asker.address.clone(),
        action: "logs",
        cluster: cluster.to_string(),
        task: task.id.to_string(),
        container: request.container,
        instance: instance.to_string(),
        command: if request.follow { vec!["--follow".to_owned()] } else { Vec::new() },
        outcome: None,
    };
    let mut audit = OpenAudit::begin(context, record).await?;
    let wanted = LogRequest {
        stream_id,
        task: task.id.clone(),
        containers,
        follow: request.follow,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
    };
    let asked = ask(context, instance, wanted).await;
    let (first, rest) = asked.inspect_err(|error| audit.failed(error))?;
    Ok(Logs { first, rest, audit })
}

/// Asks the node and waits for its first message.
async fn ask(
    context: &Context,
    of: &ContainerInstanceId,
    wanted: LogRequest,
) -> Result<(Option<LogBatch>, OpenStream), ApiError> {
    let mut rest = context.logs.open(&wanted.stream_id, of, context.sessions.says_log_end(of));
    let instance = of.to_string();
    if !context.sessions.ask_for_logs(of, wanted) {
        return Err(ApiError::NodeNotConnected { instance });
    }
    let first = tokio::time::timeout(ANSWER_LIMIT, rest.next()).await;
    let seconds = ANSWER_LIMIT.as_secs();
    let first = first.map_err(|_| ApiError::NodeDidNotAnswer { instance, seconds })?;
    // A log that cannot be read at all is the answer itself, not the end of a stream.
    Ok((first.transpose()?, rest))
}

impl Logs {
    /// The next lines; `None` when the node has ended the stream well. The first message of a node for
    /// a log that is empty so far has no lines; it is passed on, for the reader to see that the stream
    /// is open.
    pub async fn next(&mut self) -> Option<Result<LogBatch, ApiError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let next = self.rest.next().await;
        if let Some(Err(error)) = &next {
            self.audit.failed(error);
        }
        next
    }
}
