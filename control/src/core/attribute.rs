//! Attributes that people set on container instances.
//! In: `PutAttributes`, `DeleteAttributes`. Out: what was set or deleted.
//! Never: sets what nodes report of themselves, but for the capacity type; changes only some of what
//! was asked for.
//! Source: Amazon ECS API reference, PutAttributes, DeleteAttributes.

use crate::core::Command;
use crate::core::instance::find_instance;
use crate::core::mutation::Changes;
use crate::core::record::InstanceRecord;
use crate::core::run_task::require_cluster;
use crate::error::ApiError;
use lighter_model::attribute;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::ContainerInstanceStatus;
use std::collections::BTreeMap;
use std::sync::Arc;

/// ECS's most attributes of one call.
const MAX_OF_CALL: usize = 10;

/// One attribute of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetAttribute {
    /// An id, ARN, name, or unique beginning of an id; the id in answers.
    pub instance: String,
    pub name: String,
    pub value: String,
}

/// Sets attributes.
#[derive(Debug, Clone)]
pub struct PutAttributes {
    pub cluster: ClusterName,
    pub attributes: Vec<TargetAttribute>,
}

impl Command for PutAttributes {
    type Answer = Vec<TargetAttribute>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        for wanted in &self.attributes {
            attribute::check(&wanted.name, &wanted.value)
                .map_err(|why| ApiError::invalid("attributes", why))?;
            if attribute::is_built_in(&wanted.name) && wanted.name != attribute::CAPACITY_TYPE {
                let message = format!("{:?} is what a node reports of itself", wanted.name);
                return Err(ApiError::invalid("attributes", message));
            }
        }
        change(changes, &self.cluster, self.attributes, |own, wanted| {
            own.insert(wanted.name.clone(), wanted.value.clone());
            Ok(())
        })
    }
}

/// Deletes attributes that people have set.
#[derive(Debug, Clone)]
pub struct DeleteAttributes {
    pub cluster: ClusterName,
    /// With a value only that value is deleted.
    pub attributes: Vec<TargetAttribute>,
}

impl Command for DeleteAttributes {
    type Answer = Vec<TargetAttribute>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        change(changes, &self.cluster, self.attributes, |own, wanted| {
            let there = own.get(&wanted.name);
            if !there.is_some_and(|value| wanted.value.is_empty() || *value == wanted.value) {
                let message = format!("nobody has set {:?} on {}", wanted.name, wanted.instance);
                return Err(ApiError::invalid("attributes", message));
            }
            wanted.value = own.remove(&wanted.name).unwrap_or_default();
            Ok(())
        })
    }
}

type Own = BTreeMap<String, String>;

/// Changes the attributes of each instance that is named, all or none.
fn change(
    changes: &mut Changes<'_>,
    cluster: &ClusterName,
    wanted: Vec<TargetAttribute>,
    one: impl Fn(&mut Own, &mut TargetAttribute) -> Result<(), ApiError>,
) -> Result<Vec<TargetAttribute>, ApiError> {
    require_cluster(changes.state(), cluster)?;
    if wanted.is_empty() || wanted.len() > MAX_OF_CALL {
        return Err(ApiError::invalid(
            "attributes",
            format!("name 1 to {MAX_OF_CALL}, got {}", wanted.len()),
        ));
    }
    let mut new: BTreeMap<ContainerInstanceId, (Arc<InstanceRecord>, Own)> = BTreeMap::new();
    let mut done = Vec::with_capacity(wanted.len());
    for mut wanted in wanted {
        let instance = target(changes, cluster, &wanted.instance)?;
        wanted.instance = instance.id.to_string();
        let own = instance.operator_attributes.clone();
        let (_, own) = new.entry(instance.id.clone()).or_insert((instance, own));
        one(own, &mut wanted)?;
        changes.settings().quotas.attributes(own.len())?;
        done.push(wanted);
    }
    for (old, operator_attributes) in new.into_values() {
        if old.operator_attributes != operator_attributes {
            changes.put_instance(InstanceRecord { operator_attributes, ..(*old).clone() });
        }
    }
    Ok(done)
}

fn target(changes: &Changes<'_>, cluster: &ClusterName, name: &str) -> Result<Arc<InstanceRecord>, ApiError> {
    match find_instance(changes.state(), cluster, name) {
        Ok(instance) if instance.status != ContainerInstanceStatus::Inactive => Ok(instance),
        Err(error @ ApiError::AmbiguousPrefix { .. }) => Err(error),
        _ => Err(ApiError::TargetNotFound { target: name.to_owned(), cluster: cluster.to_string() }),
    }
}
