//! Row 9: starts the containers. The record says "launching" before this is entered.
//! In: bundles. Out: Running, or Stopping with the reason when one did not start.
//! Nothing here is repeated after a crash without asking the shim first (`recover`), so no container
//! starts twice. Owns nothing. Never: polls; the shim answers when the program runs.

use super::{Held, TaskActor, TaskPhase, copy};
use crate::errors::chain;
use crate::facilities::{Bundle, StartFailure, StartFault};
use crate::store::records::Step;
use crate::time::unix_ms;
use futures_util::future::join_all;
use lighter_model::ids::ContainerName;
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use std::time::Instant;

impl TaskActor {
    pub(super) async fn launch(&mut self, held: Held, bundles: Vec<(ContainerName, Bundle)>) -> TaskPhase {
        let Some(link) = &held.link else { return TaskPhase::TearingDown { left: held } };
        copy::write(&self.context.config.run_dir, &self.journal.record, &held.definition);
        self.context.logs.begin(self.task(), &held.definition).await;
        // What an earlier agent had started goes on; only the rest is started.
        let missing: Vec<_> = bundles.iter().filter(|(name, _)| self.is_pending(name)).collect();
        let log = &self.journal.log;
        let starts = missing.iter().map(|(name, bundle)| async move {
            let step = log.step("start", Some(name));
            let started = link.shim.start(name, bundle).await;
            match &started {
                Ok(_) => step.done(),
                Err(failure) => step.failed(&chain(failure)),
            }
            started
        });
        let begun_at = Instant::now();
        let results = join_all(starts).await;
        tracing::debug!(task = %self.task(), took = ?begun_at.elapsed(), "containers are started");
        let mut failed = None;
        for ((name, _), result) in missing.into_iter().zip(results) {
            match result {
                Ok(started) => self.journal.record.started(name, started),
                Err(failure) => {
                    self.note_failed(name, &failure);
                    failed.get_or_insert(failure);
                }
            }
        }
        if let Some(failure) = failed {
            self.journal.stopping(Some(StopCode::TaskFailedToStart), in_ecs_words(&failure));
            return TaskPhase::Stopping { held };
        }
        self.journal.record.started_at_unix_ms.get_or_insert_with(unix_ms);
        self.journal.status(TaskStatus::Running);
        self.journal.tell().await;
        // Not before the report: until this commit the shim itself says what runs.
        self.journal.commit_or_warn(Step::Running).await;
        TaskPhase::Running { held }
    }

    fn is_pending(&self, name: &ContainerName) -> bool {
        let mut containers = self.journal.record.containers.iter();
        containers.any(|container| container.name == *name && container.status == ContainerStatus::Pending)
    }

    fn note_failed(&mut self, name: &ContainerName, failure: &StartFailure) {
        if let Some(container) = self.journal.record.container_mut(name) {
            container.status = ContainerStatus::Stopped;
            container.reason = Some(in_ecs_words(failure));
        }
    }
}

fn in_ecs_words(failure: &StartFailure) -> String {
    let error = match failure.fault {
        StartFault::CannotStart => "CannotStartContainerError",
        StartFault::CannotCreate => "CannotCreateContainerError",
        StartFault::Limits => "ResourceInitializationError",
    };
    format!("{error}: {}", chain(failure))
}
