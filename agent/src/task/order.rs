//! In which order the containers of a task start and stop. Pure.
//! In: the definition's dependencies, what is known of each container, the time. Out: for each
//! container whether it may start now, what it waits for and until when, or why it never can.
//! ```text
//!             no condition open         its program runs
//!  Pending ─────────────────► Starting ─────────────────► Running ──► Ended (for good)
//!     │ a condition can never hold       │ cannot start       ▲ started again: stays Running
//!     ▼                                  ▼
//!  Impossible (ends the task)         NeverStarted
//! ```
//! As in ECS: START holds of what has ended as well; COMPLETE, SUCCESS and HEALTHY must hold within
//! the other's startTimeout; links and volumesFrom count as START; stopping goes the other way round.
//! Owns nothing. Never: reads a clock, or lets anything wait for what cannot come.
//! Source: Amazon ECS API reference, ContainerDependency; the agent's dependency graph.

use lighter_model::health::HealthStatus;
use lighter_model::ids::ContainerName;
use lighter_model::task_definition::{DependencyCondition, TaskDefinition};
use std::collections::BTreeSet;
use std::fmt;

/// ECS gives a task up whose containers do not become healthy in about this time; without a
/// startTimeout nothing else would.
const HEALTHY_WAIT_MS: u64 = 3 * 3600 * 1000;

/// What is known of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Never started.
    Pending,
    /// Its first start is under way.
    Starting,
    /// Its program runs, or waits to be started again.
    Running,
    /// It ran and does so no more; `None`: its exit code is not known.
    Ended { exit_code: Option<i32> },
    /// It could not be started.
    NeverStarted,
}

/// A container at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub phase: Phase,
    pub health: HealthStatus,
    /// Of its first program, on the boot-time clock.
    pub started_boot_ms: Option<u64>,
}

/// One container's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub name: ContainerName,
    /// Indexes of other places.
    pub after: Vec<(usize, DependencyCondition)>,
    /// Within which what others wait for must become true of it; `None`: no bound.
    pub start_timeout_ms: Option<u64>,
}

/// One condition that is not true yet, for people and for `task why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    pub container: ContainerName,
    pub on: ContainerName,
    pub condition: DependencyCondition,
    /// When `on` was started; `None`: it is not.
    pub since_boot_ms: Option<u64>,
    /// When it will be too late; `None`: as long as `on` runs, or `on` itself waits.
    pub deadline_boot_ms: Option<u64>,
}

/// Why a condition can never become true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    NeverStarted,
    EndedWith(Option<i32>),
    /// Ended before it was healthy.
    EndedUnhealthy,
    TimedOut {
        seconds: u64,
    },
}

/// A container that can never start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Impossible {
    pub container: ContainerName,
    pub on: ContainerName,
    pub condition: DependencyCondition,
    pub why: Why,
}

/// What is to be done about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It was started, or is being started, or never will be.
    Nothing,
    Start,
    Wait(Vec<Wait>),
    Impossible(Impossible),
}

/// The places of a definition's containers, in its order. Names that it does not have are left out.
pub(crate) fn places(definition: &TaskDefinition, second_ms: u64) -> Vec<Place> {
    let containers = &definition.container_definitions;
    let index = |name: &str| containers.iter().position(|container| container.name.as_str() == name);
    containers
        .iter()
        .map(|container| Place {
            name: container.name.clone(),
            after: container.comes_after().filter_map(|(name, c)| Some((index(name)?, c))).collect(),
            start_timeout_ms: container
                .start_timeout_s
                .filter(|seconds| *seconds > 0)
                .map(|seconds| u64::from(seconds) * second_ms),
        })
        .collect()
}

/// What to do now about each container, in the places' order.
pub(crate) fn decide(places: &[Place], views: &[View], now_boot_ms: u64) -> Vec<Decision> {
    places
        .iter()
        .zip(views)
        .map(|(place, view)| decide_one(places, views, place, view, now_boot_ms))
        .collect()
}

