//! Keeps the task's lease, agent or no agent: stop signals before its end, SIGKILL at its end.
//! In: requests, the timer. Out: signals, and one event. What is due when is in `crate::lease`.
//! Never: starts a container whose task would have to stop at once.

use super::Monitor;
use super::container::Container;
use crate::lease::{Due, Lease};
use crate::sys;
use lighter_shim_wire::lease::{LeaseRequest, LeaseState};
use lighter_shim_wire::message::{SignalRequest, StartFailure};
use lighter_shim_wire::{Event, FailureKind, Reply, ShimMessage, VERSION_LEASES};

impl Monitor {
    pub(super) fn lease(&mut self, request: LeaseRequest) -> Reply {
        if self.lease_timer.is_none() && request.ends_at_boot_ms > 0 {
            match sys::boot_timer() {
                Ok(timer) => self.lease_timer = Some(timer),
                Err(error) => return Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        let now_ms = sys::boot_time_ms();
        match &mut self.lease {
            Some(lease) => lease.renew(&request, now_ms),
            None if request.ends_at_boot_ms == 0 => {
                return Reply::Leased(LeaseState { ends_at_boot_ms: 0, over: false });
            }
            None => self.lease = Some(Lease::new(&request)),
        }
        self.thaw = request.thaw.or(self.thaw.take());
        if let Err(error) = self.guard_lease(None) {
            return Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO));
        }
        self.keep_lease();
        let none = LeaseState { ends_at_boot_ms: 0, over: false };
        Reply::Leased(self.lease.as_ref().map_or(none, Lease::state))
    }

    /// Why no container may start any more.
    pub(super) fn lease_refuses(&self) -> Option<StartFailure> {
        let admits = self.lease.as_ref().is_none_or(|lease| lease.admits(sys::boot_time_ms()));
        (!admits).then(|| StartFailure {
            kind: FailureKind::CannotStart,
            message: "the task's lease is over".to_owned(),
        })
    }

    /// Whether this is the stop signal that the lease has sent already.
    pub(super) fn lease_has_sent(&mut self, wanted: &SignalRequest) -> bool {
        self.lease.as_mut().is_some_and(|lease| lease.has_sent(&wanted.name, wanted.signal))
    }

    /// Does what is due, and sets the timer for what is next.
    pub(super) fn keep_lease(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        let now_ms = sys::boot_time_ms();
        let was_over = lease.state().over;
        for container in self.containers.iter().filter(|container| container.is_alive()) {
            let due = lease.due(container.name(), now_ms);
            if due == Due::Nothing {
                continue;
            }
            if let Some(thaw) = &self.thaw {
                // What stands still takes no signal. A cgroup that is gone holds nothing.
                let _ = std::fs::write(&thaw.path, &thaw.text);
            }
            if let Due::Stop(signal) = due {
                lease.tell(container.name());
                // One that has just ended has what it was to get.
                let _ = container.signal(signal);
            } else {
                container.kill_helper();
                container.kill();
            }
        }
        lease.expire(now_ms);
        let over = lease.state().over;
        let live = || self.containers.iter().filter(|container| container.is_alive());
        let over_for_good = over && live().next().is_none();
        let next_ms = if over_for_good { 0 } else { lease.next_ms(live().map(Container::name), now_ms) };
        if let Some(timer) = &self.lease_timer {
            // Only a wrong argument fails; the next turn sets it again.
            let _ = sys::set_boot_timer(timer, next_ms);
        }
        if over
            && !was_over
            && self.agent_version >= VERSION_LEASES
            && let Some(agent) = &mut self.agent
        {
            agent.send(0, &ShimMessage::Event(Event::LeaseOver));
        }
    }
}
