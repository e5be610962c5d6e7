//! Brings one container's ring to its sink. One tokio task owns it.
//!
//! ```text
//!            something was written            taken
//!  Waiting ───────────────────────► Sending ─────────► Waiting
//!     │                              │    ▲
//!     │ the task has ended and       │    │ after a pause, from where the sink had got
//!     ▼ all is sent                  ▼    │
//!   Delivered                       Failing (the batch is dropped; the ring has it)
//! ```
//! In: "the directory changed", "the task has ended", "the agent leaves". Out: batches; how far it
//! is, to the store, at most every two seconds while something is sent and always before it ends.
//! Owns: ring reader, sink. Never: reads ahead of the sink; polls while the sink is well.

use super::batch::{self, BATCH_RECORDS_MAX, Record};
use super::sink::{SendError, Sink};
use super::totals::{Totals, count};
use crate::errors::{chain, words};
use crate::store::records::LogDeliveryRecord;
use crate::store::{Store, StoreOp};
use crate::time::{BootInstant, sleep, sleep_until};
use lighter_runtime::logs::{Position, RingReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An agent that is killed sends again what was sent since; each commit is a sync of the disk.
const COMMIT_EVERY: Duration = Duration::from_secs(2);
/// A sink that takes longer for a batch gets half of it the next time.
const SEND_LIMIT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A sink that is back is seen within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is sent and nothing more will come.
    Delivered,
    /// The agent leaves; the next one goes on.
    Left,
}

pub(super) struct Shipper {
    pub(super) record: LogDeliveryRecord,
    pub(super) directory: PathBuf,
    pub(super) ring: RingReader,
    pub(super) sink: Box<dyn Sink>,
    pub(super) store: Store,
    pub(super) totals: Arc<Totals>,
    /// Counts changes of the directory.
    pub(super) changed: watch::Receiver<u64>,
    pub(super) ended: watch::Receiver<bool>,
    /// Up to where the sink has everything.
    pub(super) place: watch::Sender<Position>,
    pub(super) leaving: CancellationToken,
    pub(super) pace: Pace,
}

/// How much is sent at once, and when.
pub(super) struct Pace {
    /// Records in the next batch at most; halved when the sink fails on one, doubled when not.
    limit: usize,
    pause: Duration,
    failing_since: Option<BootInstant>,
    /// When the place is written down next; `None`: it is.
    commit_at: Option<BootInstant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { limit: BATCH_RECORDS_MAX, pause: FIRST_PAUSE, failing_since: None, commit_at: None }
    }
}

impl Shipper {
    pub(super) async fn run(mut self) -> Outcome {
        let outcome = self.ship().await;
        if self.pace.commit_at.is_some() && outcome == Outcome::Left {
            self.commit().await;
        }
        outcome
    }

    async fn ship(&mut self) -> Outcome {
        loop {
            // Looked at before reading: what was written before is then read.
            let ended = *self.ended.borrow_and_update();
            self.changed.borrow_and_update();
            let left = match batch::take(&mut self.ring, self.pace.limit) {
                Err(error) => self.pause(&SendError::later("the ring", 0, error)).await,
                Ok(records) if !records.is_empty() => self.deliver(records).await,
                Ok(_) if ended => return Outcome::Delivered,
                Ok(_) => self.wait().await,
            };
            if left {
                return Outcome::Left;
            }
            self.place.send_replace(self.ring.position());
            if self.pace.commit_at.is_some_and(|at| at.until().is_zero()) {
                self.commit().await;
            }
        }
    }

    /// Until there is something to do; true when the agent leaves.
    async fn wait(&mut self) -> bool {
        let commit_at = self.pace.commit_at;
        let commit = async move {
            match commit_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.leaving.cancelled() => true,
            () = commit => false,
            changed = self.changed.changed() => changed.is_err(),
            ended = self.ended.changed() => ended.is_err(),
        }
    }

