//! Commits, and what is done when etcd did not say what became of one.
//! In: a batch. Out: its outcome. Never: repeats a batch that may still land: first the sequence key
//! is written anew under a compare, after which the old transaction can only fail.

use super::election::{Leading, number};
use super::{CallError, EtcdStore, call};
use crate::store::{Batch, CommitOutcome, Level, Loaded};
use etcd_client::{Compare, CompareOp, DeleteOptions, Error, Txn, TxnOp, TxnOpResponse};
use std::time::{Duration, Instant};
use tonic::Code;

/// Operations of one transaction (etcd's `--max-txn-ops`), those around a nested one included.
const MAX_OPERATIONS: usize = 128;
/// Operations of a nested transaction; up to 28 of them fit.
const NESTED: usize = 100;
/// How long an outcome is searched for; the caller is told "unknown" then.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two compactions of etcd's history.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(50);

/// What a look at the sequence key says of a transaction without an answer.
enum Settled {
    /// It is in the store.
    Landed,
    /// It is not, and never will be.
    NeverLands,
    /// Somebody else leads: it is not, and never will be.
    Fenced,
    Unknown,
}

/// Whether etcd surely did nothing; then whether that is for want of room (its alarm NOSPACE).
fn refused(error: &CallError) -> Option<bool> {
    let CallError::Etcd { source: Error::GRpcStatus(status) } = error else { return None };
    match status.code() {
        Code::ResourceExhausted => Some(status.message().contains("space exceeded")),
        Code::InvalidArgument | Code::PermissionDenied => Some(false),
        _ => None,
    }
}

impl EtcdStore {
    pub(super) async fn write(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        let follows = |leading: &Leading| leading.term == term && leading.sequence + 1 == sequence;
        if !self.leading.as_ref().is_some_and(follows) {
            return CommitOutcome::Fenced;
        }
        let deadline = Instant::now() + SETTLE;
        loop {
            let Some(leading) = self.leading else { return CommitOutcome::Fenced };
            match self.send(leading, sequence, batch).await {
                Ok(Some(revision)) => return self.landed(leading, sequence, revision),
                Ok(None) => return self.fenced(),
                Err(error) => {
                    if let Some(full) = refused(&error) {
                        tracing::error!(cause = %crate::writer::Chain(&error), sequence, "etcd does not take a batch");
                        if full {
                            self.room.set(Level::Exhausted);
                        }
                        return CommitOutcome::NotTaken { full };
                    }
                    tracing::warn!(cause = %crate::writer::Chain(&error), sequence, "etcd did not say what became of a batch");
                }
            }
            match self.settle(leading, sequence, deadline).await {
                Settled::Landed => return CommitOutcome::Committed,
                Settled::NeverLands => {}
                Settled::Fenced => return self.fenced(),
                Settled::Unknown => return CommitOutcome::Unknown,
            }
        }
    }

    fn landed(&mut self, leading: Leading, sequence: u64, revision: i64) -> CommitOutcome {
        self.leading = Some(Leading { sequence, sequence_revision: revision, ..leading });
        self.compact_in_passing(revision);
        CommitOutcome::Committed
    }

    /// Now and then gives up the history before the last time; standbys need what is newer.
    fn compact_in_passing(&mut self, revision: i64) {
        if self.compacted_at.elapsed() < COMPACT_EVERY {
            return;
        }
        self.compacted_at = Instant::now();
        let to = std::mem::replace(&mut self.compact_to, revision);
        let Some(mut client) = self.client.clone().filter(|_| to > 0) else { return };
        tokio::spawn(async move {
            if let Err(error) = call(client.compact(to, None)).await {
                tracing::debug!(cause = %crate::writer::Chain(&error), "etcd's history was not given up");
            }
        });
    }

    fn fenced(&mut self) -> CommitOutcome {
        self.lease.end();
        self.leading = None;
        CommitOutcome::Fenced
    }

    /// As this leader left both keys.
    fn compares(&self, leading: Leading) -> Vec<Compare> {
        vec![
            Compare::mod_revision(self.key("leader"), CompareOp::Equal, leading.fence),
            Compare::mod_revision(self.key("sequence"), CompareOp::Equal, leading.sequence_revision),
        ]
    }

