//! Log streams between a reader and the node that has the lines, met by a stream id.
//! In: batches from `Node.SendLogs`. Out: the same, to the reader. Owns: which streams are open.
//! Never: takes lines from a node that was not asked, or holds more than a few batches.

use super::convert::LogBatch as Lines;
use crate::error::ApiError;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Batches between node and reader; the node fills batches, so a few keep both busy.
const BATCHES: usize = 8;

/// Lines as the node sends them.
pub type LogBatch = Lines;

/// What a node is asked for.
#[derive(Debug, Clone)]
pub struct LogRequest {
    pub stream_id: String,
    pub task: TaskId,
    /// At least one; the node merges their lines by time.
    pub containers: Vec<String>,
    pub follow: bool,
    pub tail_lines: Option<u32>,
    pub since_unix_ms: i64,
}

/// `None`: the node says that there is no more.
type Item = Result<Option<LogBatch>, ApiError>;

struct Waiting {
    instance: ContainerInstanceId,
    sender: mpsc::Sender<Item>,
}

type Streams = BTreeMap<String, Waiting>;

/// The streams that wait for their node.
#[derive(Default, Clone)]
pub struct LogStreams(Arc<Mutex<Streams>>);

/// The reader's end.
pub struct OpenStream {
    id: String,
    receiver: mpsc::Receiver<Item>,
    streams: LogStreams,
    /// The node is of those that say when a log has ended: silence means that it has gone away.
    says_end: bool,
    ended: bool,
}

impl OpenStream {
    /// The next batch; `None` at the end, and after an error.
    pub async fn next(&mut self) -> Option<Result<LogBatch, ApiError>> {
        if self.ended {
            return None;
        }
        let next = match self.receiver.recv().await {
            Some(Ok(Some(batch))) => return Some(Ok(batch)),
            Some(Ok(None)) => None,
            Some(Err(error)) => Some(Err(error)),
            None => self.says_end.then_some(Err(ApiError::StreamBroken)),
        };
        self.ended = true;
        next
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}

impl LogStreams {
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream that the instance is about to be asked for.
    pub fn open(&self, id: &str, instance: &ContainerInstanceId, says_end: bool) -> OpenStream {
        let (sender, receiver) = mpsc::channel(BATCHES);
        self.lock().insert(id.to_owned(), Waiting { instance: instance.clone(), sender });
        OpenStream { id: id.to_owned(), receiver, streams: self.clone(), says_end, ended: false }
    }

    /// The node's end, once; only for the node that was asked.
    pub fn take(&self, id: &str, caller: &ContainerInstanceId) -> Result<mpsc::Sender<Item>, ApiError> {
        let mut streams = self.lock();
        let not_found = || ApiError::LogStreamNotFound { stream: id.to_owned() };
        if streams.get(id).ok_or_else(not_found)?.instance != *caller {
            return Err(ApiError::AccessDenied {
                caller: format!("container instance {caller}"),
                method: format!("log stream {id} of another container instance"),
            });
        }
        streams.remove(id).map(|waiting| waiting.sender).ok_or_else(not_found)
    }
}
