//! The embedded store: one redb file, one transaction with fsync for each batch.
//! In: a path, and the incarnation to give a new store. Out: a `Store`.
//! Owns: control.redb. Never: opens a file that another process has open (redb locks it).

use super::{Batch, CommitOutcome, Loaded, Store, StoreError};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// redb's default cache is 1 GiB; the state is in memory anyway and the file is read once, at a start.
const CACHE_BYTES: usize = 32 << 20;
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");
const TERM: &str = "term";
const SEQUENCE: &str = "sequence";
const INCARNATION: &str = "incarnation";

/// A store in one file.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
}

fn read_error(source: impl Into<redb::Error>) -> StoreError {
    StoreError::Read { source: Box::new(source.into()) }
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
        let store = Self { database };
        store.prepare(new_incarnation).map_err(read_error)?;
        Ok(store)
    }

    fn prepare(&self, new_incarnation: &str) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
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
        let write = self.database.begin_write()?;
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

    fn read_all(&self, term: u64) -> Result<Loaded, redb::Error> {
        let read = self.database.begin_read()?;
        let mut records = Vec::new();
        for entry in read.open_table(RECORDS)?.iter()? {
            let (key, value) = entry?;
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
        let sequence = read.open_table(NUMBERS)?.get(SEQUENCE)?.map_or(0, |number| number.value());
        let incarnation =
            read.open_table(TEXTS)?.get(INCARNATION)?.map_or(String::new(), |text| text.value().to_owned());
        Ok(Loaded { incarnation, term, sequence, records })
    }

    /// `false` when fenced.
    fn write(&self, term: u64, sequence: u64, batch: &Batch) -> Result<bool, redb::Error> {
        let write = self.database.begin_write()?;
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
    fn load(&mut self, term_floor: u64) -> Result<Loaded, StoreError> {
        let term = self.next_term(term_floor).map_err(read_error)?;
        let loaded = self.read_all(term).map_err(read_error)?;
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
}
