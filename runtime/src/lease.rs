//! The lease of a task that must not run twice, from the agent's side: its shim ends the task by itself
//! when the lease is not renewed. In: moments of CLOCK_BOOTTIME. Out: what the shim keeps.
//! Owns nothing. Never: reads a clock; the agent says until when.
//! Source: docs/shim-protocol.md, "The lease".

use crate::handle::{RequestError, ShimHandle, unexpected};
use lighter_model::ids::ContainerName;
use lighter_shim_wire::lease::{LeaseRequest, LeaseState, LeaseStop, ThawFile};
use lighter_shim_wire::{Reply, Request, VERSION_LEASES};
use std::time::Duration;

/// Until when a task may run, and how its containers are asked to end before that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseOrder {
    /// Milliseconds of CLOCK_BOOTTIME; 0 asks and changes nothing, as an earlier moment does.
    pub ends_at_boot_ms: u64,
    /// Stop signal and stopTimeout; empty: as told before.
    pub stops: Vec<(ContainerName, i32, Duration)>,
}

/// What the shim keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// `None`: no lease was ever told.
    pub ends_at_boot_ms: Option<u64>,
    /// For good: its containers are being ended or have been, and none starts.
    pub over: bool,
}

impl ShimHandle {
    /// Sets or renews the lease. An older shim cannot: `NoLeases`.
    pub async fn lease(&self, order: &LeaseOrder) -> Result<Leased, RequestError> {
        if self.version < VERSION_LEASES {
            return Err(RequestError::NoLeases);
        }
        let stops = order.stops.iter().map(|(name, signal, timeout)| LeaseStop {
            name: name.to_string(),
            signal: *signal,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        });
        let thaw = self
            .cgroup
            .thaw_file(self.task())
            .map(|(path, text)| ThawFile { path: path.display().to_string(), text: text.to_owned() });
        let request = LeaseRequest { ends_at_boot_ms: order.ends_at_boot_ms, stops: stops.collect(), thaw };
        match self.ask_soon(Request::Lease(request)).await? {
            Reply::Leased(LeaseState { ends_at_boot_ms, over }) => {
                Ok(Leased { ends_at_boot_ms: (ends_at_boot_ms > 0).then_some(ends_at_boot_ms), over })
            }
            other => Err(unexpected(other, "")),
        }
    }
}
