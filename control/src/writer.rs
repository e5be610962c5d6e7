//! The one writer: decides commands in the order they come, commits what has queued in groups, and
//! only then answers, publishes and shows.
//! In: commands through a `WriterHandle`. Out: answers. Owns: the state ahead of the store.
//! New work is refused while the store is full. A group that the store surely did not take costs only
//! what was decided on it: the state ahead is what is shown again, and sessions go on.
//! Never: undoes anything: when a group is fenced or unknown, all memory is dropped and loaded anew.

mod commit;
mod group;
mod standby;

use crate::core::mutation::Changes;
use crate::core::record::RecordError;
use crate::core::state::State;
use crate::core::{Command, Settings};
use crate::environment::Environment;
use crate::error::ApiError;
use crate::format::Upgrade;
use crate::leadership::Leadership;
use crate::metrics;
use crate::store::{CommitOutcome, Level, Loaded, Room, Store, StoreError, mark};
use crate::view::{Shown, View};
use crate::wrong_edit::{self, WrongEdit};
pub use commit::{CommitRequest, Committer, Request, StoreEnd};
use group::Group;
use lighter_telemetry::metrics::Metrics;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The least term to lead in.
#[derive(Debug, Default)]
struct TermFloor {
    term: AtomicU64,
    raised: Notify,
}

/// Commands that may wait: many groups' worth, so that the store is never idle while callers queue;
/// beyond it callers wait for a place.
const INBOX_DEPTH: usize = 1_024;
/// Between two tries to load a store that failed.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// Why the state cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the store cannot be loaded")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("the store's records cannot be used")]
    Record {
        #[source]
        source: RecordError,
    },
    #[error("the thread of the store ended")]
    ThreadGone,
}

/// A command on its way: decided by the writer, answered when its group is durable.
trait Job: Send {
    fn is_new_work(&self, ahead: &State) -> bool;
    fn decide(&mut self, changes: &mut Changes<'_>);
    fn answer(self: Box<Self>, failed: Option<ApiError>);
}

struct Pending<C: Command> {
    command: Option<C>,
    result: Result<C::Answer, ApiError>,
    reply: oneshot::Sender<Result<C::Answer, ApiError>>,
}

impl<C: Command> Job for Pending<C> {
    fn is_new_work(&self, ahead: &State) -> bool {
        self.command.as_ref().is_some_and(|command| command.is_new_work(ahead))
    }

    fn decide(&mut self, changes: &mut Changes<'_>) {
        if let Some(command) = self.command.take() {
            self.result = command.decide(changes);
        }
    }

    fn answer(self: Box<Self>, failed: Option<ApiError>) {
        // The caller may have gone away; what is decided stays decided.
        let _ = self.reply.send(failed.map_or(self.result, Err));
    }
}

/// Gives commands to the writer.
#[derive(Clone)]
pub struct WriterHandle {
    inbox: mpsc::Sender<Box<dyn Job>>,
    metrics: Metrics,
    leadership: Arc<Leadership>,
    retired: CancellationToken,
    room: Room,
    term_floor: Arc<TermFloor>,
}

impl Debug for WriterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterHandle").finish_non_exhaustive()
    }
}

impl WriterHandle {
    /// The control plane's numbers.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether this control plane leads.
    pub fn leadership(&self) -> &Arc<Leadership> {
        &self.leadership
    }

    /// How much room its store has.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Has the writer end: what it has taken is answered, then the lead is given up.
    pub fn retire(&self) {
        self.retired.cancel();
    }

    /// A node has seen this term, and refuses lower ones: have the writer campaign for a higher one.
    /// Everything is loaded anew, and every session begins anew.
    pub fn raise_term_above(&self, seen: u64) {
        if !wrong_edit::is(WrongEdit::TermFloorIgnored) {
            self.term_floor.term.fetch_max(seen.saturating_add(1), Ordering::Relaxed);
            self.term_floor.raised.notify_one();
        }
    }

    /// Commands that wait to be decided.
    pub fn queued(&self) -> usize {
        INBOX_DEPTH.saturating_sub(self.inbox.capacity())
    }

    /// Has a command decided and made durable; the answer comes after the commit.
    /// Cancel safety: a command given away is carried out even when nobody waits any more.
    pub async fn submit<C: Command>(&self, command: C) -> Result<C::Answer, ApiError> {
        let (reply, answer) = oneshot::channel();
        let job = Pending { command: Some(command), result: Err(ApiError::StoreUnavailable), reply };
        self.inbox.send(Box::new(job)).await.map_err(|_| ApiError::ShuttingDown)?;
        answer.await.map_err(|_| ApiError::ShuttingDown)?
    }
}

/// The writer's own side.
struct Writer {
    inbox: mpsc::Receiver<Box<dyn Job>>,
    metrics: Metrics,
    committer: Committer,
    view: Arc<View>,
    environment: Environment,
    settings: Settings,
    ahead: State,
    term: u64,
    /// The last sequence given to a group.
    sequence: u64,
    group: Group,
    in_flight: Option<(u64, Group)>,
    leadership: Arc<Leadership>,
    retired: CancellationToken,
    room: Room,
    term_floor: Arc<TermFloor>,
}

