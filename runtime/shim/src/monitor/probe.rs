//! Probes: a program that joins a container, its first 4 KiB of output, its end or its timeout.
//! In: requests, output, the end of a child, the time. Out: one reply each.
//!
//! ```text
//!   Probe ─▶ runs ──ends──▶ Probed(Exited | Signaled | CannotStart)
//!              └─ timeout ─▶ killed with all it started, Probed(TimedOut) ──ends──▶ (gone)
//! ```
//! Never: leaves a file; waits.

use super::{Monitor, join, session};
use crate::procfs;
use crate::sys::join::{Joined, Streams, failure_of};
use crate::sys::{self, ChildEnd};
use lighter_shim_wire::Reply;
use lighter_shim_wire::exec::{ProbeEnd, ProbeRequest, ProbeResult};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Ten containers have one health check each; the rest is for killed probes that are still in the
/// kernel, and for whoever probes by hand.
const PROBES_MAX: usize = 16;
/// What is kept of a probe's output; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 4096;
/// A killed process forks no more, so each pass finds only what was forked before the last.
const KILL_PASSES_MAX: usize = 32;

pub(super) struct Probe {
    /// The agent's request; `None` once it is answered, or when that agent is gone.
    request_id: Option<u32>,
    pid: i32,
    failure: File,
    output: Option<File>,
    /// Open here too, so that the end of the output is not told apart from the end of the program.
    _input: OwnedFd,
    kept: Vec<u8>,
    deadline_ms: u64,
}

impl Probe {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn output_fd(&self) -> Option<RawFd> {
        self.output.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// When it must be killed; `None` when it has been.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        (self.deadline_ms != u64::MAX).then_some(self.deadline_ms)
    }

    /// Its agent is gone: nobody to answer.
    pub(super) fn forget_request(&mut self) {
        self.request_id = None;
    }

    /// Reads what is there.
    fn pump(&mut self) {
        let Some(output) = self.output.as_mut() else { return };
        let mut chunk = [0; 4096];
        loop {
            match output.read(&mut chunk) {
                Ok(count @ 1..) => {
                    let room = OUTPUT_BYTES_MAX - self.kept.len();
                    self.kept.extend_from_slice(&chunk[..count.min(room)]);
                    // One that writes without end must not hold everyone up.
                    if count < chunk.len() || self.kept.len() == OUTPUT_BYTES_MAX {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.output = None;
                    return;
                }
            }
        }
    }

    fn finish(mut self, end: ChildEnd) -> (Option<u32>, ProbeResult) {
        self.pump();
        let end = match session::read_failure(&self.failure).as_deref().and_then(failure_of) {
            Some(failure) => ProbeEnd::CannotStart(failure),
            None => match end {
                ChildEnd::Exited(code) => ProbeEnd::Exited(code),
                ChildEnd::Signaled(signal) => ProbeEnd::Signaled(signal),
            },
        };
        (self.request_id, ProbeResult { end, output: self.kept })
    }

    /// SIGKILL to the program and everything below it. It is stopped first, so that it starts
    /// nothing more; its orphans are its children (PR_SET_CHILD_SUBREAPER).
    fn kill(&mut self) {
        let _ = sys::signal_child(self.pid, libc::SIGSTOP);
        let mut seen: Vec<i32> = Vec::new();
        for _ in 0..KILL_PASSES_MAX {
            let new: Vec<i32> =
                procfs::descendants(self.pid).into_iter().filter(|pid| !seen.contains(pid)).collect();
            if new.is_empty() {
                break;
            }
            for pid in &new {
                let Ok(pidfd) = sys::pidfd_open(*pid) else { continue };
                // Still its own pid: it was not given to another process before it was opened.
                if procfs::descendants(self.pid).contains(pid) {
                    let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
                    seen.push(*pid);
                }
            }
        }
        let _ = sys::signal_child(self.pid, libc::SIGKILL);
        self.deadline_ms = u64::MAX;
        self.output = None;
    }
}

impl Monitor {
    /// `None`: the answer comes when it has ended.
    pub(super) fn probe(&mut self, id: u32, request: &ProbeRequest) -> Option<Reply> {
        let busy = self.probes.len() >= PROBES_MAX;
        let Some((host, container)) = self.joinable(&request.name) else { return Some(Reply::NotFound) };
        if !container.is_running() {
            return Some(Reply::NotRunning);
        }
        if busy {
            return Some(Reply::Busy);
        }
        let cannot = |end| Some(Reply::Probed(ProbeResult { end, output: Vec::new() }));
        let ready = host.and_then(|host| Ok((host, sys::pipe()?)));
        let (host, (output, input)) = match ready {
            Ok(ready) => ready,
            Err(error) => return Some(Reply::Failed(error.raw_os_error().unwrap_or(libc::EIO))),
        };
        let written = input.as_raw_fd();
        let streams = Streams::Descriptors([host.null.as_raw_fd(), written, written]);
        match join::start(host, container, &request.process, streams, true) {
            Err(failure) => cannot(ProbeEnd::CannotStart(failure)),
            Ok(Joined { pid, failure }) => {
                self.probes.push(Probe {
                    request_id: Some(id),
                    pid,
                    failure: File::from(failure),
                    output: Some(File::from(output)),
                    _input: input,
                    kept: Vec::new(),
                    deadline_ms: sys::boot_time_ms().saturating_add(u64::from(request.timeout_ms)),
                });
                None
            }
        }
    }

    pub(super) fn serve_probe(&mut self, pid: i32) {
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.pid == pid) {
            probe.pump();
        }
    }

    /// How long the event loop may wait; `None`: for ever.
    pub(super) fn milliseconds_to_deadline(&self) -> Option<i32> {
        let first = self.probes.iter().filter_map(Probe::deadline_ms).min()?;
        let wait = first.saturating_sub(sys::boot_time_ms());
        // One more: a wait that is rounded down would end before the deadline, over and over.
        Some(i32::try_from(wait.saturating_add(1)).unwrap_or(i32::MAX))
    }

    pub(super) fn end_late_probes(&mut self) {
        if self.probes.is_empty() {
            return;
        }
        let now = sys::boot_time_ms();
        let mut answers = Vec::new();
        for probe in self.probes.iter_mut().filter(|probe| probe.deadline_ms <= now) {
            probe.pump();
            probe.kill();
            let output = std::mem::take(&mut probe.kept);
            answers.push((probe.request_id.take(), ProbeResult { end: ProbeEnd::TimedOut, output }));
        }
        for (id, result) in answers {
            self.answer_probe(id, result);
        }
    }

    /// Whether the ended child was a probe.
    pub(super) fn claim_probe(&mut self, pid: i32, end: ChildEnd) -> bool {
        let Some(at) = self.probes.iter().position(|probe| probe.pid() == pid) else { return false };
        let (id, result) = self.probes.swap_remove(at).finish(end);
        if let ProbeEnd::CannotStart(failure) = &result.end {
            self.distrust(failure);
        }
        self.answer_probe(id, result);
        if self.probes.is_empty() {
            self.probes = Vec::new();
            sys::trim_heap();
        }
        true
    }

    fn answer_probe(&mut self, id: Option<u32>, result: ProbeResult) {
        if let Some(id) = id {
            self.reply(id, Reply::Probed(result));
        }
    }
}
