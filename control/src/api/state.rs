//! StreamClusterState: everything of a cluster as of one event, to be followed by WatchEvents.
//! In: a cluster. Out: its records, shared, and the event they stand at.
//! Never: mixes two moments; holds the writer up for longer than it takes to count references.

use super::cluster::DescribedCluster;
use super::{Context, existing_cluster, now_ms};
use crate::core::record::{DefinitionRecord, InstanceSnapshot, TaskRecord};
use crate::core::service::look::{ServiceSnapshot, snapshot};
use crate::error::ApiError;
use std::sync::Arc;

/// A cluster at one moment.
#[derive(Debug)]
pub struct ClusterState {
    /// The last event that it contains.
    pub sequence: u64,
    /// Of the store.
    pub incarnation: String,
    pub cluster: DescribedCluster,
    /// Of no cluster: all of them.
    pub definitions: Vec<Arc<DefinitionRecord>>,
    pub instances: Vec<InstanceSnapshot>,
    pub tasks: Vec<Arc<TaskRecord>>,
    pub services: Vec<ServiceSnapshot>,
}

/// Looks at everything once.
pub fn state(context: &Context, cluster: &str) -> Result<ClusterState, ApiError> {
    context.view.read(|shown| {
        let name = existing_cluster(shown, cluster)?;
        let state = &shown.state;
        let missing = || ApiError::ClusterNotFound { cluster: name.to_string() };
        let cluster = state.clusters.get(&name).ok_or_else(missing)?;
        let now = now_ms(context, shown);
        let services = state.services.values().filter(|service| service.cluster == name);
        let instances = state.instances.values().filter(|instance| instance.cluster == name);
        Ok(ClusterState {
            sequence: state.meta.event_sequence,
            incarnation: shown.incarnation.clone(),
            cluster: DescribedCluster::of(shown, cluster),
            definitions: state.definitions.values().cloned().collect(),
            instances: instances.map(|instance| state.snapshot(instance)).collect(),
            tasks: state.tasks.values().filter(|task| task.cluster == name).cloned().collect(),
            services: services.map(|service| snapshot(state, service, now)).collect(),
        })
    })
}
