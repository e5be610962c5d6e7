//! How long a service waits before it starts tasks again after some have failed.
//! In: failures and healthy tasks, with times. Out: until when. Pure.
//! A round of failures is those of tasks that were made before the last wait began: however many fail
//! together, the wait grows once. Crashes after RUNNING count like failures to start, which is more
//! than ECS does; a task that is healthy ends the row.
//! Never: gives up.
//! Source: Amazon ECS Developer Guide, "Service throttle logic" (at most 27 minutes).

use serde::{Deserialize, Serialize};

const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 27 * 60_000;
/// Rounds after which it is told.
pub const IMPAIRED: u32 = 3;

/// The row of failures of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub rounds: u32,
    /// When the last round began.
    pub since_unix_ms: u64,
    /// No task is started before.
    pub until_unix_ms: u64,
}

impl Throttle {
    /// A task that was made at `created_ms` has failed. Whether that begins a round.
    pub fn failed(&mut self, created_ms: u64, now_ms: u64) -> bool {
        if self.rounds > 0 && created_ms < self.since_unix_ms {
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        self.since_unix_ms = now_ms;
        self.until_unix_ms = now_ms.saturating_add(delay_ms(self.rounds));
        true
    }

    /// A task made since the last round began is healthy.
    pub fn healthy(&mut self, created_ms: u64) {
        if created_ms >= self.since_unix_ms {
            *self = Self::default();
        }
    }
}

/// The wait after so many rounds: 1 s, doubled each time, at most 27 minutes.
pub fn delay_ms(rounds: u32) -> u64 {
    let doubled = FIRST_MS.checked_shl(rounds.saturating_sub(1)).unwrap_or(LONGEST_MS);
    if rounds > 11 { LONGEST_MS } else { doubled.min(LONGEST_MS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_by_rounds_up_to_27_minutes_and_ends_with_a_healthy_task() {
        let mut throttle = Throttle::default();
        assert!(throttle.failed(0, 10_000));
        assert_eq!(throttle.until_unix_ms, 11_000);
        assert!(!throttle.failed(9_999, 10_500), "of the same round");
        assert!(throttle.failed(11_000, 12_000));
        assert_eq!(throttle.until_unix_ms, 14_000);
        throttle.healthy(11_999);
        assert_eq!(throttle.rounds, 2, "it was there before the round");
        throttle.healthy(14_000);
        assert_eq!(throttle, Throttle::default());
        let waits: Vec<u64> = (1..=40).map(delay_ms).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!((waits[0], waits[10], waits[39]), (1_000, 1_024_000, LONGEST_MS));
    }
}
