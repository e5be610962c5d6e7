//! The members of a container definition that say when it starts, whether it works, and whether it
//! is started again: dependsOn, healthCheck, restartPolicy.
//! Source: Amazon ECS API reference, ContainerDependency, HealthCheck, ContainerRestartPolicy.
//! `fromImage`, `onUnhealthy` and a `restartAttemptPeriod` below 60 are our extensions.

use crate::ids::ContainerName;
use serde::{Deserialize, Serialize};

/// Another container that has to come first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    pub container_name: ContainerName,
    pub condition: DependencyCondition,
}

/// What must be true of the other container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DependencyCondition {
    /// Its program was started.
    Start,
    /// It has ended, however.
    Complete,
    /// It has ended with exit code 0.
    Success,
    /// Its health check has passed.
    Healthy,
}

impl DependencyCondition {
    /// ECS's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Success => "SUCCESS",
            Self::Healthy => "HEALTHY",
        }
    }
}

/// A command that says whether the container works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// `CMD` and arguments, `CMD-SHELL` and one text for the container's shell, or `NONE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Seconds between two checks.
    #[serde(default, rename = "interval", skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u32>,
    /// Seconds after which a check has failed.
    #[serde(default, rename = "timeout", skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Seconds after the start in which failures do not count.
    #[serde(default, rename = "startPeriod", skip_serializing_if = "Option::is_none")]
    pub start_period_s: Option<u32>,
    /// Our extension: the image's HEALTHCHECK is used, with the values above laid over it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_image: bool,
    /// Our extension: what the node does when the container becomes unhealthy.
    #[serde(default, skip_serializing_if = "OnUnhealthy::is_report")]
    pub on_unhealthy: OnUnhealthy,
}

/// ECS's defaults of a health check, in seconds and times.
pub const HEALTH_INTERVAL_S: u32 = 30;
pub const HEALTH_TIMEOUT_S: u32 = 5;
pub const HEALTH_RETRIES: u32 = 3;

/// What a node does of its own about an unhealthy container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthy {
    /// It is reported, as in ECS.
    #[default]
    Report,
    /// The container is stopped and started again.
    Restart,
    /// The task is stopped.
    Stop,
}

impl OnUnhealthy {
    fn is_report(&self) -> bool {
        *self == Self::Report
    }
}

/// Whether a container that has ended is started again in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartPolicy {
    pub enabled: bool,
    /// Exit codes after which it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_exit_codes: Vec<i32>,
    /// Seconds it must have run; 300 when absent.
    #[serde(default, rename = "restartAttemptPeriod", skip_serializing_if = "Option::is_none")]
    pub attempt_period_s: Option<u32>,
}

/// ECS's default of `restartAttemptPeriod`.
pub const RESTART_ATTEMPT_PERIOD_S: u32 = 300;
