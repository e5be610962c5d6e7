//! The thread that writes the store: takes what has queued, commits it as one group, answers all.
//! In: batches. Out: their answers. Owns: the database file.
//! After a failed commit the file is opened anew for the next group, because redb refuses to go on
//! after an I/O error; a disk that has space again is then used again.
//! Never: drops a batch without an answer.

use super::records::FORMAT_VERSION;
use super::{
    ASSIGNMENTS, CACHE_BYTES, DEFINITIONS, LOG_DELIVERIES, META, SESSION_KEY, StoreError, StoreOp, TASKS,
};
use redb::{Database, Durability, WriteTransaction};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// At most this many batches in one commit, so that the first of them does not wait for ever.
const GROUP_MAX: usize = 128;

pub(super) struct Batch {
    pub(super) ops: Vec<StoreOp>,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Opens or makes the file, with all tables.
pub(super) fn open(path: &Path) -> Result<Database, redb::Error> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    // Task definitions hold environment variables, and those hold secrets.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let transaction = database.begin_write()?;
    for table in [ASSIGNMENTS, TASKS, DEFINITIONS, LOG_DELIVERIES, META] {
        transaction.open_table(table)?;
    }
    transaction.commit()?;
    Ok(database)
}

pub(super) fn run(path: PathBuf, database: Database, mut batches: mpsc::Receiver<Batch>) {
    let mut open_database = Some(database);
    while let Some(first) = batches.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX {
            let Ok(next) = batches.try_recv() else { break };
            group.push(next);
        }
        let result = commit(&path, &mut open_database, &group).map_err(|source| {
            open_database = None;
            StoreError { path: path.clone(), source: Arc::new(source) }
        });
        for batch in group {
            // The asker may have left; the batch is committed all the same.
            let _ = batch.answer.send(result.clone());
        }
    }
}

fn commit(path: &Path, database: &mut Option<Database>, group: &[Batch]) -> Result<(), redb::Error> {
    let database = match database {
        Some(database) => database,
        None => database.insert(open(path)?),
    };
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for op in group.iter().flat_map(|batch| &batch.ops) {
        apply(&transaction, op)?;
    }
    transaction.commit()?;
    Ok(())
}

fn apply(transaction: &WriteTransaction, op: &StoreOp) -> Result<(), redb::Error> {
    match op {
        StoreOp::PutAssignment(record) => {
            let bytes = encode(record)?;
            transaction.open_table(ASSIGNMENTS)?.insert(record.task.as_str(), bytes.as_slice())?;
        }
        StoreOp::PutTask(record) => {
            let bytes = encode(record)?;
            transaction.open_table(TASKS)?.insert(record.task.as_str(), bytes.as_slice())?;
        }
        StoreOp::PutDefinition { id, json } => {
            transaction.open_table(DEFINITIONS)?.insert(id.to_string().as_str(), json.as_bytes())?;
        }
        StoreOp::PutSession(record) => {
            debug_assert_eq!(record.version, FORMAT_VERSION);
            let bytes = encode(record)?;
            transaction.open_table(META)?.insert(SESSION_KEY, bytes.as_slice())?;
        }
        StoreOp::Forget(task) => {
            transaction.open_table(ASSIGNMENTS)?.remove(task.as_str())?;
            transaction.open_table(TASKS)?.remove(task.as_str())?;
        }
        StoreOp::PutLogDelivery(record) => {
            let bytes = encode(record)?;
            let key = format!("{}/{}", record.task, record.container);
            transaction.open_table(LOG_DELIVERIES)?.insert(key.as_str(), bytes.as_slice())?;
        }
        StoreOp::ForgetLogDelivery { task, container } => {
            transaction.open_table(LOG_DELIVERIES)?.remove(format!("{task}/{container}").as_str())?;
        }
    }
    Ok(())
}

fn encode(record: &impl serde::Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(record).map_err(|error| redb::Error::Io(error.into()))
}
