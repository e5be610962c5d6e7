//! Leases of tasks that must not run twice (exclusive): until when one may run on this node.
//! In: heartbeats sent and answered. Out: moments of CLOCK_BOOTTIME for the tasks' monitors, which end a
//! task by themselves when the moment comes (docs/task-lifecycle.md, "Exclusive tasks").
//! A lease counts from when an answered heartbeat was sent, never from its answer: what is answered was
//! received later than it was sent, and from there the control plane counts.
//! Owns: one tokio task for each such task, which hands renewals on. Never: ends a task itself.

use crate::errors::chain;
use crate::facilities::LeaseAnswer;
use crate::store::records::TaskRecord;
use crate::task::{Orders, TaskContext};
use crate::time::{BootInstant, rfc3339, unix_ms};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::{DEFAULT_STOP_TIMEOUT_S, TaskDefinition};
use lighter_model::task_event::{TaskEvent, TaskEventKind};
use lighter_runtime::{LeaseOrder, Leased};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

/// Heartbeats remembered; a session ends long before so many are unanswered.
const BEATS_MAX: usize = 64;

/// What of a lease is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// `None`: the task has none.
    pub length: Option<Duration>,
    /// When the last heartbeat was sent that counts for this task; `None`: none yet.
    pub renewed: Option<BootInstant>,
}

impl Lease {
    pub(crate) fn of_seconds(lease_s: u32) -> Self {
        let length = (lease_s > 0).then(|| Duration::from_secs(lease_s.into()));
        Self { length, renewed: None }
    }

    /// True when it moved; it never moves back.
    pub(crate) fn renew(&mut self, sent: BootInstant) -> bool {
        let moves = self.length.is_some() && self.renewed.is_none_or(|known| known < sent);
        if moves {
            self.renewed = Some(sent);
        }
        moves
    }

    /// Milliseconds of the clock, rounded down; 0: it has not begun.
    pub(crate) fn ends_at_boot_ms(&self) -> u64 {
        match (self.length, self.renewed) {
            (Some(length), Some(renewed)) => renewed.after(length).ms(),
            _ => 0,
        }
    }

    /// How it stands, for people who ask for the task's events.
    pub(crate) fn as_event(&self) -> Option<TaskEvent> {
        let (length, ends_at) = (self.length?, self.ends_at_boot_ms());
        let now = unix_ms();
        let left_ms = BootInstant::at_ms(ends_at).until().as_millis() as u64;
        let text = format!(
            "lease of {} s: the task is ended at {} unless a heartbeat of this node is answered before",
            length.as_secs(),
            rfc3339(now.saturating_add(left_ms))
        );
        Some(TaskEvent {
            time_unix_ms: now,
            kind: TaskEventKind::Other,
            container: None,
            text,
            took_ms: None,
        })
    }

    /// Why a task whose lease has ended has ended.
    pub(crate) fn expired(&self) -> String {
        let seconds = self.length.unwrap_or_default().as_secs();
        format!(
            "lease expired: the control plane answered no heartbeat of this node in time (lease of {seconds} s)"
        )
    }
}

/// When the heartbeats of a session were sent.
#[derive(Debug, Default)]
pub(crate) struct Beats {
    sent: VecDeque<(u64, BootInstant)>,
}

impl Beats {
    /// About to be sent.
    pub(crate) fn sent(&mut self, number: u64, at: BootInstant) {
        if self.sent.len() == BEATS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, at));
    }

    /// When the heartbeat of this number was sent; `None` for one that was not, or that an answer to a
    /// later one has made worthless.
    pub(crate) fn answered(&mut self, number: u64) -> Option<BootInstant> {
        let at = self.sent.iter().find(|(known, _)| *known == number).map(|(_, at)| *at)?;
        self.sent.retain(|(known, _)| *known > number);
        Some(at)
    }
}

/// Why a lease of this length cannot be kept for the task.
pub(crate) fn refusal(lease_s: u32, definition: &TaskDefinition) -> Option<String> {
    let timeout = |c: &lighter_model::task_definition::ContainerDefinition| {
        c.stop_timeout_s.unwrap_or(DEFAULT_STOP_TIMEOUT_S)
    };
    let longest = definition.container_definitions.iter().max_by_key(|c| timeout(c))?;
    let needed = u64::from(timeout(longest)) * 2;
    (lease_s > 0 && u64::from(lease_s) < needed).then(|| {
        format!(
            "ResourceInitializationError: a lease of {lease_s} s is less than twice the stopTimeout of container {} ({} s)",
            longest.name,
            timeout(longest)
        )
    })
}

/// How each container is asked to end before the lease does.
pub(crate) fn stops(record: &TaskRecord) -> Vec<(ContainerName, i32, Duration)> {
    let containers = record.containers.iter();
    containers
        .map(|c| (c.name.clone(), c.stop_signal, Duration::from_secs(c.stop_timeout_s.into())))
        .collect()
}

/// From this moment on nothing of the task is started: it would be asked to stop at once.
pub(crate) fn starts_before_ms(ends_at_boot_ms: u64, stops: &[(ContainerName, i32, Duration)]) -> u64 {
    let longest = stops.iter().map(|(.., timeout)| timeout.as_millis()).max().unwrap_or(0);
    ends_at_boot_ms.saturating_sub(u64::try_from(longest).unwrap_or(u64::MAX))
}

/// Hands each renewal on to the task's monitor, until the task is forgotten or the agent leaves.
pub(crate) async fn keep(context: Arc<TaskContext>, task: TaskId, orders: Receiver<Orders>) {
    let leaving = context.leaving.clone();
    tokio::select! {
        // A renewal that is not told is no renewal; the next agent tells its own.
        () = leaving.cancelled() => {}
        () = hand_on(&context, &task, orders) => {}
    }
}

async fn hand_on(context: &TaskContext, task: &TaskId, mut orders: Receiver<Orders>) {
    let mut told = 0;
    while orders.changed().await.is_ok() {
        let lease = orders.borrow_and_update().lease;
        let ends_at_boot_ms = lease.ends_at_boot_ms();
        // Without a monitor there is nothing that runs; the launch tells it the newest.
        let Some(monitor) = context.monitors.get(task).filter(|_| ends_at_boot_ms > told) else { continue };
        let log = context.telemetry.task(task);
        match monitor.shim.lease(&LeaseOrder { ends_at_boot_ms, stops: Vec::new() }).await {
            Ok(LeaseAnswer::Kept(Leased { over: false, .. })) => log.leased(lease),
            // Its actor is told of this by an event.
            Ok(LeaseAnswer::Kept(Leased { over: true, .. })) => {}
            Ok(LeaseAnswer::CannotKeep) => {
                let text = "its monitor is of an older release, which keeps no lease";
                tracing::error!(%task, text, "the lease of a task is not kept");
                log.event(TaskEventKind::Error, None, text);
            }
            Err(error) => {
                // The next heartbeat tries again, and the monitor ends the task if none gets through.
                tracing::warn!(%task, cause = %chain(error.as_ref()), "the task's lease is not renewed");
                continue;
            }
        }
        told = ends_at_boot_ms;
    }
}

#[cfg(test)]
mod tests;
