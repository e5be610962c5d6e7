//! The lease of a task that must not run twice: what it asks for at a moment. Pure.
//! In: requests of the agent, moments of CLOCK_BOOTTIME in milliseconds. Out: what is due for a container.
//!
//! ```text
//!   kept ──the first stop signal, or its end──▶ over ──its end──▶ every process is killed
//!    ▲ │ renewed: only ever later
//!    └─┘
//! ```
//! Never: reads a clock; goes back from over; ends earlier than the agent was told.

use lighter_shim_wire::lease::{LeaseRequest, LeaseState, LeaseStop};

/// A process may be in the kernel when SIGKILL comes, or a fork of it be missed: it is sent again.
const KILL_AGAIN_MS: u64 = 1_000;

/// What a container has coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Its stop signal.
    Stop(i32),
    Kill,
}

#[derive(Debug, Clone)]
pub(crate) struct Lease {
    ends_at_ms: u64,
    stops: Vec<LeaseStop>,
    /// Containers that have had their stop signal since the lease is over.
    told: Vec<String>,
    over: bool,
}

impl Lease {
    pub(crate) fn new(request: &LeaseRequest) -> Self {
        Self {
            ends_at_ms: request.ends_at_boot_ms,
            stops: request.stops.clone(),
            told: Vec::new(),
            over: false,
        }
    }

    /// A lease that is over stays so.
    pub(crate) fn renew(&mut self, request: &LeaseRequest, now_ms: u64) {
        self.expire(now_ms);
        if self.over {
            return;
        }
        self.ends_at_ms = self.ends_at_ms.max(request.ends_at_boot_ms);
        if !request.stops.is_empty() {
            self.stops.clone_from(&request.stops);
        }
    }

    pub(crate) fn state(&self) -> LeaseState {
        LeaseState { ends_at_boot_ms: self.ends_at_ms, over: self.over }
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.over |= now_ms >= self.ends_at_ms;
    }

    fn stop_at_ms(&self, stop: &LeaseStop) -> u64 {
        self.ends_at_ms.saturating_sub(stop.timeout_ms)
    }

    /// Whether a container may start: not once one would have had its stop signal.
    pub(crate) fn admits(&self, now_ms: u64) -> bool {
        !self.over && now_ms < self.ends_at_ms && self.stops.iter().all(|stop| now_ms < self.stop_at_ms(stop))
    }

    /// What a container that lives has coming.
    pub(crate) fn due(&self, container: &str, now_ms: u64) -> Due {
        if now_ms >= self.ends_at_ms {
            return Due::Kill;
        }
        match self.stops.iter().find(|stop| stop.name == container) {
            Some(stop) if now_ms >= self.stop_at_ms(stop) && !self.is_told(container) => {
                Due::Stop(stop.signal)
            }
            _ => Due::Nothing,
        }
    }

    fn is_told(&self, container: &str) -> bool {
        self.told.iter().any(|told| told == container)
    }

    /// A container gets its stop signal because of the lease: it is over for all.
    pub(crate) fn tell(&mut self, container: &str) {
        self.over = true;
        self.told.push(container.to_owned());
    }

    /// Whether a signal the agent asks for is the stop signal that the container has had already: to
    /// some programs a second one means more than the first.
    pub(crate) fn has_sent(&mut self, container: &str, signal: i32) -> bool {
        let is_stop = self.stops.iter().any(|stop| stop.name == container && stop.signal == signal);
        if !self.over || !is_stop {
            return false;
        }
        let told = self.is_told(container);
        if !told {
            self.told.push(container.to_owned());
        }
        told
    }

    /// When to look again, as long as `live` containers live.
    pub(crate) fn next_ms<'a>(&self, live: impl Iterator<Item = &'a str>, now_ms: u64) -> u64 {
        if now_ms >= self.ends_at_ms {
            return now_ms + KILL_AGAIN_MS;
        }
        let stops = live.filter(|name| !self.is_told(name)).filter_map(|name| {
            self.stops.iter().find(|stop| stop.name == name).map(|stop| self.stop_at_ms(stop))
        });
        // One that is due is served before this is asked.
        stops.filter(|at| *at > now_ms).min().unwrap_or(self.ends_at_ms).min(self.ends_at_ms)
    }
}

#[cfg(test)]
mod tests;
