//! The agent's own store, `agent.redb`: what must survive the agent (decision 4).
//! In: batches of operations. Out: an answer after the batch is durable. Owns: one thread, which
//! commits whatever has queued as one group; nothing waits for a timer.
//! A damaged or newer store is set aside, and the agent starts with an empty one and adopts what the
//! shims report. Never: read while running; the actors hold what they need.

pub(crate) mod records;
mod writer;

use lighter_model::ids::{ContainerName, TaskDefinitionId, TaskId};
use records::{AssignmentRecord, FORMAT_VERSION, LogDeliveryRecord, SessionRecord, TaskRecord};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

const ASSIGNMENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("assignments");
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
const DEFINITIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("definitions");
const LOG_DELIVERIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("log-deliveries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SESSION_KEY: &str = "session";

/// The store holds a few kilobytes a task; redb's default would be a gigabyte.
const CACHE_BYTES: usize = 4 << 20;

/// Each task's actor may have two commits under way (a step and RUNNING), the reconciler one; with
/// 500 tasks starting at once the rest wait here.
const QUEUE_DEPTH: usize = 256;

/// One change. The operations of a batch become durable together.
#[derive(Debug, Clone)]
pub(crate) enum StoreOp {
    PutAssignment(Box<AssignmentRecord>),
    PutTask(Box<TaskRecord>),
    PutDefinition {
        id: TaskDefinitionId,
        json: String,
    },
    PutSession(SessionRecord),
    /// Assignment and task record.
    Forget(TaskId),
    PutLogDelivery(Box<LogDeliveryRecord>),
    ForgetLogDelivery {
        task: TaskId,
        container: ContainerName,
    },
}

/// A batch was not committed; nothing of it is in the store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("write the agent's store {path:?}; check that its disk is neither full nor read-only")]
pub(crate) struct StoreError {
    pub path: PathBuf,
    #[source]
    pub source: Arc<redb::Error>,
}

/// Why there is no store at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("another agent runs with this data directory: {path:?} is locked")]
    Locked { path: PathBuf },
    #[error("open the agent's store {path:?}")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("set the damaged store {path:?} aside")]
    SetAside {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// All that was in the store.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub assignments: Vec<AssignmentRecord>,
    pub tasks: Vec<TaskRecord>,
    pub definitions: Vec<(TaskDefinitionId, String)>,
    pub session: SessionRecord,
    pub log_deliveries: Vec<LogDeliveryRecord>,
    /// Where a store that could not be used is now.
    pub set_aside: Option<PathBuf>,
}

/// A handle to the writer; clones are cheap. The file is closed when the last one is gone.
#[derive(Clone)]
pub(crate) struct Store {
    queue: mpsc::Sender<writer::Batch>,
    path: Arc<PathBuf>,
    /// Where tests stop the agent before and after a commit.
    #[cfg(test)]
    pub(crate) machine: Option<crate::facilities::fakes::Machine>,
}

impl Store {
    /// Opens or makes the store and reads it whole. Blocks.
    pub(crate) fn open(path: &Path) -> Result<(Self, Loaded), OpenStoreError> {
        let (database, loaded) = open_or_set_aside(path)?;
        let (queue, batches) = mpsc::channel(QUEUE_DEPTH);
        let thread_path = path.to_path_buf();
        // A thread, not a tokio task: commits block, and the group forms while one is under way.
        std::thread::Builder::new()
            .name("agent-store".into())
            .spawn(move || writer::run(thread_path, database, batches))
            .map_err(|error| OpenStoreError::Open {
                path: path.to_path_buf(),
                source: Box::new(redb::Error::Io(error)),
            })?;
        let store = Self {
            queue,
            path: Arc::new(path.to_path_buf()),
            #[cfg(test)]
            machine: None,
        };
        Ok((store, loaded))
    }

    /// Returns when everything of the batch is durable. Batches are committed in the order given.
    pub(crate) async fn commit(&self, ops: Vec<StoreOp>) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(machine) = &self.machine {
            machine.point("before commit".to_owned()).await;
        }
        let (answer, done) = oneshot::channel();
        // The thread ends only with the last handle.
        let gone = || StoreError {
            path: self.path.to_path_buf(),
            source: Arc::new(redb::Error::Io(std::io::Error::other("the writer has ended"))),
        };
        self.queue.send(writer::Batch { ops, answer }).await.map_err(|_| gone())?;
        let committed = done.await.map_err(|_| gone())?;
        #[cfg(test)]
        if let Some(machine) = &self.machine {
            machine.point("after commit".to_owned()).await;
        }
        committed
    }
}

fn open_or_set_aside(path: &Path) -> Result<(Database, Loaded), OpenStoreError> {
    match open_and_load(path) {
        Ok(opened) => Ok(opened),
        Err(redb::Error::DatabaseAlreadyOpen) => Err(OpenStoreError::Locked { path: path.to_path_buf() }),
        // The disk's fault, not the file's: an empty store would forget tasks for nothing.
        Err(source @ redb::Error::Io(_)) if !is_damage(&source) => {
            Err(OpenStoreError::Open { path: path.to_path_buf(), source: Box::new(source) })
        }
        Err(source) => {
            let aside = path.with_extension(format!("redb.set-aside-{}", crate::time::unix_ms()));
            tracing::error!(store = %path.display(), kept_as = %aside.display(), cause = %source, "the store cannot be used and is set aside; tasks that run are adopted");
            std::fs::rename(path, &aside)
                .map_err(|source| OpenStoreError::SetAside { path: path.to_path_buf(), source })?;
            let open = |source| OpenStoreError::Open { path: path.to_path_buf(), source: Box::new(source) };
            let (database, mut loaded) = open_and_load(path).map_err(open)?;
            loaded.set_aside = Some(aside);
            Ok((database, loaded))
        }
    }
}

/// redb reports a file that is none of its own as InvalidData, one that ends early as UnexpectedEof.
fn is_damage(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    matches!(error, redb::Error::Io(source) if matches!(source.kind(), InvalidData | UnexpectedEof))
}

fn open_and_load(path: &Path) -> Result<(Database, Loaded), redb::Error> {
    let database = writer::open(path)?;
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();
    if let Some(session) = transaction.open_table(META)?.get(SESSION_KEY)? {
        loaded.session = decode(session.value())?;
    }
    for row in transaction.open_table(ASSIGNMENTS)?.iter()? {
        loaded.assignments.push(decode(row?.1.value())?);
    }
    for row in transaction.open_table(TASKS)?.iter()? {
        loaded.tasks.push(decode(row?.1.value())?);
    }
    for row in transaction.open_table(LOG_DELIVERIES)?.iter()? {
        loaded.log_deliveries.push(decode(row?.1.value())?);
    }
    for row in transaction.open_table(DEFINITIONS)?.iter()? {
        let (id, json) = row?;
        let id = id.value().parse().map_err(|_| damaged("a definition's name"))?;
        loaded.definitions.push((id, String::from_utf8_lossy(json.value()).into_owned()));
    }
    Ok((database, loaded))
}

/// Only what has `version`; the rest is looked at when the version is known.
#[derive(serde::Deserialize)]
struct Versioned {
    version: u16,
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    let version: Versioned = serde_json::from_slice(bytes).map_err(|_| damaged("a record"))?;
    if version.version > FORMAT_VERSION {
        return Err(damaged("a record of a newer version"));
    }
    serde_json::from_slice(bytes).map_err(|_| damaged("a record"))
}

fn damaged(what: &str) -> redb::Error {
    redb::Error::Corrupted(format!("{what} cannot be read"))
}

#[cfg(test)]
mod tests;
