//! Registers, deregisters, deletes and finds task definitions.
//! In: a validated definition, or a name. Out: its record. Owns: the numbering of revisions.
//! A deleted revision is DELETE_IN_PROGRESS until no task uses it; then the sweep removes it.
//! Never: uses a revision twice, also of a deleted one, or changes a registered definition.
//! Source: Amazon ECS API reference, RegisterTaskDefinition, DeregisterTaskDefinition,
//! DeleteTaskDefinitions.

use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::{DefinitionRecord, FamilyRecord, ImageDigests, PlacementFailure};
use crate::core::state::State;
use crate::error::ApiError;
use lighter_model::ids::{Family, TaskDefinitionId};
use lighter_model::status::TaskStatus;
use lighter_model::tags;
use lighter_model::task_definition::{TaskDefinition, input};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Registers the next revision of a family.
#[derive(Debug, Clone)]
pub struct RegisterDefinition {
    pub definition: TaskDefinition,
    pub registered_by: String,
}

impl Command for RegisterDefinition {
    type Answer = Arc<DefinitionRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let Self { mut definition, registered_by } = self;
        let tags = std::mem::take(&mut definition.tags).into_iter().map(|tag| (tag.key, tag.value));
        let tags = tags::checked(tags).map_err(|error| ApiError::invalid("tags", error.to_string()))?;
        let quotas = changes.settings().quotas;
        quotas.tags(tags.len())?;
        quotas.containers(definition.container_definitions.len())?;
        quotas.definition_bytes(input::to_json(&definition).len())?;
        let family = definition.family.clone();
        let last = changes.state().families.get(&family).map_or(0, |record| record.last_revision);
        quotas.revisions(last)?;
        let revision = last
            .checked_add(1)
            .ok_or_else(|| ApiError::invalid("family", format!("{family} has used all its revisions")))?;
        let registered_at_unix_ms = changes.now_ms();
        let family_record = FamilyRecord { family: family.clone(), last_revision: revision };
        changes.record(Mutation::Family(Arc::new(family_record)));
        Ok(changes.put_definition(DefinitionRecord {
            id: TaskDefinitionId { family, revision },
            definition,
            registered_by,
            registered_at_unix_ms,
            deregistered_at_unix_ms: None,
            image_digests: ImageDigests::default(),
            deleted_at_unix_ms: None,
            tags,
        }))
    }
}

/// Makes a revision INACTIVE: no new tasks of it. Repeating it changes nothing.
#[derive(Debug, Clone)]
pub struct DeregisterDefinition {
    /// `family:revision`.
    pub task_definition: String,
}

impl Command for DeregisterDefinition {
    type Answer = Arc<DefinitionRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let name = definition_name(&self.task_definition);
        if !name.contains(':') {
            return Err(ApiError::invalid("taskDefinition", "name the revision: family:revision"));
        }
        let record = find_definition(changes.state(), name)?;
        if !record.is_active() {
            return Ok(record);
        }
        let deregistered_at_unix_ms = Some(changes.now_ms());
        Ok(changes.put_definition(DefinitionRecord { deregistered_at_unix_ms, ..(*record).clone() }))
    }
}

/// ECS's most revisions of one call.
const MAX_DELETED: usize = 10;

/// Deletes INACTIVE revisions.
#[derive(Debug, Clone)]
pub struct DeleteDefinitions {
    /// 1 to 10 of `family:revision`.
    pub task_definitions: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct DeletedDefinitions {
    pub definitions: Vec<Arc<DefinitionRecord>>,
    pub failures: Vec<PlacementFailure>,
}

impl Command for DeleteDefinitions {
    type Answer = DeletedDefinitions;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let names = &self.task_definitions;
        if names.is_empty() || names.len() > MAX_DELETED {
            let message = format!("name 1 to {MAX_DELETED}, got {}", names.len());
            return Err(ApiError::invalid("taskDefinitions", message));
        }
        let mut answer = DeletedDefinitions { definitions: Vec::new(), failures: Vec::new() };
        for text in names {
            match delete(changes, definition_name(text)) {
                Ok(record) => answer.definitions.push(record),
                Err((reason, detail)) => {
                    let (id, reason) = (text.clone(), reason.to_owned());
                    answer.failures.push(PlacementFailure { id, reason, detail });
                }
            }
        }
        Ok(answer)
    }
}

fn delete(changes: &mut Changes<'_>, name: &str) -> Result<Arc<DefinitionRecord>, (&'static str, String)> {
    if !name.contains(':') {
        return Err(("INVALID", "name the revision: family:revision".to_owned()));
    }
    let record = find_definition(changes.state(), name).map_err(|error| ("MISSING", error.to_string()))?;
    if record.is_active() {
        return Err(("ACTIVE", format!("deregister {} first", record.id)));
    }
    if record.deleted_at_unix_ms.is_some() {
        return Ok(record);
    }
    let deleted_at_unix_ms = Some(changes.now_ms());
    Ok(changes.put_definition(DefinitionRecord { deleted_at_unix_ms, ..(*record).clone() }))
}

/// Revisions that are DELETE_IN_PROGRESS and that no task uses which is not STOPPED.
pub fn unused_deleted(state: &State) -> Vec<TaskDefinitionId> {
    let deleted = state.definitions.values().filter(|record| record.deleted_at_unix_ms.is_some());
    let mut unused: BTreeSet<&TaskDefinitionId> = deleted.map(|record| &record.id).collect();
    if !unused.is_empty() {
        for task in state.tasks.values().filter(|task| task.last != TaskStatus::Stopped) {
            unused.remove(&task.definition);
        }
        for service in state.services.values().filter(|service| service.is_active()) {
            for deployment in &service.deployments {
                unused.remove(&deployment.definition);
            }
        }
    }
    unused.into_iter().cloned().collect()
}

/// The part of an ARN that names the thing; any other text as it is.
fn definition_name(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

/// Finds `family` (its newest active revision), `family:revision`, or the ARN of one.
pub fn find_definition(state: &State, text: &str) -> Result<Arc<DefinitionRecord>, ApiError> {
    let name = definition_name(text);
    let not_found = || ApiError::TaskDefinitionNotFound { name: name.to_owned() };
    let invalid = |error: lighter_model::ids::IdError| ApiError::invalid("taskDefinition", error.to_string());
    if name.contains(':') {
        let id: TaskDefinitionId = name.parse().map_err(invalid)?;
        state.definitions.get(&id).cloned().ok_or_else(not_found)
    } else {
        let family: Family = name.parse().map_err(invalid)?;
        state.newest_active(&family).cloned().ok_or_else(not_found)
    }
}
