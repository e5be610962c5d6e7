//! PutAttributes, DeleteAttributes, ListAttributes.
//! In: attributes of container instances. Out: the same, by id. Never: lists those of INACTIVE ones.

use super::page::{PageRequest, token};
use super::{Context, existing_cluster};
use crate::core::attribute::{DeleteAttributes, PutAttributes, TargetAttribute};
use crate::core::audit::Asker;
use crate::error::ApiError;
use lighter_model::status::ContainerInstanceStatus;

/// Sets attributes.
pub async fn put(
    context: &Context,
    asker: Asker,
    wanted: PutAttributes,
) -> Result<Vec<TargetAttribute>, ApiError> {
    context.change(asker, wanted).await
}

/// Deletes attributes that people have set.
pub async fn delete(
    context: &Context,
    asker: Asker,
    wanted: DeleteAttributes,
) -> Result<Vec<TargetAttribute>, ApiError> {
    context.change(asker, wanted).await
}

/// What to list; empty texts match all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub cluster: String,
    pub name: String,
    pub value: String,
    pub page: PageRequest,
}

/// Some attributes, and where the next page begins.
#[derive(Debug, Clone)]
pub struct AttributePage {
    pub attributes: Vec<TargetAttribute>,
    /// Empty on the last page.
    pub next_token: String,
}

/// Lists attributes by instance and name, whoever says them.
pub fn list(context: &Context, filter: &Filter) -> Result<AttributePage, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let after = filter.page.after()?;
    if filter.name.is_empty() && !filter.value.is_empty() {
        return Err(ApiError::invalid("attributeValue", "needs an attributeName beside it"));
    }
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &filter.cluster)?;
        let instances = shown.state.instances.values();
        let instances = instances.filter(|instance| {
            instance.cluster == cluster && instance.status != ContainerInstanceStatus::Inactive
        });
        let all = instances.flat_map(|instance| {
            let own = instance.attributes();
            own.into_iter().map(|(name, (value, _))| (instance, name, value)).collect::<Vec<_>>()
        });
        let wanted = all.filter(|(instance, name, value)| {
            (filter.name.is_empty() || filter.name == *name)
                && (filter.value.is_empty() || filter.value == *value)
                && after.as_ref().is_none_or(|after| *after < key(instance.id.as_str(), name))
        });
        let mut wanted = wanted.map(|(instance, name, value)| TargetAttribute {
            instance: instance.id.to_string(),
            name: name.to_owned(),
            value: value.to_owned(),
        });
        let attributes: Vec<TargetAttribute> = wanted.by_ref().take(limit).collect();
        let more = wanted.next().is_some();
        let last = attributes.last().map(|last| token(&key(&last.instance, &last.name)));
        Ok(AttributePage { next_token: last.filter(|_| more).unwrap_or_default(), attributes })
    })
}

/// Where in the list an attribute stands; an id has no space.
fn key(instance: &str, name: &str) -> String {
    format!("{instance} {name}")
}
