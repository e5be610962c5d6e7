//! Row 4: waits until the reconciler says that there is room, or that there never will be.
//! In: orders. Out: Admitted, or Stopped without anything having been held.
//! Owns nothing. Never: counts resources; the ledger is the reconciler's.

use super::{Start, StopOrder, TaskActor, TaskPhase};
use crate::reconcile::plan::Known;
use lighter_model::status::{StopCode, TaskStatus};

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
                    return TaskPhase::Admitted { definition, begun: None };
                }
                Start::Refused(reason) => {
                    let order = StopOrder { code: Some(StopCode::TaskFailedToStart), reason };
                    return self.never_started(order).await;
                }
                Start::Wait(reason) if self.journal.record.waiting_reason.as_ref() != Some(&reason) => {
                    self.journal.record.waiting_reason = Some(reason);
                    self.journal.tell().await;
                }
                Start::Wait(_) | Start::NotYet => {}
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
