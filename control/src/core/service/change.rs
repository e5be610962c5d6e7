//! Services made, changed and deleted.
//! In: `CreateService`, `UpdateService`, `DeleteService`. Out: records. What follows is done by `tend`.
//! Never: starts or stops a task here; makes a service of a name that is ACTIVE or DRAINING.
//! Source: Amazon ECS API reference, CreateService, UpdateService, DeleteService.

use super::deployment::{self, Rollout};
use super::record::{RolloutState, ServiceKey, ServiceRecord, Told};
use super::throttle::Throttle;
use crate::core::Command;
use crate::core::definition::find_definition;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::DefinitionRecord;
use crate::core::run_task::require_cluster;
use crate::core::silence::policy::SilencePolicy;
use crate::core::state::State;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ServiceName};
use lighter_model::placement::{Placement, PlacementText};
use lighter_model::service::{NodeSilence, PropagateTags, SchedulingStrategy, ServiceInput};
use lighter_model::tags;
use std::sync::Arc;

/// What a service of tasks with ports waits between the endpoint list and the stop signal.
const DEREGISTRATION_DELAY_S: u32 = 5;

/// Makes a service.
#[derive(Debug, Clone)]
pub struct CreateService {
    pub cluster: ClusterName,
    pub input: ServiceInput,
    pub created_by: String,
    /// SHA-256 of the input, in hex.
    pub fingerprint: String,
}

/// Finds a service by name or ARN, also one that is INACTIVE.
pub fn find_service(
    state: &State,
    cluster: &ClusterName,
    text: &str,
) -> Result<Arc<ServiceRecord>, ApiError> {
    let name = text.rsplit('/').next().unwrap_or(text);
    let missing = || ApiError::ServiceNotFound { service: name.to_owned(), cluster: cluster.to_string() };
    let name: ServiceName = name.parse().map_err(|_| missing())?;
    state.services.get(&(cluster.clone(), name.clone())).cloned().ok_or_else(missing)
}

/// The same; one that is deleted is refused.
pub fn active_service(
    state: &State,
    cluster: &ClusterName,
    text: &str,
) -> Result<Arc<ServiceRecord>, ApiError> {
    require_cluster(state, cluster)?;
    let service = find_service(state, cluster, text)?;
    match service.is_active() {
        true => Ok(service),
        false => Err(ApiError::ServiceNotActive { service: service.name.to_string() }),
    }
}

fn definition(state: &State, name: &str) -> Result<Arc<DefinitionRecord>, ApiError> {
    let definition = find_definition(state, name)?;
    match definition.is_active() {
        true => Ok(definition),
        false => Err(ApiError::TaskDefinitionInactive { name: definition.id.to_string() }),
    }
}

fn silence(
    wanted: NodeSilence,
    strategy: SchedulingStrategy,
    definition: &DefinitionRecord,
    heartbeat_ms: u64,
) -> Result<Option<SilencePolicy>, ApiError> {
    let NodeSilence { lost_after_s, replace, exclusive, lease_s } = wanted;
    if strategy == SchedulingStrategy::Daemon && replace {
        let message = "a DAEMON service has its task on that instance and nowhere else";
        return Err(ApiError::invalid("nodeSilence.replace", message));
    }
    SilencePolicy { lost_after_s, replace, exclusive, lease_s }.checked(&definition.definition, heartbeat_ms)
}

/// Without a word a DAEMON's tasks are left alone on a silent node, and those of others are replaced.
fn silence_default(strategy: SchedulingStrategy) -> NodeSilence {
    NodeSilence { replace: strategy == SchedulingStrategy::Replica, ..NodeSilence::default() }
}

fn has_ports(definition: &DefinitionRecord) -> bool {
    definition.definition.container_definitions.iter().any(|container| !container.port_mappings.is_empty())
}

impl Command for CreateService {
    type Answer = Arc<ServiceRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        if let Some(found) = self.repeated(changes.state())? {
            return Ok(found);
        }
        let record = self.record(changes)?;
        let key = record.key();
        forget_events(changes, &key);
        Ok(changes.put_service(record))
    }
}

impl CreateService {
    /// The service that the same call has made.
    pub(crate) fn repeated(&self, state: &State) -> Result<Option<Arc<ServiceRecord>>, ApiError> {
        let Ok(name) = self.input.service.parse::<ServiceName>() else { return Ok(None) };
        let Some(found) = state.services.get(&(self.cluster.clone(), name)) else { return Ok(None) };
        match (found.is_active(), found.inactive_at_unix_ms) {
            (true, _) if found.fingerprint == self.fingerprint => Ok(Some(found.clone())),
            (true, _) => Err(ApiError::ServiceExists { service: found.name.to_string() }),
            (false, None) => Err(ApiError::ServiceDraining { service: found.name.to_string() }),
            (false, Some(_)) => Ok(None),
        }
    }

