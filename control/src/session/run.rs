//! One session from hello to end.
//! In: the node's messages, changed assignments, requests for logs and streams. Out: messages through the `Link`.
//! Never: acknowledges a report before it is durable, or confirms a stop that a changed or older
//! store would be the only one to ask for.

use super::convert::{self, ControlSays, NodeSaid, Outgoing, Sent};
use super::hello::Hello;
use super::link::Link;
use super::registry::{About, NodeRequest, Place};
use crate::api::Context;
use crate::core::instance::{NodeConnected, NodeStateChanged, RegistrationFailed, usable_instance};
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::recovery::{Learned, Readmit, may_return};
use crate::core::report::{ApplyReports, MAX_REPORTS};
use crate::core::state::State;
use crate::error::{ApiError, SocketAddrText};
use crate::time::{self, Instant, now};
use crate::view::{AssignmentChange, NodeChange, Shown};
use crate::wrong_edit::{self, WrongEdit};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{FutureExt, Stream, StreamExt};
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::report::TaskReport;
use lighter_model::status::TaskStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a node may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Batches of reports on their way to the store; then reading waits, and with it the node.
const COMMITTING: usize = 16;
/// Changed assignments put into one message at most.
const DELTA: usize = 256;

type Applied = Result<Vec<(TaskId, u64)>, ApiError>;

/// Who speaks: from the certificate, never from a message.
#[derive(Debug, Clone)]
pub struct Identity {
    pub cluster: ClusterName,
    pub id: ContainerInstanceId,
    pub address: SocketAddrText,
}

/// The instance of a node that may speak: it is in the cluster of its certificate.
pub fn instance_of(state: &State, me: &Identity) -> Result<Arc<InstanceRecord>, ApiError> {
    let instance = usable_instance(state, &me.id)?;
    if instance.cluster != me.cluster {
        let (instance, status) = (me.id.to_string(), format!("of cluster {}", instance.cluster));
        return Err(ApiError::InstanceNotActive { instance, status });
    }
    Ok(instance)
}

/// A session at work.
struct Session {
    context: Context,
    me: Identity,
    link: Link,
    /// The manifest's revision, then that of the last delta.
    revision: u64,
    trusted: bool,
    /// The load of the state that this session was begun with.
    epoch: u64,
    /// The agent understands how the control plane sees its node.
    hears_state: bool,
    /// What it was told last.
    told: Option<Outgoing>,
    committing: FuturesOrdered<BoxFuture<'static, Applied>>,
}

/// What may end a session at any time.
enum End {
    /// The control plane stops.
    Stopped,
    /// Another session has its place.
    Replaced,
    /// It may have said nothing for too long.
    Silent,
}

fn silent(at: Instant) -> BoxFuture<'static, End> {
    async move {
        time::sleep_until(at).await;
        End::Silent
    }
    .boxed()
}

