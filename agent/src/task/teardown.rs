//! Row 12, second half: gives everything back, in the exact reverse of `prepare`: containers,
//! network, shim with its ports and bundles, volumes of the task, root file systems, leases.
//! In: what is left. Out: Stopped. Every step runs, every error is kept; what failed is done again
//! after a pause until nothing is left, and each step succeeds when there is nothing to do.
//! Owns nothing. Never: touches what the record or the definition does not name.

use super::{Held, TaskActor, TaskPhase, copy, rootfs, volumes};
use crate::errors::{Cause, chain};
use crate::reconcile::plan::Known;
use crate::store::records::Step;
use crate::time::{sleep, unix_ms};
use lighter_model::ids::AttachmentKey;
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use lighter_model::wait::WaitKind;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Reasons are shown to people; a kernel that refuses everything would fill pages.
const REASON_BYTES_MAX: usize = 1024;

/// One step of a teardown that failed.
#[derive(Debug)]
struct StepError {
    step: String,
    cause: Cause,
}

impl TaskActor {
    pub(super) async fn teardown(&mut self, mut left: Held) -> TaskPhase {
        self.journal.record.execution_stopped_at_unix_ms.get_or_insert_with(unix_ms);
        self.journal.status(TaskStatus::Deprovisioning);
        self.journal.tell().await;
        // The exits are in the record before the shim's own records of them are removed.
        self.journal.commit_or_warn(Step::TearingDown).await;
        self.context.logs.ended(self.task()).await;
        let wait = Duration::from_secs(self.context.config.logs.drain_wait_seconds);
        if !wait.is_zero() {
            self.context.logs.drained(self.task(), wait).await;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            let step = self.journal.log.step("teardown", None);
            let errors = self.give_back(&mut left).await;
            if errors.is_empty() {
                step.done();
                return self.stopped().await;
            }
            step.failed(&format!("{} steps failed", errors.len()));
            self.explain(&errors, pause).await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn give_back(&self, left: &mut Held) -> Vec<StepError> {
        let mut errors = Vec::new();
        let mut keep = |step: String, result: Result<(), Cause>| {
            if let Err(cause) = result {
                errors.push(StepError { step, cause });
            }
        };
        let facilities = &self.context.facilities;
        let task = self.task();
        let containers = self.journal.record.containers.iter().rev();
        if let Some(link) = &left.link {
            for container in containers.clone() {
                // What SIGKILL has not ended is ended by cgroup below.
                let _ = link.shim.remove_container(&container.name).await;
            }
        }
        for container in containers.clone() {
            let Some(record) = &container.attachment else { continue };
            keep(format!("network of {}", container.name), facilities.network.del(record).await);
        }
        if let Some(link) = left.link.take() {
            // One that does not answer is ended by the next step.
            let _ = link.shim.shutdown().await;
        }
        keep("monitor, bundles and cgroup".to_owned(), facilities.runtime.remove_task(task).await);
        keep("volumes".to_owned(), volumes::remove_task_scoped(&self.context, task).await);
        for container in left.definition.container_definitions.iter().rev() {
            let key = AttachmentKey::new(task.clone(), container.name.clone());
            keep(
                format!("root file system of {}", container.name),
                facilities.image.remove_rootfs(&key).await,
            );
        }
        copy::remove(&self.context.config.run_dir, task);
        // The directory that held the mount points; it stays while one of them does.
        let _ = std::fs::remove_dir(rootfs::dir_of(&self.context, task));
        if errors.is_empty() {
            self.context.leases.release_devices(self.task()).await;
            self.context.leases.release(self.journal.record.attachments().cloned().collect()).await;
        }
        errors
    }

    async fn explain(&mut self, errors: &[StepError], pause: Duration) {
        let texts: Vec<String> =
            errors.iter().map(|e| format!("{}: {}", e.step, chain(e.cause.as_ref()))).collect();
        let mut text = format!("giving back what the task held, again soon: {}", texts.join("; "));
        tracing::warn!(task = %self.task(), causes = %text, "teardown is not complete");
        if text.len() > REASON_BYTES_MAX {
            let cut = (0..=REASON_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        let ends_by = "every step succeeds";
        self.journal.log.wait(WaitKind::Teardown, None, text.as_str(), Some(pause), ends_by);
        if self.journal.record.waiting_reason.as_ref() != Some(&text) {
            self.journal.record.waiting_reason = Some(text);
            self.journal.tell().await;
        }
    }

    /// Nothing is left: the record becomes the outbox entry of the STOPPED report.
    pub(super) async fn stopped(&mut self) -> TaskPhase {
        self.journal.log.waits_over(WaitKind::ALL);
        let record = &mut self.journal.record;
        record.waiting_reason = None;
        record.stopped_at_unix_ms.get_or_insert_with(unix_ms);
        record.stop_code.get_or_insert(StopCode::TaskFailedToStart);
        for container in &mut record.containers {
            if container.status == ContainerStatus::Running && container.reason.is_none() {
                container.reason = Some("its exit code is not known".to_owned());
            }
            container.status = ContainerStatus::Stopped;
        }
        self.journal.status(TaskStatus::Stopped);
        self.journal.known = Known::Stopped;
        self.journal.record.sequence += 1;
        self.journal.commit_or_warn(Step::Stopped).await;
        self.context.pulls.forget(self.task());
        TaskPhase::Stopped
    }
}
