//! A store in memory that can be told to fail: for tests and simulations.
//! In: batches, and orders to fail. Out: outcomes. Shared by its clones, as a file is by its openers.
//! Never: in the product; nothing in it survives the process.

use super::{
    Batch, Campaign, CommitOutcome, Followed, Leader, Lease, Loaded, Reader, Room, Size, Store, StoreError,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How one commit goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else leads.
    Fenced,
    /// The batch is applied, but the answer is lost.
    UnknownApplied,
    /// The batch is not applied, and nobody can tell.
    UnknownLost,
    /// The batch is refused.
    NotTaken { full: bool },
}

/// Batches kept for standbys.
const HISTORY: usize = 256;

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<String, Vec<u8>>,
    incarnation: String,
    term: u64,
    sequence: u64,
    faults: VecDeque<Option<Fault>>,
    commits: u64,
    history: VecDeque<(u64, Batch)>,
    /// Whether a leader keeps others from leading until it resigns or is deposed.
    elections: bool,
    /// The handle that leads, and its lease.
    leader: Option<(u64, Leader, Lease)>,
    handles: u64,
    limit_bytes: u64,
}

/// The store; clones share what is stored, each is an opener of its own.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<(Mutex<Inner>, Condvar)>,
    me: u64,
    endpoint: String,
    lease: Lease,
    room: Room,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        let mut inner = self.inner();
        inner.handles += 1;
        let (me, elections) = (inner.handles, inner.elections);
        drop(inner);
        let lease = if elections { Lease::none() } else { Lease::for_ever() };
        Self { shared: self.shared.clone(), me, endpoint: String::new(), lease, room: self.room.clone() }
    }
}

impl MemoryStore {
    /// An empty store; whoever campaigns wins.
    pub fn new(incarnation: &str) -> Self {
        Self::made(incarnation, false)
    }

    /// An empty store whose leader leads until it resigns or is deposed.
    pub fn with_elections(incarnation: &str) -> Self {
        Self::made(incarnation, true)
    }

    fn made(incarnation: &str, elections: bool) -> Self {
        let inner = Inner { incarnation: incarnation.to_owned(), elections, ..Inner::default() };
        let lease = if elections { Lease::none() } else { Lease::for_ever() };
        let (shared, room) =
            (Arc::new((Mutex::new(inner), Condvar::new())), Room::new("have the test make room"));
        Self { shared, me: 0, endpoint: String::new(), lease, room }
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

    /// The leader's lease runs out, without its knowing.
    pub fn depose(&self) {
        let deposed = self.inner().leader.take();
        if let Some((_, _, lease)) = deposed {
            lease.end();
        }
        self.shared.1.notify_all();
    }

    /// How many bytes the store may hold; 0: any number.
    pub fn limit(&self, bytes: u64) {
        self.inner().limit_bytes = bytes;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn apply(&mut self, batch: &Batch) {
        for (key, value) in batch {
            match value {
                Some(value) => self.records.insert(key.clone(), value.clone()),
                None => self.records.remove(key),
            };
        }
    }

    fn is_led_by_another(&self, me: u64) -> Option<Leader> {
        let (handle, leader, _) = self.leader.as_ref()?;
        (self.elections && *handle != me).then(|| leader.clone())
    }

    /// What came after that sequence, if it is still known.
    fn after(&self, after: u64) -> Followed {
        let oldest = self.history.front().map_or(self.sequence + 1, |(sequence, _)| *sequence);
        if after > self.sequence || after + 1 < oldest {
            return Followed::TooOld;
        }
        Followed::Batches(self.history.iter().filter(|(sequence, _)| *sequence > after).cloned().collect())
    }
}

impl Reader for MemoryStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Store::load(self, "")
    }
}

impl Store for MemoryStore {
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError> {
        let mut inner = self.inner();
        if let Some(leader) = inner.is_led_by_another(self.me) {
            return Ok(Campaign::Standby(leader));
        }
        inner.term = term_floor.max(inner.term + 1);
        let term = inner.term;
        let leader = Leader { endpoint: self.endpoint.clone(), term };
        inner.leader = Some((self.me, leader, self.lease.clone()));
        drop(inner);
        self.lease.extend(super::lease::now_ms(), Duration::from_secs(1 << 30));
        Ok(Campaign::Elected { term })
    }

    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError> {
        let inner = self.inner();
        let below = inner.records.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(Loaded {
            incarnation: inner.incarnation.clone(),
            term: inner.term,
            sequence: inner.sequence,
            records: below.map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        let mut inner = self.inner();
        inner.commits += 1;
        let fault = inner.faults.pop_front().flatten();
        let leads = inner.leader.as_ref().is_some_and(|(handle, ..)| *handle == self.me);
        let fenced = !leads || term != inner.term || sequence != inner.sequence + 1;
        if fault == Some(Fault::Fenced) || fenced {
            return CommitOutcome::Fenced;
        }
        match fault {
            Some(Fault::UnknownLost) => return CommitOutcome::Unknown,
            Some(Fault::NotTaken { full }) => return CommitOutcome::NotTaken { full },
            _ => {}
        }
        inner.apply(batch);
        inner.sequence = sequence;
        inner.history.push_back((sequence, batch.clone()));
        if inner.history.len() > HISTORY {
            inner.history.pop_front();
        }
        drop(inner);
        self.shared.1.notify_all();
        if fault == Some(Fault::UnknownApplied) { CommitOutcome::Unknown } else { CommitOutcome::Committed }
    }

    fn follow(&mut self, after: u64, limit: Duration) -> Result<Followed, StoreError> {
        let deadline = Instant::now() + limit;
        let mut inner = self.inner();
        loop {
            let followed = inner.after(after);
            if followed != Followed::Batches(Vec::new()) {
                return Ok(followed);
            }
            if inner.leader.is_none() {
                return Ok(Followed::Vacant);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(followed);
            }
            inner = self.shared.1.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lease(&self) -> Lease {
        self.lease.clone()
    }

    fn room(&self) -> Room {
        self.room.clone()
    }

    fn advertise(&mut self, endpoint: &str) {
        endpoint.clone_into(&mut self.endpoint);
    }

    fn resign(&mut self) {
        self.lease.end();
        let mut inner = self.inner();
        if inner.leader.as_ref().is_some_and(|(handle, ..)| *handle == self.me) {
            inner.leader = None;
        }
        drop(inner);
        self.shared.1.notify_all();
    }

    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if let Some(leader) = inner.is_led_by_another(self.me) {
            return Err(StoreError::InUse { what: format!("{:?} leads it", leader.endpoint) });
        }
        let (term, sequence) = (inner.term.max(content.term) + 1, content.sequence);
        (inner.term, inner.sequence, inner.leader) = (term, sequence, None);
        content.incarnation.clone_into(&mut inner.incarnation);
        inner.records = content.records.iter().cloned().collect();
        inner.history.clear();
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.clone()))
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.inner().history.clear();
        Ok(())
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        let inner = self.inner();
        let used = inner.records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Ok(Size { used_bytes: used, limit_bytes: inner.limit_bytes })
    }
}
