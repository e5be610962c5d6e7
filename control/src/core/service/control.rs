//! Pauses a deployment, lets it go on, or goes back to the last one that was completed.
//! In: `ControlDeployment`. Out: the service. Never: changes a deployment that has ended.

use super::change::active_service;
use super::deployment;
use super::record::{RolloutState, ServiceRecord};
use super::throttle::Throttle;
use crate::core::Command;
use crate::core::mutation::Changes;
use crate::error::ApiError;
use lighter_model::ids::ClusterName;
use std::sync::Arc;

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Pause,
    Resume,
    Rollback,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Rollback => "rollback",
        }
    }
}

/// Does it to the newest deployment.
#[derive(Debug, Clone)]
pub struct ControlDeployment {
    pub cluster: ClusterName,
    pub service: String,
    pub action: Action,
}

impl Command for ControlDeployment {
    type Answer = Arc<ServiceRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let old = active_service(changes.state(), &self.cluster, &self.service)?;
        let mut new = (*old).clone();
        match self.action {
            Action::Pause => turn(changes, &mut new, RolloutState::InProgress, RolloutState::Paused)?,
            Action::Resume => {
                turn(changes, &mut new, RolloutState::Paused, RolloutState::InProgress)?;
                new.throttle = Throttle::default();
            }
            Action::Rollback => {
                let missing = || ApiError::NoDeployment {
                    service: new.name.to_string(),
                    wanted: "one before this that was completed",
                };
                let rollout = deployment::back(&new).ok_or_else(missing)?;
                deployment::begin(changes, &mut new, rollout, RolloutState::RolledBack);
            }
        }
        if new == *old {
            return Ok(old);
        }
        new.version += 1;
        Ok(changes.put_service(new))
    }
}

/// Already so: nothing changes.
fn turn(
    changes: &Changes<'_>,
    service: &mut ServiceRecord,
    from: RolloutState,
    to: RolloutState,
) -> Result<(), ApiError> {
    let now = changes.now_ms();
    let name = service.name.to_string();
    match service.deployments.first_mut() {
        Some(primary) if primary.state == to && to == RolloutState::Paused => Ok(()),
        Some(primary) if primary.state == from => {
            let word = if to == RolloutState::Paused { "paused" } else { "in progress" };
            primary.reason = format!("ECS deployment {} {word}.", primary.id);
            (primary.state, primary.updated_at_unix_ms) = (to, now);
            Ok(())
        }
        _ => {
            let wanted = if from == RolloutState::Paused { "one that is paused" } else { "one in progress" };
            Err(ApiError::NoDeployment { service: name, wanted })
        }
    }
}
