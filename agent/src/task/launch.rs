//! Row 9: hands a prepared task over to `watch`, which starts its containers in their order.
//! In: bundles. Out: Running. The record says "launching" before this is entered.
//! Nothing here is repeated after a crash without asking the shim first (`recover`), so no container
//! starts twice. Owns nothing. Never: waits.

use super::{Bundles, Held, TaskActor, TaskPhase, copy};
use crate::errors::chain;
use crate::facilities::{StartFailure, StartFault};

impl TaskActor {
    pub(super) async fn launch(&mut self, held: Held, bundles: Bundles) -> TaskPhase {
        if held.link.is_none() {
            return TaskPhase::TearingDown { left: held };
        }
        if let Some(link) = &held.link
            && let Err(order) = self.first_lease(&*link.shim.clone()).await
        {
            self.journal.stopping(order.code, order.reason);
            // An earlier agent may have started some of the containers.
            return TaskPhase::Stopping { held };
        }
        copy::write(&self.context.config.run_dir, &self.journal.record, &held.definition);
        self.context.logs.begin(self.task(), &held.definition).await;
        // A program may ask for its metadata with its first instruction: its address must be known.
        self.journal.log.publish(&self.journal.record);
        TaskPhase::Running { held, bundles }
    }
}

pub(super) fn in_ecs_words(failure: &StartFailure) -> String {
    let error = match failure.fault {
        StartFault::CannotStart => "CannotStartContainerError",
        StartFault::CannotCreate => "CannotCreateContainerError",
        StartFault::Limits => "ResourceInitializationError",
    };
    format!("{error}: {}", chain(failure))
}