/// Serves a session and tells the node why it ended. The future is what every session takes for as long as it lasts, so
/// what is needed seldom or once is boxed where it is awaited; a block, for an `async fn` keeps its arguments twice.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold every argument a second time")]
pub fn serve(
    context: Context,
    me: Identity,
    mut incoming: impl Stream<Item = Result<NodeSaid, ApiError>> + Send + Unpin,
    out: mpsc::Sender<Sent>,
) -> impl Future<Output = ()> + Send {
    async move {
        let ended = match Box::pin(begin(&context, &me, &mut incoming, &out)).await {
            Ok((mut session, mut changes, mut place)) => {
                let ended = session.run(&mut incoming, &mut changes, &mut place).await;
                context.sessions.end(&me.id, &place);
                ended
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::info!(instance = %me.id, address = %me.address, reason = %error, "a session ended");
            // A node that is gone needs no reason.
            let _ = Box::pin(time::timeout(Duration::from_secs(1), out.send(Err(error.into())))).await;
        }
    }
}

/// The feature of agents that understand `InstanceState`.
const INSTANCE_STATE: &str = "instance-state";

/// The feature of agents that end an exclusive task when its lease has run out.
const LEASES: &str = "leases";

type Begun = (Box<Session>, mpsc::Receiver<NodeChange>, Place);

async fn begin(
    context: &Context,
    me: &Identity,
    incoming: &mut (impl Stream<Item = Result<NodeSaid, ApiError>> + Unpin),
    out: &mpsc::Sender<Sent>,
) -> Result<Begun, ApiError> {
    let first = time::timeout(HELLO_LIMIT, incoming.next()).await;
    let hello = match first.ok_or(ApiError::SessionSilent)?.transpose()? {
        Some(NodeSaid::Hello(hello)) => *hello,
        _ => return Err(ApiError::ProtocolViolation { message: "the first message is no hello".to_owned() }),
    };
    let protocol = match hello.protocol() {
        Ok(protocol) => protocol,
        Err(error) => {
            context.writer.submit(RegistrationFailed { instance: me.id.clone() }).await?;
            return Err(error);
        }
    };
    if context.view.read(|shown| comes_back(shown, me, &hello)) {
        tracing::warn!(instance = %me.id, "a node of a store of before comes back under its identity");
        context.writer.submit(Readmit { cluster: me.cluster.clone(), instance: me.id.clone() }).await?;
    }
    context.view.read(|shown| instance_of(&shown.state, me))?;
    let about = About {
        run_id: hello.run_id.clone(),
        agent_version: hello.agent_version.clone(),
        features: hello.features.clone(),
    };
    let place = context.sessions.begin(&me.id, about, me.address)?;
    // From here on the place is given back whatever happens.
    match greet(context, me, hello, protocol, out).await {
        Ok((session, changes)) => Ok((session, changes, place)),
        Err(error) => {
            context.sessions.end(&me.id, &place);
            Err(error)
        }
    }
}

/// After an empty start: a node that knew another store, and that this one cannot have deregistered.
fn comes_back(shown: &Shown, me: &Identity, hello: &Hello) -> bool {
    let other = !hello.incarnation.is_empty() && hello.incarnation != shown.incarnation;
    other && may_return(&shown.state, &me.cluster, &me.id)
}

async fn greet(
    context: &Context,
    me: &Identity,
    hello: Hello,
    protocol: u32,
    out: &mpsc::Sender<Sent>,
) -> Result<(Box<Session>, mpsc::Receiver<NodeChange>), ApiError> {
    // First follow, then read: a change in between is in the manifest and comes again as a delta.
    let changes = context.view.follow(&me.id);
    let (trusted, term, incarnation, epoch) =
        context.view.read(|shown| (hello.trusts(shown), shown.term, shown.incarnation.clone(), shown.epoch));
    if let Some(seen) = hello.higher_term(term, context.environment.wall_unix_ms())? {
        if !context.sessions.may_raise_term(&me.id) {
            let message = format!("term {seen} was never given, and this node has said such a thing before");
            return Err(ApiError::ProtocolViolation { message });
        }
        context.writer.raise_term_above(seen);
        return Err(ApiError::StateReloaded);
    }
    let hears_state = hello.features.iter().any(|feature| feature == INSTANCE_STATE);
    let connected = NodeConnected {
        instance: me.id.clone(),
        facts: hello.facts,
        agent_version: hello.agent_version,
        boot_id: hello.boot_id,
        address: me.address.0,
        leases: hello.features.iter().any(|feature| feature == LEASES),
        held: hello.held.clone(),
        trusted,
        learned: Learned { incarnation: incarnation.clone(), revisions: hello.revisions, tasks: hello.tasks },
    };
    while context.writer.submit(connected.clone()).await? {}
    let mut link = Link::new(out.clone());
    let says = ControlSays {
        protocol,
        term,
        incarnation,
        container_instance_id: me.id.to_string(),
        cluster: me.cluster.to_string(),
        heartbeat_interval_ms: u32::try_from(context.heartbeat_interval.as_millis()).unwrap_or(u32::MAX),
    };
    link.send_unnumbered(convert::control_hello(says)).await?;
    let (revision, tasks, orphans) = context.view.read(|shown| {
        let state = &shown.state;
        let own = state.reserved(&me.id).tasks.iter().filter_map(|id| state.tasks.get(id));
        // What is held and STOPPED here may be forgotten there: its acknowledgement was lost.
        let held = hello.held.keys().filter_map(|id| state.tasks.get(id));
        let held = held.filter(|task| task.instance == me.id && task.last == TaskStatus::Stopped);
        let tasks: Vec<Arc<TaskRecord>> = own.chain(held).cloned().collect();
        let orphans = state.instances.get(&me.id).map(|instance| instance.orphans.clone());
        (shown.sequence, tasks, orphans.unwrap_or_default())
    });
    if !orphans.is_empty() {
        tracing::warn!(instance = %me.id, ?orphans, "the node holds tasks of another or a newer store; they are left running");
    }
    context.writer.leadership().check()?;
    link.manifest(&context.view, revision, &tasks).await?;
    tracing::info!(instance = %me.id, address = %me.address, tasks = tasks.len(), "a session began");
    let (context, me, committing) = (context.clone(), me.clone(), FuturesOrdered::new());
    let mut session =
        Session { context, me, link, revision, trusted, epoch, hears_state, told: None, committing };
    let instance = session.context.view.read(|shown| shown.state.instances.get(&session.me.id).cloned());
    if let Some(instance) = instance {
        session.tell_state(&instance).await?;
    }
    Ok((Box::new(session), changes))
}

impl Session {
    async fn run(
        &mut self,
        incoming: &mut (impl Stream<Item = Result<NodeSaid, ApiError>> + Unpin),
        changes: &mut mpsc::Receiver<NodeChange>,
        place: &mut Place,
    ) -> Result<(), ApiError> {
        let limit = self.context.sessions.silence_limit();
        let mut heard = now();
        let mut ends = self.ends(place, heard + limit);
        loop {
            let room = self.committing.len() < COMMITTING;
            // Biased, so that a simulation's seed decides everything. None is starved: what comes
            // first is bounded by what the writer commits, and by the node's own reports.
            tokio::select! {
                biased;
                Some(end) = ends.next() => match end {
                    End::Stopped => return Err(ApiError::ShuttingDown),
                    End::Replaced => return Err(ApiError::SessionReplaced),
                    End::Silent if now() >= heard + limit => return Err(ApiError::SessionSilent),
                    End::Silent => ends.push(silent(heard + limit)),
                },
                change = changes.recv() => match change {
                    Some(first) => Box::pin(self.delta(first, changes)).await?,
                    None => return Err(self.why_no_changes(place)),
                },
                Some(request) = place.requests.recv() => {
                    // Whoever asks about a task may have just run it: the node hears of it first.
                    while let Ok(first) = changes.try_recv() {
                        Box::pin(self.delta(first, changes)).await?;
                    }
                    Box::pin(self.link.send(match *request {
                        NodeRequest::Logs(request) => convert::open_log_stream(request),
                        NodeRequest::Stream(request) => convert::open_stream(request),
                        NodeRequest::Journal(question) => convert::ask_task_events(question),
                    })).await?;
                }
                Some(applied) = self.committing.next() => {
                    Box::pin(self.link.send(convert::reports_applied(applied?))).await?;
                }
                said = incoming.next(), if room => {
                    let Some(said) = said else { return Ok(()) };
                    heard = now();
                    self.context.sessions.heard(&self.me.id);
                    Box::pin(self.hear(said?)).await?;
                }
            }
        }
    }

    /// Each is looked at only when it wakes the session, not with every message.
    fn ends(&self, place: &Place, silent_at: Instant) -> FuturesUnordered<BoxFuture<'static, End>> {
        let stopped = self.context.stop.clone().cancelled_owned().map(|()| End::Stopped);
        let replaced = place.cancel.clone().cancelled_owned().map(|()| End::Replaced);
        [stopped.boxed(), replaced.boxed(), silent(silent_at)].into_iter().collect()
    }

    /// The view has dropped this session: another follows in its place, everything was loaded anew,
    /// or it was too slow.
    fn why_no_changes(&self, place: &Place) -> ApiError {
        if place.cancel.is_cancelled() {
            ApiError::SessionReplaced
        } else if self.context.view.read(|shown| shown.epoch) != self.epoch {
            ApiError::StateReloaded
        } else {
            ApiError::SessionTooSlow
        }
    }

    async fn hear(&mut self, said: NodeSaid) -> Result<(), ApiError> {
        // A heartbeat answered by a leader of before would keep a node from looking for the next.
        self.context.writer.leadership().check()?;
        match said {
            NodeSaid::Hello(_) => Err(ApiError::ProtocolViolation { message: "a second hello".to_owned() }),
            NodeSaid::Heartbeat(number) => {
                let (term, connected) = self.context.view.read(|shown| {
                    let instance = shown.state.instances.get(&self.me.id);
                    (shown.term, instance.is_some_and(|instance| instance.connected))
                });
                // An answer renews leases: none once the node is taken for silent.
                if !connected {
                    return Err(ApiError::SessionSilent);
                }
                self.link.send_unnumbered(convert::heartbeat_answer(number, term)).await
            }
            NodeSaid::Acknowledge(sequence) if sequence > self.link.sequence() => {
                let message = format!("{sequence} acknowledged, {} sent", self.link.sequence());
                Err(ApiError::ProtocolViolation { message })
            }
            NodeSaid::Acknowledge(_) => Ok(()),
            NodeSaid::Reports(reports) => {
                self.apply(reports);
                Ok(())
            }
            NodeSaid::ConfirmStop(tasks) => self.confirm(tasks).await,
            NodeSaid::TaskEvents(id, events) => {
                self.context.questions.answered(&id, &self.me.id, events);
                Ok(())
            }
            NodeSaid::State(facts) => {
                let changed = NodeStateChanged { instance: self.me.id.clone(), facts };
                self.context.writer.submit(changed).await
            }
        }
    }

    /// Gives reports to the writer; they are acknowledged in order when they are durable.
    fn apply(&mut self, mut reports: Vec<TaskReport>) {
        while !reports.is_empty() {
            let rest = reports.split_off(reports.len().min(MAX_REPORTS));
            let command = ApplyReports { instance: self.me.id.clone(), reports };
            let writer = self.context.writer.clone();
            let told = command.reports.iter().map(|report| (report.task.clone(), report.sequence)).collect();
            self.committing.push_back(Box::pin(async move {
                let applied = writer.submit(command).await;
                if wrong_edit::is(WrongEdit::LostReportAnswered) { Ok(told) } else { applied }
            }));
            reports = rest;
        }
    }

    /// Sends what changed, as few messages as may be.
    async fn delta(
        &mut self,
        first: NodeChange,
        changes: &mut mpsc::Receiver<NodeChange>,
    ) -> Result<(), ApiError> {
        self.context.writer.leadership().check()?;
        let mut batch = vec![first];
        while batch.len() < DELTA {
            match changes.try_recv() {
                Ok(change) => batch.push(change),
                Err(_) => break,
            }
        }
        let mut instance = None;
        let mut tasks = Vec::with_capacity(batch.len());
        for change in batch {
            match change {
                NodeChange::Task(change) => tasks.push(change),
                NodeChange::Instance(newer) => instance = Some(newer),
            }
        }
        if let Some(instance) = instance {
            // What is deregistered is told nothing more: its tasks are orphans and run on.
            let newest = self.context.view.read(|shown| usable_instance(&shown.state, &instance.id))?;
            // Taken for silent by a look from before this session: only a new hello takes that back.
            if !newest.connected {
                return Err(ApiError::SessionSilent);
            }
            self.tell_state(&instance).await?;
        }
        self.tasks_changed(tasks).await
    }

    /// Tells the node how it is seen, unless that is what it knows.
    async fn tell_state(&mut self, instance: &InstanceRecord) -> Result<(), ApiError> {
        let state = convert::instance_state(instance);
        if !self.hears_state || self.told.as_ref() == Some(&state) {
            return Ok(());
        }
        self.told = Some(state.clone());
        self.link.send(state).await
    }

    async fn tasks_changed(&mut self, batch: Vec<AssignmentChange>) -> Result<(), ApiError> {
        let newest = batch.iter().map(|change| change.revision).max().unwrap_or_default();
        let newer = batch.into_iter().filter(|change| change.revision > self.revision);
        let tasks: Vec<Arc<TaskRecord>> = newer.map(|change| change.task).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        self.link.assignments(&self.context.view, newest, &tasks).await?;
        // A batch of the store may be cut in two here: the rest of it has the same revision.
        self.revision = self.revision.max(newest.saturating_sub(1));
        Ok(())
    }

    /// Confirms the stop of tasks that this store surely does not want on this node; the others are
    /// assigned again.
    async fn confirm(&mut self, asked: Vec<TaskId>) -> Result<(), ApiError> {
        let (confirmed, wanted, revision) = self.context.view.read(|shown| {
            let state = &shown.state;
            let orphans = state.instances.get(&self.me.id).map(|instance| &instance.orphans);
            let (mut confirmed, mut wanted) = (Vec::new(), Vec::new());
            for id in asked {
                match state.tasks.get(&id) {
                    Some(task) if task.instance == self.me.id => wanted.push(task.clone()),
                    Some(_) => confirmed.push(id),
                    None if self.trusted && !orphans.is_some_and(|ids| ids.contains(&id)) => {
                        confirmed.push(id);
                    }
                    None => {
                        tracing::warn!(instance = %self.me.id, task = %id, "an unknown task is left running")
                    }
                }
            }
            (confirmed, wanted, shown.sequence)
        });
        if !wanted.is_empty() {
            self.link.assignments(&self.context.view, revision, &wanted).await?;
        }
        if confirmed.is_empty() {
            return Ok(());
        }
        tracing::warn!(instance = %self.me.id, tasks = ?confirmed, "stopping tasks that are not known here");
        self.link.send(convert::stop_confirmed(&confirmed)).await
    }
}