    /// Gives a batch to the sink; true when the agent leaves.
    async fn deliver(&mut self, records: Vec<Record>) -> bool {
        let sent = tokio::select! {
            () = self.leaving.cancelled() => {
                // Whether it was taken is not known; the next agent sends it again.
                return true;
            }
            sent = self.sink.send(&records) => sent,
            () = sleep(SEND_LIMIT) => {
                Err(SendError::later("the sink", 0, words(format!("it took longer than {SEND_LIMIT:?}"))))
            }
        };
        let error = match sent {
            Ok(()) => {
                self.taken(&records, self.ring.position().number);
                self.well();
                return false;
            }
            Err(error) => error,
        };
        let taken = error.taken.min(records.len());
        let Some(first_left) = records.get(taken) else { return false };
        self.taken(&records[..taken], first_left.place.number);
        count(&self.counters().failed_sends, 1);
        if error.refused && records.len() == 1 {
            tracing::warn!(task = %self.record.task, container = %self.record.container, cause = %chain(&error), "a line is refused for good and left out");
            count(&self.counters().refused_records, 1);
            self.moved(self.ring.position().number);
            return false;
        }
        // What it chokes on is narrowed down; what it can take in time too.
        self.pace.limit = (records.len() / 2).clamp(1, BATCH_RECORDS_MAX);
        let place = first_left.place;
        drop(records);
        if let Err(error) = self.ring.rewind(place) {
            tracing::warn!(task = %self.record.task, container = %self.record.container, cause = %error, "its log cannot be read; trying again");
        }
        !error.refused && self.pause(&error).await
    }

    /// Waits after a failure; true when the agent leaves.
    async fn pause(&mut self, error: &SendError) -> bool {
        if self.pace.failing_since.is_none() {
            self.pace.failing_since = Some(BootInstant::now());
            tracing::warn!(task = %self.record.task, container = %self.record.container, cause = %chain(error), "its log cannot be sent; it is kept on this node and sent later");
        }
        if self.pace.commit_at.is_some() {
            self.commit().await;
        }
        let pause = self.pace.pause;
        self.pace.pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = self.leaving.cancelled() => return true,
            () = sleep(pause) => {}
        }
        if *self.ended.borrow() && !self.directory.exists() {
            tracing::warn!(task = %self.record.task, container = %self.record.container, "its log was removed before all of it was sent");
            self.ring = RingReader::new(&self.directory, self.record.container.as_str(), u64::MAX);
        }
        false
    }

    fn well(&mut self) {
        self.pace.limit = (self.pace.limit * 2).min(BATCH_RECORDS_MAX);
        self.pace.pause = FIRST_PAUSE;
        if self.pace.failing_since.take().is_some() {
            tracing::info!(task = %self.record.task, container = %self.record.container, "its log is being sent again");
        }
    }

    /// These need not be sent again; the ring goes on with record `next`.
    fn taken(&mut self, records: &[Record], next: u64) {
        let counters = self.counters();
        count(&counters.sent_records, records.len() as u64);
        count(&counters.sent_bytes, records.iter().map(|record| record.line.text.len() as u64).sum());
        count(&counters.lost_records, records.iter().map(|record| record.lost).sum());
        if !records.is_empty() {
            self.moved(next);
        }
    }

    fn moved(&mut self, next: u64) {
        self.record.next = next;
        self.pace.commit_at.get_or_insert_with(|| BootInstant::now().after(COMMIT_EVERY));
    }

    fn counters(&self) -> &super::totals::Counters {
        self.totals.of(&self.record.configuration.log_driver)
    }

    async fn commit(&mut self) {
        self.pace.commit_at = None;
        let record = Box::new(self.record.clone());
        if let Err(error) = self.store.commit(vec![StoreOp::PutLogDelivery(record)]).await {
            tracing::warn!(task = %self.record.task, container = %self.record.container, cause = %chain(&error), "how far its log is sent is not recorded; after a restart of the agent some of it is sent again");
        }
    }
}
