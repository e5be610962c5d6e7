//! Takes a group of inputs: stages what is to be recorded, commits it as one, then lets it count.
//! In: inputs in their order. Out: changed state; acknowledgements, only after the commit.
//! When the commit fails nothing of the group's assignments counts: the session is closed and the
//! control plane sends them again. Never: acknowledges what is not durable.

use super::plan::Known;
use super::{
    CoreInput, HeldTask, HelloFacts, Inbound, LocalTask, LowerTerm, OpenSession, Outbound, Reconciler,
};
use crate::assignment::{Assignment, Book};
use crate::errors::chain;
use crate::lease::{self, Lease};
use crate::store::StoreOp;
use crate::store::records::{AssignmentRecord, FORMAT_VERSION, SessionRecord};
use crate::time::BootInstant;
use lighter_model::ids::{ContainerName, TaskDefinitionId, TaskId};
use lighter_model::report::TaskReport;
use lighter_model::status::{ContainerStatus, TaskStatus};
use lighter_model::task_definition::TaskDefinition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// What a group changes, until it is durable.
struct Staged {
    /// The book as it will be.
    book: Book,
    ops: Vec<StoreOp>,
    definitions: Vec<(TaskDefinitionId, String)>,
    acknowledge: Option<u64>,
    confirm: Vec<TaskId>,
    /// The manifest of this session is part of it.
    listed: Option<u64>,
    /// All that was told of tasks is told again.
    tell_again: bool,
    hellos: Vec<oneshot::Sender<Result<(), LowerTerm>>>,
}

impl Staged {
    fn put(&mut self, record: AssignmentRecord) {
        self.ops.push(StoreOp::PutAssignment(Box::new(record.clone())));
        self.book.assignments.insert(record.task.clone(), record);
    }

    fn put_session(&mut self, session: SessionRecord) {
        if self.book.session != session {
            self.ops.push(StoreOp::PutSession(session.clone()));
            self.book.session = session;
        }
    }

    fn accept(&mut self, assignments: Vec<Assignment>, incarnation: &str) {
        for assignment in assignments {
            if let Some(record) = self.book.accept(assignment, incarnation) {
                self.put(record);
            }
        }
    }
}

impl Reconciler {
    pub(super) async fn take(&mut self, group: Vec<CoreInput>) {
        let mut staged: Option<Staged> = None;
        let mut followers = Vec::new();
        for input in group {
            match input {
                CoreInput::Task { task, news } => self.take_news(&task, news),
                CoreInput::TaskGone { task } => {
                    staged.get_or_insert_with(|| self.stage());
                    self.ended.insert(task);
                }
                CoreInput::StopAll { reason } => {
                    tracing::warn!(%reason, "all tasks of this node are to stop; none begins any more");
                    self.closing.get_or_insert(reason);
                }
                CoreInput::Standing { answer } => {
                    let _ = answer.send(self.book.session.instance.clone());
                }
                CoreInput::LocalTasks { answer } => {
                    let _ = answer.send(self.local_tasks());
                }
                CoreInput::ContainerEnded { task, container, answer } => {
                    followers.push((task, container, answer));
                }
                CoreInput::SessionOpened { session, outbound, facts } => {
                    let (incarnation, asked) = (String::new(), BTreeSet::new());
                    self.session = Some(OpenSession {
                        number: session,
                        outbound,
                        incarnation,
                        asked,
                        ready: false,
                        answered: None,
                        listed: false,
                    });
                    self.outbox.session_began();
                    let _ = facts.send(self.hello_facts());
                }
                CoreInput::SessionClosed { session } => {
                    self.session.take_if(|open| open.number == session);
                }
                CoreInput::Answered { session, sent } => self.answered(session, sent),
                CoreInput::ControlHello { session, term, incarnation, sent, answer } => {
                    let staged = staged.get_or_insert_with(|| self.stage());
                    if self.control_hello(session, term, incarnation, answer, staged) {
                        self.answered(session, sent);
                    }
                }
                CoreInput::FromControl { session, sequence, message } => {
                    if self.session.as_ref().is_some_and(|open| open.number == session) {
                        let staged = staged.get_or_insert_with(|| self.stage());
                        self.take_message(sequence, message, staged);
                    }
                }
            }
        }
        if let Some(mut staged) = staged {
            // Last, so that nothing of this group brings a task back.
            for task in &self.ended {
                staged.book.assignments.remove(task);
                staged.ops.push(StoreOp::Forget(task.clone()));
            }
            self.commit(staged).await;
        }
        // After the commit: the task they ask about may have come with this very group.
        for (task, container, answer) in followers {
            let _ = answer.send(self.container_ended(&task, container));
        }
    }

    fn stage(&self) -> Staged {
        Staged {
            book: self.book.clone(),
            ops: Vec::new(),
            definitions: Vec::new(),
            acknowledge: None,
            confirm: Vec::new(),
            listed: None,
            tell_again: false,
            hellos: Vec::new(),
        }
    }

