//! The policy that a task carries, checked when it is made.
//! In: what was asked for, 0 and false where nothing was. Out: a policy with every default filled in.
//! Never: takes what would be without effect, or a lease that one late heartbeat ends.

use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::task_definition::TaskDefinition;
use serde::{Deserialize, Serialize};

/// Until a task counts as lost, when nothing else is said.
const LOST_AFTER_S: u32 = 300;
/// A week.
const LOST_AFTER_MAX_S: u32 = 7 * 86_400;
const LEASE_MAX_S: u32 = 86_400;
/// ECS's stopTimeout where a container has none.
const STOP_TIMEOUT_S: u32 = 30;
/// Heartbeats after which a node is silent; its last answered one may be so old before that.
const SILENT_BEATS: u64 = 3;
/// Heartbeats after which a task may be lost at the earliest: what fell silent at the same time is
/// seen to be silent by then, so that the brake knows it.
pub const SETTLED_BEATS: u64 = 5;

/// What becomes of a task whose node falls silent; in a request 0 stands for what is not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilencePolicy {
    pub lost_after_s: u32,
    pub replace: bool,
    pub exclusive: bool,
    /// 0 unless exclusive.
    pub lease_s: u32,
}

impl SilencePolicy {
    /// The policy of a task of this definition; `None` when nothing is asked for.
    ///
    /// # Errors
    /// A value has no effect, or is too small or too large.
    pub fn checked(self, definition: &TaskDefinition, heartbeat_ms: u64) -> Result<Option<Self>, ApiError> {
        if self == Self::default() {
            return Ok(None);
        }
        let lost_after_s = self.checked_lost_after(heartbeat_ms)?;
        let lease_s = self.checked_lease(longest_stop_timeout_s(definition), heartbeat_ms)?;
        Ok(Some(Self { lost_after_s, lease_s, ..self }))
    }

    fn checked_lost_after(&self, heartbeat_ms: u64) -> Result<u32, ApiError> {
        let wrong = |message| Err(ApiError::invalid("nodeSilence.lostAfterSeconds", message));
        let least = seconds(SETTLED_BEATS * heartbeat_ms);
        match self.lost_after_s {
            0 if self.replace => Ok(LOST_AFTER_S.max(least)),
            0 => Ok(0),
            _ if !self.replace => {
                wrong("says when a task is replaced; without replace it has no effect".to_owned())
            }
            asked if asked < least => wrong(format!(
                "must be at least {least}, which is {SETTLED_BEATS} heartbeats of {heartbeat_ms} ms, got {asked}"
            )),
            asked if asked > LOST_AFTER_MAX_S => {
                wrong(format!("must be at most {LOST_AFTER_MAX_S}, got {asked}"))
            }
            asked => Ok(asked),
        }
    }

    fn checked_lease(&self, stop_timeout_s: u32, heartbeat_ms: u64) -> Result<u32, ApiError> {
        let wrong = |message| Err(ApiError::invalid("nodeSilence.leaseSeconds", message));
        let beats = seconds(SILENT_BEATS * heartbeat_ms);
        let least = least_lease_s(stop_timeout_s, heartbeat_ms);
        match (self.exclusive, self.lease_s) {
            (false, 0) => Ok(0),
            (false, _) => wrong("is for exclusive tasks only".to_owned()),
            (true, _) if least > LEASE_MAX_S => {
                wrong(format!("cannot be at most {LEASE_MAX_S} with a stopTimeout of {stop_timeout_s} s"))
            }
            (true, 0) => Ok(least),
            (true, asked) if asked < least || asked > LEASE_MAX_S => wrong(format!(
                "must be {least} to {LEASE_MAX_S}, got {asked}: at least twice the longest stopTimeout, \
                 {stop_timeout_s} s, and at least that plus {SILENT_BEATS} heartbeats, {beats} s"
            )),
            (true, asked) => Ok(asked),
        }
    }

    /// The same for another revision of a service: a lease that was only the default of the one before is
    /// what this one needs.
    ///
    /// # Errors
    /// The lease that was asked for is too short for it.
    pub fn carried_over(
        self,
        before: &TaskDefinition,
        definition: &TaskDefinition,
        heartbeat_ms: u64,
    ) -> Result<Self, ApiError> {
        if self.lease_s == least_lease_s(longest_stop_timeout_s(before), heartbeat_ms) {
            return Ok(self.fitting(definition, heartbeat_ms));
        }
        self.checked_lease(longest_stop_timeout_s(definition), heartbeat_ms)?;
        Ok(self)
    }

    /// The same with a lease that is long enough for this definition, whatever was asked for: nobody can be
    /// refused when a service goes back to it.
    pub fn fitting(self, definition: &TaskDefinition, heartbeat_ms: u64) -> Self {
        let least = least_lease_s(longest_stop_timeout_s(definition), heartbeat_ms).min(LEASE_MAX_S);
        Self { lease_s: if self.exclusive { self.lease_s.max(least) } else { 0 }, ..self }
    }

    /// How long its node has said nothing when a task is replaced. An exclusive one has ended by then
    /// also on a node whose clock is some hundredths slower than ours: its lease counts from before we
    /// heard the node last, and a tenth is added.
    pub fn due_ms(&self, heartbeat_ms: u64) -> u64 {
        (u64::from(self.lost_after_s) * 1_000).max(self.ended_ms(heartbeat_ms))
    }

    /// How long its node has said nothing when an exclusive task has ended there by its lease.
    pub fn ended_ms(&self, heartbeat_ms: u64) -> u64 {
        let awaited = u64::from(!wrong_edit::is(WrongEdit::LeaseNotAwaited));
        (u64::from(self.lease_s) * 1_100 * awaited).max(SETTLED_BEATS * heartbeat_ms)
    }
}

fn least_lease_s(stop_timeout_s: u32, heartbeat_ms: u64) -> u32 {
    let beats = seconds(SILENT_BEATS * heartbeat_ms);
    stop_timeout_s.saturating_add(beats).max(stop_timeout_s.saturating_mul(2))
}

fn longest_stop_timeout_s(definition: &TaskDefinition) -> u32 {
    let containers = definition.container_definitions.iter();
    containers.map(|c| c.stop_timeout_s.unwrap_or(STOP_TIMEOUT_S)).max().unwrap_or(STOP_TIMEOUT_S)
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX)
}
