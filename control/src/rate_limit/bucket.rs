//! A token bucket as one number: the time at which it will be full again.
//! In: a rate, a time. Out: leave, or how long to wait. Pure. Never: reads a clock.
//! Source: the generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer.

use serde::Deserialize;
use std::time::Duration;

/// How many calls there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a time without any.
    pub burst: u32,
}

/// Calls a second that can be told apart by nanoseconds with room to spare.
pub const PER_SECOND_MAX: u32 = 1_000_000;

impl Rate {
    /// Nanoseconds from one token to the next, rounded up so that never more are given.
    fn interval_ns(self) -> u64 {
        1_000_000_000_u64.div_ceil(u64::from(self.per_second.clamp(1, PER_SECOND_MAX)))
    }
}

/// The calls of one caller of one kind. Full when it is new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes a token at that time; without one nothing is taken, and the answer is how long until there is.
    pub fn take(&mut self, rate: Rate, now_ns: u64) -> Result<(), Duration> {
        let interval = rate.interval_ns();
        let full_at = self.full_at_ns.max(now_ns).saturating_add(interval);
        let room = interval.saturating_mul(u64::from(rate.burst.max(1)));
        match full_at.saturating_sub(room).checked_sub(now_ns).filter(|wait| *wait > 0) {
            Some(wait) => Err(Duration::from_nanos(wait)),
            None => {
                self.full_at_ns = full_at;
                Ok(())
            }
        }
    }

    /// Whether it is as good as a new one.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.full_at_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_the_rate() {
        let (rate, mut bucket) = (Rate { per_second: 20, burst: 50 }, Bucket::default());
        let now = 7_000_000_000;
        assert!((0..50).all(|_| bucket.take(rate, now).is_ok()));
        assert_eq!(bucket.take(rate, now), Err(Duration::from_millis(50)));
        assert_eq!(bucket.take(rate, now + 50_000_000), Ok(()));
        assert!(bucket.take(rate, now + 50_000_000).is_err());
        assert!(!bucket.is_full(now + 2_499_000_000) && bucket.is_full(now + 2_550_000_000));
    }

    proptest! {
        /// In no stretch of time are more given than burst and rate allow; whoever waits as long as
        /// told is given one; a refusal takes nothing; and no more than one interval is ever held back.
        #[test]
        fn never_more_than_allowed_and_never_refused_for_longer_than_told(
            per_second in 1_u32..=2_000,
            burst in 1_u32..=50,
            gaps_ns in prop::collection::vec(0_u64..40_000_000, 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let (mut bucket, mut now, mut given) = (Bucket::default(), 0_u64, Vec::new());
            for gap in gaps_ns {
                now += gap;
                let before = bucket;
                match bucket.take(rate, now) {
                    Ok(()) => given.push(now),
                    Err(wait) => {
                        prop_assert_eq!(bucket, before, "a refusal takes nothing");
                        let wait = wait.as_nanos() as u64;
                        prop_assert!(wait > 0 && wait <= rate.interval_ns());
                        prop_assert!(before.clone().take(rate, now + wait).is_ok());
                        let mut early = before;
                        prop_assert!(early.take(rate, now + wait - 1).is_err());
                    }
                }
            }
            for (first, from) in given.iter().enumerate() {
                for (last, to) in given.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (to - from) * u64::from(per_second) / 1_000_000_000;
                    prop_assert!((last - first + 1) as u64 <= allowed, "{} from {from} to {to}", last - first + 1);
                }
            }
        }
    }
}
