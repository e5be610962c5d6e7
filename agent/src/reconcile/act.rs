//! Carries out a plan: orders to tasks, reports to the session.
//! In: the picture after a group. Out: changed orders, messages. Nothing here waits.
//! A session that takes no more messages is cut off and starts anew (decision 7).
//! Never: decides; `plan` does.

use super::plan::{Action, Known, PlanTask, plan};
use super::{Outbound, Reconciler};
use crate::task::{Start, StopOrder};
use lighter_model::ids::{TaskDefinitionId, TaskId};
use lighter_model::resources::{Resources, required_resources};
use lighter_model::status::{DesiredStatus, StopCode};
use std::collections::BTreeMap;
use tokio::sync::mpsc::error::TrySendError;

impl Reconciler {
    pub(super) fn act(&mut self) {
        let picture = self.picture();
        for action in plan(&picture, &self.ledger) {
            self.perform(action);
        }
        self.flush();
    }

    fn picture(&self) -> BTreeMap<TaskId, PlanTask> {
        let known = |task: &TaskId| self.tasks.get(task).map(|entry| entry.known);
        let records = self.book.assignments.values();
        records
            .filter_map(|record| {
                let known = known(&record.task)?;
                let forget = record.forget || record.disowned;
                let needs = self.needs(&record.definition);
                Some((record.task.clone(), PlanTask { desired: record.desired, forget, known, needs }))
            })
            .collect()
    }

    pub(super) fn needs(&self, definition: &TaskDefinitionId) -> Option<Resources> {
        match self.definitions.get(definition)? {
            Ok(definition) => Some(required_resources(definition)),
            // It needs nothing, and is refused as soon as it is admitted.
            Err(_) => Some(Resources::default()),
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Admit(task, needs) => self.admit(task, needs),
            Action::Wait(task, why) => {
                if let Some(entry) = self.tasks.get(&task) {
                    let why = why.to_string();
                    entry.orders.send_if_modified(|orders| {
                        let new = !matches!(&orders.start, Start::Wait(text) if *text == why);
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
        let id = self.book.assignments.get(&task).map(|record| &record.definition);
        let definition = match id.and_then(|id| self.definitions.get(id)) {
            Some(Ok(definition)) => definition.clone(),
            Some(Err(reason)) => return self.refuse(&task, reason.clone()),
            None => return,
        };
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
        debug_assert_eq!(record.desired, DesiredStatus::Stopped);
        let code = record.stop_code.or(Some(StopCode::UserInitiated));
        let reason = if record.stop_reason.is_empty() {
            "Task stopped by user".to_owned()
        } else {
            record.stop_reason.clone()
        };
        if let Some(entry) = self.tasks.get_mut(task) {
            entry.known = Known::Ending;
            entry.orders.send_modify(|orders| orders.stop = Some(StopOrder { code, reason }));
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