    fn record(&self, changes: &Changes<'_>) -> Result<ServiceRecord, ApiError> {
        let input = &self.input;
        let name = input.service.parse::<ServiceName>();
        let name = name.map_err(|error| ApiError::invalid("serviceName", error.to_string()))?;
        let definition = definition(changes.state(), input.task_definition.as_deref().unwrap_or_default())?;
        let daemon = input.strategy == SchedulingStrategy::Daemon;
        let tags = tags::checked(input.tags.iter().cloned());
        let tags = tags.map_err(|error| ApiError::invalid("tags", error.to_string()))?;
        changes.settings().quotas.tags(tags.len())?;
        let wanted = input.node_silence.unwrap_or(silence_default(input.strategy));
        let heartbeat_ms = changes.settings().heartbeat_ms;
        let silence = silence(wanted, input.strategy, &definition, heartbeat_ms)?;
        let delay = if has_ports(&definition) { DEREGISTRATION_DELAY_S } else { 0 };
        let mut record = ServiceRecord {
            cluster: self.cluster.clone(),
            name,
            strategy: input.strategy,
            desired: input.desired_count.unwrap_or(0),
            minimum_percent: input.minimum_healthy_percent.unwrap_or(if daemon { 0 } else { 100 }),
            maximum_percent: input.maximum_percent.unwrap_or(if daemon { 100 } else { 200 }),
            breaker: input.circuit_breaker.unwrap_or_default(),
            grace_s: input.health_check_grace_period_s.unwrap_or(0),
            deregistration_delay_s: input.deregistration_delay_s.unwrap_or(delay),
            rebalancing: input.rebalancing.unwrap_or(true),
            placement: PlacementText {
                constraints: input.placement_constraints.clone().unwrap_or_default(),
                strategies: input.placement_strategy.clone().unwrap_or_default(),
            },
            tags,
            propagate_tags: input.propagate_tags.unwrap_or(PropagateTags::None),
            silence,
            created_by: self.created_by.clone(),
            created_at_unix_ms: changes.now_ms(),
            version: 1,
            deleted_at_unix_ms: None,
            inactive_at_unix_ms: None,
            deployments: Vec::new(),
            throttle: Throttle::default(),
            event_number: 0,
            told: Told::default(),
            fingerprint: self.fingerprint.clone(),
        };
        check_placement(&record)?;
        deployment::begin(changes, &mut record, Rollout::of(definition.id.clone()), RolloutState::Superseded);
        Ok(record)
    }
}

fn check_placement(record: &ServiceRecord) -> Result<(), ApiError> {
    let read = Placement::read(record.placement.clone());
    read.map_err(|error| ApiError::invalid(&error.field, error.problem))?;
    if record.strategy == SchedulingStrategy::Daemon && !record.placement.strategies.is_empty() {
        return Err(ApiError::invalid("placementStrategy", "cannot be said of a DAEMON service"));
    }
    Ok(())
}

/// Lines of a service that had the name before.
fn forget_events(changes: &mut Changes<'_>, key: &ServiceKey) {
    let range = (key.clone(), 0)..=(key.clone(), u64::MAX);
    let old: Vec<u64> = changes.state().service_events.range(range).map(|((_, number), _)| *number).collect();
    for number in old {
        changes.record(Mutation::ServiceEventGone(key.clone(), number));
    }
}

/// Changes what is wanted of a service.
#[derive(Debug, Clone)]
pub struct UpdateService {
    pub cluster: ClusterName,
    pub input: ServiceInput,
    /// 0: any.
    pub expected_version: u64,
}

impl Command for UpdateService {
    type Answer = Arc<ServiceRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let old = active_service(changes.state(), &self.cluster, &self.input.service)?;
        if self.expected_version != 0 && self.expected_version != old.version {
            let (service, version) = (old.name.to_string(), old.version);
            return Err(ApiError::ServiceChanged { service, expected: self.expected_version, version });
        }
        let rollout = self.rollout(changes.state(), &old)?;
        let mut new = (*old).clone();
        self.apply(&mut new)?;
        new.silence = self.silence(changes, &old, rollout.as_ref())?;
        if let Some(rollout) = rollout {
            deployment::begin(changes, &mut new, rollout, RolloutState::Superseded);
        }
        if new == *old {
            return Ok(old);
        }
        new.version += 1;
        new.told.steady = false;
        Ok(changes.put_service(new))
    }
}

