//! Keeps this node as the control plane wants it: one tokio task owns the whole picture.
//! In: `CoreInput` from the session, the tasks and the local socket; what has queued is taken as one
//! group. Out: one commit a group, then acknowledgements, orders to tasks, reports to the session.
//! Owns: the book of assignments, the ledger, the outbox, the handle of every task's actor.
//! Level-triggered: after each group it plans anew from the whole picture (`plan`).
//! Never: performs a step of a task; waits for a task or for the session.

mod act;
mod intake;
pub(crate) use intake::parse_definition;
pub(crate) mod plan;

use crate::assignment::{Assignment, Book};
use crate::lease::Lease;
use crate::report::Outbox;
use crate::resources::Ledger;
use crate::store::records::{AssignmentRecord, InstanceStanding, TaskRecord};
use crate::task::journal::{Journal, new_record};
use crate::task::{Orders, TaskActor, TaskContext, TaskPhase};
use crate::time::{BootInstant, sleep_until};
use lighter_model::ids::{ContainerName, Family, Generation, TaskDefinitionId, TaskId};
use lighter_model::report::TaskReport;
use lighter_model::resources::Resources;
use lighter_model::status::TaskStatus;
use lighter_model::task_definition::TaskDefinition;
use plan::Known;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Inputs taken as one group at most, so that one commit stays small.
const GROUP_MAX: usize = 256;

/// After a start of the agent daemon tasks have so long to begin before the others do.
const DAEMONS_FIRST: Duration = Duration::from_secs(30);

/// Every task may have two pieces of news under way, the session a window of messages; with 500
/// tasks the rest wait here, which slows nothing but themselves.
pub(crate) const QUEUE_DEPTH: usize = 1024;

/// What a task's actor says of itself.
pub(crate) struct News {
    pub report: Option<Box<TaskReport>>,
    pub known: Known,
}

/// What the session brings, in the model's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// Whole: the session has put the chunks together.
    Manifest {
        revision: u64,
        assignments: Vec<Assignment>,
    },
    Assignments {
        revision: u64,
        assignments: Vec<Assignment>,
    },
    Definitions(Vec<(TaskDefinitionId, String)>),
    Applied(Vec<(TaskId, u64)>),
    StopConfirmed(Vec<TaskId>),
    InstanceState(InstanceStanding),
    /// Handled elsewhere; only its sequence counts here.
    Nothing,
}

/// What goes to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    Acknowledge(u64),
    Reports(Vec<TaskReport>),
    ConfirmStop(Vec<TaskId>),
}

/// A task this node holds, for the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldTask {
    pub task: TaskId,
    pub generation: Generation,
    pub status: TaskStatus,
    pub definition: TaskDefinitionId,
    /// What it holds of the node; nothing before it is admitted and after it has stopped.
    pub resources: Option<Resources>,
    pub group: String,
}

/// What the node says of itself at the start of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HelloFacts {
    pub term: u64,
    pub incarnation: String,
    pub revision: u64,
    pub tasks: Vec<HeldTask>,
    /// The highest revision of each family that the node has or keeps.
    pub revisions: BTreeMap<Family, u32>,
    pub offered: Resources,
}

/// A control plane whose leader is older than one this node has seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the control plane is at term {offered}, this node has seen term {seen}; waiting for the newer leader"
)]
pub(crate) struct LowerTerm {
    pub offered: u64,
    pub seen: u64,
}

/// A task as the local socket shows it.
#[derive(Debug, Clone)]
pub(crate) struct LocalTask {
    /// It was begun and has not stopped.
    pub runs: bool,
    pub assignment: AssignmentRecord,
    pub report: Option<TaskReport>,
    pub needs: Option<Resources>,
    pub definition: Option<Arc<TaskDefinition>>,
}

impl LocalTask {
    /// Its STOPPED report is on its way.
    pub(crate) fn has_stopped(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.status == TaskStatus::Stopped)
    }
}

/// Everything the reconciler is told.
pub(crate) enum CoreInput {
    /// A session begins; what belongs to an older one is ignored from here on.
    SessionOpened {
        session: u64,
        outbound: mpsc::Sender<Outbound>,
        facts: oneshot::Sender<HelloFacts>,
    },
    ControlHello {
        session: u64,
        term: u64,
        incarnation: String,
        /// When the hello was sent that this answers.
        sent: BootInstant,
        answer: oneshot::Sender<Result<(), LowerTerm>>,
    },
    /// A heartbeat of the session, sent then, was answered.
    Answered {
        session: u64,
        sent: BootInstant,
    },
    FromControl {
        session: u64,
        sequence: u64,
        message: Inbound,
    },
    SessionClosed {
        session: u64,
    },
    Task {
        task: TaskId,
        news: News,
    },
    /// It is over: its records may be deleted.
    TaskGone {
        task: TaskId,
    },
    /// True when the container has ended, or is none of this node's.
    ContainerEnded {
        task: TaskId,
        container: ContainerName,
        answer: oneshot::Sender<watch::Receiver<bool>>,
    },
    /// Every task of the node is to stop, daemon tasks last; none begins any more.
    StopAll {
        reason: String,
    },
    /// How the control plane sees this node.
    Standing {
        answer: oneshot::Sender<Option<InstanceStanding>>,
    },
    LocalTasks {
        answer: oneshot::Sender<Vec<LocalTask>>,
    },
}

