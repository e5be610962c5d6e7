//! The owner of all shippers: begins one for each container whose log goes to a sink, takes up those
//! of an earlier agent, wakes them when something was written, and forgets what is delivered.
//! In: `begin`, `ended`, `drained`; notices of the kernel. Out: shippers; records in the store.
//! Owns: one inotify descriptor for all log directories. Never: looks while nothing is written, or
//! more than ten times a second however much is.

use super::identity::{Identity, NodeNames};
use super::shipper::{Outcome, Pace, Shipper};
use super::totals::{LogDriverTotals, Totals};
use super::{deliveries, sink};
use crate::errors::chain;
use crate::store::records::LogDeliveryRecord;
use crate::store::{Store, StoreOp};
use crate::time::{BootInstant, sleep_until};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::logs::{Changed, LogWatch, Position, RingReader, bytes_after};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Each task has one question under way at a time; more of them wait a moment.
const QUEUE_DEPTH: usize = 64;
/// After a notice: what is written meanwhile makes one more. A line is late by this much at most.
const REST: Duration = Duration::from_millis(100);

type Key = (TaskId, ContainerName);

#[derive(Debug)]
enum Command {
    Begin { records: Vec<LogDeliveryRecord>, answer: oneshot::Sender<()> },
    Ended { task: TaskId },
    Drained { task: TaskId, answer: oneshot::Sender<()> },
    Places { answer: oneshot::Sender<Vec<Place>> },
}

/// How far one container's log is.
#[derive(Debug)]
struct Place {
    driver: String,
    directory: PathBuf,
    container: ContainerName,
    position: Position,
}

/// A handle; clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct LogDelivery {
    commands: mpsc::Sender<Command>,
    totals: Arc<Totals>,
}

/// What the owner works with.
pub(crate) struct DeliveryParts {
    pub store: Store,
    pub log_dir: PathBuf,
    pub names: NodeNames,
    /// What an earlier agent had not delivered.
    pub records: Vec<LogDeliveryRecord>,
    /// Tasks that have not ended, as far as the store knows.
    pub live: BTreeSet<TaskId>,
    pub leaving: CancellationToken,
}

struct Entry {
    changed: watch::Sender<u64>,
    ended: watch::Sender<bool>,
    place: watch::Receiver<Position>,
    driver: String,
    /// The directory's number; `None` when it cannot be watched.
    directory: Option<i32>,
}

struct Owner {
    parts: DeliveryParts,
    totals: Arc<Totals>,
    watch: LogWatch,
    entries: BTreeMap<Key, Entry>,
    shippers: JoinSet<(Key, Outcome)>,
    waiting: Vec<(TaskId, oneshot::Sender<()>)>,
}

impl LogDelivery {
    /// The handle, and what has to run for it to work.
    pub(crate) fn new(parts: DeliveryParts) -> std::io::Result<(Self, impl Future<Output = ()> + Send)> {
        let (commands, inbox) = mpsc::channel(QUEUE_DEPTH);
        let totals = Arc::new(Totals::default());
        let owner = Owner {
            parts,
            totals: totals.clone(),
            watch: LogWatch::new()?,
            entries: BTreeMap::new(),
            shippers: JoinSet::new(),
            waiting: Vec::new(),
        };
        Ok((Self { commands, totals }, owner.run(inbox)))
    }

    /// Before containers start: from here on what they write is delivered. Idempotent.
    pub(crate) async fn begin(&self, task: &TaskId, definition: &TaskDefinition) {
        let records = deliveries(task, definition);
        if records.is_empty() {
            return;
        }
        let (answer, done) = oneshot::channel();
        let _ = self.commands.send(Command::Begin { records, answer }).await;
        let _ = done.await;
    }

    /// The task's containers write no more: what is left is sent, and then it is over.
    pub(crate) async fn ended(&self, task: &TaskId) {
        let _ = self.commands.send(Command::Ended { task: task.clone() }).await;
    }

    /// Waits until everything of an ended task is sent, but not longer than `limit`.
    pub(crate) async fn drained(&self, task: &TaskId, limit: Duration) {
        let (answer, done) = oneshot::channel();
        let _ = self.commands.send(Command::Drained { task: task.clone(), answer }).await;
        tokio::select! {
            _ = done => {}
            () = sleep_until(BootInstant::now().after(limit)) => {}
        }
    }

    /// Counters, for metrics.
    pub(crate) fn totals(&self) -> Vec<LogDriverTotals> {
        self.totals.rows()
    }

