//! ListContainerInstances, DescribeContainerInstances, UpdateContainerInstancesState,
//! DeregisterContainerInstance.
//! In: filters and names. Out: ids, and instances with what is left of them.
//! Never: changes more of an instance than whether it drains; the rest is for its node and for joining.

use super::page::{Page, PageRequest, fill};
use super::task::{Described, describe_all};
use super::{Context, existing_cluster};
use crate::core::audit::Asker;
use crate::core::deregister::DeregisterInstance;
use crate::core::drain::UpdateInstancesState;
use crate::core::instance::find_instance;
use crate::core::query::QueriedInstance;
use crate::core::record::{InstanceRecord, InstanceSnapshot};
use crate::core::sweep::Sweep;
use crate::error::ApiError;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::query::Expression;
use lighter_model::status::ContainerInstanceStatus;
use std::ops::Bound;
use std::sync::Arc;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub cluster: String,
    /// `None`: all but INACTIVE.
    pub status: Option<ContainerInstanceStatus>,
    /// In the cluster query language.
    pub query: Option<Expression>,
    pub page: PageRequest,
}

/// Lists ids, in the order of joining.
pub fn list(context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let after: Option<ContainerInstanceId> = filter.page.after_as()?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &filter.cluster)?;
        let wanted = |instance: &&Arc<InstanceRecord>| {
            let status = match filter.status {
                Some(status) => instance.status == status,
                None => instance.status != ContainerInstanceStatus::Inactive,
            };
            let asked = |query: &Expression| query.matches(&QueriedInstance::new(&shown.state, instance));
            status && instance.cluster == cluster && filter.query.as_ref().is_none_or(asked)
        };
        let bound = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = shown.state.instances.range((bound, Bound::Unbounded)).map(|(_, instance)| instance);
        Ok(fill(all.filter(wanted).map(|instance| instance.id.to_string()), limit))
    })
}

/// Drains instances, or gives them tasks again.
pub async fn update_state(
    context: &Context,
    asker: Asker,
    request: UpdateInstancesState,
) -> Result<Described<InstanceSnapshot>, ApiError> {
    let updated = context.change(asker, request).await?;
    Ok(Described { found: updated.instances, failures: updated.failures })
}

/// Takes an instance out of its cluster.
pub async fn deregister(
    context: &Context,
    asker: Asker,
    request: DeregisterInstance,
) -> Result<InstanceSnapshot, ApiError> {
    let mut now = context.change(asker, request).await?;
    // Its tasks are given up a chunk at a time.
    while now.instance.status == ContainerInstanceStatus::Deregistering {
        context.writer.submit(Sweep).await?;
        let id = now.instance.id.clone();
        let newer = context
            .view
            .read(|shown| shown.state.instances.get(&id).map(|instance| shown.state.snapshot(instance)));
        match newer {
            Some(newer) => now = newer,
            None => break,
        }
    }
    Ok(now)
}

/// Describes 1 to 100 instances by id, ARN, name or unique prefix.
pub fn describe(
    context: &Context,
    cluster: &str,
    names: &[String],
) -> Result<Described<InstanceSnapshot>, ApiError> {
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, cluster)?;
        describe_all(&context.quotas, "containerInstances", names, |name| {
            find_instance(&shown.state, &cluster, name).map(|found| shown.state.snapshot(&found))
        })
    })
}
