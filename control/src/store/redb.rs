//! The embedded store: one redb file, one transaction with fsync for each batch.
//! In: a path, and the incarnation to give a new store. Out: a `Store`.
//! redb takes nothing more after a failed read or write: the file is opened again then, which shows
//! what became of the batch, and a full disk gets the reserve's room first.
//! Owns: control.redb, and its reserve. Never: opens a file that another process has open (redb locks it).

use super::reserve::{RedbSettings, Reserve};
use super::{Batch, Campaign, CommitOutcome, Followed, Lease, Loaded, Reader, Room, Size, Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Some 5 ms of writing beside one wait for the disk.
const BATCH_RECORDS: usize = 1_024;
/// redb's default cache is 1 GiB; the state is in memory anyway and the file is read once, at a start.
const CACHE_BYTES: usize = 8 << 20;
/// A smaller file is not worth the time.
const SHRINK_FROM_BYTES: u64 = 8 << 20;
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");
const TERM: &str = "term";
const SEQUENCE: &str = "sequence";
const INCARNATION: &str = "incarnation";

/// A store in one file.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    database: SharedDatabase,
    reserve: Arc<Reserve>,
}

/// Shared with readers; compaction and opening again wait for them, and they for it. `None` while
/// it could not be opened again.
type SharedDatabase = Arc<RwLock<Option<Database>>>;

/// Reads what is committed when it begins, whatever is committed meanwhile.
struct RedbReader(SharedDatabase);

impl Reader for RedbReader {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let database = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| read_error(redb::Error::DatabaseClosed))?;
        read_all(database, "").map_err(read_error)
    }
}

/// What a try to write a batch has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Now,
    /// By the try before, whose answer was an error.
    Before,
    Fenced,
}

fn read_all(database: &Database, prefix: &str) -> Result<Loaded, redb::Error> {
    let read = database.begin_read()?;
    let mut records = Vec::new();
    for entry in read.open_table(RECORDS)?.range(prefix..)? {
        let (key, value) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        records.push((key.value().to_owned(), value.value().to_vec()));
    }
    let (term, sequence) = numbers_of(&read)?;
    let incarnation =
        read.open_table(TEXTS)?.get(INCARNATION)?.map_or(String::new(), |text| text.value().to_owned());
    Ok(Loaded { incarnation, term, sequence, records })
}

fn read_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Read { source: Box::new(source.into()) }
}

fn write_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Write { source: Box::new(source.into()) }
}

/// Whether the disk has no room.
fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

fn open_database(path: &Path) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    Ok(builder.create(path)?)
}

impl RedbStore {
    /// Opens the file, readable by its owner only; a new one gets the incarnation given. Nothing is
    /// kept back of the disk.
    pub fn open(path: &Path, new_incarnation: &str) -> Result<Self, StoreError> {
        Self::open_with(path, new_incarnation, RedbSettings::default())
    }

