//! Tags of what there is.
//! In: the name of a resource, tags or keys. Out: changed records; the tags of one.
//! Never: tags what is INACTIVE or STOPPED for good, or more than the quota.
//! Source: Amazon ECS API reference, TagResource, UntagResource, ListTagsForResource.

use crate::core::Command;
use crate::core::cluster;
use crate::core::definition::find_definition;
use crate::core::instance::find_instance;
use crate::core::mutation::Changes;
use crate::core::record::{ClusterRecord, DefinitionRecord, InstanceRecord, TaskRecord};
use crate::core::run_task::require_cluster;
use crate::core::service::change::find_service;
use crate::core::service::record::ServiceRecord;
use crate::core::state::State;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use lighter_model::ids::ClusterName;
use lighter_model::tags::Tags;
use std::sync::Arc;

/// Something that has tags.
#[derive(Debug, Clone)]
enum Resource {
    Cluster(Arc<ClusterRecord>),
    Definition(Arc<DefinitionRecord>),
    Instance(Arc<InstanceRecord>),
    Task(Arc<TaskRecord>),
    Service(Arc<ServiceRecord>),
}

impl Resource {
    /// Finds what an ARN, or the last part of one, names: `cluster/NAME`, `task-definition/FAMILY:REVISION`,
    /// `container-instance/CLUSTER/ID`, `task/CLUSTER/ID`, `service/CLUSTER/NAME`.
    fn find(state: &State, text: &str) -> Result<Self, ApiError> {
        let wrong = || {
            let message = format!(
                "{text:?} names no resource; write cluster/NAME, task-definition/FAMILY:REVISION, \
                 container-instance/CLUSTER/ID, task/CLUSTER/ID or service/CLUSTER/NAME"
            );
            ApiError::invalid("resource", message)
        };
        let name = match text.strip_prefix("arn:") {
            // partition:service:region:account:resource
            Some(rest) => rest.splitn(5, ':').nth(4).ok_or_else(wrong)?,
            None => text,
        };
        let in_cluster = |cluster: &str| -> Result<ClusterName, ApiError> {
            let cluster = cluster.parse().map_err(|_| wrong())?;
            require_cluster(state, &cluster)?;
            Ok(cluster)
        };
        Ok(match name.split('/').collect::<Vec<_>>().as_slice() {
            ["cluster", name] => Self::Cluster(cluster::active(state, &name.parse().map_err(|_| wrong())?)?),
            ["task-definition", name] if name.contains(':') => {
                Self::Definition(find_definition(state, name)?)
            }
            ["container-instance", cluster, name] => {
                Self::Instance(find_instance(state, &in_cluster(cluster)?, name)?)
            }
            ["task", cluster, name] => Self::Task(find_task(state, &in_cluster(cluster)?, name)?),
            ["service", cluster, name] => Self::Service(service(state, &in_cluster(cluster)?, name)?),
            _ => return Err(wrong()),
        })
    }

    fn tags(&self) -> &Tags {
        match self {
            Self::Cluster(record) => &record.tags,
            Self::Definition(record) => &record.tags,
            Self::Instance(record) => &record.tags,
            Self::Task(record) => &record.tags,
            Self::Service(record) => &record.tags,
        }
    }

    fn put(self, changes: &mut Changes<'_>, tags: Tags) {
        if *self.tags() == tags {
            return;
        }
        match self {
            Self::Cluster(old) => drop(changes.put_cluster(ClusterRecord { tags, ..(*old).clone() })),
            Self::Definition(old) => {
                drop(changes.put_definition(DefinitionRecord { tags, ..(*old).clone() }))
            }
            Self::Instance(old) => drop(changes.put_instance(InstanceRecord { tags, ..(*old).clone() })),
            Self::Task(old) => drop(changes.put_task(TaskRecord { tags, ..(*old).clone() })),
            // What is wanted of its tasks stays, and with it the version that `deploy` goes by.
            Self::Service(old) => drop(changes.put_service(ServiceRecord { tags, ..(*old).clone() })),
        }
    }
}

/// A service that still is one.
fn service(state: &State, cluster: &ClusterName, name: &str) -> Result<Arc<ServiceRecord>, ApiError> {
    let found = find_service(state, cluster, name)?;
    match found.inactive_at_unix_ms {
        None => Ok(found),
        Some(_) => Err(ApiError::ServiceNotActive { service: found.name.to_string() }),
    }
}

/// The tags of a resource.
pub fn tags_of(state: &State, resource: &str) -> Result<Tags, ApiError> {
    Ok(Resource::find(state, resource)?.tags().clone())
}

/// Sets tags; those of other keys stay.
#[derive(Debug, Clone)]
pub struct TagResource {
    pub resource: String,
    pub tags: Tags,
}

impl Command for TagResource {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let resource = Resource::find(changes.state(), &self.resource)?;
        let mut tags = resource.tags().clone();
        tags.extend(self.tags);
        changes.settings().quotas.tags(tags.len())?;
        resource.put(changes, tags);
        Ok(())
    }
}

/// Takes tags away; keys that are not there are no error.
#[derive(Debug, Clone)]
pub struct UntagResource {
    pub resource: String,
    pub keys: Vec<String>,
}

impl Command for UntagResource {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let resource = Resource::find(changes.state(), &self.resource)?;
        let mut tags = resource.tags().clone();
        tags.retain(|key, _| !self.keys.contains(key));
        resource.put(changes, tags);
        Ok(())
    }
}
