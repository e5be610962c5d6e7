//! Row 12, first half: ends what runs. Signals go out in the reverse of the start order, STOPSIGNAL
//! first; each container has its own stopTimeout, then SIGKILL. Why it ends is in the record.
//! In: a running task. Out: TearingDown with every exit that can be known in the record.
//! Owns the deadlines. Never: waits for ever; what SIGKILL does not end, teardown kills by cgroup.

use super::{Held, TaskActor, TaskPhase};
use crate::errors::chain;
use crate::facilities::{Shim, ShimEvent};
use crate::store::records::Step;
use crate::telemetry::task_log::TaskLog;
use crate::time::{BootInstant, sleep_until};
use lighter_model::ids::ContainerName;
use lighter_model::status::TaskStatus;
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;
use std::sync::Arc;
use std::time::Duration;

/// After SIGKILL a process may still be in the kernel, for a slow disk say.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What a live container has been told, and until when it may take.
struct Ending {
    container: ContainerName,
    killed: bool,
    deadline: BootInstant,
}

impl TaskActor {
    pub(super) async fn stop(&mut self, mut held: Held) -> TaskPhase {
        self.journal.status(TaskStatus::Stopping);
        self.journal.tell().await;
        let live = self.journal.live();
        if !live.is_empty() {
            self.journal.commit_or_warn(Step::Stopping).await;
        }
        self.thaw().await;
        let mut endings = match &held.link {
            Some(link) => self.signal_all(&link.shim, live).await,
            None => Vec::new(),
        };
        if !endings.is_empty() {
            self.journal.tell().await;
        }
        while !endings.is_empty() {
            let Some(link) = &mut held.link else { break };
            let next = endings.iter().map(|ending| ending.deadline).min().unwrap_or_else(BootInstant::now);
            let shim = link.shim.clone();
            let event = tokio::select! {
                // Both may be dropped: a channel keeps its event, a deadline stays where it is.
                event = link.events.recv() => Some(event.unwrap_or(ShimEvent::Disconnected)),
                () = sleep_until(next) => None,
            };
            match event {
                Some(ShimEvent::Exited { container, exit }) => self.container_exited(&container, exit).await,
                Some(ShimEvent::Disconnected) => held.link = self.reconnect().await,
                None => {
                    kill_overdue(&self.journal.log, &shim, &mut endings).await;
                    self.journal.tell().await;
                }
            }
            let live = self.journal.live();
            endings.retain(|ending| live.contains(&ending.container));
        }
        self.journal.log.waits_over(&[WaitKind::StopSignal, WaitKind::Kill]);
        TaskPhase::TearingDown { left: held }
    }

    async fn signal_all(&self, shim: &Arc<dyn Shim>, live: Vec<ContainerName>) -> Vec<Ending> {
        let mut endings = Vec::new();
        for container in live.into_iter().rev() {
            let record = self.journal.record.containers.iter().find(|c| c.name == container);
            let Some(record) = record else { continue };
            if let Err(error) = shim.signal(&container, record.stop_signal).await {
                tracing::warn!(task = %self.task(), %container, cause = %chain(error.as_ref()), "the stop signal was not sent");
            }
            let log = &self.journal.log;
            log.event(TaskEventKind::Signal, Some(&container), format!("signal {} sent", record.stop_signal));
            let timeout = Duration::from_secs(record.stop_timeout_s.into());
            let what = format!("container {container} to end after signal {}", record.stop_signal);
            let ends_by = "the container ends; else SIGKILL follows";
            log.wait(WaitKind::StopSignal, Some(&container), what, Some(timeout), ends_by);
            let deadline = BootInstant::now().after(timeout);
            endings.push(Ending { container, killed: false, deadline });
        }
        endings
    }
}

/// SIGKILL for those whose time is over; those who had it are given up.
async fn kill_overdue(log: &TaskLog, shim: &Arc<dyn Shim>, endings: &mut Vec<Ending>) {
    endings.retain(|ending| !(ending.killed && ending.deadline.until().is_zero()));
    for ending in endings.iter_mut().filter(|ending| ending.deadline.until().is_zero()) {
        if let Err(error) = shim.kill(&ending.container).await {
            tracing::warn!(container = %ending.container, cause = %chain(error.as_ref()), "SIGKILL was not sent");
        }
        let container = Some(&ending.container);
        log.wait_over(WaitKind::StopSignal, container);
        log.event(TaskEventKind::Signal, container, "SIGKILL sent");
        let what = format!("container {} to end after SIGKILL", ending.container);
        let ends_by = "the kernel ends it; else it is killed by its cgroup";
        log.wait(WaitKind::Kill, container, what, Some(AFTER_KILL), ends_by);
        ending.killed = true;
        ending.deadline = BootInstant::now().after(AFTER_KILL);
    }
}