    /// The same, with a reserve.
    pub fn open_with(path: &Path, new_incarnation: &str, settings: RedbSettings) -> Result<Self, StoreError> {
        let open_error = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        // Made by hand first, for its mode: redb would follow the umask.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| open_error(Box::new(error)))?;
        let reserve = Reserve::new(path, settings);
        let database = match open_database(path) {
            Err(error) if is_full(&error) && reserve.release() => open_database(path),
            other => other,
        };
        let database = database.map_err(|error| open_error(Box::new(error)))?;
        let mut store =
            Self { path: path.to_owned(), database: Arc::new(RwLock::new(Some(database))), reserve };
        store.persist(|database, _| prepare(database, new_incarnation)).map_err(read_error)?;
        if let Err(error) = store.shrink() {
            tracing::warn!(cause = %crate::writer::Chain(&error), "the store keeps room that it does not need");
        }
        Ok(store)
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)
    }

    /// Does what may be done again; after a failure once more, over the file opened anew, with the
    /// reserve's room when there was none. The second time `work` is told so.
    fn persist<T>(
        &mut self,
        work: impl Fn(&Database, bool) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let first = match self.with(|database| work(database, false)) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let released = is_full(&first) && self.reserve.release();
        tracing::warn!(error = %first, released, "the store failed; its file is opened again");
        self.reopen()?;
        if is_full(&first) && !released {
            return Err(first);
        }
        self.with(|database| work(database, true))
    }

    /// Closes the file and opens it again: redb finds the last whole transaction.
    fn reopen(&self) -> Result<(), redb::Error> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: it is locked.
        drop(database.take());
        *database = Some(open_database(&self.path)?);
        Ok(())
    }

    /// Gives back what is free when that is more than half of a large file. The file is reused while
    /// it is open, and a start is when nobody waits for a commit.
    fn shrink(&mut self) -> Result<(), StoreError> {
        let length = std::fs::metadata(&self.path).map_err(|error| read_error(redb::Error::Io(error)))?.len();
        if length < SHRINK_FROM_BYTES || length / 2 < self.with(allocated).map_err(read_error)? {
            return Ok(());
        }
        self.compact()
    }

    /// What became of a batch that failed twice: the file says it, when it can be opened.
    fn settle(&self, term: u64, sequence: u64, error: &redb::Error) -> CommitOutcome {
        let full = is_full(error);
        tracing::error!(%error, sequence, "the store did not take a batch");
        if full {
            self.reserve.exhausted();
        }
        let stored = self.reopen().and_then(|()| self.with(read_numbers));
        match stored {
            Ok((there, last)) if there == term && last == sequence => CommitOutcome::Committed,
            Ok((there, last)) if there == term && last + 1 == sequence => CommitOutcome::NotTaken { full },
            Ok(_) => CommitOutcome::Fenced,
            Err(error) => {
                tracing::error!(%error, "the store cannot be opened again");
                CommitOutcome::Unknown
            }
        }
    }
}

/// Bytes of the pages in use.
fn allocated(database: &Database) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let stats = write.stats()?;
    let bytes = stats.allocated_pages() * stats.page_size() as u64;
    write.abort()?;
    Ok(bytes)
}

/// The term and the sequence.
fn read_numbers(database: &Database) -> Result<(u64, u64), redb::Error> {
    numbers_of(&database.begin_read()?)
}

fn numbers_of(read: &redb::ReadTransaction) -> Result<(u64, u64), redb::Error> {
    let numbers = read.open_table(NUMBERS)?;
    let number = |name| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
    Ok((number(TERM)?, number(SEQUENCE)?))
}

fn prepare(database: &Database, new_incarnation: &str) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        write.open_table(RECORDS)?;
        write.open_table(NUMBERS)?;
        let mut texts = write.open_table(TEXTS)?;
        if texts.get(INCARNATION)?.is_none() {
            texts.insert(INCARNATION, new_incarnation)?;
        }
    }
    write.commit()?;
    Ok(())
}

fn next_term(database: &Database, floor: u64) -> Result<u64, redb::Error> {
    let write = database.begin_write()?;
    let term = {
        let mut numbers = write.open_table(NUMBERS)?;
        let last = numbers.get(TERM)?.map_or(0, |term| term.value());
        let term = floor.max(last + 1);
        numbers.insert(TERM, term)?;
        term
    };
    write.commit()?;
    Ok(term)
}

/// Everything anew in one transaction.
fn replace(database: &Database, content: &Loaded) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    write.delete_table(RECORDS)?;
    {
        let mut records = write.open_table(RECORDS)?;
        for (key, value) in &content.records {
            records.insert(key.as_str(), value.as_slice())?;
        }
        let mut numbers = write.open_table(NUMBERS)?;
        let last = numbers.get(TERM)?.map_or(0, |term| term.value());
        numbers.insert(TERM, last.max(content.term) + 1)?;
        numbers.insert(SEQUENCE, content.sequence)?;
        write.open_table(TEXTS)?.insert(INCARNATION, content.incarnation.as_str())?;
    }
    write.commit()?;
    Ok(())
}

