//! The second pair of eyes on a lease: a fork of the monitor that kills the containers at its end when
//! the monitor cannot, because it waits for a disk that does not answer, is stopped or was killed.
//! In: the end of the lease in a shared word, the containers' cgroups. Out: SIGKILL at the end, again
//! each second. Owns its process; touches cgroups only, no disk, no socket, no host port.
//!
//! ```text
//!   forked with the lease, anew for each container that comes ──Drop: killed
//!     └─ its monitor is gone: it stays until the lease has ended or the cgroups have
//! ```
//! Never: sends a stop signal, which is the monitor's; ends anything before the lease's end.

use super::Monitor;
use crate::{cgroup, sys};
use lighter_shim_wire::CgroupPaths;
use lighter_shim_wire::lease::ThawFile;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// As the monitor's: a fork may be missed.
const AGAIN_MS: i32 = 1_000;
/// How soon it notices that a task without a monitor was torn down.
const ALONE_MS: i32 = 100;

pub(super) struct Guard {
    /// Milliseconds of CLOCK_BOOTTIME, read by the process when its timer fires.
    ends_at_ms: &'static AtomicU64,
    process: OwnedFd,
    watched: Vec<CgroupPaths>,
    thaw: Option<ThawFile>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // One that has ended already needs none.
        let _ = sys::pidfd_send_signal(&self.process, libc::SIGKILL);
    }
}

impl Monitor {
    /// A guard that knows the lease's end and every container, `new` among them. Called before a lease
    /// is promised and before a container of a leased task is started.
    pub(super) fn guard_lease(&mut self, new: Option<&CgroupPaths>) -> io::Result<()> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let ends_at_ms = lease.state().ends_at_boot_ms;
        let mut wanted: Vec<CgroupPaths> = self.containers.iter().map(|c| c.cgroup().clone()).collect();
        wanted.extend(new.cloned());
        if let Some(guard) = &self.guard {
            guard.ends_at_ms.store(ends_at_ms, Ordering::Release);
            if guard.thaw == self.thaw && wanted.iter().all(|paths| guard.watched.contains(paths)) {
                return Ok(());
            }
        }
        let word = self.guard.as_ref().map_or_else(sys::shared_word, |guard| Ok(guard.ends_at_ms))?;
        word.store(ends_at_ms, Ordering::Release);
        let monitor = std::process::id() as i32;
        let pid = sys::fork_with_pid()?;
        if pid == 0 {
            // What goes wrong here leaves the lease to the monitor alone.
            let _ = stand(monitor, word, &wanted, self.thaw.as_ref());
            std::process::exit(0);
        }
        // Not reaped yet, so that the pid is its own.
        let process = sys::pidfd_open(pid)?;
        // The one before goes when this one is there.
        self.guard = Some(Guard { ends_at_ms: word, process, watched: wanted, thaw: self.thaw.clone() });
        Ok(())
    }
}

/// The guard's life.
fn stand(
    monitor: i32,
    ends_at_ms: &AtomicU64,
    watched: &[CgroupPaths],
    thaw: Option<&ThawFile>,
) -> io::Result<()> {
    // Held ports and pipes would outlive the monitor with it.
    sys::close_inherited();
    // By its own name in ps.
    let _ = std::fs::write("/proc/self/comm", "lease-guard");
    let timer = sys::boot_timer()?;
    // An error: it is gone already.
    let mut monitor = sys::pidfd_open(monitor).ok();
    loop {
        let end = ends_at_ms.load(Ordering::Acquire);
        let over = sys::boot_time_ms() >= end;
        if over {
            kill_all(watched, thaw);
        } else {
            sys::set_boot_timer(&timer, end)?;
        }
        let gone = || watched.iter().all(|paths| !Path::new(&paths.pids).exists());
        if monitor.is_none() && gone() {
            return Ok(());
        }
        let timeout_ms = match &monitor {
            None => Some(ALONE_MS),
            Some(_) => over.then_some(AGAIN_MS),
        };
        // After the end the timer has fired and stays ready.
        wait((!over).then_some(&timer), &mut monitor, timeout_ms)?;
    }
}

fn kill_all(watched: &[CgroupPaths], thaw: Option<&ThawFile>) {
    if let Some(thaw) = thaw {
        // What stands still does not even die. A cgroup that is gone holds nothing.
        let _ = std::fs::write(&thaw.path, &thaw.text);
    }
    for paths in watched {
        // It is tried again; nobody is there to be told.
        let _ = cgroup::kill_all(paths);
    }
}

/// Until the timer fires, the monitor ends or the time is up.
fn wait(timer: Option<&OwnedFd>, monitor: &mut Option<OwnedFd>, timeout_ms: Option<i32>) -> io::Result<()> {
    let poll = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<libc::pollfd> = timer.into_iter().chain(monitor.as_ref()).map(poll).collect();
    sys::poll(&mut polls, timeout_ms)?;
    if monitor.is_some() && polls.last().is_some_and(|poll| poll.revents != 0) {
        *monitor = None;
    }
    Ok(())
}
