//! Clusters: made, changed, deleted.
//! In: `CreateCluster`, `UpdateCluster`, `DeleteCluster`, `EnsureClusters`. Out: records.
//! A deleted cluster is INACTIVE: it can be described for a while, and made again under its name.
//! Never: deletes a cluster that is in use.
//! Source: Amazon ECS API reference, CreateCluster, UpdateCluster, DeleteCluster.

use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::ClusterRecord;
use crate::core::run_task::require_cluster;
use crate::core::state::State;
use crate::error::ApiError;
use lighter_model::ids::ClusterName;
use lighter_model::status::ContainerInstanceStatus;
use lighter_model::tags::Tags;
use std::sync::Arc;

/// The one setting there is: `NONE` or `TASK_DEFINITION`.
pub const PROPAGATE_TAGS: &str = "defaultPropagateTags";

/// What of a cluster's settings shall change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterSettings {
    pub propagate_tags: Option<bool>,
}

impl ClusterSettings {
    /// Reads names and values.
    ///
    /// # Errors
    /// A name is unknown, or a value not one of its words.
    pub fn parse(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ApiError> {
        let mut settings = Self::default();
        for (name, value) in pairs {
            if name != PROPAGATE_TAGS {
                let message = format!("there is no setting {name:?}; there is {PROPAGATE_TAGS}");
                return Err(ApiError::invalid("settings", message));
            }
            settings.propagate_tags = Some(match value.as_str() {
                "NONE" => false,
                "TASK_DEFINITION" => true,
                other => {
                    let message = format!("{PROPAGATE_TAGS} is NONE or TASK_DEFINITION, not {other:?}");
                    return Err(ApiError::invalid("settings", message));
                }
            });
        }
        Ok(settings)
    }
}

/// Makes a cluster; one that is ACTIVE already is returned as it is.
#[derive(Debug, Clone)]
pub struct CreateCluster {
    pub cluster: ClusterName,
    pub settings: ClusterSettings,
    pub tags: Tags,
}

impl Command for CreateCluster {
    type Answer = Arc<ClusterRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        if let Some(there) = changes.state().clusters.get(&self.cluster).filter(|found| found.is_active()) {
            return Ok(there.clone());
        }
        let active = changes.state().clusters.values().filter(|cluster| cluster.is_active()).count();
        changes.settings().quotas.clusters(active)?;
        changes.settings().quotas.tags(self.tags.len())?;
        let created_at_unix_ms = changes.now_ms();
        Ok(changes.put_cluster(ClusterRecord {
            name: self.cluster,
            created_at_unix_ms,
            deleted_at_unix_ms: None,
            propagate_tags: self.settings.propagate_tags.unwrap_or(false),
            tags: self.tags,
            brake: None,
            brake_released_at_unix_ms: None,
        }))
    }
}

/// Changes the settings that are given.
#[derive(Debug, Clone)]
pub struct UpdateCluster {
    pub cluster: ClusterName,
    pub settings: ClusterSettings,
    /// Nodes that are silent now keep nothing from being replaced.
    pub release_brake: bool,
}

impl Command for UpdateCluster {
    type Answer = Arc<ClusterRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let old = active(changes.state(), &self.cluster)?;
        let propagate_tags = self.settings.propagate_tags.unwrap_or(old.propagate_tags);
        let mut new = ClusterRecord { propagate_tags, ..(*old).clone() };
        if self.release_brake && new.brake.take().is_some() {
            new.brake_released_at_unix_ms = Some(changes.now_ms());
        }
        Ok(if new == *old { old } else { changes.put_cluster(new) })
    }
}

/// Makes a cluster INACTIVE; repeating it changes nothing.
#[derive(Debug, Clone)]
pub struct DeleteCluster {
    pub cluster: ClusterName,
}

impl Command for DeleteCluster {
    type Answer = Arc<ClusterRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let name = &self.cluster;
        let old = changes.state().clusters.get(name).cloned();
        let old = old.ok_or_else(|| ApiError::ClusterNotFound { cluster: name.to_string() })?;
        if !old.is_active() {
            return Ok(old);
        }
        let counts = counts(changes.state(), name);
        if counts.instances > 0 {
            let (cluster, count) = (name.to_string(), counts.instances);
            return Err(ApiError::ClusterContainsInstances { cluster, count });
        }
        let of_cluster = changes.state().services.values().filter(|service| service.cluster == *name);
        let services = of_cluster.filter(|service| service.is_active()).count();
        if services > 0 {
            return Err(ApiError::ClusterContainsServices { cluster: name.to_string(), count: services });
        }
        if counts.tasks > 0 {
            return Err(ApiError::ClusterContainsTasks { cluster: name.to_string(), count: counts.tasks });
        }
        let deleted_at_unix_ms = Some(changes.now_ms());
        Ok(changes.put_cluster(ClusterRecord { deleted_at_unix_ms, ..(*old).clone() }))
    }
}

/// An ACTIVE cluster's record.
pub fn active(state: &State, cluster: &ClusterName) -> Result<Arc<ClusterRecord>, ApiError> {
    require_cluster(state, cluster)?;
    let missing = || ApiError::ClusterNotFound { cluster: cluster.to_string() };
    state.clusters.get(cluster).cloned().ok_or_else(missing)
}

/// What a cluster holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not INACTIVE.
    pub instances: u32,
    pub running: u32,
    pub pending: u32,
    /// Not STOPPED, also those of an instance that is gone.
    pub tasks: u32,
}

/// Counts what a cluster holds; takes a look at every instance of the state.
pub fn counts(state: &State, cluster: &ClusterName) -> Counts {
    let queued = u32::try_from(state.queue_of(cluster).len()).unwrap_or(u32::MAX);
    let mut counts = Counts { pending: queued, tasks: queued, ..Counts::default() };
    for instance in state.instances.values().filter(|instance| instance.cluster == *cluster) {
        let reserved = state.reserved(&instance.id);
        counts.instances += u32::from(instance.status != ContainerInstanceStatus::Inactive);
        counts.running += reserved.running;
        counts.pending += reserved.pending;
        counts.tasks += u32::try_from(reserved.tasks.len()).unwrap_or(u32::MAX);
    }
    counts
}

/// Makes the clusters that never were.
#[derive(Debug, Clone)]
pub struct EnsureClusters {
    pub clusters: Vec<ClusterName>,
}

impl Command for EnsureClusters {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        for name in self.clusters {
            if !changes.state().clusters.contains_key(&name) {
                let created_at_unix_ms = changes.now_ms();
                // Without an event: nobody can watch a cluster that never was.
                changes.record(Mutation::Cluster(Arc::new(ClusterRecord {
                    name,
                    created_at_unix_ms,
                    deleted_at_unix_ms: None,
                    propagate_tags: false,
                    tags: Tags::new(),
                    brake: None,
                    brake_released_at_unix_ms: None,
                })));
            }
        }
        Ok(())
    }
}
