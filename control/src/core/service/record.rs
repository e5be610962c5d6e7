//! The records of services: what is wanted, its deployments, its events, what a task knows of it.
//! In: nothing. Out: structs as stored. Never: a count that follows from the tasks.

use crate::core::record::ImageDigests;
use crate::core::service::throttle::Throttle;
use crate::core::shared::SharedText;
use crate::core::silence::policy::SilencePolicy;
use lighter_model::ids::{ClusterName, ContainerName, ServiceName, TaskDefinitionId};
use lighter_model::node::{DAEMON_GROUP_PREFIX, SERVICE_GROUP_PREFIX};
use lighter_model::placement::PlacementText;
use lighter_model::service::{CircuitBreaker, PropagateTags, SchedulingStrategy};
use lighter_model::tags::Tags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which service.
pub type ServiceKey = (ClusterName, ServiceName);

/// What becomes of a deployment.
///
/// ```text
///                pause            resume
///   IN_PROGRESS ───────> PAUSED ────────> IN_PROGRESS
///    │ │ │ └─ every task is of it and healthy ──────> COMPLETED
///    │ │ └─── the circuit breaker ──────────────────> FAILED
///    │ └───── (or PAUSED) somebody rolls it back ───> ROLLED_BACK
///    └─────── (or PAUSED) another update, or deletion > SUPERSEDED
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    InProgress,
    Paused,
    Completed,
    Failed,
    RolledBack,
    Superseded,
}

/// One revision on its way to be all of the service's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// `ecs-svc/` and 19 digits.
    pub id: String,
    pub definition: TaskDefinitionId,
    pub created_at_unix_ms: u64,
    pub updated_at_unix_ms: u64,
    pub state: RolloutState,
    pub reason: String,
    /// All that failed.
    pub failed_tasks: u32,
    /// Those that count for the circuit breaker.
    pub breaker_count: u32,
    #[serde(default)]
    pub last_failure_unix_ms: u64,
    /// What each tag means for every task of it, as the first that pulled it said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image_digests: ImageDigests,
    /// Tasks that were started to find that out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub digest_tasks: u32,
    /// They did not: tasks start by the tags that nobody has settled, and the events have said so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unpinned: bool,
    /// The deployment it goes back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    pub cluster: ClusterName,
    pub name: ServiceName,
    pub strategy: SchedulingStrategy,
    /// 0 of a DAEMON service.
    pub desired: u32,
    pub minimum_percent: u32,
    pub maximum_percent: u32,
    #[serde(default)]
    pub breaker: CircuitBreaker,
    #[serde(default)]
    pub grace_s: u32,
    #[serde(default)]
    pub deregistration_delay_s: u32,
    #[serde(default = "yes")]
    pub rebalancing: bool,
    /// As it was asked for.
    #[serde(default, skip_serializing_if = "PlacementText::is_empty")]
    pub placement: PlacementText,
    #[serde(default)]
    pub tags: Tags,
    #[serde(default)]
    pub propagate_tags: PropagateTags,
    #[serde(default)]
    pub silence: Option<SilencePolicy>,
    #[serde(default)]
    pub created_by: String,
    pub created_at_unix_ms: u64,
    /// Grows with every change of what is wanted.
    pub version: u64,
    /// DRAINING since then, and INACTIVE when it has no tasks.
    #[serde(default)]
    pub deleted_at_unix_ms: Option<u64>,
    #[serde(default)]
    pub inactive_at_unix_ms: Option<u64>,
    /// The newest first; never empty.
    pub deployments: Vec<DeploymentRecord>,
    #[serde(default)]
    pub throttle: Throttle,
    /// The number of its last event.
    #[serde(default)]
    pub event_number: u64,
    /// What its events have told and that still holds.
    #[serde(default)]
    pub told: Told,
    /// SHA-256 of the input that made it, in hex, with the client token.
    #[serde(default)]
    pub fingerprint: String,
}

fn yes() -> bool {
    true
}

/// So that nothing is told twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    pub steady: bool,
    pub blocked: bool,
    pub impaired: bool,
    /// The words that said why nothing can be placed.
    pub unplaced: String,
    /// Tasks whose protection is waited for.
    pub protected: Vec<String>,
}

/// A line of a service's event list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEventRecord {
    pub cluster: ClusterName,
    pub service: ServiceName,
    /// Within the service.
    pub number: u64,
    pub created_at_unix_ms: u64,
    pub message: String,
}

/// What a task knows of its service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTask {
    pub name: ServiceName,
    pub deployment: String,
    /// Cluster time when it was heard to be RUNNING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_unix_ms: Option<u64>,
    /// It has left the endpoint list to be stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_since_unix_ms: Option<u64>,
    /// Why it leaves.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leaving_reason: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub moving: bool,
    /// A health check of it has succeeded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub was_healthy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected_until_unix_ms: Option<u64>,
    /// It is STOPPED and its service has taken note.
    #[serde(default, skip_serializing_if = "is_false")]
    pub accounted: bool,
    /// Its node was silent for so long that it is lost; an exclusive one has ended there by its lease.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lost: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl ServiceTask {
    pub fn of(name: ServiceName, deployment: String) -> Self {
        Self {
            name,
            deployment,
            running_since_unix_ms: None,
            leaving_since_unix_ms: None,
            leaving_reason: String::new(),
            moving: false,
            was_healthy: false,
            protected_until_unix_ms: None,
            accounted: false,
            lost: false,
        }
    }
}

impl ServiceRecord {
    pub fn key(&self) -> ServiceKey {
        (self.cluster.clone(), self.name.clone())
    }

    pub fn is_active(&self) -> bool {
        self.deleted_at_unix_ms.is_none()
    }

    /// The newest deployment.
    pub fn primary(&self) -> Option<&DeploymentRecord> {
        self.deployments.first()
    }

    /// Deployments whose tasks are as the newest one wants them: its own, and after a rollback those that
    /// it goes back to, which need no exchange for the same.
    pub fn current(&self) -> Vec<&str> {
        let Some(primary) = self.primary() else { return Vec::new() };
        let same = |old: &&DeploymentRecord| {
            // One that does not know yet may find another image.
            let known = |(name, digest): (&ContainerName, &SharedText)| {
                old.image_digests.get(name).is_some_and(|has| has == digest)
            };
            old.definition == primary.definition && primary.image_digests.iter().all(known)
        };
        let older = self.deployments.iter().skip(1).filter(|_| primary.rollback_of.is_some()).filter(same);
        std::iter::once(primary).chain(older).map(|deployment| deployment.id.as_str()).collect()
    }

    /// No task of the newest revision is started or makes another stop.
    pub fn is_stalled(&self) -> bool {
        self.primary().is_some_and(|d| matches!(d.state, RolloutState::Paused | RolloutState::Failed))
    }

    /// The last deployment that was completed, but for the newest.
    pub fn last_completed(&self) -> Option<&DeploymentRecord> {
        self.deployments.iter().skip(1).find(|d| d.state == RolloutState::Completed)
    }

    /// Of which deployment new tasks are.
    pub fn starting(&self) -> Option<&DeploymentRecord> {
        if self.is_stalled() { self.last_completed() } else { self.primary() }
    }

    /// The group of its tasks.
    pub fn group(&self) -> String {
        match self.strategy {
            SchedulingStrategy::Replica => format!("{SERVICE_GROUP_PREFIX}{}", self.name),
            // Nodes start such tasks first and stop them last.
            SchedulingStrategy::Daemon => format!("{DAEMON_GROUP_PREFIX}{}", self.name),
        }
    }
}