/// Writes a batch that follows the last one; `again` after a try that ended in an error.
fn write(
    database: &Database,
    term: u64,
    sequence: u64,
    batch: &Batch,
    again: bool,
) -> Result<Written, redb::Error> {
    let write = database.begin_write()?;
    let (leads, last) = {
        let mut numbers = write.open_table(NUMBERS)?;
        let is = |name| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
        let (leads, last) = (is(TERM)? == term, is(SEQUENCE)?);
        if leads && last + 1 == sequence {
            numbers.insert(SEQUENCE, sequence)?;
            let mut records = write.open_table(RECORDS)?;
            for (key, value) in batch {
                match value {
                    Some(value) => records.insert(key.as_str(), value.as_slice())?,
                    None => records.remove(key.as_str())?,
                };
            }
        }
        (leads, last)
    };
    if leads && last + 1 == sequence {
        write.commit()?;
        return Ok(Written::Now);
    }
    write.abort()?;
    // Nobody else has the file open: that sequence in this term is this batch.
    Ok(if again && leads && last == sequence { Written::Before } else { Written::Fenced })
}

impl Store for RedbStore {
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError> {
        let term = self.persist(|database, _| next_term(database, term_floor)).map_err(write_error)?;
        Ok(Campaign::Elected { term })
    }

    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError> {
        let loaded = self.persist(|database, _| read_all(database, prefix)).map_err(read_error)?;
        if loaded.incarnation.is_empty() {
            return Err(StoreError::Damaged { what: "it has no incarnation".to_owned() });
        }
        Ok(loaded)
    }

    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        let outcome = match self.persist(|database, again| write(database, term, sequence, batch, again)) {
            Ok(Written::Now | Written::Before) => CommitOutcome::Committed,
            Ok(Written::Fenced) => return CommitOutcome::Fenced,
            Err(error) => return self.settle(term, sequence, &error),
        };
        self.reserve.glance();
        outcome
    }

    /// Nobody else has the file open, so nobody else leads.
    fn follow(&mut self, _: u64, _: Duration) -> Result<Followed, StoreError> {
        Ok(Followed::Vacant)
    }

    fn lease(&self) -> Lease {
        Lease::for_ever()
    }

    fn batch_records(&self) -> usize {
        BATCH_RECORDS
    }

    fn room(&self) -> Room {
        self.reserve.room().clone()
    }

    /// The file's lock ends with its owner.
    fn resign(&mut self) {}

    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError> {
        self.persist(|database, _| replace(database, content)).map_err(write_error)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(RedbReader(self.database.clone())))
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_mut().ok_or_else(|| write_error(redb::Error::DatabaseClosed))?;
        // Each pass moves what one transaction may, until a pass finds nothing.
        while database.compact().map_err(write_error)? {}
        Ok(())
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        let stored = |database: &Database| {
            let write = database.begin_write()?;
            let stats = write.stats()?;
            let bytes = stats.stored_bytes() + stats.metadata_bytes();
            write.abort()?;
            Ok(bytes)
        };
        Ok(Size { used_bytes: self.with(stored).map_err(read_error)?, ..self.reserve.room().size() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_full_of_tasks_shrinks_to_what_lives_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        let mut store = RedbStore::open(&path, "one").unwrap();
        store.campaign(1).unwrap();
        let key = |number: u32| format!("task/{number:08}");
        let mut sequence = 0;
        let mut commit = |store: &mut RedbStore, range: std::ops::Range<u32>, value: Option<Vec<u8>>| {
            let batch = range.map(|number| (key(number), value.clone())).collect();
            sequence += 1;
            assert_eq!(store.commit(1, sequence, &batch), CommitOutcome::Committed);
        };
        for group in 0..40 {
            commit(&mut store, group * 1_000..(group + 1) * 1_000, Some(vec![b'x'; 700]));
        }
        commit(&mut store, 0..37_000, None);
        drop(store);
        let full = std::fs::metadata(&path).unwrap().len();
        let mut store = RedbStore::open(&path, "one").unwrap();
        let (small, live) = (std::fs::metadata(&path).unwrap().len(), store.size().unwrap().used_bytes);
        assert!(full > 20_000_000 && small <= live * 2, "{full}, then {small} for {live}");
        assert_eq!(store.load("task/").unwrap().records.len(), 3_000);
    }
}