fn decide_one(places: &[Place], views: &[View], place: &Place, view: &View, now_boot_ms: u64) -> Decision {
    if view.phase != Phase::Pending {
        return Decision::Nothing;
    }
    let mut waits = Vec::new();
    for (on, condition) in &place.after {
        let (Some(other), Some(other_view)) = (places.get(*on), views.get(*on)) else { continue };
        match holds(*condition, other, other_view, now_boot_ms) {
            Holds::Yes => {}
            Holds::NotYet { deadline_boot_ms } => waits.push(Wait {
                container: place.name.clone(),
                on: other.name.clone(),
                condition: *condition,
                since_boot_ms: other_view.started_boot_ms,
                deadline_boot_ms,
            }),
            Holds::Never(why) => {
                return Decision::Impossible(Impossible {
                    container: place.name.clone(),
                    on: other.name.clone(),
                    condition: *condition,
                    why,
                });
            }
        }
    }
    if waits.is_empty() { Decision::Start } else { Decision::Wait(waits) }
}

enum Holds {
    Yes,
    NotYet { deadline_boot_ms: Option<u64> },
    Never(Why),
}

fn holds(condition: DependencyCondition, other: &Place, view: &View, now_boot_ms: u64) -> Holds {
    use DependencyCondition::{Complete, Healthy, Start, Success};
    match (condition, view.phase) {
        (_, Phase::NeverStarted) => Holds::Never(Why::NeverStarted),
        (Start, Phase::Running | Phase::Ended { .. }) | (Complete, Phase::Ended { .. }) => Holds::Yes,
        (Success, Phase::Ended { exit_code: Some(0) }) => Holds::Yes,
        (Success, Phase::Ended { exit_code }) => Holds::Never(Why::EndedWith(exit_code)),
        (Healthy, Phase::Running) if view.health == HealthStatus::Healthy => Holds::Yes,
        (Healthy, Phase::Ended { .. }) => Holds::Never(Why::EndedUnhealthy),
        (Start, Phase::Pending | Phase::Starting) => Holds::NotYet { deadline_boot_ms: None },
        (Complete | Success | Healthy, Phase::Pending | Phase::Starting | Phase::Running) => {
            let default = (condition == Healthy).then_some(HEALTHY_WAIT_MS);
            let bound = other.start_timeout_ms.or(default);
            let deadline = view.started_boot_ms.zip(bound).map(|(started, bound)| (started + bound, bound));
            match deadline {
                Some((deadline, bound)) if now_boot_ms >= deadline => {
                    Holds::Never(Why::TimedOut { seconds: bound.div_ceil(1000) })
                }
                _ => Holds::NotYet { deadline_boot_ms: deadline.map(|(deadline, _)| deadline) },
            }
        }
    }
}

/// Which of the live containers may be told to stop: those that no live one comes after.
pub(crate) fn may_stop(places: &[Place], live: &BTreeSet<ContainerName>) -> BTreeSet<ContainerName> {
    let live_places = || places.iter().filter(|place| live.contains(&place.name));
    let needed: BTreeSet<usize> = live_places().flat_map(|place| &place.after).map(|(on, _)| *on).collect();
    let free = places.iter().enumerate().filter(|(index, _)| !needed.contains(index));
    let free: BTreeSet<ContainerName> =
        free.map(|(_, place)| place.name.clone()).filter(|name| live.contains(name)).collect();
    // Names that are no place, or a circle: nothing may keep the task from ending.
    if free.is_empty() { live.clone() } else { free }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} waits for {} ({})", self.container, self.on, self.condition.as_str())
    }
}

impl fmt::Display for Impossible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, on, condition, .. } = self;
        write!(f, "container {container} depends on {on} ({}), ", condition.as_str())?;
        match self.why {
            Why::NeverStarted => write!(f, "and {on} could not be started"),
            Why::EndedWith(Some(code)) => write!(f, "and {on} ended with exit code {code}"),
            Why::EndedWith(None) => write!(f, "and {on} ended with an exit code that is not known"),
            Why::EndedUnhealthy => write!(f, "and {on} ended before it was healthy"),
            Why::TimedOut { seconds } => {
                write!(f, "and that did not come within {seconds} s of the start of {on} (startTimeout)")
            }
        }
    }
}

#[cfg(test)]
mod tests;