impl UpdateService {
    /// Another revision, or the same anew; an unchanged one is no deployment.
    fn rollout(&self, state: &State, old: &ServiceRecord) -> Result<Option<Rollout>, ApiError> {
        let Some(primary) = old.primary() else { return Ok(None) };
        let wanted = match &self.input.task_definition {
            Some(name) => definition(state, name)?.id.clone(),
            None => primary.definition.clone(),
        };
        let anew = wanted != primary.definition || self.input.force_new_deployment;
        let rolls_back = primary.state == RolloutState::InProgress && primary.rollback_of.is_some();
        let anew = anew && !(rolls_back && wrong_edit::is(WrongEdit::UpdateIgnoredInRollback));
        Ok(anew.then(|| Rollout::of(wanted)))
    }

    /// What becomes of its tasks on silent nodes, as fits the revision that will be the newest.
    fn silence(
        &self,
        changes: &Changes<'_>,
        old: &ServiceRecord,
        rollout: Option<&Rollout>,
    ) -> Result<Option<SilencePolicy>, ApiError> {
        let Some(before) = old.primary().map(|primary| &primary.definition) else { return Ok(old.silence) };
        let wanted = rollout.map_or(before, |rollout| &rollout.definition);
        let missing = || ApiError::TaskDefinitionNotFound { name: wanted.to_string() };
        let find = |id| changes.state().definitions.get(id);
        let heartbeat_ms = changes.settings().heartbeat_ms;
        match (self.input.node_silence, old.silence, find(before)) {
            (Some(asked), ..) => {
                silence(asked, old.strategy, find(wanted).ok_or_else(missing)?, heartbeat_ms)
            }
            (None, Some(policy), Some(before)) if before.id != *wanted => {
                let wanted = find(wanted).ok_or_else(missing)?;
                policy.carried_over(&before.definition, &wanted.definition, heartbeat_ms).map(Some)
            }
            _ => Ok(old.silence),
        }
    }

    fn apply(&self, new: &mut ServiceRecord) -> Result<(), ApiError> {
        let input = &self.input;
        if new.strategy == SchedulingStrategy::Daemon {
            if input.desired_count.is_some() {
                return Err(ApiError::invalid("desiredCount", "cannot be said of a DAEMON service"));
            }
            if input.maximum_percent.is_some_and(|percent| percent != 100) {
                let message = "of a DAEMON service is always 100";
                return Err(ApiError::invalid("deploymentConfiguration.maximumPercent", message));
            }
        }
        new.desired = input.desired_count.unwrap_or(new.desired);
        new.minimum_percent = input.minimum_healthy_percent.unwrap_or(new.minimum_percent);
        new.maximum_percent = input.maximum_percent.unwrap_or(new.maximum_percent);
        new.breaker = input.circuit_breaker.unwrap_or(new.breaker);
        new.grace_s = input.health_check_grace_period_s.unwrap_or(new.grace_s);
        new.deregistration_delay_s = input.deregistration_delay_s.unwrap_or(new.deregistration_delay_s);
        new.rebalancing = input.rebalancing.unwrap_or(new.rebalancing);
        new.propagate_tags = input.propagate_tags.unwrap_or(new.propagate_tags);
        if let Some(constraints) = &input.placement_constraints {
            new.placement.constraints.clone_from(constraints);
        }
        if let Some(strategies) = &input.placement_strategy {
            new.placement.strategies.clone_from(strategies);
        }
        check_placement(new)
    }
}

/// Deletes a service: its tasks stop, then it is INACTIVE.
#[derive(Debug, Clone)]
pub struct DeleteService {
    pub cluster: ClusterName,
    pub service: String,
    /// Also with a desired count above 0.
    pub force: bool,
}

impl Command for DeleteService {
    type Answer = Arc<ServiceRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        let old = find_service(changes.state(), &self.cluster, &self.service)?;
        if !old.is_active() {
            return Ok(old);
        }
        if old.strategy == SchedulingStrategy::Replica && old.desired > 0 && !self.force {
            return Err(ApiError::ServiceScaled { service: old.name.to_string(), desired: old.desired });
        }
        let now = changes.now_ms();
        let mut new = ServiceRecord { deleted_at_unix_ms: Some(now), desired: 0, ..(*old).clone() };
        new.version += 1;
        deployment::abandon(&mut new, now);
        Ok(changes.put_service(new))
    }
}
