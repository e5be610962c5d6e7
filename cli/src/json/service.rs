//! Services, endpoints, placement as JSON, in ECS's member names.
//! In: messages of the API. Out: values. Never: leaves out what a program needs to decide.

use super::{Object, silence, tags};
use crate::words;
use lighter_proto::v1;
use serde_json::{Value, json};

/// A service, whole.
pub fn service(service: &v1::Service) -> Value {
    let breaker = service.circuit_breaker.clone().unwrap_or_default();
    let propagate = service.propagate_tags().as_str_name().trim_start_matches("PROPAGATE_TAGS_");
    let list = |values: Vec<Value>| Value::from(values);
    Object::default()
        .text("serviceName", &service.service_name)
        .text("cluster", &service.cluster)
        .text("status", words::service_status(service.status))
        .text("schedulingStrategy", words::scheduling_strategy(service.scheduling_strategy))
        .text("taskDefinition", &service.task_definition)
        .value("desiredCount", service.desired_count)
        .value("runningCount", service.running_count)
        .value("pendingCount", service.pending_count)
        .value(
            "deploymentConfiguration",
            json!({
                "minimumHealthyPercent": service.minimum_healthy_percent,
                "maximumPercent": service.maximum_percent,
                "deploymentCircuitBreaker": {
                    "enable": breaker.enable,
                    "rollback": breaker.rollback,
                    "resetOnHealthyTask": breaker.reset_on_healthy_task,
                    "thresholdConfiguration": {
                        "type": breaker.threshold_type,
                        "value": breaker.threshold_value,
                    },
                },
            }),
        )
        .value("healthCheckGracePeriodSeconds", service.health_check_grace_period_s)
        .value("deregistrationDelaySeconds", service.deregistration_delay_s)
        .value("placementConstraints", list(service.placement_constraints.iter().map(constraint).collect()))
        .value("placementStrategy", list(service.placement_strategy.iter().map(strategy).collect()))
        .text("propagateTags", if propagate == "UNSPECIFIED" { "" } else { propagate })
        .value("nodeSilence", service.node_silence.as_ref().map(silence))
        .value("deployments", list(service.deployments.iter().map(deployment).collect()))
        .value("events", list(service.events.iter().map(service_event).collect()))
        .value("tags", tags(&service.tags))
        .text("createdBy", &service.created_by)
        .time("createdAt", service.created_at_unix_ms)
        .value("version", service.version)
        .time("throttledUntil", service.throttled_until_unix_ms)
        .done()
}

pub fn constraint(constraint: &v1::PlacementConstraint) -> Value {
    Object::default().text("type", &constraint.r#type).text("expression", &constraint.expression).done()
}

pub fn strategy(strategy: &v1::PlacementStrategy) -> Value {
    Object::default()
        .text("type", &strategy.r#type)
        .text("field", &strategy.field)
        .text("expression", &strategy.expression)
        .done()
}

fn deployment(deployment: &v1::Deployment) -> Value {
    Object::default()
        .text("id", &deployment.id)
        .text("status", words::deployment_status(deployment.status))
        .text("taskDefinition", &deployment.task_definition)
        .value("desiredCount", deployment.desired_count)
        .value("pendingCount", deployment.pending_count)
        .value("runningCount", deployment.running_count)
        .value("healthyCount", deployment.healthy_count)
        .value("failedTasks", deployment.failed_tasks)
        .text("rolloutState", words::rollout_state(deployment.rollout_state))
        .text("rolloutStateReason", &deployment.rollout_state_reason)
        .time("createdAt", deployment.created_at_unix_ms)
        .time("updatedAt", deployment.updated_at_unix_ms)
        .value("imageDigests", json!(deployment.image_digests))
        .text("rollbackOf", &deployment.rollback_of)
        .done()
}

/// One line of a service's history.
pub fn service_event(event: &v1::ServiceEvent) -> Value {
    Object::default()
        .text("id", &event.id)
        .time("createdAt", event.created_at_unix_ms)
        .text("message", &event.message)
        .done()
}

/// A whole list of endpoints.
pub fn endpoints(list: &v1::Endpoints) -> Value {
    let one = |endpoint: &v1::Endpoint| {
        json!({
            "taskId": endpoint.task_id,
            "address": endpoint.address,
            "port": endpoint.port,
            "containerInstanceId": endpoint.container_instance_id,
        })
    };
    json!({"sequence": list.sequence, "endpoints": list.endpoints.iter().map(one).collect::<Vec<_>>()})
}

/// Why tasks go where they go, or nowhere.
pub fn explanation(explanation: &v1::PlacementExplanation) -> Value {
    let filter = |f: &v1::PlacementFilter| json!({"reason": f.reason, "fellOut": f.fell_out});
    let choice = |c: &v1::PlacementChoice| {
        json!({
            "containerInstanceId": c.container_instance_id,
            "containerInstanceName": c.container_instance_name,
            "scores": c.scores,
        })
    };
    Object::default()
        .value("containerInstances", explanation.container_instances)
        .value("filters", explanation.filters.iter().map(filter).collect::<Vec<_>>())
        .text("closestContainerInstanceId", &explanation.closest_container_instance_id)
        .text("closestContainerInstanceName", &explanation.closest_container_instance_name)
        .text("closestLacks", &explanation.closest_lacks)
        .value("choices", explanation.choices.iter().map(choice).collect::<Vec<_>>())
        .done()
}

/// What a scoring expression gave each node.
pub fn scores(scores: &[v1::PlacementScore]) -> Value {
    let one = |score: &v1::PlacementScore| {
        Object::default()
            .text("containerInstanceId", &score.container_instance_id)
            .text("containerInstanceName", &score.container_instance_name)
            .value("millionths", score.refused.is_empty().then_some(score.millionths))
            .text("refused", &score.refused)
            .done()
    };
    Value::from(scores.iter().map(one).collect::<Vec<_>>())
}

/// The protection of tasks.
pub fn protected(tasks: &[v1::ProtectedTask]) -> Value {
    let one = |task: &v1::ProtectedTask| {
        Object::default()
            .text("taskId", &task.task_id)
            .value("protectionEnabled", task.protection_enabled)
            .time("expirationDate", task.expires_at_unix_ms)
            .done()
    };
    Value::from(tasks.iter().map(one).collect::<Vec<_>>())
}