/// One task: what is wanted, what is known, and how to tell it.
pub(super) struct Entry {
    known: Known,
    orders: watch::Sender<Orders>,
    report: Option<TaskReport>,
    /// Somebody hands renewals of its lease on.
    leased: bool,
    /// Needs before and after a change of limits that the task has not settled yet.
    resizing: Option<act::Resizing>,
    /// For those who follow a container's log: becomes true when it has ended.
    ended: BTreeMap<ContainerName, watch::Sender<bool>>,
}

/// The session there is.
pub(super) struct OpenSession {
    number: u64,
    outbound: mpsc::Sender<Outbound>,
    incarnation: String,
    /// Tasks whose end it was asked to confirm.
    asked: BTreeSet<TaskId>,
    /// The hello is done; reports may go out.
    ready: bool,
    /// When the last message was sent that is known to have been answered.
    answered: Option<BootInstant>,
    /// Its manifest is recorded. Before that a task could be renewed that runs elsewhere by now.
    listed: bool,
}

/// A definition that could not be read carries the reason.
pub(crate) type Definitions = BTreeMap<TaskDefinitionId, Result<Arc<TaskDefinition>, String>>;

/// A task that recovery found, and where it goes on.
pub(crate) struct RecoveredTask {
    pub record: TaskRecord,
    pub known: Known,
    pub phase: TaskPhase,
    pub needs: Option<Resources>,
}

/// See the header.
pub(crate) struct Reconciler {
    pub(super) context: Arc<TaskContext>,
    pub(super) book: Book,
    pub(super) definitions: Definitions,
    /// Of these the control plane has another than tasks of this node were begun with.
    pub(super) clashes: BTreeSet<TaskDefinitionId>,
    pub(super) tasks: BTreeMap<TaskId, Entry>,
    pub(super) ledger: Ledger,
    pub(super) outbox: Outbox,
    pub(super) session: Option<OpenSession>,
    /// Tasks that are over and whose records are still to be deleted.
    pub(super) ended: BTreeSet<TaskId>,
    /// Why all tasks are to stop, once they are.
    pub(super) closing: Option<String>,
    /// Daemon tasks go before the others until then; `None` when that time is over.
    pub(super) daemons_first_until: Option<BootInstant>,
}

impl Reconciler {
    pub(crate) fn new(
        context: Arc<TaskContext>,
        book: Book,
        definitions: Definitions,
        ledger: Ledger,
    ) -> Self {
        Self {
            context,
            book,
            definitions,
            clashes: BTreeSet::new(),
            tasks: BTreeMap::new(),
            ledger,
            outbox: Outbox::default(),
            session: None,
            ended: BTreeSet::new(),
            closing: None,
            daemons_first_until: Some(BootInstant::now().after(DAEMONS_FIRST)),
        }
    }

    /// Takes up a task where an earlier agent left it.
    pub(crate) fn take_up(&mut self, recovered: RecoveredTask) {
        let task = recovered.record.task.clone();
        if let Some(needs) = recovered.needs {
            self.ledger.hold(task.clone(), needs);
        }
        let journal = Journal::resumed(recovered.record, recovered.known, &self.context);
        let report = Some(journal.record.report());
        let (actor, entry) = self.actor(journal, report);
        // Ends by itself, forgotten or when the agent leaves; nobody waits for it.
        tokio::spawn(actor.resume(recovered.phase));
        self.tasks.insert(task, entry);
    }

    /// A task this node has not seen.
    pub(super) fn begin(&mut self, task: &TaskId) {
        let record = new_record(task.clone(), &self.context.boot_id, 0);
        let journal = Journal::new(record, Known::Waiting, &self.context);
        let (actor, entry) = self.actor(journal, None);
        // As above.
        tokio::spawn(actor.run(TaskPhase::Waiting));
        self.tasks.insert(task.clone(), entry);
    }

    fn actor(&self, journal: Journal, report: Option<TaskReport>) -> (TaskActor, Entry) {
        if let Some(assignment) = self.book.assignments.get(&journal.record.task) {
            journal.log.identify(&assignment.definition, assignment.trace_parent);
        }
        journal.log.publish(&journal.record);
        let assignment = self.book.assignments.get(&journal.record.task);
        let image_digests = assignment.map(|record| record.image_digests.clone()).unwrap_or_default();
        let lease = Lease::of_seconds(assignment.map_or(0, |record| record.lease_s));
        let orders = Orders { image_digests: Arc::new(image_digests), lease, ..Orders::default() };
        let (orders, receiver) = watch::channel(orders);
        let entry = Entry {
            known: journal.known,
            orders,
            report,
            leased: false,
            resizing: None,
            ended: BTreeMap::new(),
        };
        (TaskActor { context: self.context.clone(), journal, orders: receiver }, entry)
    }

    /// Runs until the agent leaves.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<CoreInput>) {
        let leaving = self.context.leaving.clone();
        self.act();
        loop {
            let first = tokio::select! {
                // A channel keeps what was not taken.
                () = leaving.cancelled() => return,
                input = inputs.recv() => input,
                () = daemons_had_their_time(self.daemons_first_until) => {
                    self.daemons_first_until = None;
                    self.act();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let mut group = vec![first];
            while group.len() < GROUP_MAX {
                let Ok(next) = inputs.try_recv() else { break };
                group.push(next);
            }
            self.take(group).await;
            self.act();
        }
    }
}

async fn daemons_had_their_time(until: Option<BootInstant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
