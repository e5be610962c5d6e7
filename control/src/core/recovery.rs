//! What a store that is not the one its nodes knew learns from them, before it decides anything that
//! depends on it. The store is another after a restore, a migration, or an empty start.
//! In: the incarnation at the beginning of a term; what a node's hello tells. Out: nodes that get no
//! task until they have said hello, revisions that are not given again, nodes that come back.
//! Never: waits by itself, or believes a node further than the quota of revisions.

use crate::core::Command;
use crate::core::join::blank_instance;
use crate::core::mutation::{Changes, Mutation, id_parts};
use crate::core::record::{FamilyRecord, InstanceRecord, MetaRecord, OrphanFacts};
use crate::core::state::State;
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, ContainerInstanceId, Family, TaskId};
use lighter_model::status::ContainerInstanceStatus;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Records that one command writes, to stay within one group.
const CHUNK: usize = 20;

/// What a node's hello tells beside the node itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Of the store that greets the node.
    pub incarnation: String,
    /// The highest revision of each family that the node has or keeps.
    pub revisions: BTreeMap<Family, u32>,
    /// What its tasks are, by id; of an agent that does not tell it, nothing.
    pub tasks: BTreeMap<TaskId, OrphanFacts>,
}

/// Whether this node has told this store what it holds.
pub fn is_awaited(instance: &InstanceRecord, incarnation: &str) -> bool {
    let usable = [ContainerInstanceStatus::Active, ContainerInstanceStatus::Draining];
    usable.contains(&instance.status) && instance.incarnation != incarnation
}

/// At the beginning of a term: nodes that have not said hello to this incarnation of the store count as
/// away, so that nothing is placed on top of what they hold and the store does not know.
#[derive(Debug, Clone)]
pub struct AwaitNodes {
    pub incarnation: String,
}

impl Command for AwaitNodes {
    /// Whether more remain: give the command again.
    type Answer = bool;

    fn decide(self, changes: &mut Changes<'_>) -> Result<bool, ApiError> {
        let instances = changes.state().instances.values();
        let awaited = instances.filter(|i| i.connected && is_awaited(i, &self.incarnation));
        let awaited: Vec<Arc<InstanceRecord>> = awaited.take(CHUNK).cloned().collect();
        for instance in &awaited {
            changes.put_instance(InstanceRecord { connected: false, ..(**instance).clone() });
        }
        Ok(awaited.len() == CHUNK)
    }
}

/// No revision that a node knows is given again. Whether some had to be raised.
pub fn raise_revisions(changes: &mut Changes<'_>, revisions: &BTreeMap<Family, u32>) -> bool {
    let limit = changes.settings().quotas.revisions_per_family;
    let known = &changes.state().families;
    let higher = revisions.iter().filter(|(family, revision)| {
        // What the quota does not allow was never given: no node makes a family unusable.
        **revision <= limit && known.get(*family).is_none_or(|record| record.last_revision < **revision)
    });
    let higher: Vec<FamilyRecord> = higher
        .take(CHUNK)
        .map(|(family, revision)| FamilyRecord { family: family.clone(), last_revision: *revision })
        .collect();
    let raised = !higher.is_empty();
    higher.into_iter().for_each(|record| changes.record(Mutation::Family(Arc::new(record))));
    raised
}

/// A node whose certificate is older than this store's cluster was never deregistered here: after an
/// empty start it comes back under its identity, and what it holds with it.
#[derive(Debug, Clone)]
pub struct Readmit {
    pub cluster: ClusterName,
    pub instance: ContainerInstanceId,
}

/// Whether `Readmit` would bring it back.
pub fn may_return(state: &State, cluster: &ClusterName, instance: &ContainerInstanceId) -> bool {
    let Some(cluster) = state.clusters.get(cluster).filter(|cluster| cluster.is_active()) else {
        return false;
    };
    let joined = id_parts(instance.as_str()).map(|(ms, _)| ms);
    !state.instances.contains_key(instance) && joined.is_some_and(|ms| ms < cluster.created_at_unix_ms)
}

impl Command for Readmit {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        if may_return(changes.state(), &self.cluster, &self.instance) {
            let now = changes.now_ms();
            let name = self.instance.to_string();
            changes.put_instance(blank_instance(self.instance, self.cluster, name, BTreeMap::new(), now));
        }
        Ok(())
    }
}

/// The first control plane of a store says whose certificates its nodes trust; every other must have
/// the same authority.
#[derive(Debug, Clone, Copy)]
pub struct PinCa {
    pub ca: u64,
}

impl Command for PinCa {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let meta = changes.state().meta;
        if meta.ca == 0 {
            changes.record(Mutation::Meta(MetaRecord { ca: self.ca, ..meta }));
        }
        Ok(())
    }
}