    /// etcd's revision of the batch, or `None` when a compare failed.
    async fn send(&self, leading: Leading, sequence: u64, batch: &Batch) -> Result<Option<i64>, CallError> {
        let mut operations = vec![TxnOp::put(self.key("sequence"), sequence.to_string(), None)];
        operations.extend(grouped(folded(batch).into_iter().map(|change| self.operation(&change))));
        let txn = Txn::new().when(self.compares(leading)).and_then(operations);
        let answer = call(self.client()?.txn(txn)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        Ok(answer.succeeded().then_some(revision))
    }

    fn operation(&self, change: &Change<'_>) -> TxnOp {
        let key = |key: &str| self.key(&format!("r/{key}"));
        match change {
            Change::Put(name, value) => TxnOp::put(key(name), *value, None),
            Change::Delete { first, last } if first == last => TxnOp::delete(key(first), None),
            Change::Delete { first, last } => {
                // The end of a range is not part of it.
                let end = format!("{}\0", key(last));
                TxnOp::delete(key(first), Some(DeleteOptions::new().with_range(end)))
            }
        }
    }

    /// Writes the marker: the sequence key, unchanged, at a new revision.
    async fn settle(&mut self, leading: Leading, sequence: u64, deadline: Instant) -> Settled {
        while Instant::now() < deadline {
            match self.mark(leading, sequence).await {
                Ok(settled) => return settled,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        Settled::Unknown
    }

    async fn mark(&mut self, leading: Leading, sequence: u64) -> Result<Settled, CallError> {
        let marker = TxnOp::put(self.key("sequence"), leading.sequence.to_string(), None);
        let look = [TxnOp::get(self.key("leader"), None), TxnOp::get(self.key("sequence"), None)];
        let txn = Txn::new().when(self.compares(leading)).and_then([marker]).or_else(look);
        let answer = call(self.client()?.txn(txn)).await?;
        if answer.succeeded() {
            let sequence_revision = answer.header().map_or(0, |header| header.revision());
            self.leading = Some(Leading { sequence_revision, ..leading });
            return Ok(Settled::NeverLands);
        }
        let found: Vec<Option<(u64, i64)>> = answer.op_responses().iter().map(number_and_revision).collect();
        let leads = found.first().copied().flatten().is_some_and(|(_, revision)| revision == leading.fence);
        let (stored, revision) = found.get(1).copied().flatten().unwrap_or((0, 0));
        Ok(match (leads, stored == sequence) {
            // Nobody else writes while this leader leads.
            (true, true) => {
                self.leading = Some(Leading { sequence, sequence_revision: revision, ..leading });
                Settled::Landed
            }
            // A marker of before, whose answer was lost.
            (true, false) => {
                self.leading = Some(Leading { sequence_revision: revision, ..leading });
                Settled::NeverLands
            }
            (false, _) if stored < sequence => Settled::Fenced,
            // It may have been this leader's batch or that of the next one.
            (false, _) => Settled::Unknown,
        })
    }

    /// Replaces everything. Not one transaction: a marker keeps everyone from using half of it.
    pub(super) async fn replace(&mut self, content: &Loaded) -> Result<(), CallError> {
        (self.leading, self.loaded, self.watching) = (None, None, None);
        let before = self.counters().await?;
        let mut client = self.client()?;
        let own = before.fence();
        let guard = || Compare::mod_revision(self.key("leader"), CompareOp::Equal, own);
        let strange = || CallError::Strange { what: "somebody took the lead meanwhile".to_owned() };
        let all = DeleteOptions::new().with_prefix();
        let mut steps = vec![vec![
            TxnOp::put(self.key("restoring"), "1", None),
            TxnOp::delete(self.key("r/"), Some(all)),
        ]];
        let (mut step, mut bytes) = (Vec::new(), 0);
        for (key, value) in &content.records {
            bytes += key.len() + value.len();
            step.push(self.operation(&Change::Put(key, value)));
            if step.len() == NESTED || bytes > 1 << 20 {
                steps.push(std::mem::take(&mut step));
                bytes = 0;
            }
        }
        steps.push(step);
        let term = before.term.map_or(0, |(term, _)| term).max(content.term) + 1;
        steps.push(vec![
            TxnOp::put(self.key("term"), term.to_string(), None),
            TxnOp::put(self.key("sequence"), content.sequence.to_string(), None),
            TxnOp::put(self.key("incarnation"), content.incarnation.clone(), None),
            TxnOp::delete(self.key("restoring"), None),
            TxnOp::delete(self.key("leader"), None),
        ]);
        for step in steps {
            let answer = call(client.txn(Txn::new().when([guard()]).and_then(step))).await?;
            if !answer.succeeded() {
                return Err(strange());
            }
        }
        self.give_up().await
    }

    /// Gives up the history before the last call, for standbys need what is newer.
    pub(super) async fn give_back(&mut self) -> Result<(), CallError> {
        let mut client = self.client()?;
        let now = self.counters().await?.revision;
        let to = std::mem::replace(&mut self.compact_to, now);
        if to > 0 {
            match call(client.compact(to, None)).await {
                // Another has done it already.
                Err(error) if is_out_of_range(&error) => {}
                other => {
                    other?;
                }
            }
        }
        let status = call(client.status()).await?;
        let (size, live) = (status.db_size(), status.raft_used_db_size());
        let limit = i64::try_from(self.settings.limit_bytes).unwrap_or(i64::MAX);
        if limit > 0 && size > limit / 2 && live > 0 && live < size / 2 {
            tracing::info!(size, live, "defragmenting etcd: more than half of a large database is empty");
            // It takes as long as it takes.
            client.defragment().await?;
        }
        Ok(())
    }
}

fn is_out_of_range(error: &CallError) -> bool {
    let CallError::Etcd { source: Error::GRpcStatus(status) } = error else { return false };
    status.code() == Code::OutOfRange
}

fn number_and_revision(answer: &TxnOpResponse) -> Option<(u64, i64)> {
    let TxnOpResponse::Get(get) = answer else { return None };
    let kv = get.kvs().first()?;
    Some((number(kv.value()).unwrap_or_default(), kv.mod_revision()))
}

/// What one operation does.
#[derive(Debug, PartialEq, Eq)]
enum Change<'a> {
    Put(&'a str, &'a [u8]),
    /// Both ends are part of it.
    Delete {
        first: &'a str,
        last: &'a str,
    },
}

/// The changes of a batch, with deletes of neighbours as one: between keys that end in consecutive
/// numbers of sixteen hex digits, like those of events, there is no other.
fn folded(batch: &Batch) -> Vec<Change<'_>> {
    let mut changes: Vec<Change<'_>> = Vec::with_capacity(batch.len());
    for (key, value) in batch {
        match (value, changes.last_mut()) {
            (Some(value), _) => changes.push(Change::Put(key, value)),
            (None, Some(Change::Delete { last, .. })) if follows(last, key) => *last = key,
            (None, _) => changes.push(Change::Delete { first: key, last: key }),
        }
    }
    changes
}

fn follows(before: &str, key: &str) -> bool {
    let parts = |key: &str| -> Option<(String, u64)> {
        let (kind, digits) = key.rsplit_once('/').filter(|(_, digits)| digits.len() == 16)?;
        Some((kind.to_owned(), u64::from_str_radix(digits, 16).ok()?))
    };
    match (parts(before), parts(key)) {
        (Some((kind, number)), Some((other, next))) => kind == other && number.checked_add(1) == Some(next),
        _ => false,
    }
}

/// As they are, or in nested transactions when they are too many for one.
fn grouped(operations: impl ExactSizeIterator<Item = TxnOp>) -> Vec<TxnOp> {
    if operations.len() < MAX_OPERATIONS {
        return operations.collect();
    }
    let mut operations = operations.peekable();
    let mut groups = Vec::new();
    while operations.peek().is_some() {
        let group: Vec<TxnOp> = operations.by_ref().take(NESTED).collect();
        groups.push(TxnOp::txn(Txn::new().and_then(group)));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_of_neighbours_are_one_operation_and_nothing_else_is() {
        let keys = [
            "event/000000000000000a",
            "event/000000000000000b",
            "event/000000000000000d",
            "task/1",
            "task/2",
        ];
        let mut batch: Batch = keys.iter().map(|key| ((*key).to_owned(), None)).collect();
        batch.insert("event/000000000000000e".to_owned(), Some(vec![1]));
        let delete = |first, last| Change::Delete { first, last };
        let folded = folded(&batch);
        assert_eq!(
            folded,
            [
                delete(keys[0], keys[1]),
                delete(keys[2], keys[2]),
                Change::Put("event/000000000000000e", &[1]),
                delete(keys[3], keys[3]),
                delete(keys[4], keys[4]),
            ]
        );
    }
}
