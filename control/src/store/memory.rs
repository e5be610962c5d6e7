//! A store in memory that can be told to fail: for tests and simulations.
//! In: batches, and orders to fail. Out: outcomes. Shared by its clones, as a file is by its openers.
//! Never: in the product; nothing in it survives the process.

use super::{Batch, CommitOutcome, Loaded, Store, StoreError};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How one commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else leads.
    Fenced,
    /// The batch is applied, but the answer is lost.
    UnknownApplied,
    /// The batch is not applied, and nobody can tell.
    UnknownLost,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<String, Vec<u8>>,
    incarnation: String,
    term: u64,
    sequence: u64,
    faults: VecDeque<Option<Fault>>,
    commits: u64,
}

/// The store; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

impl MemoryStore {
    /// An empty store.
    pub fn new(incarnation: &str) -> Self {
        Self(Arc::new(Mutex::new(Inner { incarnation: incarnation.to_owned(), ..Inner::default() })))
    }

    /// What the commits to come do; `None` is a commit that works, and so are all after the last.
    pub fn plan(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.inner().faults.extend(faults);
    }

    /// Commits tried so far.
    pub fn commits(&self) -> u64 {
        self.inner().commits
    }

    /// All records as they are now.
    pub fn records(&self) -> Vec<(String, Vec<u8>)> {
        self.inner().records.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self, term_floor: u64) -> Result<Loaded, StoreError> {
        let mut inner = self.inner();
        inner.term = term_floor.max(inner.term + 1);
        Ok(Loaded {
            incarnation: inner.incarnation.clone(),
            term: inner.term,
            sequence: inner.sequence,
            records: inner.records.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        let mut inner = self.inner();
        inner.commits += 1;
        let fault = inner.faults.pop_front().flatten();
        if fault == Some(Fault::Fenced) || term != inner.term || sequence != inner.sequence + 1 {
            return CommitOutcome::Fenced;
        }
        if fault == Some(Fault::UnknownLost) {
            return CommitOutcome::Unknown;
        }
        for (key, value) in batch {
            match value {
                Some(value) => inner.records.insert(key.clone(), value.clone()),
                None => inner.records.remove(key),
            };
        }
        inner.sequence = sequence;
        if fault == Some(Fault::UnknownApplied) { CommitOutcome::Unknown } else { CommitOutcome::Committed }
    }
}