    /// Whether it counts.
    fn control_hello(
        &mut self,
        session: u64,
        term: u64,
        incarnation: String,
        answer: oneshot::Sender<Result<(), LowerTerm>>,
        staged: &mut Staged,
    ) -> bool {
        let seen = staged.book.session.term;
        if term < seen {
            let _ = answer.send(Err(LowerTerm { offered: term, seen }));
            return false;
        }
        let Some(open) = self.session.as_mut().filter(|open| open.number == session) else { return false };
        open.incarnation = incarnation;
        open.ready = true;
        staged.put_session(SessionRecord { version: FORMAT_VERSION, term, ..staged.book.session.clone() });
        staged.hellos.push(answer);
        true
    }

    /// A message of the session, sent then, was answered.
    fn answered(&mut self, session: u64, sent: BootInstant) {
        let Some(open) = self.session.as_mut().filter(|open| open.number == session) else { return };
        open.answered = open.answered.max(Some(sent));
        self.renew_leases();
    }

    /// Every lease counts from the last answered message of a session that has listed its tasks.
    fn renew_leases(&mut self) {
        let Some(open) = self.session.as_ref().filter(|open| open.listed) else { return };
        let Some(sent) = open.answered else { return };
        for record in self.book.assignments.values().filter(|record| record.lease_s > 0) {
            let Some(entry) = self.tasks.get_mut(&record.task) else { continue };
            if !std::mem::replace(&mut entry.leased, true) {
                let (task, orders) = (record.task.clone(), entry.orders.subscribe());
                // Ends with the task's entry, or when the agent leaves; nobody waits for it.
                tokio::spawn(lease::keep(self.context.clone(), task, orders));
            }
            entry.orders.send_if_modified(|orders| {
                // Known from the beginning, unless the store was lost.
                orders.lease.length = Lease::of_seconds(record.lease_s).length;
                orders.lease.renew(sent)
            });
        }
    }

    fn take_message(&mut self, sequence: u64, message: Inbound, staged: &mut Staged) {
        staged.acknowledge = Some(sequence);
        let Some(open) = &mut self.session else { return };
        let incarnation = open.incarnation.clone();
        match message {
            Inbound::Manifest { revision, assignments } => {
                staged.listed = Some(open.number);
                let listed: BTreeSet<TaskId> =
                    assignments.iter().map(|assignment| assignment.task.clone()).collect();
                staged.accept(unclear(&self.clashes, assignments), &incarnation);
                let verdict = staged.book.manifest(&listed, &incarnation, revision);
                staged.tell_again |= verdict.set_back;
                verdict.keep.into_iter().for_each(|record| staged.put(record));
                open.asked.extend(verdict.ask.iter().cloned());
                staged.confirm.extend(verdict.ask);
                staged.put_session(SessionRecord {
                    incarnation,
                    revision,
                    version: FORMAT_VERSION,
                    ..staged.book.session.clone()
                });
            }
            Inbound::Assignments { revision, assignments } => {
                staged.accept(unclear(&self.clashes, assignments), &incarnation);
                let revision = revision.max(staged.book.session.revision);
                staged.put_session(SessionRecord {
                    revision,
                    version: FORMAT_VERSION,
                    ..staged.book.session.clone()
                });
            }
            Inbound::Definitions(definitions) => {
                definitions.into_iter().for_each(|(id, json)| self.define(id, json, staged));
            }
            Inbound::Applied(applied) => {
                applied.iter().for_each(|(task, sequence)| self.applied(task, *sequence))
            }
            Inbound::StopConfirmed(tasks) => {
                for task in tasks {
                    // Only what was asked in this session, and what no delta has listed since.
                    let record = open.asked.remove(&task).then(|| staged.book.disown(&task)).flatten();
                    record.into_iter().for_each(|record| staged.put(record));
                }
            }
            Inbound::InstanceState(instance) => {
                let session = staged.book.session.clone();
                staged.put_session(SessionRecord { instance: Some(instance), ..session });
            }
            Inbound::Nothing => {}
        }
    }

    /// A store that was set back may give a name anew. Another definition under it takes the old one's
    /// place when no task needs that any more; until then no other task of that name begins here.
    fn define(&mut self, id: TaskDefinitionId, json: String, staged: &mut Staged) {
        let known = self.definitions.get(&id);
        if known.is_some_and(|known| *known == parse_definition(&json)) {
            return;
        }
        let mut assigned = staged.book.assignments.values();
        if known.is_some() && assigned.any(|record| record.definition == id) {
            tracing::error!(definition = %id, "the control plane has another definition of this name than tasks that run here; no other task of it begins");
            self.clashes.insert(id);
            return;
        }
        self.clashes.remove(&id);
        staged.ops.push(StoreOp::PutDefinition { id: id.clone(), json: json.clone() });
        staged.definitions.push((id, json));
    }

