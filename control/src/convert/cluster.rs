//! Clusters between the messages of the user service and our own types.
//! In: requests; records. Out: commands; messages. Never: decides anything.

use super::{failure, ms, tags, wire_tags};
use crate::api::cluster::DescribedCluster;
use crate::api::cluster_name;
use crate::api::page::Page;
use crate::api::task::Described;
use crate::core::cluster::{ClusterSettings, CreateCluster, PROPAGATE_TAGS, UpdateCluster};
use crate::core::record::ClusterRecord;
use crate::error::ApiError;
use lighter_proto::v1;

fn settings(settings: Vec<v1::ClusterSetting>) -> Result<ClusterSettings, ApiError> {
    ClusterSettings::parse(settings.into_iter().map(|setting| (setting.name, setting.value)))
}

pub fn create_cluster(request: v1::CreateClusterRequest) -> Result<CreateCluster, ApiError> {
    Ok(CreateCluster {
        cluster: cluster_name(&request.cluster_name)?,
        settings: settings(request.settings)?,
        tags: tags(request.tags)?,
    })
}

pub fn update_cluster(request: v1::UpdateClusterRequest) -> Result<UpdateCluster, ApiError> {
    Ok(UpdateCluster {
        cluster: cluster_name(&request.cluster)?,
        settings: settings(request.settings)?,
        release_brake: request.release_replacement_brake,
    })
}

pub fn cluster_page(page: Page) -> v1::ListClustersResponse {
    v1::ListClustersResponse { clusters: page.items, next_token: page.next_token }
}

pub fn described_clusters(described: Described<DescribedCluster>) -> v1::DescribeClustersResponse {
    v1::DescribeClustersResponse {
        clusters: described.found.iter().map(cluster).collect(),
        failures: described.failures.into_iter().map(failure).collect(),
    }
}

pub fn cluster(described: &DescribedCluster) -> v1::Cluster {
    let counts = &described.counts;
    v1::Cluster {
        registered_container_instances_count: counts.instances,
        running_tasks_count: counts.running,
        pending_tasks_count: counts.pending,
        ..cluster_record(&described.cluster)
    }
}

pub(super) fn cluster_record(record: &ClusterRecord) -> v1::Cluster {
    let status = if record.is_active() { v1::ClusterStatus::Active } else { v1::ClusterStatus::Inactive };
    let value = if record.propagate_tags { "TASK_DEFINITION" } else { "NONE" };
    v1::Cluster {
        name: record.name.to_string(),
        status: status.into(),
        settings: vec![v1::ClusterSetting { name: PROPAGATE_TAGS.to_owned(), value: value.to_owned() }],
        tags: wire_tags(&record.tags),
        created_at_unix_ms: ms(record.created_at_unix_ms),
        replacement_brake: record.brake.map(|brake| v1::ReplacementBrake {
            since_unix_ms: ms(brake.since_unix_ms),
            silent_container_instances: brake.silent,
            container_instances: brake.nodes,
        }),
        ..Default::default()
    }
}
