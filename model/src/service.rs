//! Reads the inputs of `aws ecs create-service` and `update-service`.
//! In: JSON text. Out: what is wanted of a service, checked as far as it can be without a cluster.
//! Owns: the list of members. Never: ignores a member; what is not supported is refused by name.
//! Source: Amazon ECS API reference, CreateService, UpdateService, DeploymentConfiguration.

use crate::ids::ServiceName;
use crate::placement::{ConstraintText, StrategyText};
use crate::task_definition::{Tag, strict_json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most tasks of one service (ECS's quota).
pub const DESIRED_COUNT_MAX: u32 = 5_000;
const GRACE_MAX_S: u32 = i32::MAX as u32;
/// ECS's longest deregistration delay.
const DEREGISTRATION_DELAY_MAX_S: u32 = 3_600;
const MAXIMUM_PERCENT_MAX: u32 = 10_000;
const NOT_SUPPORTED: &str = "is not supported";

/// What is wrong with which member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ServiceError {
    /// As ECS spells it: `deploymentConfiguration.alarms`.
    pub field: String,
    pub problem: String,
}

fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError { field: field.into(), problem: problem.into() })
}

/// How many tasks a service has: a number, or one on each container instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SchedulingStrategy {
    #[default]
    Replica,
    Daemon,
}

/// Of what a breaker's threshold is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ThresholdType {
    /// Percent of the desired count, at least 3 and at most 200.
    #[default]
    BoundedPercent,
    UnboundedPercent,
    Count,
}

/// When a deployment is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    pub enable: bool,
    pub rollback: bool,
    pub threshold_type: ThresholdType,
    pub threshold_value: u32,
    /// A healthy task sets the count back.
    pub reset_on_healthy_task: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            enable: false,
            rollback: false,
            threshold_type: ThresholdType::BoundedPercent,
            threshold_value: 50,
            reset_on_healthy_task: true,
        }
    }
}

/// Whose tags new tasks take over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PropagateTags {
    #[default]
    None,
    TaskDefinition,
    Service,
}

/// What becomes of tasks whose node falls silent; 0 and false where nothing was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSilence {
    #[serde(rename = "lostAfterSeconds")]
    pub lost_after_s: u32,
    pub replace: bool,
    pub exclusive: bool,
    #[serde(rename = "leaseSeconds")]
    pub lease_s: u32,
}

impl Default for NodeSilence {
    /// A service keeps its number: lost tasks are replaced.
    fn default() -> Self {
        Self { lost_after_s: 0, replace: true, exclusive: false, lease_s: 0 }
    }
}

/// What both inputs can say; `None`: it is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceInput {
    pub cluster: Option<String>,
    /// `serviceName` of a creation, `service` of an update.
    pub service: String,
    pub task_definition: Option<String>,
    pub desired_count: Option<u32>,
    pub minimum_healthy_percent: Option<u32>,
    pub maximum_percent: Option<u32>,
    pub circuit_breaker: Option<CircuitBreaker>,
    pub placement_constraints: Option<Vec<ConstraintText>>,
    pub placement_strategy: Option<Vec<StrategyText>>,
    pub health_check_grace_period_s: Option<u32>,
    pub deregistration_delay_s: Option<u32>,
    pub rebalancing: Option<bool>,
    pub propagate_tags: Option<PropagateTags>,
    pub node_silence: Option<NodeSilence>,
    /// Of an update.
    pub force_new_deployment: bool,
    /// Of a creation, like what follows.
    pub strategy: SchedulingStrategy,
    pub client_token: Option<String>,
    pub tags: Vec<(String, String)>,
}

/// Which input is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Update,
}

/// The service that `json` wants made.
///
/// # Errors
/// It is not JSON, has a member that does not exist or is not supported, or breaks a rule.
pub fn parse_create(json: &str) -> Result<ServiceInput, ServiceError> {
    let input = read(json, Verb::Create)?;
    let name: Result<ServiceName, _> = input.service.parse();
    if let Err(error) = name {
        return wrong("serviceName", error.to_string());
    }
    if input.task_definition.is_none() {
        return wrong("taskDefinition", "is required");
    }
    match (input.strategy, input.desired_count, input.maximum_percent) {
        (SchedulingStrategy::Replica, None, _) => wrong("desiredCount", "is required"),
        (SchedulingStrategy::Daemon, Some(_), _) => {
            wrong("desiredCount", "cannot be said of a DAEMON service: it has a task on each instance")
        }
        (SchedulingStrategy::Daemon, _, Some(percent)) if percent != 100 => {
            wrong("deploymentConfiguration.maximumPercent", "of a DAEMON service is always 100")
        }
        (SchedulingStrategy::Daemon, ..) if input.placement_strategy.is_some() => {
            wrong("placementStrategy", "cannot be said of a DAEMON service")
        }
        _ => Ok(input),
    }
}

/// What `json` wants changed of a service.
///
/// # Errors
/// As those of `parse_create`.
pub fn parse_update(json: &str) -> Result<ServiceInput, ServiceError> {
    let input = read(json, Verb::Update)?;
    if input.service.is_empty() {
        return wrong("service", "is required");
    }
    Ok(input)
}

