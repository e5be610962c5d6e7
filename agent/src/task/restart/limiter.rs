//! How many containers this node starts again in a time: a bucket of starts that fills the slower
//! the harder pressed the node is, so that many crash loops at once do not take it down.
//! In: requests of the tasks' actors. Out: a turn each, in the order asked. First starts are never
//! delayed, placement has made room for them, but they count, so restarts stand back behind them.
//! Owns: the bucket, in one tokio task. Never: lets anybody wait for ever; the rate is never 0.

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
/// Requests are answered at once or queued below; each task has one at most for each of its ten containers.
const QUEUE_DEPTH: usize = 64;

/// Thousandths of a start for each second, by pressure.
fn rate(pressure: Pressure) -> i64 {
    match (pressure.cpu.unwrap_or(0), pressure.memory.unwrap_or(0)) {
        (90.., _) | (_, 40..) => 200,
        (60..90, _) | (_, 10..40) => 1_000,
        _ => 10_000,
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

    /// A first start: goes ahead whatever the level.
    fn first(&mut self, now_ms: u64, rate: i64) {
        self.fill(now_ms, rate);
        self.level = (self.level - START).max(-DEBT_MAX);
    }

    /// A restart: `Ok` now, or after how many milliseconds to ask again.
    fn again(&mut self, now_ms: u64, rate: i64) -> Result<(), u64> {
        self.fill(now_ms, rate);
        if self.level >= START {
            self.level -= START;
            return Ok(());
        }
        let missing = u64::try_from(START - self.level).unwrap_or(0);
        Err((missing * 1000).div_ceil(rate.unsigned_abs()).max(1))
    }
}

enum Request {
    First,
    Again(oneshot::Sender<()>),
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
        let _ = self.queue.try_send(Request::First);
    }

    /// Returns when a container may be started again; may be dropped before.
    pub(crate) async fn turn(&self) {
        let (answer, got) = oneshot::channel();
        let _ = self.queue.send(Request::Again(answer)).await;
        // The owner lives as long as this handle.
        let _ = got.await;
    }
}

/// How often pressure is looked at while somebody waits.
const LOOK_AGAIN_MS: u64 = 1000;

async fn own(mut requests: mpsc::Receiver<Request>, pressure: PathBuf) {
    let mut bucket = Bucket::new(BootInstant::now().ms());
    let mut waiting: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    loop {
        waiting.retain(|answer| !answer.is_closed());
        let mut pause = None;
        while let Some(answer) = waiting.pop_front() {
            match bucket.again(BootInstant::now().ms(), rate(pressure::read(&pressure))) {
                // One that was dropped meanwhile has cost a turn.
                Ok(()) => drop(answer.send(())),
                Err(ms) => {
                    waiting.push_front(answer);
                    pause = Some(Duration::from_millis(ms.min(LOOK_AGAIN_MS)));
                    break;
                }
            }
        }
        let request = tokio::select! {
            // A channel keeps what was not taken.
            request = requests.recv() => request,
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => continue,
        };
        match request {
            Some(Request::First) => {
                bucket.first(BootInstant::now().ms(), rate(Pressure::default()));
            }
            Some(Request::Again(answer)) => waiting.push_back(answer),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any time no more restarts than a burst and the rate allow, and never none for ever.
        #[test]
        fn the_rate_holds_over_any_time(
            asks in prop::collection::vec((0..2_000u64, any::<bool>()), 1..200),
            cpu in prop::option::of(0..100u8),
            memory in prop::option::of(0..100u8),
        ) {
            let rate = rate(Pressure { cpu, memory });
            prop_assert!(rate > 0);
            let mut bucket = Bucket::new(0);
            let (mut now, mut granted) = (0, 0i64);
            for (pause, first) in asks {
                now += pause;
                if first {
                    bucket.first(now, rate);
                } else if let Err(wait) = bucket.again(now, rate) {
                    let mut later = bucket;
                    prop_assert_eq!(later.again(now + wait, rate), Ok(()), "it said when");
                    prop_assert!(wait <= 11 * START.unsigned_abs() * 1000 / rate.unsigned_abs() + 1);
                } else {
                    granted += 1;
                }
                prop_assert!(granted * START <= BURST + i64::try_from(now).unwrap() * rate / 1000);
                prop_assert!((-DEBT_MAX..=BURST).contains(&bucket.level));
            }
        }
    }

    #[test]
    fn pressure_slows_and_its_absence_does_not() {
        let of = |cpu, memory| rate(Pressure { cpu, memory });
        assert_eq!(of(None, None), of(Some(10), Some(0)));
        assert!(of(Some(70), None) < of(Some(10), None));
        assert!(of(Some(95), None) < of(Some(70), None));
        assert_eq!(of(Some(0), Some(50)), of(Some(95), Some(0)));
    }

    #[tokio::test]
    async fn turns_come_in_order_and_a_dropped_one_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let limiter = StartLimiter::start(dir.path().to_path_buf());
        limiter.count();
        for _ in 0..10 {
            limiter.turn().await;
        }
        let mut dropped = Box::pin(limiter.turn());
        let _ = futures_util::poll!(&mut dropped);
        drop(dropped);
        for _ in 0..12 {
            limiter.turn().await;
        }
    }
}
