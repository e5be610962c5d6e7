//! When to try again: exponential backoff with full jitter and a finite number of attempts.
//! In: the settings, random bits and a server's wish. Out: how long to wait, or that it is enough.
//! Never: sleeps, draws random numbers or reads a clock itself; the caller does.

use crate::config::RetryConfig;
use std::time::Duration;

/// The attempts already spent on one request.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    config: RetryConfig,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(config: &RetryConfig) -> Self {
        Self { config: config.clone(), failures: 0 }
    }

    /// Forget the failures: the request has got on.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Attempts made so far that failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause before the next attempt, `None` when the attempts are spent. `random` is any
    /// number; a server's `retry_after` is honoured up to the longest backoff.
    pub(crate) fn next(&mut self, random: u64, retry_after: Option<Duration>) -> Option<Duration> {
        self.failures += 1;
        if self.failures >= self.config.attempts {
            return None;
        }
        let ceiling_ms = self
            .config
            .first_backoff_ms
            .saturating_mul(1u64 << (self.failures - 1).min(32))
            .min(self.config.max_backoff_ms);
        // At least half the ceiling, so that a budget of attempts lasts a foreseeable time.
        let half = ceiling_ms / 2;
        let pause = Duration::from_millis(half + random % (ceiling_ms - half + 1));
        let longest = Duration::from_millis(self.config.max_backoff_ms);
        Some(pause.max(retry_after.unwrap_or_default().min(longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_are_bounded_and_attempts_finite(
            attempts in 1u32..20, first in 1u64..1000, times in 1u64..100,
            random in proptest::collection::vec(any::<u64>(), 20), after in 0u64..1_000_000,
        ) {
            let config = RetryConfig { attempts, first_backoff_ms: first, max_backoff_ms: first * times };
            let mut backoff = Backoff::new(&config);
            let mut pauses = 0;
            while let Some(pause) = backoff.next(random[pauses as usize], Some(Duration::from_millis(after))) {
                pauses += 1;
                prop_assert!(pause <= Duration::from_millis(config.max_backoff_ms));
            }
            prop_assert_eq!(pauses, attempts - 1);
            backoff.progressed();
            prop_assert_eq!(backoff.next(0, None).is_some(), attempts > 1);
        }
    }
}
