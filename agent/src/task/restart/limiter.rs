//! How many containers and tasks this node starts in a time, so that crash loops, of containers in
//! their places or of whole tasks that are placed again and again, do not take it down.
//! Restarts: a bucket that fills the slower the harder pressed the node is. First starts of tasks: no
//! limit while the node is at ease, so that no burst is slowed; under heavy pressure a bucket of their
//! own. In: requests of the tasks' actors. Out: a turn each, in the order asked. First starts of
//! containers count against restarts, which stand back behind them for `HEAD_MAX_MS` at most.
//! Owns: the buckets and the two queues, in one tokio task.
//! Never: lets anybody wait for ever; a rate is never 0, and nobody overtakes in a queue.

use super::pressure::{self, Pressure};
use crate::time::{BootInstant, sleep};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Thousandths of a start.
const START: i64 = 1000;
/// Starts at once after a quiet time.
const BURST: i64 = 20 * START;
/// First starts may put restarts back by this much, and no further.
const DEBT_MAX: i64 = 10 * START;
/// The first of those that wait for a restart gets its turn after this time, however many first
/// starts there are.
const HEAD_MAX_MS: u64 = 20_000;
/// Requests are answered at once or queued below; each task has one at most for each of its ten containers.
const QUEUE_DEPTH: usize = 64;

/// Restarts: thousandths of a start for each second, by pressure.
fn rate(pressure: Pressure) -> i64 {
    match (pressure.cpu.unwrap_or(0), pressure.memory.unwrap_or(0)) {
        (90.., _) | (_, 40..) => 200,
        (60..90, _) | (_, 10..40) => 1_000,
        _ => 10_000,
    }
}

/// The slowest rate of first starts.
const FIRST_RATE_MIN: i64 = 500;

/// First starts: thousandths of a task for each second; `None`: no limit. A burst of starts alone
/// keeps every core busy for seconds: only pressure over a minute counts as heavy for the CPU.
fn first_rate(pressure: Pressure) -> Option<i64> {
    let of = |percent: Option<u8>| percent.unwrap_or(0);
    match (of(pressure.cpu_minute), of(pressure.memory), of(pressure.memory_full)) {
        (_, 40.., _) | (_, _, 20..) => Some(FIRST_RATE_MIN),
        (_, 20..40, _) | (_, _, 10..20) => Some(2_000),
        (80.., _, _) => Some(10_000),
        _ => None,
    }
}

/// The bucket, as a pure value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    level: i64,
    at_ms: u64,
}

impl Bucket {
    fn new(now_ms: u64) -> Self {
        Self { level: BURST, at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64, rate: i64) {
        let passed = i64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(i64::MAX);
        let gained = passed.saturating_mul(rate) / 1000;
        // Time that is too short for a thousandth is kept.
        if gained > 0 {
            self.at_ms = now_ms;
            self.level = self.level.saturating_add(gained).min(BURST);
        }
    }

    /// A container's first start: counted whatever the level.
    fn count(&mut self, now_ms: u64, rate: i64) {
        self.fill(now_ms, rate);
        self.level = (self.level - START).max(-DEBT_MAX);
    }

    /// A turn: `Ok` now, or after how many milliseconds to ask again.
    fn take(&mut self, now_ms: u64, rate: i64) -> Result<(), u64> {
        self.fill(now_ms, rate);
        if self.level >= START {
            self.level -= START;
            return Ok(());
        }
        let missing = u64::try_from(START - self.level).unwrap_or(0);
        Err((missing * 1000).div_ceil(rate.unsigned_abs()).max(1))
    }
}

/// Both buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Buckets {
    restarts: Bucket,
    firsts: Bucket,
}

impl Buckets {
    /// A restart that has been the first in its queue for so long.
    fn again(&mut self, now_ms: u64, pressure: Pressure, head_for_ms: u64) -> Result<(), u64> {
        let taken = self.restarts.take(now_ms, rate(pressure));
        let left = HEAD_MAX_MS.saturating_sub(head_for_ms);
        if left == 0 { Ok(()) } else { taken.map_err(|wait| wait.min(left)) }
    }

    /// A task's first start.
    fn first(&mut self, now_ms: u64, pressure: Pressure) -> Result<(), u64> {
        match first_rate(pressure) {
            Some(rate) => self.firsts.take(now_ms, rate),
            None => {
                self.firsts = Bucket::new(now_ms);
                Ok(())
            }
        }
    }
}

/// The longest that a first start waits behind so many others.
fn first_within(ahead: usize) -> Duration {
    let starts = u64::try_from(ahead).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_millis(starts.saturating_mul((START * 1000 / FIRST_RATE_MIN).unsigned_abs()))
}

/// Those that wait, in the order they asked, with the moment they did.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    granted_at_ms: u64,
}

