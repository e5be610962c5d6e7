//! The part of a container's record that says how often it lived: its restart policy, its attempts,
//! its health. In: values. Out: JSON beside the rest of the record; absent while there is nothing
//! to say. Times are milliseconds of the boot-time clock of the record's boot.
//! Owns nothing. Never: read in another boot than it was written in.

use lighter_model::exit::ContainerExit;
use lighter_model::health::ContainerHealth;
use lighter_model::task_definition::{OnUnhealthy, RestartPolicy};
use serde::{Deserialize, Serialize};

/// A health check as it is carried out, defaults and the image's values filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthSettings {
    /// What is executed in the container.
    pub argv: Vec<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    pub start_period_ms: u64,
    pub retries: u32,
    pub on_unhealthy: OnUnhealthy,
}

/// See the header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Life {
    pub policy: Option<RestartPolicy>,
    /// When its program was started, last.
    pub started_boot_ms: Option<u64>,
    /// When it was for the first time: what others wait for is counted from there.
    pub first_started_boot_ms: Option<u64>,
    /// The last start by the wall clock, for people.
    pub started_unix_ms: Option<u64>,
    /// It has ended, and is started again at this time.
    pub again_at_boot_ms: Option<u64>,
    /// The node itself ended it because it was unhealthy: it is started again whatever the policy says.
    pub forced: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// Those since it last ran long enough; the pause grows with it.
    pub streak: u32,
    /// How the attempt before this one ended.
    pub last_exit: Option<ContainerExit>,
    pub check: Option<HealthSettings>,
    pub health: Option<ContainerHealth>,
}

impl Life {
    pub(super) fn is_new(&self) -> bool {
        *self == Self::default()
    }
}
