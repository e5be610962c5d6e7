//! What the core needs of a store, whichever it is.
//! In: batches of puts and deletes under a term and a sequence. Out: whether they are durable.
//! Never: answers "committed" before the batch would survive a power cut.

pub mod memory;
pub mod redb;

use std::collections::BTreeMap;

/// Everything in a store at one sequence, read by whoever leads it from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Random, made with the store; another one means that this is not the store it was.
    pub incarnation: String,
    /// Grows with every load; a batch of a lower term is fenced.
    pub term: u64,
    /// The last batch committed.
    pub sequence: u64,
    /// All records, by key.
    pub records: Vec<(String, Vec<u8>)>,
}

/// One batch: a value is put, `None` is deleted.
pub type Batch = BTreeMap<String, Option<Vec<u8>>>;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Durable.
    Committed,
    /// Not applied: somebody else leads, or the sequence does not follow the last one.
    Fenced,
    /// Applied or not; only loading tells.
    Unknown,
}

/// Why a store cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the store {path:?}")]
    Open {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the store")]
    Read {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store's own counters are damaged: {what}")]
    Damaged { what: String },
}

/// A store. Calls block; they are made on a thread of their own.
pub trait Store: Send + 'static {
    /// Takes the lead and reads everything. The new term is higher than the last and at least the
    /// floor: given the wall clock it also surpasses every term of a store that was set back to a
    /// backup, whose nodes would refuse a lower one.
    fn load(&mut self, term_floor: u64) -> Result<Loaded, StoreError>;
    /// Makes a batch durable; `sequence` is the last one plus one.
    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome;
}