    async fn commit(&mut self, staged: Staged) {
        if !staged.ops.is_empty()
            && let Err(error) = self.context.store.commit(staged.ops).await
        {
            tracing::error!(cause = %chain(&error), "assignments cannot be recorded and are not acknowledged; the session starts anew");
            self.session = None;
            return;
        }
        self.book = staged.book;
        std::mem::take(&mut self.ended).iter().for_each(|task| self.forget(task));
        if staged.tell_again {
            let reports = self.tasks.values().filter_map(|entry| entry.report.clone());
            reports.for_each(|report| self.outbox.put(report));
        }
        for (id, json) in staged.definitions {
            self.definitions.insert(id, parse_definition(&json));
        }
        for task in self
            .book
            .assignments
            .keys()
            .filter(|task| !self.tasks.contains_key(*task))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.begin(&task);
        }
        if let Some(open) = self.session.as_mut().filter(|open| Some(open.number) == staged.listed) {
            open.listed = true;
        }
        self.renew_leases();
        staged.hellos.into_iter().for_each(|answer| {
            let _ = answer.send(Ok(()));
        });
        if let Some(sequence) = staged.acknowledge {
            self.send(Outbound::Acknowledge(sequence));
        }
        if !staged.confirm.is_empty() {
            self.send(Outbound::ConfirmStop(staged.confirm));
        }
    }

    fn take_news(&mut self, task: &TaskId, news: super::News) {
        let Some(entry) = self.tasks.get_mut(task) else { return };
        // News may be older than an order that is under way.
        entry.known = entry.known.max(news.known);
        if news.known == Known::Stopped {
            self.ledger.release(task);
        }
        if let Some(report) = news.report {
            for (name, ended) in &entry.ended {
                ended.send_if_modified(|ended| !std::mem::replace(ended, has_ended(&report, name)) && *ended);
            }
            entry.report = Some((*report).clone());
            self.resized(&report);
            self.outbox.put(*report);
        }
    }

    fn container_ended(&mut self, task: &TaskId, container: ContainerName) -> watch::Receiver<bool> {
        let Some(entry) = self.tasks.get_mut(task) else { return watch::channel(true).1 };
        let already = entry.report.as_ref().is_some_and(|report| has_ended(report, &container));
        entry.ended.entry(container).or_insert_with(|| watch::channel(already).0).subscribe()
    }

    fn applied(&mut self, task: &TaskId, sequence: u64) {
        self.outbox.applied(task, sequence);
        if let Some(entry) = self.tasks.get(task) {
            entry.orders.send_modify(|orders| orders.applied = orders.applied.max(sequence));
        }
    }

    fn forget(&mut self, task: &TaskId) {
        self.ledger.release(task);
        self.outbox.forget(task);
        self.context.telemetry.forget(task);
        self.tasks.remove(task);
    }

    fn hello_facts(&self) -> HelloFacts {
        let held = self.book.assignments.values().map(|record| HeldTask {
            task: record.task.clone(),
            generation: record.generation,
            status: self
                .tasks
                .get(&record.task)
                .and_then(|e| e.report.as_ref())
                .map_or(TaskStatus::Pending, |report| report.status),
            definition: record.definition.clone(),
            resources: self.ledger.held(&record.task).cloned(),
            group: record.group.clone(),
        });
        let mut revisions = BTreeMap::new();
        let assigned = self.book.assignments.values().map(|record| &record.definition);
        for id in self.definitions.keys().chain(assigned) {
            let highest = revisions.entry(id.family.clone()).or_insert(id.revision);
            *highest = id.revision.max(*highest);
        }
        HelloFacts {
            term: self.book.session.term,
            incarnation: self.book.session.incarnation.clone(),
            revision: self.book.session.revision,
            tasks: held.collect(),
            revisions,
            offered: self.ledger.offered().clone(),
        }
    }

    fn local_tasks(&self) -> Vec<LocalTask> {
        let records = self.book.assignments.values();
        records
            .map(|record| LocalTask {
                runs: self.tasks.get(&record.task).is_some_and(|entry| is_begun(entry.known)),
                assignment: record.clone(),
                report: self.tasks.get(&record.task).and_then(|entry| entry.report.clone()),
                needs: self.needs(record),
                definition: self
                    .definitions
                    .get(&record.definition)
                    .and_then(|definition| definition.clone().ok()),
            })
            .collect()
    }
}

/// What a task of a clashing definition is: nothing that can be begun.
fn unclear(clashes: &BTreeSet<TaskDefinitionId>, mut assignments: Vec<Assignment>) -> Vec<Assignment> {
    for assignment in assignments.iter_mut().filter(|a| clashes.contains(&a.definition)) {
        let what = format!(
            "task definition {}: this node runs tasks of another one of the same name, which a store of before gave",
            assignment.definition
        );
        assignment.unreadable.get_or_insert(what);
    }
    assignments
}

/// It may hold something of the node: nobody knows that nothing of it runs.
fn is_begun(known: Known) -> bool {
    matches!(known, Known::Active | Known::Ending)
}

/// For good: between two runs a container that is started again is PENDING.
fn has_ended(report: &TaskReport, container: &ContainerName) -> bool {
    report.containers.iter().any(|c| c.name == *container && c.status == ContainerStatus::Stopped)
}

/// A definition as the control plane sends it: validated there, read strictly here.
pub(crate) fn parse_definition(json: &str) -> Result<Arc<TaskDefinition>, String> {
    let definition = serde_json::from_str(json).map(Arc::new);
    definition.map_err(|error| {
        format!("ResourceInitializationError: this node cannot read the task definition: {error}")
    })
}
