//! Row 12, first half: ends what runs, in the reverse of the order of its start: a container is told
//! to stop when every container that comes after it has ended. STOPSIGNAL first; each has its own
//! stopTimeout, then SIGKILL; an order to kill takes that time away. Why it ends is in the record.
//! In: a running task. Out: TearingDown with every exit that can be known in the record.
//! Owns the deadlines. Never: waits for ever; what SIGKILL does not end, teardown kills by cgroup.

use super::{Held, TaskActor, TaskPhase, order, told_to_kill};
use crate::errors::chain;
use crate::facilities::{Shim, ShimEvent};
use crate::store::records::{ContainerRecord, Step};
use crate::telemetry::task_log::TaskLog;
use crate::time::{BootInstant, sleep_until};
use lighter_model::ids::ContainerName;
use lighter_model::status::TaskStatus;
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// After SIGKILL a process may still be in the kernel, for a slow disk say.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// What a live container has been told, and until when it may take.
pub(super) struct Ending {
    pub container: ContainerName,
    killed: bool,
    pub deadline: BootInstant,
}

impl Ending {
    /// It was told to end now.
    pub(super) fn told(log: &TaskLog, record: &ContainerRecord) -> Self {
        let (container, signal) = (record.name.clone(), record.stop_signal);
        log.event(TaskEventKind::Signal, Some(&container), format!("signal {signal} sent"));
        let timeout = Duration::from_secs(record.stop_timeout_s.into());
        let what = format!("container {container} to end after signal {signal}");
        let ends_by = "the container ends; else SIGKILL follows";
        log.wait(WaitKind::StopSignal, Some(&container), what, Some(timeout), ends_by);
        Self { container, killed: false, deadline: BootInstant::now().after(timeout) }
    }

    fn is_due(&mut self) {
        self.deadline = BootInstant::now();
    }
}

impl TaskActor {
    pub(super) async fn stop(&mut self, mut held: Held) -> TaskPhase {
        self.journal.status(TaskStatus::Stopping);
        self.journal.tell().await;
        let mut live: BTreeSet<ContainerName> = self.journal.live().into_iter().collect();
        if !live.is_empty() {
            self.journal.commit_or_warn(Step::Stopping).await;
        }
        self.thaw().await;
        let places = order::places(&held.definition, self.context.pace.second_ms);
        let mut endings: Vec<Ending> = Vec::new();
        let mut orders = self.orders.clone();
        let mut forced = false;
        loop {
            let Some(shim) = held.link.as_ref().map(|link| link.shim.clone()) else { break };
            let may_stop = order::may_stop(&places, &live);
            if self.signal_new(&shim, &may_stop, &mut endings).await {
                self.journal.tell().await;
            }
            if forced {
                endings.iter_mut().filter(|ending| !ending.killed).for_each(Ending::is_due);
            }
            let Some(next) = endings.iter().map(|ending| ending.deadline).min() else { break };
            let Some(link) = &mut held.link else { break };
            let event = tokio::select! {
                // Both may be dropped: a channel keeps its event, a deadline stays where it is.
                event = link.events.recv() => Some(event.unwrap_or(ShimEvent::Disconnected)),
                () = sleep_until(next) => None,
                () = told_to_kill(&mut orders), if !forced => {
                    forced = true;
                    continue;
                }
            };
            match event {
                Some(ShimEvent::Exited { container, exit }) => self.container_exited(&container, exit).await,
                // The monitor then ends what is left by itself, at its time.
                Some(ShimEvent::LeaseOver) => {}
                Some(ShimEvent::Disconnected) => held.link = self.reconnect().await,
                None => {
                    // What SIGKILL did not end keeps nobody else waiting.
                    for given_up in kill_overdue(&self.journal.log, &shim, &mut endings).await {
                        live.remove(&given_up);
                    }
                    self.journal.tell().await;
                }
            }
            let running = self.journal.live();
            live.retain(|name| running.contains(name));
            endings.retain(|ending| live.contains(&ending.container));
        }
        self.journal.log.waits_over(&[WaitKind::StopSignal, WaitKind::Kill]);
        TaskPhase::TearingDown { left: held }
    }

    /// Those that may stop and were not told yet, the last of the definition first.
    async fn signal_new(
        &self,
        shim: &Arc<dyn Shim>,
        may_stop: &BTreeSet<ContainerName>,
        endings: &mut Vec<Ending>,
    ) -> bool {
        let before = endings.len();
        for record in self.journal.record.containers.iter().rev() {
            let told = endings.iter().any(|ending| ending.container == record.name);
            if told || !may_stop.contains(&record.name) {
                continue;
            }
            if let Err(error) = shim.signal(&record.name, record.stop_signal).await {
                tracing::warn!(task = %self.task(), container = %record.name, cause = %chain(error.as_ref()), "the stop signal was not sent");
            }
            endings.push(Ending::told(&self.journal.log, record));
        }
        endings.len() > before
    }
}

/// SIGKILL for those whose time is over; those who had it are given up and named.
pub(super) async fn kill_overdue(
    log: &TaskLog,
    shim: &Arc<dyn Shim>,
    endings: &mut Vec<Ending>,
) -> Vec<ContainerName> {
    let over = |ending: &Ending| ending.killed && ending.deadline.until().is_zero();
    let given_up: Vec<_> = endings.iter().filter(|e| over(e)).map(|e| e.container.clone()).collect();
    endings.retain(|ending| !over(ending));
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
    given_up
}