impl Queue {
    /// Gives turns until `grant`, told for how long this one was the first, says after how many
    /// milliseconds to ask again.
    fn serve(&mut self, now_ms: u64, mut grant: impl FnMut(u64) -> Result<(), u64>) -> Option<u64> {
        self.waiting.retain(|(_, answer)| !answer.is_closed());
        while let Some((asked_at_ms, answer)) = self.waiting.pop_front() {
            let head_since_ms = asked_at_ms.max(self.granted_at_ms);
            if let Err(wait_ms) = grant(now_ms.saturating_sub(head_since_ms)) {
                self.waiting.push_front((asked_at_ms, answer));
                return Some(wait_ms);
            }
            self.granted_at_ms = now_ms;
            // One that was dropped this moment has cost a turn.
            let _ = answer.send(());
        }
        None
    }
}

enum Request {
    Count,
    First(oneshot::Sender<Turn>),
    Again(oneshot::Sender<()>),
}

/// What a task that wants to start is told.
pub(crate) enum Turn {
    Now,
    /// Because of this pressure, after so many others and within this time, when `go` says so.
    Queued {
        pressure: Pressure,
        ahead: usize,
        within: Duration,
        go: oneshot::Receiver<()>,
    },
}

/// A handle to the node's limiter.
#[derive(Debug, Clone)]
pub(crate) struct StartLimiter {
    queue: mpsc::Sender<Request>,
}

impl StartLimiter {
    /// Starts the owner, which ends with the last handle. `pressure`: /proc/pressure.
    pub(crate) fn start(pressure: PathBuf) -> Self {
        let (queue, requests) = mpsc::channel(QUEUE_DEPTH);
        tokio::spawn(own(requests, pressure));
        Self { queue }
    }

    /// A container is started for the first time.
    pub(crate) fn count(&self) {
        // A full queue is a busy limiter: restarts wait anyway.
        let _ = self.queue.try_send(Request::Count);
    }

    /// Whether a task may be started for the first time; may be dropped at any time.
    pub(crate) async fn first(&self) -> Turn {
        let (answer, got) = oneshot::channel();
        let _ = self.queue.send(Request::First(answer)).await;
        // The owner lives as long as this handle.
        got.await.unwrap_or(Turn::Now)
    }

    /// Returns when a container may be started again; may be dropped before.
    pub(crate) async fn turn(&self) {
        let (answer, got) = oneshot::channel();
        let _ = self.queue.send(Request::Again(answer)).await;
        // As above.
        let _ = got.await;
    }
}

/// How often pressure is looked at while somebody waits.
const LOOK_AGAIN_MS: u64 = 1000;

async fn own(mut requests: mpsc::Receiver<Request>, directory: PathBuf) {
    let now_ms = BootInstant::now().ms();
    let mut buckets = Buckets { restarts: Bucket::new(now_ms), firsts: Bucket::new(now_ms) };
    let (mut firsts, mut restarts) = (Queue::default(), Queue::default());
    loop {
        let pause = serve(&mut buckets, &mut firsts, &mut restarts, &directory);
        let request = tokio::select! {
            // A channel keeps what was not taken.
            request = requests.recv() => request,
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => continue,
        };
        let now_ms = BootInstant::now().ms();
        match request {
            Some(Request::Count) => buckets.restarts.count(now_ms, rate(Pressure::default())),
            Some(Request::Again(answer)) => restarts.waiting.push_back((now_ms, answer)),
            Some(Request::First(answer)) => {
                let pressure = pressure::read(&directory);
                // Who comes now stands behind those who wait.
                if firsts.waiting.is_empty() && buckets.first(now_ms, pressure).is_ok() {
                    let _ = answer.send(Turn::Now);
                    continue;
                }
                let ((granted, go), ahead) = (oneshot::channel(), firsts.waiting.len());
                let queued = Turn::Queued { pressure, ahead, within: first_within(ahead), go };
                if answer.send(queued).is_ok() {
                    firsts.waiting.push_back((now_ms, granted));
                }
            }
            None => return,
        }
    }
}

/// Gives the turns there are; how long to wait for the next, if anybody waits.
fn serve(
    buckets: &mut Buckets,
    firsts: &mut Queue,
    restarts: &mut Queue,
    directory: &std::path::Path,
) -> Option<Duration> {
    if firsts.waiting.is_empty() && restarts.waiting.is_empty() {
        return None;
    }
    let (now_ms, pressure) = (BootInstant::now().ms(), pressure::read(directory));
    let first = firsts.serve(now_ms, |_| buckets.first(now_ms, pressure));
    let again = restarts.serve(now_ms, |head_for_ms| buckets.again(now_ms, pressure, head_for_ms));
    let next = first.into_iter().chain(again).min()?;
    Some(Duration::from_millis(next.min(LOOK_AGAIN_MS)))
}

#[cfg(test)]
mod tests;
