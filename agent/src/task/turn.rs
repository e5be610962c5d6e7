//! Row 4, second half: an admitted task waits while the node is so hard pressed that another start
//! would make it worse; its images and its place come after that.
//! In: the node's limiter. Out: nothing; it returns when the task may begin, or has to end. May be
//! dropped at any time. Owns nothing. Never: holds back what an earlier agent has begun.

use super::restart::limiter::Turn;
use super::{TaskActor, told_to_stop};
use lighter_model::wait::WaitKind;

impl TaskActor {
    pub(super) async fn turn(&mut self) {
        let Turn::Queued { pressure, ahead, within, go } = self.context.limiter.first().await else {
            return;
        };
        let what =
            format!("its turn to be started, behind {ahead} others: the node is under pressure ({pressure})");
        let ends_by = "its turn comes, at once when the pressure falls; or the task is stopped";
        self.journal.log.wait(WaitKind::StartLimit, None, what.as_str(), Some(within), ends_by);
        self.journal.record.waiting_reason = Some(what);
        self.journal.tell().await;
        tokio::select! {
            // Its sender ends only with the agent.
            _ = go => {}
            _ = told_to_stop(&mut self.orders) => {}
        }
        self.journal.log.wait_over(WaitKind::StartLimit, None);
        self.journal.record.waiting_reason = None;
    }
}
