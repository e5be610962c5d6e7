//! The embedded store: one redb file, one transaction with fsync for each batch.
//! In: a path, and the incarnation to give a new store. Out: a `Store`.
//! Owns: control.redb. Never: opens a file that another process has open (redb locks it).

use super::{Batch, Campaign, CommitOutcome, Followed, Lease, Loaded, Reader, Size, Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// redb's default cache is 1 GiB; the state is in memory anyway and the file is read once, at a start.
const CACHE_BYTES: usize = 32 << 20;
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
    database: SharedDatabase,
}

/// Shared with readers; compaction waits for them, and they for it.
type SharedDatabase = Arc<RwLock<Database>>;

/// Reads what is committed when it begins, whatever is committed meanwhile.
struct RedbReader(SharedDatabase);

impl Reader for RedbReader {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let database = self.0.read().unwrap_or_else(PoisonError::into_inner);
        read_all(&database, "").map_err(read_error)
    }
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
    let numbers = read.open_table(NUMBERS)?;
    let number = |name| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
    let (term, sequence) = (number(TERM)?, number(SEQUENCE)?);
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

impl RedbStore {
    /// Opens the file, readable by its owner only; a new one gets the incarnation given.
    pub fn open(path: &Path, new_incarnation: &str) -> Result<Self, StoreError> {
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
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        let database = builder.create(path).map_err(|error| open_error(Box::new(error)))?;
        let mut store = Self { database: Arc::new(RwLock::new(database)) };
        store.prepare(new_incarnation).map_err(read_error)?;
        if let Err(error) = store.shrink(path) {
            tracing::warn!(cause = %crate::writer::Chain(&error), "the store keeps room that it does not need");
        }
        Ok(store)
    }

    fn database(&self) -> RwLockReadGuard<'_, Database> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what is free when that is more than half of a large file. The file is reused while
    /// it is open, and a start is when nobody waits for a commit.
    fn shrink(&mut self, path: &Path) -> Result<(), StoreError> {
        let length = std::fs::metadata(path).map_err(|error| read_error(redb::Error::Io(error)))?.len();
        if length < SHRINK_FROM_BYTES || length / 2 < self.allocated().map_err(read_error)? {
            return Ok(());
        }
        self.compact()
    }

    /// Bytes of the pages in use.
    fn allocated(&self) -> Result<u64, redb::Error> {
        let write = self.database().begin_write()?;
        let stats = write.stats()?;
        let bytes = stats.allocated_pages() * stats.page_size() as u64;
        write.abort()?;
        Ok(bytes)
    }

    fn prepare(&self, new_incarnation: &str) -> Result<(), redb::Error> {
        let write = self.database().begin_write()?;
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

    fn next_term(&self, floor: u64) -> Result<u64, redb::Error> {
        let write = self.database().begin_write()?;
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
    fn replace(&self, content: &Loaded) -> Result<(), redb::Error> {
        let write = self.database().begin_write()?;
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

    /// `false` when fenced.
    fn write(&self, term: u64, sequence: u64, batch: &Batch) -> Result<bool, redb::Error> {
        let write = self.database().begin_write()?;
        let leads = {
            let mut numbers = write.open_table(NUMBERS)?;
            let is = |name| Ok::<u64, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
            let leads = is(TERM)? == term && is(SEQUENCE)? + 1 == sequence;
            if leads {
                numbers.insert(SEQUENCE, sequence)?;
                let mut records = write.open_table(RECORDS)?;
                for (key, value) in batch {
                    match value {
                        Some(value) => records.insert(key.as_str(), value.as_slice())?,
                        None => records.remove(key.as_str())?,
                    };
                }
            }
            leads
        };
        if leads {
            write.commit()?;
        } else {
            write.abort()?;
        }
        Ok(leads)
    }
}

impl Store for RedbStore {
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError> {
        Ok(Campaign::Elected { term: self.next_term(term_floor).map_err(read_error)? })
    }

    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError> {
        let loaded = read_all(&self.database(), prefix).map_err(read_error)?;
        if loaded.incarnation.is_empty() {
            return Err(StoreError::Damaged { what: "it has no incarnation".to_owned() });
        }
        Ok(loaded)
    }

    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        match self.write(term, sequence, batch) {
            Ok(true) => CommitOutcome::Committed,
            Ok(false) => CommitOutcome::Fenced,
            Err(error) => {
                tracing::error!(%error, sequence, "the store did not take a batch");
                CommitOutcome::Unknown
            }
        }
    }

    /// Nobody else has the file open, so nobody else leads.
    fn follow(&mut self, _: u64, _: Duration) -> Result<Followed, StoreError> {
        Ok(Followed::Vacant)
    }

    fn lease(&self) -> Lease {
        Lease::for_ever()
    }

    /// The file's lock ends with its owner.
    fn resign(&mut self) {}

    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError> {
        self.replace(content).map_err(write_error)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(RedbReader(self.database.clone())))
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Each pass moves what one transaction may, until a pass finds nothing.
        while database.compact().map_err(write_error)? {}
        Ok(())
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        let write = self.database().begin_write().map_err(read_error)?;
        let stats = write.stats().map_err(read_error)?;
        let used_bytes = stats.stored_bytes() + stats.metadata_bytes();
        write.abort().map_err(read_error)?;
        Ok(Size { used_bytes, limit_bytes: 0 })
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
