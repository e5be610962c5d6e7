//! Carries out a plan: orders to tasks, reports to the session.
//! In: the picture after a group. Out: changed orders, messages. Nothing here waits.
//! A session that takes no more messages is cut off and starts anew (decision 7).
//! Never: decides; `plan` does.

use super::plan::{Action, Known, NodePlan, PlanTask, plan};
use super::{Entry, Outbound, Reconciler};
use crate::lease;
use crate::store::records::AssignmentRecord;
use crate::task::adjust::{Adjust, adjusted};
use crate::task::{Start, StopOrder};
use lighter_model::ids::{Generation, TaskId};
use lighter_model::node::is_daemon;
use lighter_model::report::TaskReport;
use lighter_model::resources::{Resources, required_resources};
use lighter_model::status::{DesiredStatus, StopCode, TaskStatus};
use std::collections::BTreeMap;
use tokio::sync::mpsc::error::TrySendError;

/// Needs of a task before and after a change of its limits.
pub(super) struct Resizing {
    generation: Generation,
    before: Resources,
    after: Resources,
}

impl Reconciler {
    pub(super) fn act(&mut self) {
        self.adjust_all();
        self.stop_harder();
        let picture = self.picture();
        let node =
            NodePlan { closing: self.closing.is_some(), daemons_first: self.daemons_first_until.is_some() };
        for action in plan(&picture, &self.ledger, node) {
            self.perform(action);
        }
        self.flush();
    }

    /// Tells tasks what their assignments want of them while they run.
    fn adjust_all(&mut self) {
        let stale = |entry: &Entry, record: &AssignmentRecord| {
            let known = entry.orders.borrow().adjust.generation;
            record.generation > known
        };
        let records = self.book.assignments.values();
        let changed: Vec<AssignmentRecord> = records
            .filter(|record| self.tasks.get(&record.task).is_some_and(|entry| stale(entry, record)))
            .cloned()
            .collect();
        changed.iter().for_each(|record| self.adjust(record));
    }

    fn adjust(&mut self, record: &AssignmentRecord) {
        let refused = self.hold_for_resize(record);
        let definition = self.definitions.get(&record.definition).and_then(|found| found.as_ref().ok());
        let wanted = Adjust {
            generation: record.generation,
            paused: record.paused,
            resources: record.resources.clone(),
            definition: definition
                .map(|definition| adjusted(definition, &record.overrides, &record.resources)),
            refused,
        };
        if let Some(entry) = self.tasks.get_mut(&record.task) {
            entry.orders.send_modify(|orders| orders.adjust = wanted);
        }
    }

    /// Holds the larger of old and new needs until the task has settled; why not, if there is no room.
    fn hold_for_resize(&mut self, record: &AssignmentRecord) -> Option<String> {
        let needs = self.needs(record)?;
        let entry = self.tasks.get_mut(&record.task)?;
        let before = self.ledger.held(&record.task).filter(|before| **before != needs)?.clone();
        if entry.known != Known::Active {
            return None;
        }
        let both = before.clone().max(&needs);
        if let Err(why) = self.ledger.fits_instead(&record.task, &both) {
            let why = why.to_string();
            return Some(why.split(';').next().unwrap_or(&why).to_owned());
        }
        self.ledger.hold(record.task.clone(), both);
        entry.resizing = Some(Resizing { generation: record.generation, before, after: needs });
        None
    }

    /// A task has settled a change of its limits: only what it has now is held on.
    pub(super) fn resized(&mut self, report: &TaskReport) {
        let Some(entry) = self.tasks.get_mut(&report.task) else { return };
        let settled = entry.resizing.take_if(|resizing| report.settled >= resizing.generation);
        if let Some(Resizing { before, after, .. }) = settled {
            self.ledger.hold(report.task.clone(), if report.refusal.is_some() { before } else { after });
        }
    }

    fn picture(&self) -> BTreeMap<TaskId, PlanTask> {
        let known = |task: &TaskId| self.tasks.get(task).map(|entry| entry.known);
        let records = self.book.assignments.values();
        records
            .filter_map(|record| {
                let known = known(&record.task)?;
                let report = self.tasks.get(&record.task).and_then(|entry| entry.report.as_ref());
                let up = report.is_some_and(|report| report.status >= TaskStatus::Running);
                let daemon = is_daemon(&record.group);
                let forget = record.forget || record.disowned;
                let needs = self.needs(record);
                Some((
                    record.task.clone(),
                    PlanTask { desired: record.desired, forget, known, needs, daemon, up },
                ))
            })
            .collect()
    }

