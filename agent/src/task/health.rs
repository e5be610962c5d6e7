//! Whether a container works, by its health check. Pure; `watch` carries the checks out.
//! ```text
//!            a check passes                     `retries` fail in a row
//!  UNKNOWN ────────────────► HEALTHY ──────────────────────────────────► UNHEALTHY
//!     │  ▲ a failure within startPeriod does not count   ▲                   │
//!     │                                                  └───────────────────┘ a check passes
//!     └────────────────────── `retries` fail in a row ──────────────────────► UNHEALTHY
//! ```
//! As in Docker, and so in ECS, the next check comes `interval` after the end of the last. Ours: until
//! the first success checks come earlier (a quarter of a second, doubling up to `interval`), and no
//! failure counts before Docker would have made its first check. So a container is HEALTHY within a
//! second of working, and never UNHEALTHY sooner than in ECS.
//! Owns nothing. Never: reads a clock, runs anything.

use crate::store::records::HealthSettings;
use lighter_model::health::{ContainerHealth, HealthStatus};
use lighter_model::image_config::ImageHealthcheck;
use lighter_model::task_definition::{HEALTH_INTERVAL_S, HEALTH_RETRIES, HEALTH_TIMEOUT_S, HealthCheck};
use lighter_runtime::exec::{ProbeEnd, ProbeOutcome};

/// What ECS keeps of a check's output.
const OUTPUT_BYTES_MAX: usize = 1024;
/// First pause between two checks of a container that has not passed one.
const EARLY_PAUSE_MS: u64 = 250;
/// Checks of containers that work begin together at so many moments of an interval.
const TICKS_OF_AN_INTERVAL: u64 = 10;
/// Long intervals need no longer ticks: then as many begin together as at ten seconds.
const TICK_MS_MAX: u64 = 1000;
/// Docker's defaults of an image's HEALTHCHECK differ from ECS's in the timeout alone.
const IMAGE_TIMEOUT_S: u32 = 30;

/// How a check of this definition is carried out; `None`: it says NONE, or its image has none.
pub(crate) fn settings(
    check: &HealthCheck,
    image: Option<&ImageHealthcheck>,
    second_ms: u64,
) -> Option<HealthSettings> {
    let image = image.filter(|_| check.from_image);
    let command = match image {
        Some(image) => &image.test,
        None => &check.command,
    };
    let ms = |own: Option<u32>, image_ns: Option<u64>, default_s: u32| match (own, image_ns) {
        (Some(seconds), _) => u64::from(seconds) * second_ms,
        (None, Some(ns)) if ns > 0 => (ns / 1_000_000).max(1),
        (None, _) => u64::from(default_s) * second_ms,
    };
    let timeout_s = if image.is_some() { IMAGE_TIMEOUT_S } else { HEALTH_TIMEOUT_S };
    let retries = check.retries.or(image.map(|image| image.retries).filter(|retries| *retries > 0));
    Some(HealthSettings {
        argv: argv(command)?,
        interval_ms: ms(check.interval_s, image.map(|image| image.interval_ns), HEALTH_INTERVAL_S),
        timeout_ms: ms(check.timeout_s, image.map(|image| image.timeout_ns), timeout_s),
        start_period_ms: ms(check.start_period_s, image.map(|image| image.start_period_ns), 0),
        retries: retries.unwrap_or(HEALTH_RETRIES),
        on_unhealthy: check.on_unhealthy,
    })
}

fn argv(command: &[String]) -> Option<Vec<String>> {
    let (kind, rest) = command.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" => Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.first()?.clone()]),
        _ => None,
    }
}

/// One finished check. Times are milliseconds since the container's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub passed: bool,
    pub began_ms: u64,
    /// In words, and what it printed.
    pub end: String,
    pub output: String,
}

impl Checked {
    pub(crate) fn of(outcome: &ProbeOutcome, settings: &HealthSettings, began_ms: u64) -> Self {
        let end = match &outcome.end {
            ProbeEnd::Exited(code) => format!("exit code {code}"),
            ProbeEnd::Signaled(signal) => format!("signal {signal}"),
            ProbeEnd::TimedOut => format!("no answer within {} ms", settings.timeout_ms),
            ProbeEnd::CannotStart(message) => message.clone(),
        };
        let cut = &outcome.output[..outcome.output.len().min(OUTPUT_BYTES_MAX)];
        let output = String::from_utf8_lossy(cut).replace('\0', " ");
        Self { passed: outcome.end == ProbeEnd::Exited(0), began_ms, end, output }
    }
}

/// The health after a check, and whether that is worth a report: the status changed, or whether it
/// passes. Equal results change nothing that is told.
pub(crate) fn after(
    health: &ContainerHealth,
    settings: &HealthSettings,
    checked: &Checked,
    now_unix_ms: u64,
) -> (ContainerHealth, bool) {
    let grace_ms = settings.start_period_ms.max(settings.interval_ms);
    let does_not_count = health.status == HealthStatus::Unknown && checked.began_ms < grace_ms;
    let failing_streak = match (checked.passed, does_not_count) {
        (true, _) => 0,
        (false, true) => health.failing_streak,
        (false, false) => health.failing_streak.saturating_add(1),
    };
    let status = match checked.passed {
        true => HealthStatus::Healthy,
        false if failing_streak >= settings.retries => HealthStatus::Unhealthy,
        false => health.status,
    };
    let changed = status != health.status;
    let turned = (failing_streak == 0) != (health.failing_streak == 0) || health.last_end.is_empty();
    let next = ContainerHealth {
        status,
        since_unix_ms: if changed { now_unix_ms } else { health.since_unix_ms },
        failing_streak,
        last_end: checked.end.clone(),
        last_output: checked.output.clone(),
    };
    (next, changed || turned)
}

/// Milliseconds until the next check: after the start (`checks` 0) or after the end of the last one.
/// `spread` (0 to 255) is the container's own: a hundred that start together do not check together.
pub(crate) fn pause_ms(settings: &HealthSettings, status: HealthStatus, checks: u32, spread: u8) -> u64 {
    let interval = settings.interval_ms;
    if status == HealthStatus::Unknown {
        let early = EARLY_PAUSE_MS.saturating_mul(1 << checks.min(16)).min(interval);
        return early / 2 + early * u64::from(spread) / 510;
    }
    // The first full pause is shortened by up to its half: from then on they stay apart.
    if checks <= 1 { interval / 2 + interval * u64::from(spread) / 510 } else { interval }
}

/// When the next check is due on a clock that all containers of the node share. Once a container works, its checks
/// keep to the ticks of that clock, a tenth of the interval apart: several containers are checked in one wakeup,
/// none more than a twentieth of its interval early or late, and as often as before.
pub(crate) fn due_ms(
    settings: &HealthSettings,
    status: HealthStatus,
    checks: u32,
    spread: u8,
    now_ms: u64,
) -> u64 {
    let at_ms = now_ms.saturating_add(pause_ms(settings, status, checks, spread));
    let tick_ms = (settings.interval_ms / TICKS_OF_AN_INTERVAL).min(TICK_MS_MAX);
    if status == HealthStatus::Unknown || tick_ms == 0 {
        return at_ms;
    }
    at_ms.saturating_add(tick_ms / 2) / tick_ms * tick_ms
}

#[cfg(test)]
mod tests;
