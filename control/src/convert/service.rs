//! Services between the messages of the user service and our own types.
//! In: requests; records. Out: commands; messages. Never: decides anything.

use super::{failure, ms, ms_or_zero, wire_silence, wire_tags};
use crate::api::cluster_name;
use crate::api::page::Page;
use crate::api::service::{DescribedService, Filter, Listed};
use crate::api::task::Described;
use crate::core::service::breaker;
use crate::core::service::control::Action;
use crate::core::service::endpoints::Endpoint;
use crate::core::service::look::{Counts, ServiceSnapshot};
use crate::core::service::protection::{Protected, Protection, UpdateProtection};
use crate::core::service::record::{DeploymentRecord, RolloutState, ServiceEventRecord, ServiceRecord};
use crate::error::ApiError;
use lighter_model::service::{PropagateTags, SchedulingStrategy, ThresholdType};
use lighter_proto::v1;

/// The strategy of a filter; unspecified: all.
pub fn filter(request: v1::ListServicesRequest) -> Filter {
    let strategy = match request.scheduling_strategy() {
        v1::SchedulingStrategy::Unspecified => None,
        v1::SchedulingStrategy::Replica => Some(SchedulingStrategy::Replica),
        v1::SchedulingStrategy::Daemon => Some(SchedulingStrategy::Daemon),
    };
    let page = super::page_request(request.max_results, request.next_token);
    Filter { cluster: request.cluster, strategy, page }
}

pub fn service_page(page: Page) -> v1::ListServicesResponse {
    v1::ListServicesResponse { services: page.items, next_token: page.next_token }
}

pub fn action(action: v1::DeploymentAction) -> Result<Action, ApiError> {
    match action {
        v1::DeploymentAction::Pause => Ok(Action::Pause),
        v1::DeploymentAction::Resume => Ok(Action::Resume),
        v1::DeploymentAction::Rollback => Ok(Action::Rollback),
        v1::DeploymentAction::Unspecified => Err(ApiError::invalid("action", "is required")),
    }
}

pub fn described_services(described: Described<DescribedService>) -> v1::DescribeServicesResponse {
    v1::DescribeServicesResponse {
        services: described.found.iter().map(described_service).collect(),
        failures: described.failures.into_iter().map(failure).collect(),
    }
}

/// A service with its events.
pub fn described_service(described: &DescribedService) -> v1::Service {
    let events = described.events.iter().map(|event| service_event(event)).collect();
    v1::Service { events, ..service(&described.snapshot) }
}

pub fn service_event(event: &ServiceEventRecord) -> v1::ServiceEvent {
    v1::ServiceEvent {
        id: event.number.to_string(),
        created_at_unix_ms: ms(event.created_at_unix_ms),
        message: event.message.clone(),
    }
}

/// Without its events.
pub fn service(snapshot: &ServiceSnapshot) -> v1::Service {
    let record = &snapshot.service;
    let deployments = record.deployments.iter().zip(&snapshot.deployments).enumerate();
    let mut deployments: Vec<v1::Deployment> =
        deployments.map(|(place, (record, counts))| deployment(place, record, counts)).collect();
    if let (Some(task), Some(primary)) = (&snapshot.digest_of, deployments.first_mut()) {
        let waits = format!(" It waits for the image digest of task {task} before it starts others.");
        primary.rollout_state_reason.push_str(&waits);
    }
    v1::Service {
        service_name: record.name.to_string(),
        cluster: record.cluster.to_string(),
        status: status(record).into(),
        scheduling_strategy: strategy(record.strategy).into(),
        task_definition: record.primary().map(|d| d.definition.to_string()).unwrap_or_default(),
        desired_count: snapshot.desired,
        running_count: snapshot.running,
        pending_count: snapshot.pending,
        minimum_healthy_percent: record.minimum_percent,
        maximum_percent: record.maximum_percent,
        circuit_breaker: Some(circuit_breaker(record, snapshot.desired)),
        health_check_grace_period_s: record.grace_s,
        deregistration_delay_s: record.deregistration_delay_s,
        placement_constraints: constraints(record),
        placement_strategy: strategies(record),
        deployments,
        events: Vec::new(),
        tags: wire_tags(&record.tags),
        propagate_tags: propagate(record.propagate_tags).into(),
        node_silence: record.silence.map(wire_silence),
        created_by: record.created_by.clone(),
        created_at_unix_ms: ms(record.created_at_unix_ms),
        version: record.version,
        throttled_until_unix_ms: ms(record.throttle.until_unix_ms),
    }
}

