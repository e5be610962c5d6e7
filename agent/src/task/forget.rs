//! Rows 13 and 14: sees that the STOPPED report is applied, then deletes the task's records. The
//! task's logs stay for a while (`logs` in the configuration; `log_retention` removes them).
//! In: acknowledgements, by the reconciler's orders. Out: Forgotten. Owns nothing.
//! Never: deletes a record whose report may be unknown to the control plane.

use super::{TaskActor, TaskPhase};

impl TaskActor {
    pub(super) async fn forget(&mut self) -> TaskPhase {
        // The outbox sends it again on every session until it is applied.
        self.journal.tell_again().await;
        let sequence = self.journal.record.sequence;
        let applied =
            self.orders.wait_for(|orders| orders.forget || orders.applied >= sequence).await.is_ok();
        if !applied {
            // The reconciler has ended: the agent leaves.
            std::future::pending::<()>().await;
        }
        self.journal.gone().await;
        TaskPhase::Forgotten
    }
}
