//! What the core needs of a store, whichever it is.
//! In: batches of puts and deletes under a term and a sequence. Out: whether they are durable, and
//! who leads. Implementations: `redb` (one machine), `etcd` (several), `memory` (tests), and
//! `faulty`, which makes any of them fail; one conformance suite holds them all to these words.
//! Never: answers "committed" before the batch would survive a power cut.

pub mod etcd;
pub mod faulty;
pub mod lease;
pub mod memory;
pub mod redb;
mod reserve;
mod room;

pub use lease::Lease;
pub use reserve::RedbSettings;
pub use room::{Level, Room};

use std::collections::BTreeMap;
use std::time::Duration;

/// Everything in a store at one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Random, made with the store; another one means that this is not the store it was.
    pub incarnation: String,
    /// Of the leader that took the lead last.
    pub term: u64,
    /// The last batch committed.
    pub sequence: u64,
    /// The records whose key begins with the prefix asked for, by key.
    pub records: Vec<(String, Vec<u8>)>,
}

/// Tells one store from others: the first eight bytes of the SHA-256 of its incarnation.
pub fn mark(incarnation: &str) -> u64 {
    let hash = ring::digest::digest(&ring::digest::SHA256, incarnation.as_bytes());
    hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Records of a batch that every store takes: etcd's operations of one plain transaction.
pub const BATCH_RECORDS: usize = 128;

/// One batch: a value is put, `None` is deleted.
pub type Batch = BTreeMap<String, Option<Vec<u8>>>;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Durable.
    Committed,
    /// Not applied: somebody else leads, or the sequence does not follow the last one.
    Fenced,
    /// Not applied, and it never will be: the store is as before and its owner still leads.
    NotTaken {
        /// Because there is no room.
        full: bool,
    },
    /// Applied or not; only campaigning and loading tells.
    Unknown,
}

/// Who leads, as it said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leader {
    /// Where it serves nodes and people: `https://host:port`; may be empty.
    pub endpoint: String,
    pub term: u64,
}

/// What became of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Campaign {
    /// This store's owner leads in a new term. Batches of all earlier terms are fenced from here on.
    Elected { term: u64 },
    /// Somebody else leads and its lease has not run out.
    Standby(Leader),
}

/// What a standby has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// All that was committed after the sequence asked for, in order, without gaps; may be empty.
    Batches(Vec<(u64, Batch)>),
    /// Nobody leads: campaign.
    Vacant,
    /// What comes after that sequence is no longer there one by one: load.
    TooOld,
}

/// The room that a store takes and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub used_bytes: u64,
    /// 0: no limit is known.
    pub limit_bytes: u64,
}

/// Why a store cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the store {path:?}")]
    Open {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It may answer when asked again.
    #[error("the store does not answer")]
    Unreachable {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the store")]
    Read {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot write the store")]
    Write {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the store's own counters are damaged: {what}")]
    Damaged { what: String },
    #[error("the store's records are not in this program's format")]
    Format {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the control plane at {:?} leads", leader.endpoint)]
    Led { leader: Leader },
    #[error("the store is in use: {what}")]
    InUse { what: String },
}

/// Reads all of a store at one sequence while its owner goes on.
pub trait Reader: Send + 'static {
    fn load(&mut self) -> Result<Loaded, StoreError>;
}

/// A store. Calls block; they are made on a thread of their own, one at a time. An implementation
/// renews its leadership by itself, however long a call takes; `lease` shows how that stands.
pub trait Store: Send + 'static {
    /// Takes the lead, unless somebody else surely has it. The new term is higher than the last and
    /// at least the floor: given the wall clock it also surpasses every term of a store that was set
    /// back to a backup, whose nodes would refuse a lower one. Campaigning while leading begins a
    /// new term.
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError>;

    /// Reads everything below the prefix as of one sequence. A leader's copy is the newest there is.
    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError>;

    /// Makes a batch durable, whole or not at all; `sequence` is the last one plus one.
    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome;

    /// For standbys: waits until something was committed after that sequence, the lead is vacant,
    /// or the limit has passed.
    fn follow(&mut self, after: u64, limit: Duration) -> Result<Followed, StoreError>;

    /// How surely this store's owner leads; the same for the whole life of the store.
    fn lease(&self) -> Lease;

    /// How much room is left; the same for the whole life of the store.
    fn room(&self) -> Room;

    /// Where the owner serves: what others are told of their leader. Before the first campaign.
    fn advertise(&mut self, _endpoint: &str) {}

    /// Records of one batch at most: larger batches share one wait for the disk, and no answer comes
    /// before the last of them is written.
    fn batch_records(&self) -> usize {
        BATCH_RECORDS
    }

    /// Gives the lead up, so that another need not wait for the lease to run out. Commits nothing
    /// afterwards.
    fn resign(&mut self);

    /// Replaces all that is there, incarnation included; refused while somebody else leads.
    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError>;

    /// Reads beside the owner, without keeping it from committing.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;

    /// Gives back the room of what was overwritten and deleted.
    fn compact(&mut self) -> Result<(), StoreError>;

    /// How large the store is.
    fn size(&mut self) -> Result<Size, StoreError>;
}
