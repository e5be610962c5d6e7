//! Any store, made to fail on order: a lost answer, a lost batch, a fence, a read that fails.
//! In: a store, and faults for the calls to come. Out: a store. Never: in the product.

use super::{Batch, Campaign, CommitOutcome, Followed, Lease, Loaded, Reader, Room, Size, Store, StoreError};
use crate::store::memory::Fault;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Orders for the commits to come; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    commits: Arc<Mutex<VecDeque<Option<Fault>>>>,
    unanswered_campaigns: Arc<AtomicU32>,
}

impl Faults {
    /// What the commits to come do; `None` is one that works, and so are all after the last.
    pub fn plan(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    /// So many campaigns to come get no answer.
    pub fn leave_campaigns_unanswered(&self, campaigns: u32) {
        self.unanswered_campaigns.store(campaigns, Ordering::Relaxed);
    }

    /// How many of them are still to come.
    pub fn unanswered_left(&self) -> u32 {
        self.unanswered_campaigns.load(Ordering::Relaxed)
    }

    fn is_answered(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.unanswered_campaigns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }

    fn next(&self) -> Option<Fault> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten()
    }
}

/// A store whose commits fail as planned.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S: Store> Faulty<S> {
    /// Works until faults are planned.
    pub fn new(inner: S) -> (Self, Faults) {
        let faults = Faults::default();
        (Self { inner, faults: faults.clone() }, faults)
    }
}

impl<S: Store> Store for Faulty<S> {
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError> {
        if !self.faults.is_answered() {
            return Err(StoreError::Unreachable { source: "it was told not to answer".into() });
        }
        self.inner.campaign(term_floor)
    }
    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError> {
        self.inner.load(prefix)
    }
    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        match self.faults.next() {
            Some(Fault::Fenced) => CommitOutcome::Fenced,
            Some(Fault::UnknownLost) => CommitOutcome::Unknown,
            Some(Fault::NotTaken { full }) => CommitOutcome::NotTaken { full },
            Some(Fault::UnknownApplied) => {
                self.inner.commit(term, sequence, batch);
                CommitOutcome::Unknown
            }
            None => self.inner.commit(term, sequence, batch),
        }
    }
    fn follow(&mut self, after: u64, limit: Duration) -> Result<Followed, StoreError> {
        self.inner.follow(after, limit)
    }
    fn lease(&self) -> Lease {
        self.inner.lease()
    }
    fn room(&self) -> Room {
        self.inner.room()
    }
    fn advertise(&mut self, endpoint: &str) {
        self.inner.advertise(endpoint);
    }
    fn resign(&mut self) {
        self.inner.resign();
    }
    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError> {
        self.inner.restore(content)
    }
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }
    fn compact(&mut self) -> Result<(), StoreError> {
        self.inner.compact()
    }
    fn size(&mut self) -> Result<Size, StoreError> {
        self.inner.size()
    }
}
