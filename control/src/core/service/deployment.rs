//! Deployments of a service: how they begin and end.
//! In: a service to change. Out: the same, changed. Never: more than ten kept, or one that has tasks or
//! can be gone back to forgotten.
//! Source: Amazon ECS API reference, Deployment; Developer Guide, "circuit breaker".

use super::record::{DeploymentRecord, RolloutState, ServiceRecord};
use super::throttle::Throttle;
use super::{breaker, events};
use crate::core::mutation::Changes;
use crate::core::record::{DefinitionRecord, ImageDigests, TaskRecord};
use crate::core::report::pinned;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::TaskDefinitionId;
use lighter_model::report::TaskReport;

/// Ended ones that are shown.
const KEPT: usize = 10;

/// What a new deployment rolls out.
#[derive(Debug, Clone)]
pub struct Rollout {
    pub definition: TaskDefinitionId,
    pub image_digests: ImageDigests,
    /// It was found out before that nobody can settle them.
    pub unpinned: bool,
    pub rollback_of: Option<String>,
}

impl Rollout {
    /// A revision as its tags are now.
    pub fn of(definition: TaskDefinitionId) -> Self {
        Self { definition, image_digests: ImageDigests::default(), unpinned: false, rollback_of: None }
    }
}

/// An id that no deployment has had: 19 digits of the luck that came with the command.
fn new_id(changes: &Changes<'_>, service: &ServiceRecord) -> String {
    const DIGITS: u128 = 10_000_000_000_000_000_000;
    let mut number = changes.moment().random % DIGITS;
    loop {
        let id = format!("ecs-svc/{number:019}");
        if service.deployments.iter().all(|deployment| deployment.id != id) {
            return id;
        }
        number = (number + 1) % DIGITS;
    }
}

/// Begins a deployment; the one that goes on ends as `before` says.
pub fn begin(changes: &Changes<'_>, service: &mut ServiceRecord, rollout: Rollout, before: RolloutState) {
    let now = changes.now_ms();
    let id = new_id(changes, service);
    if let Some(old) = service.deployments.first_mut()
        && matches!(old.state, RolloutState::InProgress | RolloutState::Paused)
        && !wrong_edit::is(WrongEdit::DeploymentLeftInProgress)
    {
        end(old, before, format!("ECS deployment {} took its place.", id), now);
    }
    let reason = format!("ECS deployment {id} in progress.");
    service.deployments.insert(
        0,
        DeploymentRecord {
            id,
            definition: rollout.definition,
            created_at_unix_ms: now,
            updated_at_unix_ms: now,
            state: RolloutState::InProgress,
            reason,
            failed_tasks: 0,
            breaker_count: 0,
            last_failure_unix_ms: 0,
            image_digests: rollout.image_digests,
            digest_tasks: 0,
            unpinned: rollout.unpinned,
            rollback_of: rollout.rollback_of,
        },
    );
    service.throttle = Throttle::default();
    (service.told.steady, service.told.blocked, service.told.impaired) = (false, false, false);
    let key = service.key();
    let mut used: Vec<String> = Vec::new();
    for task in changes.state().tasks_of_service(&key) {
        used.extend(task.service.as_ref().map(|of| of.deployment.clone()));
    }
    used.extend(service.last_completed().map(|deployment| deployment.id.clone()));
    let mut place = 0;
    service.deployments.retain(|deployment| {
        place += 1;
        place <= KEPT || used.contains(&deployment.id)
    });
}

fn end(deployment: &mut DeploymentRecord, state: RolloutState, reason: String, now_ms: u64) {
    (deployment.state, deployment.reason, deployment.updated_at_unix_ms) = (state, reason, now_ms);
}

/// The service is deleted: nothing takes the place of what goes on.
pub fn abandon(service: &mut ServiceRecord, now_ms: u64) {
    if let Some(primary) = service.deployments.first_mut()
        && matches!(primary.state, RolloutState::InProgress | RolloutState::Paused)
        && !wrong_edit::is(WrongEdit::DeletedDeploymentGoesOn)
    {
        let reason = format!("ECS deployment {} ended with its service.", primary.id);
        end(primary, RolloutState::Superseded, reason, now_ms);
    }
}

/// Every task is of it and healthy.
pub fn complete(changes: &mut Changes<'_>, service: &mut ServiceRecord) {
    let now = changes.now_ms();
    let Some(primary) = service.deployments.first_mut() else { return };
    if primary.state == RolloutState::InProgress {
        let reason = format!("ECS deployment {} completed.", primary.id);
        let line = format!("(deployment {}) deployment completed.", primary.id);
        end(primary, RolloutState::Completed, reason, now);
        events::tell(changes, service, &line);
    }
}

/// Gives the deployment up when too many of its tasks have failed, and goes back if that is wanted.
pub fn trip(changes: &mut Changes<'_>, service: &mut ServiceRecord, desired: u32) {
    let breaker = service.breaker;
    let now = changes.now_ms();
    let Some(primary) = service.deployments.first_mut() else { return };
    let many = primary.breaker_count >= breaker::threshold(&breaker, desired)
        && !wrong_edit::is(WrongEdit::BreakerNeverTrips);
    if !breaker.enable || primary.state != RolloutState::InProgress || !many {
        return;
    }
    let id = primary.id.clone();
    let again = primary.rollback_of.is_some();
    end(
        primary,
        RolloutState::Failed,
        "ECS deployment circuit breaker: tasks failed to start.".to_owned(),
        now,
    );
    events::tell(changes, service, &format!("(deployment {id}) deployment failed: tasks failed to start."));
    if breaker.rollback
        && !again
        && let Some(rollout) = back(service)
    {
        begin(changes, service, rollout, RolloutState::Failed);
        let new = service.primary().map(|deployment| deployment.id.clone()).unwrap_or_default();
        events::tell(changes, service, &format!("rolling back to (deployment {new})."));
    }
}

/// What the last completed deployment rolled out.
pub fn back(service: &ServiceRecord) -> Option<Rollout> {
    let before = service.deployments.get(1).filter(|_| wrong_edit::is(WrongEdit::RolledBackToFailed));
    let to = before.or(service.last_completed())?;
    Some(Rollout {
        definition: to.definition.clone(),
        image_digests: to.image_digests.clone(),
        unpinned: to.unpinned,
        rollback_of: service.primary().map(|deployment| deployment.id.clone()),
    })
}

/// The deployment of a task learns what its tags mean; the first report settles it for all its tasks.
/// A task's revision is left as it is: another deployment may find other images.
pub fn pin(changes: &mut Changes<'_>, task: &TaskRecord, report: &TaskReport) -> Option<DefinitionRecord> {
    let of = task.service.as_ref()?;
    let state = changes.state();
    let mut service = (**state.services.get(&(task.cluster.clone(), of.name.clone()))?).clone();
    let definition = state.definitions.get(&task.definition)?;
    let deployment = service.deployments.iter_mut().find(|deployment| deployment.id == of.deployment)?;
    deployment.image_digests = pinned(definition, &deployment.image_digests, report)?;
    changes.put_service(service);
    None
}
