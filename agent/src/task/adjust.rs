//! Pause, resume and other limits for a task that runs.
//! In: `Adjust` in the orders: what the assignment wants. Out: kernel state first, then the record,
//! then a report; what cannot be done is reported as refused, in words, and not tried again until
//! the assignment changes. Owns nothing: whether there is room for more is the reconciler's.
//! Never: stops a task; leaves one paused that has to stop.

use super::{Orders, TaskActor};
use crate::errors::chain;
use crate::store::records::TaskRecord;
use lighter_model::adjust::{ContainerResources, with_resources};
use lighter_model::ids::Generation;
use lighter_model::overrides::TaskOverride;
use lighter_model::status::TaskStatus;
use lighter_model::task_definition::TaskDefinition;
use std::sync::Arc;
use tokio::sync::watch::Receiver;

/// What an assignment wants of a running task.
#[derive(Clone, Default)]
pub(crate) struct Adjust {
    /// The assignment's; 0 before there is one.
    pub generation: Generation,
    pub paused: bool,
    pub resources: Vec<ContainerResources>,
    /// The definition with `resources`; `None` when it is not known.
    pub definition: Option<Arc<TaskDefinition>>,
    /// The node has no room for these resources, in words.
    pub refused: Option<String>,
}

/// The definition with a task's overrides and then other limits; the same one when there are none. Overrides that
/// the control plane has taken can be applied here; ones that cannot change nothing.
pub(crate) fn adjusted(
    definition: &Arc<TaskDefinition>,
    overrides: &TaskOverride,
    resources: &[ContainerResources],
) -> Arc<TaskDefinition> {
    let overridden = match overrides.is_empty() {
        true => definition.clone(),
        false => overrides.apply(definition).map_or_else(|_| definition.clone(), Arc::new),
    };
    if resources.is_empty() { overridden } else { Arc::new(with_resources(&overridden, resources)) }
}

/// Whether something is left to be done. Nothing is before all containers were begun: one that starts
/// in a frozen cgroup would never have started. Pure.
fn is_due(record: &TaskRecord, wanted: &Adjust) -> bool {
    record.status >= TaskStatus::Running
        && wanted.generation > record.settled
        && (wanted.paused != record.paused || wanted.resources != record.adjusted)
}

/// Waits until something is to be changed; for ever if nothing is. May be dropped at any time.
pub(super) async fn wanted(orders: &mut Receiver<Orders>, record: &TaskRecord) {
    if orders.wait_for(|orders| is_due(record, &orders.adjust)).await.is_err() {
        // The reconciler has ended: the agent leaves.
        std::future::pending::<()>().await;
    }
}

impl TaskActor {
    /// Does what is due. Everything here may be done twice.
    pub(super) async fn adjust(&mut self) {
        let wanted = self.orders.borrow().adjust.clone();
        if !is_due(&self.journal.record, &wanted) {
            return;
        }
        let mut refusals = Vec::new();
        if wanted.resources != self.journal.record.adjusted {
            refusals.extend(self.set_limits(&wanted).await.err());
        }
        if wanted.paused != self.journal.record.paused {
            refusals.extend(self.set_paused(wanted.paused).await.err());
        }
        let record = &mut self.journal.record;
        record.settled = wanted.generation;
        record.adjusted = wanted.resources;
        record.refusal = (!refusals.is_empty()).then(|| refusals.join("; "));
        if let Some(refusal) = &record.refusal {
            tracing::warn!(task = %record.task, %refusal, "a running task is not changed");
        }
        let step = self.journal.record.step;
        self.journal.commit_or_warn(step).await;
        self.journal.tell().await;
    }

    async fn set_paused(&mut self, paused: bool) -> Result<(), String> {
        let runtime = &self.context.facilities.runtime;
        let verb = if paused { "pause" } else { "resume" };
        let set = runtime.set_frozen(self.task(), paused).await;
        set.map_err(|error| format!("cannot {verb}: {}", chain(error.as_ref())))?;
        self.journal.record.paused = paused;
        Ok(())
    }

    async fn set_limits(&mut self, wanted: &Adjust) -> Result<(), String> {
        if let Some(refused) = &wanted.refused {
            return Err(refused.clone());
        }
        let Some(definition) = &wanted.definition else {
            return Err("the task definition is not on this node".to_owned());
        };
        let live = self.journal.live();
        let set = self.context.facilities.runtime.set_limits(self.task(), definition, &live).await;
        for (name, limits) in set.map_err(|error| chain(error.as_ref()))? {
            if let Some(container) = self.journal.record.container_mut(&name) {
                container.limits = limits;
            }
        }
        Ok(())
    }

    /// A task that has to stop goes on first: what stands still takes no signal but SIGKILL.
    pub(super) async fn thaw(&mut self) {
        if !self.journal.record.paused && !self.orders.borrow().adjust.paused {
            return;
        }
        if let Err(refusal) = self.set_paused(false).await {
            tracing::error!(task = %self.task(), %refusal, "a paused task that has to stop");
        }
    }
}