/// Loads the store, shows it, and runs the writer until it is retired or every handle is gone. Where
/// another leads, or the store does not answer, the writer refuses everything and waits for the lead.
/// Records of an older format are brought up first, see `format`; `None` takes them as they are.
/// The task ends when the last group is answered.
pub async fn start(
    store: Box<dyn Store>,
    settings: Settings,
    environment: Environment,
    view: Arc<View>,
    upgrade: Option<Upgrade>,
) -> Result<(WriterHandle, tokio::task::JoinHandle<()>), LoadError> {
    let metrics = metrics::new();
    let committer = Committer::start(store, metrics.clone(), upgrade);
    let (handle, running) = run_over(committer, metrics, settings, environment, view).await?;
    Ok((handle, tokio::spawn(running)))
}

/// The same over a store that somebody else serves, see `Committer::pair`; the caller runs the writer.
pub async fn start_over(
    committer: Committer,
    settings: Settings,
    environment: Environment,
    view: Arc<View>,
) -> Result<(WriterHandle, impl Future<Output = ()> + Send + 'static), LoadError> {
    run_over(committer, metrics::new(), settings, environment, view).await
}

async fn run_over(
    committer: Committer,
    metrics: Metrics,
    settings: Settings,
    environment: Environment,
    view: Arc<View>,
) -> Result<(WriterHandle, impl Future<Output = ()> + Send + 'static), LoadError> {
    let (sender, inbox) = mpsc::channel(INBOX_DEPTH);
    let leadership = Arc::new(Leadership::new(committer.lease()));
    let (retired, room) = (CancellationToken::new(), committer.room());
    let term_floor = Arc::new(TermFloor::default());
    let mut writer = Writer {
        inbox,
        metrics: metrics.clone(),
        committer,
        view,
        environment,
        settings,
        ahead: State::default(),
        term: 0,
        sequence: 0,
        group: Group::default(),
        in_flight: None,
        leadership: leadership.clone(),
        retired: retired.clone(),
        room: room.clone(),
        term_floor: term_floor.clone(),
    };
    match writer.load().await {
        Ok(()) => {}
        Err(LoadError::Store { source: StoreError::Led { leader } }) => writer.follow(&leader.endpoint),
        Err(LoadError::Store { source: error @ StoreError::Unreachable { .. } }) => {
            tracing::warn!(cause = %Chain(&error), "the store is not loaded yet; trying again");
        }
        Err(error) => return Err(error),
    }
    Ok((WriterHandle { inbox: sender, metrics, leadership, retired, room, term_floor }, writer.run()))
}

impl Writer {
    async fn load(&mut self) -> Result<(), LoadError> {
        let seen = self.term_floor.term.load(Ordering::Relaxed);
        let floor = match wrong_edit::is(WrongEdit::TermFloorIgnored) {
            true => 0,
            false => self.environment.wall_unix_ms().max(seen),
        };
        let loaded = self.committer.load(floor).await.ok_or(LoadError::ThreadGone)?;
        let Loaded { incarnation, term, sequence, records } =
            loaded.map_err(|source| LoadError::Store { source })?;
        let state = State::from_records(records).map_err(|source| LoadError::Record { source })?;
        self.environment.at_least(state.meta.cluster_time_ms);
        self.ahead = state.clone();
        (self.term, self.sequence) = (term, sequence);
        self.settings.store = mark(&incarnation);
        self.view.replace(Shown { state, incarnation, term, sequence, epoch: 0 });
        self.leadership.leads();
        Ok(())
    }

    async fn run(mut self) {
        let mut open = true;
        if self.leadership.is_standby() {
            self.load_until_it_works().await;
        }
        while open || self.in_flight.is_some() || !self.group.is_empty() {
            if self.in_flight.is_none() && !self.group.is_empty() {
                self.hand_over().await;
            }
            let room = open && !self.group.is_full(self.committer.batch_records());
            tokio::select! {
                biased;
                outcome = self.committer.outcome(), if self.in_flight.is_some() => {
                    self.settle(outcome).await;
                }
                () = self.retired.cancelled(), if !self.inbox.is_closed() => self.inbox.close(),
                job = self.inbox.recv(), if room => match job {
                    None => open = false,
                    Some(job) => self.decide_queued(job),
                },
                () = self.term_floor.raised.notified(), if open && self.in_flight.is_none() => {
                    if self.term < self.term_floor.term.load(Ordering::Relaxed) {
                        tracing::warn!(term = self.term, "a node has seen a higher term; campaigning for one above it");
                        let group = std::mem::take(&mut self.group);
                        self.reload(group, ApiError::StoreUnavailable).await;
                    }
                }
                () = self.leadership.lease().lapsed(), if open && self.in_flight.is_none() => {
                    let group = std::mem::take(&mut self.group);
                    self.reload(group, ApiError::StoreUnavailable).await;
                }
                else => {}
            }
        }
        self.committer.close().await;
    }