fn constraints(record: &ServiceRecord) -> Vec<v1::PlacementConstraint> {
    let all = record.placement.constraints.iter();
    all.map(|c| v1::PlacementConstraint { r#type: c.kind.clone(), expression: c.expression.clone() })
        .collect()
}

fn strategies(record: &ServiceRecord) -> Vec<v1::PlacementStrategy> {
    let all = record.placement.strategies.iter();
    all.map(|s| v1::PlacementStrategy {
        r#type: s.kind.clone(),
        field: s.field.clone(),
        expression: s.expression.clone(),
    })
    .collect()
}

fn status(record: &ServiceRecord) -> v1::ServiceStatus {
    match (record.deleted_at_unix_ms, record.inactive_at_unix_ms) {
        (None, _) => v1::ServiceStatus::Active,
        (Some(_), None) => v1::ServiceStatus::Draining,
        (Some(_), Some(_)) => v1::ServiceStatus::Inactive,
    }
}

fn strategy(strategy: SchedulingStrategy) -> v1::SchedulingStrategy {
    match strategy {
        SchedulingStrategy::Replica => v1::SchedulingStrategy::Replica,
        SchedulingStrategy::Daemon => v1::SchedulingStrategy::Daemon,
    }
}

fn propagate(from: PropagateTags) -> v1::PropagateTags {
    match from {
        PropagateTags::None => v1::PropagateTags::None,
        PropagateTags::TaskDefinition => v1::PropagateTags::TaskDefinition,
        PropagateTags::Service => v1::PropagateTags::Service,
    }
}

fn circuit_breaker(record: &ServiceRecord, desired: u32) -> v1::CircuitBreaker {
    let own = &record.breaker;
    let kind = match own.threshold_type {
        ThresholdType::BoundedPercent => "BOUNDED_PERCENT",
        ThresholdType::UnboundedPercent => "UNBOUNDED_PERCENT",
        ThresholdType::Count => "COUNT",
    };
    v1::CircuitBreaker {
        enable: own.enable,
        rollback: own.rollback,
        threshold_type: kind.to_owned(),
        threshold_value: own.threshold_value,
        reset_on_healthy_task: own.reset_on_healthy_task,
        threshold: breaker::threshold(own, desired),
    }
}

fn deployment(place: usize, record: &DeploymentRecord, counts: &Counts) -> v1::Deployment {
    let status = match (place, counts.tasks) {
        (0, _) => v1::DeploymentStatus::Primary,
        (_, 0) => v1::DeploymentStatus::Inactive,
        _ => v1::DeploymentStatus::Active,
    };
    let rollout_state = match record.state {
        RolloutState::InProgress => v1::RolloutState::InProgress,
        RolloutState::Paused => v1::RolloutState::Paused,
        RolloutState::Completed => v1::RolloutState::Completed,
        RolloutState::Failed => v1::RolloutState::Failed,
        RolloutState::RolledBack => v1::RolloutState::RolledBack,
        RolloutState::Superseded => v1::RolloutState::Superseded,
    };
    let digests = record.image_digests.iter();
    v1::Deployment {
        id: record.id.clone(),
        status: status.into(),
        task_definition: record.definition.to_string(),
        desired_count: counts.desired,
        pending_count: counts.pending,
        running_count: counts.running,
        healthy_count: counts.healthy,
        failed_tasks: record.failed_tasks,
        rollout_state: rollout_state.into(),
        rollout_state_reason: record.reason.clone(),
        created_at_unix_ms: ms(record.created_at_unix_ms),
        updated_at_unix_ms: ms(record.updated_at_unix_ms),
        image_digests: digests.map(|(name, digest)| (name.to_string(), digest.to_string())).collect(),
        rollback_of: record.rollback_of.clone().unwrap_or_default(),
    }
}

pub fn endpoints(listed: Listed) -> v1::Endpoints {
    let endpoint = |endpoint: Endpoint| v1::Endpoint {
        task_id: endpoint.task.to_string(),
        address: endpoint.address,
        port: endpoint.port.into(),
        container_instance_id: endpoint.instance.to_string(),
    };
    v1::Endpoints {
        sequence: listed.sequence,
        endpoints: listed.endpoints.into_iter().map(endpoint).collect(),
    }
}

pub fn update_protection(request: v1::UpdateTaskProtectionRequest) -> Result<UpdateProtection, ApiError> {
    Ok(UpdateProtection {
        cluster: cluster_name(&request.cluster)?,
        tasks: request.tasks,
        enabled: request.protection_enabled,
        minutes: request.expires_in_minutes,
    })
}

fn protected(task: Protected) -> v1::ProtectedTask {
    v1::ProtectedTask {
        task_id: task.task.to_string(),
        protection_enabled: task.until_unix_ms.is_some(),
        expires_at_unix_ms: ms_or_zero(task.until_unix_ms),
    }
}

pub fn updated_protection(protection: Protection) -> v1::UpdateTaskProtectionResponse {
    v1::UpdateTaskProtectionResponse {
        protected_tasks: protection.tasks.into_iter().map(protected).collect(),
        failures: protection.failures.into_iter().map(failure).collect(),
    }
}

pub fn protection(protection: Protection) -> v1::GetTaskProtectionResponse {
    let v1::UpdateTaskProtectionResponse { protected_tasks, failures } = updated_protection(protection);
    v1::GetTaskProtectionResponse { protected_tasks, failures }
}
