//! RegisterTaskDefinition, DescribeTaskDefinition, ListTaskDefinitions, DeregisterTaskDefinition.
//! In: ECS's JSON as it is, or names. Out: records. Never: accepts a member it would ignore.

use super::Context;
use super::page::{Page, PageRequest, fill};
use crate::core::definition::{DeregisterDefinition, RegisterDefinition, find_definition};
use crate::core::record::DefinitionRecord;
use crate::error::ApiError;
use crate::identity::caller::Caller;
use lighter_model::ids::TaskDefinitionId;
use lighter_model::task_definition::input;
use std::ops::Bound;
use std::sync::Arc;

/// Validates and registers the input of `aws ecs register-task-definition`.
pub async fn register(
    context: &Context,
    caller: &Caller,
    json: &str,
) -> Result<Arc<DefinitionRecord>, ApiError> {
    let definition = input::parse(json).map_err(|error| ApiError::InvalidTaskDefinition {
        field: error.field().to_owned(),
        message: error.to_string(),
    })?;
    let registered_by = caller.spiffe_id().unwrap_or_default();
    context.writer.submit(RegisterDefinition { definition, registered_by }).await
}

/// Finds `family`, `family:revision` or the ARN of one.
pub fn describe(context: &Context, name: &str) -> Result<Arc<DefinitionRecord>, ApiError> {
    context.view.read(|shown| find_definition(&shown.state, name))
}

/// Makes a revision INACTIVE.
pub async fn deregister(context: &Context, name: String) -> Result<Arc<DefinitionRecord>, ApiError> {
    context.writer.submit(DeregisterDefinition { task_definition: name }).await
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub family_prefix: String,
    pub inactive: bool,
    pub descending: bool,
    pub page: PageRequest,
}

/// Lists `family:revision` by family and revision.
pub fn list(context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let limit = filter.page.limit()?;
    let after: Option<TaskDefinitionId> = filter.page.after_as()?;
    let wanted = |record: &&Arc<DefinitionRecord>| {
        record.is_active() != filter.inactive && record.id.family.as_str().starts_with(&filter.family_prefix)
    };
    let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(context.view.read(|shown| {
        let definitions = &shown.state.definitions;
        let name = |record: &Arc<DefinitionRecord>| record.id.to_string();
        if filter.descending {
            let range = definitions.range((Bound::Unbounded, bound)).rev();
            fill(range.map(|(_, record)| record).filter(wanted).map(name), limit)
        } else {
            let range = definitions.range((bound, Bound::Unbounded));
            fill(range.map(|(_, record)| record).filter(wanted).map(name), limit)
        }
    }))
}
