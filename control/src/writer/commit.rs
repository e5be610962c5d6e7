//! The thread that waits for the disk, so that deciding never does.
//! In: one batch or a load at a time. Out: its outcome. Owns: the store.
//! A simulation serves the same requests itself, in its own time, without a thread.
//! Never: has more than one batch; the writer gives the next when this one is settled.

use super::standby::Standby;
use crate::format::Upgrade;
use crate::metrics::{COMMIT_SECONDS, COMMITS, GROUP_RECORDS};
use crate::store::{BATCH_RECORDS, Batch, CommitOutcome, Lease, Loaded, Room, Store, StoreError};
use lighter_telemetry::metrics::Metrics;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// One batch to make durable.
#[derive(Debug)]
pub struct CommitRequest {
    pub term: u64,
    pub sequence: u64,
    pub batch: Batch,
}

/// What the writer wants of its store; the outcome of a `Commit` goes back on a channel of its own.
#[derive(Debug)]
pub enum Request {
    Load { term_floor: u64, reply: oneshot::Sender<Result<Loaded, StoreError>> },
    Commit(CommitRequest),
}

/// The store's end, where the writer's requests arrive.
#[derive(Debug)]
pub struct StoreEnd {
    pub requests: mpsc::Receiver<Request>,
    pub outcomes: mpsc::Sender<CommitOutcome>,
    pub room: Room,
}

/// The writer's end.
#[derive(Debug)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
    outcomes: mpsc::Receiver<CommitOutcome>,
    lease: Lease,
    room: Room,
    batch_records: usize,
}

impl Committer {
    /// Both ends. A channel holds at most one message: the writer has one group in flight.
    /// The lease says how surely the store's owner leads; who serves the other end extends it.
    pub fn pair(lease: Lease) -> (Self, StoreEnd) {
        let (sender, requests) = mpsc::channel(1);
        let (done, outcomes) = mpsc::channel(1);
        let (room, batch_records) = (Room::new("make room"), BATCH_RECORDS);
        let end = StoreEnd { requests, outcomes: done, room: room.clone() };
        (Self { requests: sender, outcomes, lease, room, batch_records }, end)
    }

    /// Starts the thread; it ends when the writer drops its end.
    pub(super) fn start(mut store: Box<dyn Store>, metrics: Metrics, upgrade: Option<Upgrade>) -> Self {
        let (mut committer, end) = Self::pair(store.lease());
        committer.room = store.room();
        committer.batch_records = store.batch_records();
        let mut standby = Standby::new(upgrade);
        let StoreEnd { mut requests, outcomes: done, .. } = end;
        std::thread::spawn(move || {
            while let Some(request) = requests.blocking_recv() {
                match request {
                    Request::Load { term_floor, reply } => {
                        // A writer that has ended wants no state.
                        let _ = reply.send(standby.lead(store.as_mut(), term_floor));
                    }
                    Request::Commit(CommitRequest { term, sequence, batch }) => {
                        let begun = Instant::now();
                        let outcome = store.commit(term, sequence, &batch);
                        count(&metrics, begun.elapsed(), &outcome);
                        metrics.observe(GROUP_RECORDS, &[], batch.len() as f64);
                        if done.blocking_send(outcome).is_err() {
                            return;
                        }
                    }
                }
            }
            store.resign();
            // The writer's end of the channel tells it that the store is closed.
            drop(store);
            drop(done);
        });
        committer
    }

    /// Ends the thread and waits until the store is closed, so that it can be opened again.
    pub(super) async fn close(self) {
        let Self { requests, mut outcomes, .. } = self;
        drop(requests);
        while outcomes.recv().await.is_some() {}
    }

    /// Records of one batch at most.
    pub(super) fn batch_records(&self) -> usize {
        self.batch_records
    }

    /// How surely the store's owner leads.
    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// How much room the store has.
    pub(super) fn room(&self) -> Room {
        self.room.clone()
    }

    /// `None` when the thread is gone.
    pub(super) async fn load(&self, term_floor: u64) -> Option<Result<Loaded, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Load { term_floor, reply }).ok()?;
        answer.await.ok()
    }

    pub(super) fn give(&self, request: CommitRequest) {
        // A thread that is gone shows as an outcome that is unknown.
        let _ = self.requests.try_send(Request::Commit(request));
    }

    /// The outcome of the batch in flight. Cancel safety: nothing is lost when dropped.
    pub(super) async fn outcome(&mut self) -> CommitOutcome {
        self.outcomes.recv().await.unwrap_or(CommitOutcome::Unknown)
    }
}

fn count(metrics: &Metrics, took: Duration, outcome: &CommitOutcome) {
    let outcome = match outcome {
        CommitOutcome::Committed => "committed",
        CommitOutcome::Fenced => "fenced",
        CommitOutcome::NotTaken { full: true } => "full",
        CommitOutcome::NotTaken { full: false } => "refused",
        CommitOutcome::Unknown => "unknown",
    };
    metrics.observe(COMMIT_SECONDS, &[], took.as_secs_f64());
    metrics.add(COMMITS, &[("outcome", outcome)], 1.0);
}
