//! RegisterTaskDefinition, DescribeTaskDefinition, ListTaskDefinitions, ListTaskDefinitionFamilies,
//! DeregisterTaskDefinition, DeleteTaskDefinitions.
//! In: ECS's JSON as it is, or names. Out: records. Never: accepts a member it would ignore.

use super::Context;
use super::page::{Page, PageRequest, fill};
use crate::core::audit::Asker;
use crate::core::definition::{
    DeleteDefinitions, DeletedDefinitions, DeregisterDefinition, RegisterDefinition, find_definition,
};
use crate::core::record::DefinitionRecord;
use crate::error::ApiError;
use crate::identity::caller::Caller;
use lighter_model::ids::{Family, TaskDefinitionId};
use lighter_model::task_definition::input;
use std::ops::Bound;
use std::sync::Arc;

/// The input of register-task-definition with the defaults that are kept with it filled in; `None` when it
/// would be refused.
pub fn with_defaults(json: &str) -> Option<String> {
    input::parse(json).ok().map(|definition| input::to_json(&definition))
}

/// Validates and registers the input of `aws ecs register-task-definition`.
pub async fn register(
    context: &Context,
    asker: Asker,
    caller: &Caller,
    json: &str,
) -> Result<Arc<DefinitionRecord>, ApiError> {
    let definition = input::parse(json).map_err(|error| ApiError::InvalidTaskDefinition {
        field: error.field().to_owned(),
        message: error.to_string(),
    })?;
    let registered_by = caller.spiffe_id().unwrap_or_default();
    context.change(asker, RegisterDefinition { definition, registered_by }).await
}

/// Finds `family`, `family:revision` or the ARN of one.
pub fn describe(context: &Context, name: &str) -> Result<Arc<DefinitionRecord>, ApiError> {
    context.view.read(|shown| find_definition(&shown.state, name))
}

/// Makes a revision INACTIVE.
pub async fn deregister(
    context: &Context,
    asker: Asker,
    name: String,
) -> Result<Arc<DefinitionRecord>, ApiError> {
    context.change(asker, DeregisterDefinition { task_definition: name }).await
}

/// Deletes INACTIVE revisions.
pub async fn delete(
    context: &Context,
    asker: Asker,
    task_definitions: Vec<String>,
) -> Result<DeletedDefinitions, ApiError> {
    context.change(asker, DeleteDefinitions { task_definitions }).await
}

/// Where a revision is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Active,
    Inactive,
    DeleteInProgress,
}

impl Status {
    /// Of a record.
    pub fn of(record: &DefinitionRecord) -> Self {
        match (record.is_active(), record.deleted_at_unix_ms) {
            (true, _) => Self::Active,
            (false, None) => Self::Inactive,
            (false, Some(_)) => Self::DeleteInProgress,
        }
    }
}

/// Which families to list.
#[derive(Debug, Clone, Default)]
pub struct FamilyFilter {
    pub prefix: String,
    /// Active: with an active revision; otherwise without one; `None`: all.
    pub active: Option<bool>,
    pub page: PageRequest,
}

/// Lists families.
pub fn families(context: &Context, filter: &FamilyFilter) -> Result<Page, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let bound = filter.page.after_as::<Family>()?.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(context.view.read(|shown| {
        let families = shown.state.families.range((bound, Bound::Unbounded)).map(|(family, _)| family);
        let wanted = families.filter(|family| {
            family.as_str().starts_with(&filter.prefix)
                && filter.active.is_none_or(|active| active == shown.state.newest_active(family).is_some())
        });
        fill(wanted.map(ToString::to_string), limit)
    }))
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub family_prefix: String,
    pub status: Status,
    pub descending: bool,
    pub page: PageRequest,
}

/// Lists `family:revision` by family and revision.
pub fn list(context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let after: Option<TaskDefinitionId> = filter.page.after_as()?;
    let wanted = |record: &&Arc<DefinitionRecord>| {
        Status::of(record) == filter.status && record.id.family.as_str().starts_with(&filter.family_prefix)
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