fn read(json: &str, verb: Verb) -> Result<ServiceInput, ServiceError> {
    let (tree, repeated) = match strict_json::read(json) {
        Ok(read) => read,
        Err(error) => return wrong("json", error.to_string()),
    };
    if let Some(path) = repeated.into_iter().next() {
        return wrong(path, "is given twice");
    }
    let Value::Object(members) = tree else { return wrong("json", "must be an object") };
    let mut input = ServiceInput::default();
    for (name, value) in members {
        if !value.is_null() {
            member(&mut input, verb, &name, value)?;
        }
    }
    Ok(input)
}

fn typed<T: DeserializeOwned>(field: &str, value: Value) -> Result<T, ServiceError> {
    serde_json::from_value(value)
        .map_err(|error| ServiceError { field: field.to_owned(), problem: error.to_string() })
}

fn number(
    field: &str,
    value: Value,
    range: std::ops::RangeInclusive<u32>,
) -> Result<Option<u32>, ServiceError> {
    match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
        Some(number) if range.contains(&number) => Ok(Some(number)),
        _ => wrong(field, format!("must be {} to {}, got {value}", range.start(), range.end())),
    }
}

fn member(input: &mut ServiceInput, verb: Verb, name: &str, value: Value) -> Result<(), ServiceError> {
    match (verb, name) {
        (_, "cluster") => input.cluster = Some(typed(name, value)?),
        (Verb::Create, "serviceName") | (Verb::Update, "service") => input.service = typed(name, value)?,
        (_, "taskDefinition") => input.task_definition = Some(typed(name, value)?),
        (_, "desiredCount") => input.desired_count = number(name, value, 0..=DESIRED_COUNT_MAX)?,
        (_, "deploymentConfiguration") => configuration(input, value)?,
        (_, "placementConstraints") => input.placement_constraints = Some(typed(name, value)?),
        (_, "placementStrategy") => input.placement_strategy = Some(typed(name, value)?),
        (_, "healthCheckGracePeriodSeconds") => {
            input.health_check_grace_period_s = number(name, value, 0..=GRACE_MAX_S)?;
        }
        (_, "deregistrationDelaySeconds") => {
            input.deregistration_delay_s = number(name, value, 0..=DEREGISTRATION_DELAY_MAX_S)?;
        }
        (_, "availabilityZoneRebalancing") => {
            input.rebalancing = Some(word(name, value, &["ENABLED", "DISABLED"])? == "ENABLED");
        }
        (_, "propagateTags") => input.propagate_tags = Some(typed(name, value)?),
        (_, "nodeSilence") => input.node_silence = Some(typed(name, value)?),
        (Verb::Update, "forceNewDeployment") => input.force_new_deployment = typed(name, value)?,
        (Verb::Create, "schedulingStrategy") => input.strategy = typed(name, value)?,
        (Verb::Create, "clientToken") => input.client_token = Some(typed(name, value)?),
        (Verb::Create, "tags") => {
            let tags: Vec<Tag> = typed(name, value)?;
            input.tags = tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
        }
        _ => harmless(verb, name, &value)?,
    }
    Ok(())
}

fn word(field: &str, value: Value, words: &[&str]) -> Result<String, ServiceError> {
    let text: String = typed(field, value)?;
    if words.contains(&text.as_str()) {
        return Ok(text);
    }
    wrong(field, format!("must be {}, got {text:?}", words.join(" or ")))
}

/// Members that change nothing with these values, and those that are refused by name.
fn harmless(verb: Verb, name: &str, value: &Value) -> Result<(), ServiceError> {
    let is_empty = value.as_array().is_some_and(Vec::is_empty);
    match (verb, name) {
        (Verb::Create, "launchType") if value == "EC2" => Ok(()),
        (Verb::Create, "launchType") => wrong(name, format!("must be EC2, got {value}")),
        (_, "deploymentController") if *value == serde_json::json!({"type": "ECS"}) => Ok(()),
        (_, "deploymentController") => wrong(name, "must be of type ECS"),
        // What runs can always be looked into.
        (_, "enableExecuteCommand") if value.is_boolean() => Ok(()),
        (_, "enableECSManagedTags") if *value == false => Ok(()),
        (
            _,
            "loadBalancers"
            | "serviceRegistries"
            | "capacityProviderStrategy"
            | "volumeConfigurations"
            | "vpcLatticeConfigurations",
        ) if is_empty => Ok(()),
        (_, "loadBalancers") => wrong(name, "is not supported; WatchEndpoints tells where tasks are reached"),
        (
            _,
            "serviceRegistries"
            | "capacityProviderStrategy"
            | "volumeConfigurations"
            | "vpcLatticeConfigurations"
            | "networkConfiguration"
            | "platformVersion"
            | "serviceConnectConfiguration"
            | "enableECSManagedTags"
            | "enableExecuteCommand",
        )
        | (Verb::Create, "role") => wrong(name, NOT_SUPPORTED),
        _ => wrong(name, "there is no such member"),
    }
}

