//! Whether a container, or a task, works: ECS's words, and how a task's health follows from its
//! containers'. Source: Amazon ECS Developer Guide, "Determine Amazon ECS task health".

use serde::{Deserialize, Serialize};

/// From good to bad; the worst of several is the greatest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    Healthy,
    /// Not judged yet, or there is nothing to judge by.
    #[default]
    Unknown,
    Unhealthy,
}

impl HealthStatus {
    pub const ALL: [Self; 3] = [Self::Healthy, Self::Unknown, Self::Unhealthy];

    /// ECS's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Unknown => "UNKNOWN",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

impl std::fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The task's health: the worst of its essential containers that have a health check; UNKNOWN when
/// none has one. `containers`: essential, and its health if it has a check.
pub fn task_health(containers: impl IntoIterator<Item = (bool, Option<HealthStatus>)>) -> HealthStatus {
    let judged = containers.into_iter().filter_map(|(essential, health)| health.filter(|_| essential));
    judged.max().unwrap_or_default()
}

/// What is known of a container by its health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerHealth {
    pub status: HealthStatus,
    /// Wall clock of the last change of `status`.
    pub since_unix_ms: u64,
    /// Failures in a row.
    pub failing_streak: u32,
    /// How the last check ended, in words: `exit code 1`, `no answer within 5 s`; empty before the first.
    pub last_end: String,
    /// The first 1,024 bytes of what it printed, as ECS keeps them.
    pub last_output: String,
}

#[cfg(test)]
mod tests {
    use super::HealthStatus::{Healthy, Unhealthy, Unknown};
    use super::*;

    #[test]
    fn a_task_is_as_healthy_as_the_worst_of_its_essential_containers() {
        type Container = (bool, Option<HealthStatus>);
        let table: &[(&[Container], HealthStatus)] = &[
            (&[], Unknown),
            (&[(true, None)], Unknown),
            (&[(false, Some(Unhealthy))], Unknown),
            (&[(true, Some(Healthy)), (true, None)], Healthy),
            (&[(true, Some(Healthy)), (false, Some(Unhealthy))], Healthy),
            (&[(true, Some(Healthy)), (true, Some(Unknown))], Unknown),
            (&[(true, Some(Unhealthy)), (true, Some(Unknown)), (true, Some(Healthy))], Unhealthy),
        ];
        for (containers, expected) in table {
            assert_eq!(task_health(containers.iter().copied()), *expected, "{containers:?}");
        }
    }
}
