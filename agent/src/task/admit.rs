//! Row 4: waits until the reconciler says that there is room, or that there never will be.
//! In: orders. Out: Admitted, or Stopped without anything having been held.
//! Owns nothing. Never: counts resources; the ledger is the reconciler's.

use super::{Start, StopOrder, TaskActor, TaskPhase};
use crate::reconcile::plan::Known;
use crate::resources::Waiting;
use lighter_model::status::{StopCode, TaskStatus};
use lighter_model::wait::WaitKind;

impl TaskActor {
    pub(super) async fn admit(&mut self) -> TaskPhase {
        loop {
            let orders = self.orders.borrow_and_update().clone();
            if let Some(order) = orders.stop {
                return self.never_started(order).await;
            }
            match orders.start {
                Start::Admitted(definition) => {
                    self.journal.known = Known::Active;
                    self.journal.record.waiting_reason = None;
                    self.journal.log.waits_over(&[WaitKind::Definition, WaitKind::Resource]);
                    self.journal.log.start_begun();
                    return TaskPhase::Admitted { definition, begun: None };
                }
                Start::Refused(reason) => {
                    let order = StopOrder { code: Some(StopCode::TaskFailedToStart), reason, force: false };
                    return self.never_started(order).await;
                }
                Start::Wait(why) => {
                    let reason = why.to_string();
                    if self.journal.record.waiting_reason.as_ref() != Some(&reason) {
                        let (kind, ends_by) = kind_and_end(&why);
                        self.journal.log.wait(kind, None, reason.as_str(), None, ends_by);
                        self.journal.record.waiting_reason = Some(reason);
                        self.journal.tell().await;
                    }
                }
                Start::NotYet => {}
            }
            if self.orders.changed().await.is_err() {
                // The reconciler has ended: the agent leaves.
                std::future::pending::<()>().await;
            }
        }
    }

    async fn never_started(&mut self, order: StopOrder) -> TaskPhase {
        self.journal.stopping(order.code, order.reason);
        self.journal.status(TaskStatus::Stopping);
        self.stopped().await
    }
}

/// Which wait it is, and what would end it.
fn kind_and_end(why: &Waiting) -> (WaitKind, &'static str) {
    const ENDS: &str = "a task of this node ends and gives it back, or the task is stopped";
    match why {
        Waiting::Definition => (WaitKind::Definition, "the control plane sends the task definition"),
        Waiting::Daemon { .. } => {
            (WaitKind::Node, "the daemon task runs, or 30 s have passed since the start of the agent")
        }
        Waiting::Closing => (WaitKind::Node, "the agent of this node is started again"),
        Waiting::Cpu { .. } | Waiting::Memory { .. } | Waiting::Port { .. } | Waiting::Device { .. } => {
            (WaitKind::Resource, ENDS)
        }
    }
}
