//! Registers, deregisters and finds task definitions.
//! In: a validated definition, or a name. Out: its record. Owns: the numbering of revisions.
//! Never: uses a revision twice, changes a registered definition, or deletes one.

use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::{DefinitionRecord, FamilyRecord};
use crate::core::state::State;
use crate::error::ApiError;
use lighter_model::ids::{Family, TaskDefinitionId};
use lighter_model::task_definition::TaskDefinition;
use std::collections::BTreeMap;
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
        let family = self.definition.family.clone();
        let last = changes.state().families.get(&family).map_or(0, |record| record.last_revision);
        let revision = last
            .checked_add(1)
            .ok_or_else(|| ApiError::invalid("family", format!("{family} has used all its revisions")))?;
        let registered_at_unix_ms = changes.now_ms();
        let family_record = FamilyRecord { family: family.clone(), last_revision: revision };
        changes.record(Mutation::Family(Arc::new(family_record)));
        Ok(changes.put_definition(DefinitionRecord {
            id: TaskDefinitionId { family, revision },
            definition: self.definition,
            registered_by: self.registered_by,
            registered_at_unix_ms,
            deregistered_at_unix_ms: None,
            image_digests: BTreeMap::new(),
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
