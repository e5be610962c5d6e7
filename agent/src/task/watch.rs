//! Rows 10 and 11: follows running containers until the task has to end.
//! In: events of the shim, orders. Out: Stopping with the reason in the record, or TearingDown when
//! everything has ended already. Owns nothing of its own.
//! A lost connection is not a lost task: the shim is asked again, and only a shim that is gone
//! itself ends the task. Never: polls.

use super::adjust;
use super::{Held, TaskActor, TaskPhase, told_to_stop};
use crate::errors::chain;
use crate::facilities::{Found, ShimEvent, ShimLink};
use crate::store::records::TaskRecord;
use crate::time::sleep;
use lighter_model::exit::ContainerExit;
use lighter_model::ids::ContainerName;
use lighter_model::status::{ContainerStatus, StopCode};
use lighter_model::wait::WaitKind;
use std::time::Duration;

/// ECS's words.
const ESSENTIAL_EXITED: &str = "Essential container in task exited";
const MONITOR_GONE: &str = "the task's monitor (lighter-shim) ended, so its containers were stopped";
/// Between questions to a shim that lives and does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl TaskActor {
    pub(super) async fn watch(&mut self, mut held: Held) -> TaskPhase {
        loop {
            if let Some(phase) = self.has_to_end(&mut held) {
                return phase;
            }
            let Some(link) = &mut held.link else { return TaskPhase::TearingDown { left: held } };
            let mut orders = self.orders.clone();
            let event = tokio::select! {
                // All may be dropped: a channel keeps its event, an order stays an order.
                event = link.events.recv() => event.unwrap_or(ShimEvent::Disconnected),
                () = adjust::wanted(&mut orders, &self.journal.record) => {
                    self.adjust().await;
                    continue;
                }
                order = told_to_stop(&mut self.orders) => {
                    self.journal.stopping(order.code, order.reason);
                    return TaskPhase::Stopping { held };
                }
            };
            match event {
                ShimEvent::Exited { container, exit } => self.container_exited(&container, exit).await,
                ShimEvent::Disconnected => {
                    let mut orders = self.orders.clone();
                    // Dropped, it has only asked; the question is asked again by whoever goes on.
                    let link = tokio::select! {
                        link = self.reconnect() => Some(link),
                        _ = told_to_stop(&mut orders) => None,
                    };
                    // An order that came meanwhile is found on the next turn.
                    if let Some(link) = link {
                        held.link = link;
                        self.note_monitor(Some(&held));
                    } else if let Some(order) = self.stop_order() {
                        self.journal.stopping(order.code, order.reason);
                        held.link = None;
                        return TaskPhase::TearingDown { left: held };
                    }
                }
            }
        }
    }

    /// Whether what the record knows ends the task.
    fn has_to_end(&mut self, held: &mut Held) -> Option<TaskPhase> {
        let containers = &self.journal.record.containers;
        let essential_ended = self.journal.record.essential_ended();
        let none_runs = !containers.iter().any(|c| c.status == ContainerStatus::Running);
        let definition = held.definition.clone();
        if held.link.is_none() {
            monitor_gone(&mut self.journal.record);
            return Some(TaskPhase::TearingDown { left: Held { definition, link: None } });
        }
        if !essential_ended && !none_runs {
            return None;
        }
        self.journal.stopping(Some(StopCode::EssentialContainerExited), ESSENTIAL_EXITED);
        Some(TaskPhase::Stopping { held: Held { definition, link: held.link.take() } })
    }

    pub(super) async fn container_exited(&mut self, container: &ContainerName, exit: ContainerExit) {
        self.journal.exited(container, exit);
        self.journal.tell().await;
    }

    /// A new connection to the shim, or `None` when it is gone; its exit records are noted.
    pub(super) async fn reconnect(&mut self) -> Option<ShimLink> {
        let link = self.ask_until_it_answers().await;
        self.journal.log.wait_over(WaitKind::Monitor, None);
        link
    }

    async fn ask_until_it_answers(&mut self) -> Option<ShimLink> {
        loop {
            match self.context.facilities.runtime.adopt(self.task()).await {
                Ok(Found::Alive { link, status }) => {
                    self.journal.record.take_status(&status);
                    self.journal.tell().await;
                    return Some(link);
                }
                Ok(Found::Ended { exits }) => {
                    exits.into_iter().for_each(|(name, exit)| self.journal.exited(&name, exit));
                    return None;
                }
                Ok(Found::Nothing) => return None,
                Ok(Found::Silent) => sleep(ASK_AGAIN).await,
                Err(error) => {
                    let (what, ends_by) = ("the task's monitor to answer", "it answers, or its process ends");
                    if self.journal.log.wait(WaitKind::Monitor, None, what, None, ends_by) {
                        self.journal.tell().await;
                    }
                    tracing::warn!(task = %self.task(), cause = %chain(error.as_ref()), "the task's monitor does not answer; asking again");
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

/// The reason of a task whose shim is gone: an essential container's exit if that is known.
pub(crate) fn monitor_gone(record: &mut TaskRecord) {
    if record.essential_ended() {
        record.stopping(Some(StopCode::EssentialContainerExited), ESSENTIAL_EXITED);
    } else {
        record.stopping(Some(StopCode::InfrastructureHealth), MONITOR_GONE);
    }
}
