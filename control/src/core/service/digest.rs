//! Whether a deployment must still find out what the tags of its images mean.
//! In: a service, its tasks. Out: how many of its tasks may start. Pure, but for `note`.
//! One task at a time pulls by the tags; what it reports is what all others are started with. It is
//! waited for until it is RUNNING or STOPPED, as long as its instance is connected, and not for ever.
//! Never: starts more than three for this; then the events say that the others start by the tags.
//! Source: Amazon ECS Developer Guide, "Container image resolution".

use super::events;
use super::record::{DeploymentRecord, ServiceRecord};
use crate::core::mutation::Changes;
use crate::core::record::TaskRecord;
use crate::core::state::State;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::TaskId;
use lighter_model::status::TaskStatus;

/// Tasks that are started to find out, in all.
pub const MOST: u32 = 3;
/// How long one of them is waited for: a large image comes in less; what takes longer may never come.
pub const PATIENCE_MS: u64 = 600_000;

/// What keeps tasks from being started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: it is known what they run, or nobody needs to know.
    #[default]
    Free,
    /// One may start and find out.
    One,
    /// This one finds out.
    Waits(TaskId),
    /// None of three has found out: all may start when the events have said so.
    Over,
}

impl Hold {
    /// How many tasks may start now.
    pub fn most(&self) -> u32 {
        match self {
            Self::Free | Self::Over => u32::MAX,
            Self::One => 1,
            Self::Waits(_) => 0,
        }
    }
}

/// What keeps the tasks of this service's deployment from being started.
pub fn hold(state: &State, service: &ServiceRecord, now_ms: u64) -> Hold {
    let Some(deployment) = service.starting() else { return Hold::Free };
    if !is_open(state, deployment) || wrong_edit::is(WrongEdit::DigestNotAwaited) {
        return Hold::Free;
    }
    let own = |task: &TaskRecord| task.service.as_ref().is_some_and(|of| of.deployment == deployment.id);
    let finds_out = |task: &TaskRecord| {
        let there = state.instances.get(&task.instance).is_some_and(|instance| instance.connected);
        let young = task.times.created_at.saturating_add(PATIENCE_MS) > now_ms;
        task.last < TaskStatus::Running && there && young
    };
    let mut tasks = state.tasks_of_service(&service.key());
    match tasks.find(|task| own(task) && finds_out(task)) {
        Some(task) => Hold::Waits(task.id.clone()),
        None if deployment.digest_tasks < MOST => Hold::One,
        None => Hold::Over,
    }
}

/// Whether a tag of it is to be settled and is not.
fn is_open(state: &State, deployment: &DeploymentRecord) -> bool {
    let definition = state.definitions.get(&deployment.definition).filter(|_| !deployment.unpinned);
    let mut containers = definition.into_iter().flat_map(|record| &record.definition.container_definitions);
    containers.any(|c| c.pins_its_tag() && !deployment.image_digests.contains_key(&c.name))
}

/// Whether this task was started by the tags and found something else than what they were settled to:
/// on an instance that was away, or when it was waited for no longer.
pub fn differs(service: &ServiceRecord, task: &TaskRecord) -> bool {
    let Some(of) = &task.service else { return false };
    let deployment = service.deployments.iter().find(|deployment| deployment.id == of.deployment);
    // Deployments from before tasks were held back stay as they are.
    let strict = |d: &&DeploymentRecord| d.digest_tasks > 0 && !d.unpinned && !d.image_digests.is_empty();
    let Some(deployment) = deployment.filter(strict) else { return false };
    let by_tag = task.containers.iter().filter(|container| !task.image_digests.contains_key(&container.name));
    let settled = |name| deployment.image_digests.get(name);
    by_tag.into_iter().any(|container| match (&container.image_digest, settled(&container.name)) {
        (Some(runs), Some(settled)) => runs != settled,
        _ => false,
    })
}

/// Takes note that tasks of the service were started while this held.
pub fn note(changes: &mut Changes<'_>, service: &mut ServiceRecord, hold: &Hold) {
    let Some(id) = service.starting().map(|deployment| deployment.id.clone()) else { return };
    let Some(deployment) = service.deployments.iter_mut().find(|d| d.id == id) else { return };
    match hold {
        Hold::Free | Hold::Waits(_) => {}
        Hold::One => deployment.digest_tasks += 1,
        Hold::Over => {
            deployment.unpinned = true;
            events::tell(changes, service, &events::unpinned(&id, MOST));
        }
    }
}