    /// Decides a command and whatever has queued behind it, until the group is full.
    fn decide_queued(&mut self, first: Box<dyn Job>) {
        self.decide(first);
        while !self.group.is_full(self.committer.batch_records()) {
            match self.inbox.try_recv() {
                Ok(job) => self.decide(job),
                Err(_) => return,
            }
        }
    }

    fn decide(&mut self, mut job: Box<dyn Job>) {
        let full = self.room.level() > Level::Free && !wrong_edit::is(WrongEdit::FullStoreIgnored);
        if full && job.is_new_work(&self.ahead) {
            return job.answer(Some(self.room.refusal()));
        }
        let begun = Instant::now();
        let mut changes = Changes::new(&mut self.ahead, &self.settings, self.environment.moment());
        job.decide(&mut changes);
        let mutations = changes.finish();
        self.metrics.observe(metrics::DECISION_SECONDS, &[], begun.elapsed().as_secs_f64());
        self.group.push(job, mutations);
    }

    /// Gives the group to the store's thread; a group without changes only waits its turn.
    async fn hand_over(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        if group.has_no_changes() {
            group.answer(None);
            return;
        }
        let batch = match group.take_batch() {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "a record could not be written as JSON");
                self.reload(group, ApiError::StoreUnavailable).await;
                return;
            }
        };
        if wrong_edit::is(WrongEdit::ReplyBeforeCommit) {
            group.answer(None);
        }
        self.sequence += 1;
        self.committer.give(CommitRequest { term: self.term, sequence: self.sequence, batch });
        self.in_flight = Some((self.sequence, group));
    }

    async fn settle(&mut self, outcome: CommitOutcome) {
        let Some((sequence, mut group)) = self.in_flight.take() else { return };
        match outcome {
            CommitOutcome::Fenced if wrong_edit::is(WrongEdit::NoFence) => {
                self.view.publish(sequence, group.mutations());
                group.answer(None);
            }
            CommitOutcome::Unknown if wrong_edit::is(WrongEdit::UnknownTakenForLost) => {
                self.sequence -= 1;
                group.answer(Some(ApiError::OutcomeUnknown));
            }
            CommitOutcome::Committed => {
                self.view.publish(sequence, group.mutations());
                group.answer(None);
            }
            CommitOutcome::NotTaken { full: true } => self.take_back(group, self.room.refusal()),
            CommitOutcome::NotTaken { full: false } => self.take_back(group, ApiError::StoreUnavailable),
            CommitOutcome::Fenced => self.reload(group, ApiError::StoreUnavailable).await,
            CommitOutcome::Unknown => self.reload(group, ApiError::OutcomeUnknown).await,
        }
    }

    /// Goes back to what is shown: the store has no more than that, and nobody else leads. What was
    /// decided on top of the group was not done either.
    fn take_back(&mut self, mut failed: Group, why: ApiError) {
        self.sequence -= 1;
        if !wrong_edit::is(WrongEdit::NotTakenKept) {
            self.ahead = self.view.read(|shown| shown.state.clone());
        }
        failed.answer(Some(why));
        std::mem::take(&mut self.group).answer(Some(ApiError::StoreUnavailable));
    }

    /// Drops all memory and loads until it works; the next group was decided on what is now in
    /// doubt, so it was not done.
    async fn reload(&mut self, mut failed: Group, why: ApiError) {
        tracing::error!(reason = %why, "dropping all memory and loading the store again");
        failed.answer(Some(why));
        std::mem::take(&mut self.group).answer(Some(ApiError::StoreUnavailable));
        self.load_until_it_works().await;
    }

    /// Returns when this control plane leads, or is retired.
    async fn load_until_it_works(&mut self) {
        while !self.retired.is_cancelled() {
            let Err(error) = self.load().await else { return };
            match error {
                // The store's thread waits for a change of the lead.
                LoadError::Store { source: StoreError::Led { leader } } => self.follow(&leader.endpoint),
                LoadError::ThreadGone => return self.inbox.close(),
                error => {
                    tracing::error!(error = %Chain(&error), "the store cannot be loaded; trying again");
                    crate::time::sleep(RELOAD_PAUSE).await;
                }
            }
            if self.leadership.is_standby() {
                self.refuse_queued();
            }
        }
        self.inbox.close();
    }

    /// Another leads: nothing is known any more, and everything refused.
    fn follow(&mut self, leader: &str) {
        if self.leadership.follows(leader) {
            tracing::info!(leader, "another control plane leads; this one stands by");
        }
        if self.term > 0 {
            (self.ahead, self.term) = (State::default(), 0);
            self.view.replace(Shown::default());
        }
    }

    fn refuse_queued(&mut self) {
        while let Ok(job) = self.inbox.try_recv() {
            job.answer(Some(self.leadership.refusal()));
        }
    }
}

/// Prints an error with its causes, once, where it is handled.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