fn configuration(input: &mut ServiceInput, value: Value) -> Result<(), ServiceError> {
    let Value::Object(members) = value else { return wrong("deploymentConfiguration", "must be an object") };
    for (name, value) in members {
        let field = format!("deploymentConfiguration.{name}");
        if value.is_null() {
            continue;
        }
        match name.as_str() {
            "minimumHealthyPercent" => input.minimum_healthy_percent = number(&field, value, 0..=100)?,
            "maximumPercent" => input.maximum_percent = number(&field, value, 100..=MAXIMUM_PERCENT_MAX)?,
            "deploymentCircuitBreaker" => input.circuit_breaker = Some(breaker(&field, value)?),
            "strategy" => drop(word(&field, value, &["ROLLING"])?),
            "alarms"
            | "bakeTimeInMinutes"
            | "lifecycleHooks"
            | "linearConfiguration"
            | "canaryConfiguration" => return wrong(field, NOT_SUPPORTED),
            _ => return wrong(field, "there is no such member"),
        }
    }
    Ok(())
}

fn breaker(field: &str, value: Value) -> Result<CircuitBreaker, ServiceError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Breaker {
        enable: bool,
        rollback: bool,
        threshold_configuration: Option<Threshold>,
        reset_on_healthy_task: Option<bool>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Threshold {
        #[serde(rename = "type")]
        kind: ThresholdType,
        value: u32,
    }
    let read: Breaker = typed(field, value)?;
    let mut breaker = CircuitBreaker {
        enable: read.enable,
        rollback: read.rollback,
        reset_on_healthy_task: read.reset_on_healthy_task.unwrap_or(true),
        ..CircuitBreaker::default()
    };
    if let Some(threshold) = read.threshold_configuration {
        if threshold.value == 0 {
            return wrong(format!("{field}.thresholdConfiguration.value"), "must be at least 1");
        }
        (breaker.threshold_type, breaker.threshold_value) = (threshold.kind, threshold.value);
    }
    Ok(breaker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(more: &str) -> Result<ServiceInput, ServiceError> {
        parse_create(&format!(r#"{{"serviceName":"web","taskDefinition":"web:1"{more}}}"#))
    }

    #[test]
    fn a_service_is_read_as_ecs_writes_it() {
        let input = create(
            r#","desiredCount":3,"launchType":"EC2","loadBalancers":[],
            "deploymentConfiguration":{"minimumHealthyPercent":50,"maximumPercent":150,
              "deploymentCircuitBreaker":{"enable":true,"rollback":true,
                "thresholdConfiguration":{"type":"COUNT","value":7}}},
            "placementStrategy":[{"type":"spread","field":"attribute:ecs.availability-zone"}],
            "nodeSilence":{"lostAfterSeconds":30,"replace":true},"deregistrationDelaySeconds":4"#,
        )
        .unwrap();
        assert_eq!((input.desired_count, input.minimum_healthy_percent), (Some(3), Some(50)));
        let breaker = input.circuit_breaker.unwrap();
        assert_eq!((breaker.threshold_type, breaker.threshold_value), (ThresholdType::Count, 7));
        assert!(breaker.reset_on_healthy_task && breaker.rollback);
        assert_eq!(input.node_silence.unwrap().lost_after_s, 30);
        assert_eq!(input.deregistration_delay_s, Some(4));
        let daemon = create(r#","schedulingStrategy":"DAEMON""#).unwrap();
        assert_eq!(daemon.strategy, SchedulingStrategy::Daemon);
        let update = parse_update(r#"{"service":"web","forceNewDeployment":true}"#).unwrap();
        assert!(update.force_new_deployment && update.desired_count.is_none());
    }

    #[test]
    fn what_is_not_supported_or_wrong_is_refused_by_name() {
        let table = [
            (r#","desiredCount":1,"loadBalancers":[{}]"#, "loadBalancers"),
            (r#","desiredCount":1,"networkConfiguration":{}"#, "networkConfiguration"),
            (r#","desiredCount":1,"launchType":"FARGATE""#, "launchType"),
            (r#","desiredCount":1,"desired":1"#, "desired"),
            (r#","desiredCount":1,"desiredCount":2"#, "desiredCount"),
            (r#","desiredCount":-1"#, "desiredCount"),
            ("", "desiredCount"),
            (r#","desiredCount":1,"forceNewDeployment":true"#, "forceNewDeployment"),
            (r#","schedulingStrategy":"DAEMON","desiredCount":1"#, "desiredCount"),
            (
                r#","schedulingStrategy":"DAEMON","deploymentConfiguration":{"maximumPercent":150}"#,
                "deploymentConfiguration.maximumPercent",
            ),
            (
                r#","desiredCount":1,"deploymentConfiguration":{"alarms":{}}"#,
                "deploymentConfiguration.alarms",
            ),
            (
                r#","desiredCount":1,"deploymentConfiguration":{"minimumHealthyPercent":101}"#,
                "deploymentConfiguration.minimumHealthyPercent",
            ),
        ];
        for (more, field) in table {
            assert_eq!(create(more).unwrap_err().field, field, "{more}");
        }
        assert_eq!(parse_create("[]").unwrap_err().field, "json");
        assert_eq!(parse_update("{}").unwrap_err().field, "service");
    }
}
