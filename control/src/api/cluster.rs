//! CreateCluster, UpdateCluster, DeleteCluster, DescribeClusters, ListClusters.
//! In: checked names, settings, tags. Out: clusters with what they hold. Never: hides an INACTIVE one
//! from who asks for it by name.

use super::page::{Page, PageRequest, fill};
use super::task::{Described, describe_all};
use super::{Context, DEFAULT_CLUSTER, cluster_name};
use crate::core::audit::Asker;
use crate::core::cluster::{Counts, CreateCluster, DeleteCluster, UpdateCluster, counts};
use crate::core::record::ClusterRecord;
use crate::error::ApiError;
use crate::view::Shown;
use lighter_model::ids::ClusterName;
use std::ops::Bound;
use std::sync::Arc;

/// A cluster with what it holds.
#[derive(Debug, Clone)]
pub struct DescribedCluster {
    pub cluster: Arc<ClusterRecord>,
    pub counts: Counts,
}

impl DescribedCluster {
    pub(super) fn of(shown: &Shown, cluster: &Arc<ClusterRecord>) -> Self {
        Self { cluster: cluster.clone(), counts: counts(&shown.state, &cluster.name) }
    }

    fn now(context: &Context, cluster: &Arc<ClusterRecord>) -> Self {
        context.view.read(|shown| Self::of(shown, cluster))
    }
}

/// Makes a cluster.
pub async fn create(
    context: &Context,
    asker: Asker,
    wanted: CreateCluster,
) -> Result<DescribedCluster, ApiError> {
    Ok(DescribedCluster::now(context, &context.change(asker, wanted).await?))
}

/// Changes a cluster's settings.
pub async fn update(
    context: &Context,
    asker: Asker,
    wanted: UpdateCluster,
) -> Result<DescribedCluster, ApiError> {
    Ok(DescribedCluster::now(context, &context.change(asker, wanted).await?))
}

/// Makes a cluster INACTIVE.
pub async fn delete(
    context: &Context,
    asker: Asker,
    cluster: ClusterName,
) -> Result<DescribedCluster, ApiError> {
    Ok(DescribedCluster::now(context, &context.change(asker, DeleteCluster { cluster }).await?))
}

/// Describes up to 100 clusters; `default` when none is named.
pub fn describe(context: &Context, mut names: Vec<String>) -> Result<Described<DescribedCluster>, ApiError> {
    if names.is_empty() {
        names.push(DEFAULT_CLUSTER.to_owned());
    }
    context.view.read(|shown| {
        describe_all(&context.quotas, "clusters", &names, |name| {
            let name = cluster_name(name)?;
            let found = shown.state.clusters.get(&name).map(|cluster| DescribedCluster::of(shown, cluster));
            found.ok_or_else(|| ApiError::ClusterNotFound { cluster: name.to_string() })
        })
    })
}

/// Lists the names of the ACTIVE clusters.
pub fn list(context: &Context, page: &PageRequest) -> Result<Page, ApiError> {
    let limit = page.limit(&context.quotas)?;
    let bound = page.after_as::<ClusterName>()?.map_or(Bound::Unbounded, Bound::Excluded);
    Ok(context.view.read(|shown| {
        let clusters = shown.state.clusters.range((bound, Bound::Unbounded)).map(|(_, cluster)| cluster);
        fill(clusters.filter(|cluster| cluster.is_active()).map(|cluster| cluster.name.to_string()), limit)
    }))
}