    /// For each container whose log is being sent, its driver and the bytes still to be sent.
    pub(crate) async fn behind(&self) -> Vec<(String, u64)> {
        let (answer, places) = oneshot::channel();
        let _ = self.commands.send(Command::Places { answer }).await;
        let places = places.await.unwrap_or_default();
        let sizes = tokio::task::spawn_blocking(move || {
            let bytes =
                |place: &Place| bytes_after(&place.directory, place.container.as_str(), place.position);
            places.iter().map(|place| (place.driver.clone(), bytes(place))).collect()
        });
        sizes.await.unwrap_or_default()
    }
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        for record in std::mem::take(&mut self.parts.records) {
            let ended = !self.parts.live.contains(&record.task);
            self.ship(record, ended);
        }
        let leaving = self.parts.leaving.clone();
        let mut rest_until: Option<BootInstant> = None;
        loop {
            let resting = rest_until;
            tokio::select! {
                () = leaving.cancelled() => break,
                command = inbox.recv() => match command {
                    Some(command) => self.take(command).await,
                    None => break,
                },
                Some(finished) = self.shippers.join_next() => match finished {
                    Ok((key, outcome)) => self.finished(key, outcome).await,
                    Err(error) => tracing::error!(cause = %error, "a log driver ended by itself"),
                },
                changed = self.watch.changed(), if resting.is_none() => match changed {
                    Ok(changed) => {
                        self.wake(&changed);
                        rest_until = Some(BootInstant::now().after(REST));
                    }
                    Err(error) => {
                        tracing::error!(cause = %error, "log directories cannot be watched; looking at all of them");
                        self.wake(&Changed { overflow: true, ..Changed::default() });
                        rest_until = Some(BootInstant::now().after(REST));
                    }
                },
                () = sleep_until(resting.unwrap_or_else(BootInstant::now)), if resting.is_some() => {
                    rest_until = None;
                }
            }
        }
        // Each writes down how far it is.
        while self.shippers.join_next().await.is_some() {}
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Begin { records, answer } => {
                self.begin(records).await;
                let _ = answer.send(());
            }
            Command::Ended { task } => {
                for (_, entry) in self.entries.iter().filter(|((of, _), _)| *of == task) {
                    entry.ended.send_replace(true);
                }
            }
            Command::Places { answer } => {
                let _ = answer.send(self.places());
            }
            Command::Drained { task, answer } => {
                self.waiting.push((task, answer));
                self.answer_drained();
            }
        }
    }

    fn places(&self) -> Vec<Place> {
        let entries = self.entries.iter();
        let place = |((task, container), entry): (&Key, &Entry)| Place {
            driver: entry.driver.clone(),
            directory: self.parts.log_dir.join(task.as_str()),
            container: container.clone(),
            position: *entry.place.borrow(),
        };
        entries.map(place).collect()
    }

    async fn begin(&mut self, records: Vec<LogDeliveryRecord>) {
        let (known, new): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| self.entries.contains_key(&key(record)));
        for entry in known.iter().filter_map(|record| self.entries.get(&key(record))) {
            entry.ended.send_replace(false);
        }
        if new.is_empty() {
            return;
        }
        let puts = new.iter().map(|record| StoreOp::PutLogDelivery(Box::new(record.clone())));
        if let Err(error) = self.parts.store.commit(puts.collect()).await {
            tracing::warn!(cause = %chain(&error), "log deliveries are not recorded; after a restart of the agent their tasks begin anew");
        }
        new.into_iter().for_each(|record| self.ship(record, false));
    }

    fn ship(&mut self, record: LogDeliveryRecord, ended: bool) {
        let settings = record.configuration.settings().unwrap_or_default().sink;
        let identity = Identity::new(&record, &settings, &self.parts.names);
        let Some(sink) = sink::make(settings, &identity) else { return };
        let directory = self.parts.log_dir.join(record.task.as_str());
        let watched = match self.watch.add(&directory) {
            Ok(number) => Some(number),
            // Removed already; what is open of it is not.
            Err(_) if ended => None,
            Err(error) => {
                tracing::error!(task = %record.task, cause = %error, "its log directory cannot be watched; its log is sent when the task ends");
                None
            }
        };
        let key = key(&record);
        let (changed, ended) = (watch::channel(0), watch::channel(ended));
        let (place, driver) = (watch::channel(Position::default()), record.configuration.log_driver.clone());
        let shipper = Shipper {
            ring: RingReader::new(&directory, record.container.as_str(), record.next),
            directory,
            sink,
            store: self.parts.store.clone(),
            totals: self.totals.clone(),
            changed: changed.1,
            ended: ended.1,
            place: place.0,
            leaving: self.parts.leaving.clone(),
            pace: Pace::new(),
            record,
        };
        let of = key.clone();
        self.shippers.spawn(async move { (of, shipper.run().await) });
        let entry = Entry { changed: changed.0, ended: ended.0, place: place.1, driver, directory: watched };
        self.entries.insert(key, entry);
    }

    fn wake(&self, changed: &Changed) {
        let concerned = |entry: &&Entry| {
            changed.overflow || entry.directory.is_none_or(|number| changed.directories.contains(&number))
        };
        self.entries
            .values()
            .filter(concerned)
            .for_each(|entry| entry.changed.send_modify(|count| *count += 1));
    }

    async fn finished(&mut self, key: Key, outcome: Outcome) {
        let Some(entry) = self.entries.remove(&key) else { return };
        let shared = |number| self.entries.values().any(|other| other.directory == Some(number));
        if let Some(number) = entry.directory.filter(|number| !shared(*number)) {
            self.watch.remove(number);
        }
        if outcome == Outcome::Delivered {
            let (task, container) = key;
            if let Err(error) =
                self.parts.store.commit(vec![StoreOp::ForgetLogDelivery { task, container }]).await
            {
                tracing::warn!(cause = %chain(&error), "a delivered log is not forgotten; the next agent looks at it again");
            }
        }
        self.answer_drained();
    }

    fn answer_drained(&mut self) {
        let entries = &self.entries;
        let waits = |task: &TaskId| entries.keys().any(|(of, _)| of == task);
        let (waiting, done): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(task, _)| waits(task));
        self.waiting = waiting;
        for (_, answer) in done {
            // Who asked may have waited long enough.
            let _ = answer.send(());
        }
    }
}

fn key(record: &LogDeliveryRecord) -> Key {
    (record.task.clone(), record.container.clone())
}
