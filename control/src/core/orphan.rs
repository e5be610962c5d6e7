//! What becomes of a task that runs on a node and that this store does not know: somebody decides.
//! In: `DecideOrphan` with what its node tells of it. Out: a task of the cluster, wanted to run on or to
//! stop; a task of a service is the service's again. Never: invents what the node does not tell, or runs it under a name that means something else.

use crate::core::Command;
use crate::core::definition::find_definition;
use crate::core::mutation::{Changes, Mutation, id_parts};
use crate::core::record::{DefinitionRecord, FamilyRecord, InstanceRecord, TaskRecord};
use crate::core::report::merge;
use crate::core::run_task::pending;
use crate::core::service::record::{ServiceRecord, ServiceTask};
use crate::core::state::State;
use crate::core::stop_task::{pad, wanted_stopped};
use crate::error::ApiError;
use lighter_model::held::HeldTask;
use lighter_model::ids::{ClusterName, ContainerInstanceId, Generation, TaskId};
use lighter_model::status::{StopCode, TaskStatus};
use lighter_model::task_definition::{TaskDefinition, input};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Makes an orphan a task of its cluster.
#[derive(Debug, Clone)]
pub struct DecideOrphan {
    pub cluster: ClusterName,
    pub instance: ContainerInstanceId,
    pub held: HeldTask,
    /// `None`: it runs on; else why it is to stop.
    pub stop: Option<String>,
}

/// An orphan by its id, or a beginning of it that is unique among those of the cluster.
pub fn find_orphan(
    state: &State,
    cluster: &ClusterName,
    text: &str,
) -> Result<(Arc<InstanceRecord>, TaskId), ApiError> {
    let digits = text.rsplit('/').next().unwrap_or(text);
    let not_found = || ApiError::OrphanNotFound { task: text.to_owned(), cluster: cluster.to_string() };
    pad(digits).ok_or_else(not_found)?;
    let own = state.instances.values().filter(|instance| instance.cluster == *cluster);
    let all = own.flat_map(|instance| instance.orphans.iter().map(move |id| (instance, id)));
    let mut matching = all.filter(|(_, id)| id.as_str().starts_with(digits));
    let (instance, id) = matching.next().ok_or_else(not_found)?;
    match matching.count() {
        0 => Ok((instance.clone(), id.clone())),
        more => Err(ApiError::AmbiguousPrefix { field: "task", text: text.to_owned(), count: more + 1 }),
    }
}

impl Command for DecideOrphan {
    type Answer = Arc<TaskRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let (instance, id) = find_orphan(changes.state(), &self.cluster, self.held.task.as_str())?;
        if instance.id != self.instance {
            return Err(ApiError::OrphanNotFound { task: id.to_string(), cluster: self.cluster.to_string() });
        }
        let definition = self.definition(changes)?;
        let now = changes.now_ms();
        let mut task = self.record(changes.state(), &definition);
        if let Some(report) = self.held.report {
            task = merge(&task, report, now);
        }
        if let Some(reason) = self.stop.filter(|_| task.last != TaskStatus::Stopped) {
            task = wanted_stopped(&task, StopCode::UserInitiated, reason, now);
        }
        let mut decided = (*instance).clone();
        decided.orphans.remove(&id);
        decided.orphan_facts.remove(&id);
        changes.put_instance(decided);
        Ok(changes.put_task(task))
    }
}

impl DecideOrphan {
    /// The definition it runs by, registered under its own revision if nothing is there.
    fn definition(&self, changes: &mut Changes<'_>) -> Result<Arc<DefinitionRecord>, ApiError> {
        let held = &self.held;
        let name = held.definition.to_string();
        let own = held.definition_json.as_deref().map(|json| read(&name, json)).transpose()?;
        let known = find_definition(changes.state(), &name).ok();
        match (known, own) {
            (Some(known), Some(own)) if known.definition == own => Ok(known),
            // Its end needs no more than its containers.
            (Some(known), own) if self.stop.is_some() => {
                let definition = own.unwrap_or_else(|| known.definition.clone());
                Ok(Arc::new(DefinitionRecord { definition, ..(*known).clone() }))
            }
            (Some(_), _) => Err(ApiError::OrphanDefinitionDiffers { name }),
            (None, Some(definition)) => Ok(self.register(changes, definition)),
            (None, None) => Err(ApiError::TaskDefinitionNotFound { name }),
        }
    }

    fn register(&self, changes: &mut Changes<'_>, definition: TaskDefinition) -> Arc<DefinitionRecord> {
        let id = self.held.definition.clone();
        let last = changes.state().families.get(&id.family).map_or(0, |record| record.last_revision);
        let last_revision = last.max(id.revision);
        let family = FamilyRecord { family: id.family.clone(), last_revision };
        changes.record(Mutation::Family(Arc::new(family)));
        let registered_at_unix_ms = changes.now_ms();
        changes.put_definition(DefinitionRecord {
            id,
            definition,
            registered_by: format!("container instance {}", self.instance),
            registered_at_unix_ms,
            deregistered_at_unix_ms: None,
            image_digests: self.held.image_digests.clone().into(),
            deleted_at_unix_ms: None,
            tags: BTreeMap::new(),
        })
    }

    fn record(&self, state: &State, definition: &DefinitionRecord) -> TaskRecord {
        let held = &self.held;
        let service = state.service_of_group(&self.cluster, &held.group);
        let silence = service.and_then(|service| service.silence);
        let service = service.map(|service| of_service(service, definition));
        let created_at = id_parts(held.task.as_str()).map_or(0, |(ms, _)| ms);
        let place = (self.cluster.clone(), self.instance.clone());
        TaskRecord {
            definition: held.definition.clone(),
            group: held.group.clone(),
            generation: Generation(held.generation.0.saturating_add(1)),
            resources: held.resources.clone(),
            paused: held.paused,
            container_resources: held.container_resources.clone().into(),
            image_digests: held.image_digests.clone().into(),
            started_by: service.as_ref().map(|of| of.deployment.clone()).filter(|id| !id.is_empty()),
            service: service.map(Box::new),
            silence,
            ..pending(held.task.clone(), definition, place, created_at)
        }
    }
}

/// Its place in the service: of the newest deployment of its revision, else of one that is forgotten.
fn of_service(service: &ServiceRecord, definition: &DefinitionRecord) -> ServiceTask {
    let deployment = service.deployments.iter().find(|deployment| deployment.definition == definition.id);
    ServiceTask::of(service.name.clone(), deployment.map(|d| d.id.clone()).unwrap_or_default())
}

fn read(name: &str, json: &str) -> Result<TaskDefinition, ApiError> {
    let mut definition = input::parse(json).map_err(|error| ApiError::InvalidTaskDefinition {
        field: error.field().to_owned(),
        message: format!("{name}, as its node has it: {error}"),
    })?;
    definition.tags.clear();
    Ok(definition)
}
