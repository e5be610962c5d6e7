//! Health checks of simulated containers: judged some time after they RUN, and now and then otherwise.
//! In: what a task's definition is called, time, luck. Out: how its container does, as agents report it.
//! Never: judges a task whose definition has no health check, or one that does not RUN.

use crate::luck::Luck;
use lighter_proto::v1;

/// How the checks of a definition go, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    None,
    /// They succeed, and fail now and then for a while or for ever.
    Flips,
    /// They never succeed.
    Fails,
}

impl Check {
    pub(crate) fn of(definition: &str) -> Self {
        match definition {
            name if name.contains("checked") => Self::Flips,
            name if name.contains("sick") => Self::Fails,
            _ => Self::None,
        }
    }
}

/// How the one container of a task does.
#[derive(Debug)]
pub(crate) struct Health {
    check: Check,
    status: v1::HealthStatus,
    /// When its status may change next.
    pub(crate) next: Option<u64>,
}

impl Health {
    pub(crate) fn new(definition: &str) -> Self {
        Self { check: Check::of(definition), status: v1::HealthStatus::Unknown, next: None }
    }

    /// The task RUNS.
    pub(crate) fn begin(&mut self, now_ms: u64, luck: &mut Luck) {
        if self.check != Check::None {
            self.next = Some(now_ms + luck.between(500, 10_000));
        }
    }

    /// The task RUNS no longer.
    pub(crate) fn end(&mut self) {
        self.next = None;
    }

    /// Checks once; whether the status is another. When all is calm, what is healthy stays so.
    pub(crate) fn judge(&mut self, now_ms: u64, calm: bool, luck: &mut Luck) -> bool {
        use v1::HealthStatus::{Healthy, Unhealthy};
        let new = match (self.check, self.status) {
            (Check::Fails, _) => Unhealthy,
            (_, Healthy) => {
                if !calm && luck.percent(25) {
                    Unhealthy
                } else {
                    Healthy
                }
            }
            (_, Unhealthy) => {
                if !calm && luck.percent(40) {
                    Healthy
                } else {
                    Unhealthy
                }
            }
            _ => {
                if calm || luck.percent(90) {
                    Healthy
                } else {
                    Unhealthy
                }
            }
        };
        let changed = std::mem::replace(&mut self.status, new) != new;
        let pause = if new == Healthy { luck.between(10_000, 90_000) } else { luck.between(1_000, 25_000) };
        self.next = (self.check != Check::Fails).then_some(now_ms + pause);
        changed
    }

    /// What is said of the container while it runs: as agents do, its health only where it is checked.
    pub(crate) fn containers(&self) -> Vec<v1::Container> {
        if self.check == Check::None {
            return Vec::new();
        }
        vec![v1::Container {
            name: "web".to_owned(),
            last_status: v1::ContainerStatus::Running.into(),
            essential: true,
            health: Some(v1::ContainerHealth { status: self.status.into(), ..Default::default() }),
            ..Default::default()
        }]
    }
}
