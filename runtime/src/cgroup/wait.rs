//! Waits until a cgroup has no process, without polling: on v2 the kernel signals a change of
//! `populated` in cgroup.events, on v1 the pidfds of the processes become readable.
//! In: directories, a deadline. Out: empty, or who is still there. Never: sends a signal.

use super::{CgroupError, io_error};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Returns when `directory` and what is below it have no process; a missing one has none.
pub(crate) fn until_empty(directory: &Path, timeout: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + timeout;
    let events = directory.join("cgroup.events");
    let result = if events.exists() { empty_v2(&events, deadline) } else { empty_v1(directory, deadline) };
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(CgroupError::Populated {
            path: directory.to_owned(),
            waited_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            pids: processes(directory),
        }),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(io_error("watch cgroup", directory)(error)),
    }
}

/// The cgroup was removed meanwhile: ENOENT on open, ENODEV on read.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn empty_v2(events: &Path, deadline: Instant) -> io::Result<bool> {
    let mut file = File::open(events)?;
    loop {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(true);
        }
        let Some(left) = left(deadline) else { return Ok(false) };
        poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left))?;
    }
}

fn empty_v1(directory: &Path, deadline: Instant) -> io::Result<bool> {
    loop {
        let pids = processes(directory);
        let Some(pid) = pids.first().and_then(|pid| Pid::from_raw(*pid)) else { return Ok(true) };
        let Some(left) = left(deadline) else { return Ok(false) };
        // Readable when the process has ended; one that is gone already is no error.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left))?;
            // It ended, and leaves its cgroup when its parent reaps it.
            std::thread::yield_now();
        }
    }
}

fn left(deadline: Instant) -> Option<Timespec> {
    let left = deadline.checked_duration_since(Instant::now())?;
    Timespec::try_from(left).ok()
}

/// Pids in the cgroup and below it.
pub(crate) fn processes(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for child in super::remove::children(directory) {
        pids.extend(processes(&child));
    }
    pids
}