    pub(super) fn needs(&self, record: &AssignmentRecord) -> Option<Resources> {
        if record.unreadable.is_some() {
            // As below.
            return Some(Resources::default());
        }
        match self.definitions.get(&record.definition)? {
            Ok(definition) => {
                Some(required_resources(&adjusted(definition, &record.overrides, &record.resources)))
            }
            // It needs nothing, and is refused as soon as it is admitted.
            Err(_) => Some(Resources::default()),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Admit(task, needs) => self.admit(task, needs),
            Action::Wait(task, why) => {
                if let Some(entry) = self.tasks.get(&task) {
                    entry.orders.send_if_modified(|orders| {
                        let new = !matches!(&orders.start, Start::Wait(known) if *known == why);
                        orders.start = Start::Wait(why);
                        new
                    });
                }
            }
            Action::Refuse(task, why) => self.refuse(&task, format!("ResourceInitializationError: {why}")),
            Action::Stop(task) => self.stop(&task),
            Action::Forget(task) => {
                if let Some(entry) = self.tasks.get(&task) {
                    entry.orders.send_if_modified(|orders| !std::mem::replace(&mut orders.forget, true));
                }
            }
        }
    }

    fn admit(&mut self, task: TaskId, needs: Resources) {
        let Some(record) = self.book.assignments.get(&task) else { return };
        if let Some(what) = &record.unreadable {
            let reason = format!(
                "ResourceInitializationError: this node does not understand the task's assignment ({what}); \
                 its agent may be older than the control plane"
            );
            return self.refuse(&task, reason);
        }
        let definition = match self.definitions.get(&record.definition) {
            Some(Ok(definition)) => adjusted(definition, &record.overrides, &record.resources),
            Some(Err(reason)) => return self.refuse(&task, reason.clone()),
            None => return,
        };
        if let Some(reason) = lease::refusal(record.lease_s, &definition) {
            return self.refuse(&task, reason);
        }
        let Some(entry) = self.tasks.get_mut(&task) else { return };
        entry.known = Known::Active;
        entry.orders.send_modify(|orders| orders.start = Start::Admitted(definition));
        self.ledger.hold(task, needs);
    }

    fn refuse(&mut self, task: &TaskId, reason: String) {
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.known = Known::Ending;
            entry.orders.send_modify(|orders| orders.start = Start::Refused(reason));
        }
    }

    fn stop(&mut self, task: &TaskId) {
        let Some(record) = self.book.assignments.get(task) else { return };
        let (code, reason) = match &self.closing {
            Some(reason) if record.desired == DesiredStatus::Running => {
                (Some(StopCode::TerminationNotice), reason.clone())
            }
            _ => (record.stop_code.or(Some(StopCode::UserInitiated)), record.stop_reason.clone()),
        };
        let reason = if reason.is_empty() { "Task stopped by user".to_owned() } else { reason };
        let force = record.stop_force;
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.known = Known::Ending;
            entry.orders.send_modify(|orders| orders.stop = Some(StopOrder { code, reason, force }));
        }
    }

    /// An order to kill at once reaches a task that is stopping already.
    fn stop_harder(&mut self) {
        for record in self.book.assignments.values().filter(|record| record.stop_force) {
            let Some(entry) = self.tasks.get(&record.task) else { continue };
            entry.orders.send_if_modified(|orders| match &mut orders.stop {
                Some(stop) if !stop.force => {
                    stop.force = true;
                    true
                }
                _ => false,
            });
        }
    }

    /// Reports that are not sent yet.
    fn flush(&mut self) {
        while self.session.as_ref().is_some_and(|open| open.ready) {
            let batch = self.outbox.next_batch();
            if batch.is_empty() {
                return;
            }
            self.send(Outbound::Reports(batch));
        }
    }

    pub(super) fn send(&mut self, message: Outbound) {
        let Some(open) = &self.session else { return };
        match open.outbound.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("the control plane takes no messages; the session starts anew");
                self.session = None;
            }
            Err(TrySendError::Closed(_)) => self.session = None,
        }
    }
}
