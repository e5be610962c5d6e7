//! Where a service's task goes, and the task itself.
//! In: a service, its deployment. Out: a task on an instance, not yet recorded; or why there is none.
//! Without a strategy: the zone with the fewest tasks of the service, then the instance (ECS).

use super::record::{DeploymentRecord, ServiceRecord, ServiceTask};
use crate::core::mutation::Changes;
use crate::core::record::{DefinitionRecord, ImageDigests, TaskRecord};
use crate::core::run_task::{self, Need};
use crate::core::state::State;
use crate::scheduler::choose;
use crate::scheduler::explain::Unable;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::attribute::AVAILABILITY_ZONE;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::placement::{Constraint, Placement, StrategyText};
use lighter_model::resources::required_resources;
use lighter_model::service::{PropagateTags, SchedulingStrategy};
use lighter_model::tags::Tags;
use std::collections::BTreeSet;

/// What is asked of the place of a service's tasks; the state keeps it.
pub fn read(service: &ServiceRecord) -> Placement {
    let spread = |field: &str| StrategyText {
        kind: "spread".to_owned(),
        field: field.to_owned(),
        expression: String::new(),
    };
    let mut text = service.placement.clone();
    if text.strategies.is_empty() && service.strategy == SchedulingStrategy::Replica {
        text.strategies = vec![spread(&format!("attribute:{AVAILABILITY_ZONE}")), spread("instanceId")];
    }
    // It was read when the service was made.
    Placement::read(text).unwrap_or_default()
}

/// Instances of the service's cluster that meet its constraints.
pub fn matching(state: &State, service: &ServiceRecord) -> BTreeSet<ContainerInstanceId> {
    let nodes = state.columns().of(&service.cluster);
    let mut rows: Vec<usize> = (0..nodes.len()).collect();
    if !service.placement.constraints.is_empty() {
        for constraint in state.placement_of(&service.key()).constraints() {
            if let Constraint::MemberOf(expression) = constraint {
                let matching = nodes.matching(expression);
                rows.retain(|row| matching.get(*row));
            }
        }
    }
    rows.into_iter().map(|row| nodes.id(row).clone()).collect()
}

/// ACTIVE instances of which the closest is told: a service that fits nowhere asks every second.
const LOOKED_AT: usize = 1_000;

/// Those of some instances that have room for a task of this deployment, and why the first of the others has none.
pub fn with_room(
    changes: &mut Changes<'_>,
    service: &ServiceRecord,
    deployment: &DeploymentRecord,
    on: Vec<ContainerInstanceId>,
) -> (Vec<ContainerInstanceId>, Option<Unable>) {
    let Some(definition) = changes.state().definitions.get(&deployment.definition).cloned() else {
        return (on, None);
    };
    let (need, group) = (Need::of(&definition, service.silence), service.group());
    let placement = changes.state().placement_of(&service.key());
    changes.warm(&service.cluster, &placement);
    let nodes = changes.state().columns().of(&service.cluster);
    let ask = need.ask(changes.settings(), &group, &placement, changes.luck());
    let room = choose::feasible(nodes, &ask);
    let fits = |instance: &ContainerInstanceId| nodes.row(instance).is_some_and(|row| room.get(row));
    let (roomy, full): (Vec<_>, Vec<_>) = on.into_iter().partition(fits);
    let unable = full.first().map(|instance| Unable::on(nodes, &ask, instance));
    (roomy, unable)
}

/// A task of this deployment on an instance that has room, or why there is none; `None`: its revision is gone.
pub fn place(
    changes: &mut Changes<'_>,
    service: &ServiceRecord,
    deployment: &DeploymentRecord,
    only: Option<&ContainerInstanceId>,
) -> Result<TaskRecord, Option<Unable>> {
    let definition = changes.state().definitions.get(&deployment.definition).cloned().ok_or(None)?;
    let (need, group) = (Need::of(&definition, service.silence), service.group());
    let placement = changes.state().placement_of(&service.key());
    changes.warm(&service.cluster, &placement);
    let (state, settings, luck) = (changes.state(), changes.settings(), changes.luck());
    let nodes = state.columns().of(&service.cluster);
    let ask = need.ask(settings, &group, &placement, luck);
    let instance = match only {
        None => run_task::choose(state, settings, &service.cluster, &need, &group, &placement, luck),
        Some(only) => {
            let fits = nodes.row(only).is_some_and(|row| choose::feasible(nodes, &ask).get(row));
            fits.then(|| only.clone())
        }
    };
    match (instance, only) {
        (Some(instance), _) => Ok(task(changes, service, deployment, &definition, instance)),
        (None, Some(only)) => Err(Some(Unable::on(nodes, &ask, only))),
        (None, None) => Err(Some(Unable::of(nodes, &ask, LOOKED_AT))),
    }
}

fn task(
    changes: &Changes<'_>,
    service: &ServiceRecord,
    deployment: &DeploymentRecord,
    definition: &DefinitionRecord,
    instance: ContainerInstanceId,
) -> TaskRecord {
    let last = changes.state().tasks.last_key_value().map(|(id, _)| id.as_str());
    let (id_ms, digits) = changes.next_id(last);
    let id = TaskId::from_parts(id_ms, digits);
    let place = (service.cluster.clone(), instance);
    let heartbeat_ms = changes.settings().heartbeat_ms;
    let tags = match service.propagate_tags {
        PropagateTags::None => Tags::new(),
        PropagateTags::TaskDefinition => definition.tags.clone(),
        PropagateTags::Service => service.tags.clone(),
    };
    TaskRecord {
        group: service.group(),
        started_by: Some(deployment.id.clone()),
        resources: required_resources(&definition.definition),
        tags,
        silence: service.silence.map(|policy| policy.fitting(&definition.definition, heartbeat_ms)),
        image_digests: match wrong_edit::is(WrongEdit::DigestNotGiven) {
            true => ImageDigests::default(),
            false => deployment.image_digests.clone(),
        },
        service: Some(Box::new(ServiceTask::of(service.name.clone(), deployment.id.clone()))),
        ..run_task::pending(id, definition, place, changes.now_ms())
    }
}
