//! The clock and the luck of the control plane, in one place, so that tests bring their own.
//! In: the wall clock and the kernel's random numbers. Out: `Moment`s and random texts.
//! Never: used inside the core; the core is given moments.

use crate::core::Moment;
use crate::time::{Instant, now};
use crate::wrong_edit::{self, WrongEdit};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where time and randomness come from.
#[derive(Clone)]
pub struct Environment {
    wall_unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    luck: Luck,
    /// Where the wall clock, or the store, was furthest, and when.
    furthest: Arc<Mutex<Option<(u64, Instant)>>>,
}

/// Where random bytes come from.
#[derive(Clone)]
enum Luck {
    Kernel(Arc<SystemRandom>),
    /// Numbers a simulation can draw again.
    Given(Arc<dyn Fn() -> u128 + Send + Sync>),
}

impl Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::with_clock(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl Environment {
    /// With another wall clock: milliseconds since the Unix epoch.
    pub fn with_clock(wall_unix_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let luck = Luck::Kernel(Arc::new(SystemRandom::new()));
        Self { wall_unix_ms: Arc::new(wall_unix_ms), luck, furthest: Arc::default() }
    }

    /// With another wall clock and numbers that are not random: for simulations, where the same seed
    /// has to give the same run. Nothing secret can be made of it.
    pub fn simulated(
        wall_unix_ms: impl Fn() -> u64 + Send + Sync + 'static,
        luck: impl Fn() -> u128 + Send + Sync + 'static,
    ) -> Self {
        let luck = Luck::Given(Arc::new(luck));
        Self { wall_unix_ms: Arc::new(wall_unix_ms), luck, furthest: Arc::default() }
    }

    /// Milliseconds since the Unix epoch by the wall clock. When that is set back, time goes on from where
    /// it was: what waits for a moment of cluster time, which never falls, would else wait until the wall
    /// clock has caught up.
    pub fn wall_unix_ms(&self) -> u64 {
        let wall_unix_ms = (self.wall_unix_ms)();
        if wrong_edit::is(WrongEdit::ClusterTimeFalls) {
            return wall_unix_ms;
        }
        self.at_least(wall_unix_ms)
    }

    /// Time goes on from no earlier than this; as of now.
    pub fn at_least(&self, unix_ms: u64) -> u64 {
        let mut furthest = self.furthest.lock().unwrap_or_else(PoisonError::into_inner);
        gone_on(&mut furthest, unix_ms, now())
    }

    /// Now, with fresh randomness.
    pub fn moment(&self) -> Moment {
        Moment { wall_unix_ms: self.wall_unix_ms(), random: u128::from_ne_bytes(self.random_bytes()) }
    }

    /// Random bytes; the process ends when the kernel has none, as nothing secret could be made.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let random = match &self.luck {
            Luck::Kernel(random) => random,
            Luck::Given(luck) => {
                for chunk in bytes.chunks_mut(16) {
                    let drawn = luck().to_le_bytes();
                    chunk.copy_from_slice(&drawn[..chunk.len()]);
                }
                return bytes;
            }
        };
        if random.fill(&mut bytes).is_err() {
            tracing::error!("the kernel gives no random numbers");
            std::process::abort();
        }
        bytes
    }

    /// 32 random hex digits.
    pub fn random_hex(&self) -> String {
        hex(&self.random_bytes::<16>())
    }
}

/// The time it is when a clock says `unix_ms`. Pure.
fn gone_on(furthest: &mut Option<(u64, Instant)>, unix_ms: u64, now: Instant) -> u64 {
    let went_on = furthest.map_or(0, |(from, at)| {
        let since = now.saturating_duration_since(at);
        from.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    });
    // Kept as it is while time goes on from it: parts of a millisecond are not lost.
    if unix_ms >= went_on {
        *furthest = Some((unix_ms, now));
    }
    went_on.max(unix_ms)
}

/// Lower-case hex digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_goes_on_when_the_clock_is_set_back() {
        let (begin, mut furthest) = (now(), None);
        let mut at =
            |us: u64, unix_ms: u64| gone_on(&mut furthest, unix_ms, begin + Duration::from_micros(us));
        assert_eq!(at(0, 1_000), 1_000);
        assert_eq!(at(0, 90_000), 90_000);
        // Set back; four looks within five milliseconds.
        for (us, time) in [(1_250, 90_001), (2_500, 90_002), (3_750, 90_003), (5_000, 90_005)] {
            assert_eq!(at(us, 2_000), time);
        }
        // The store was further.
        assert_eq!(at(6_000, 95_000), 95_000);
        assert_eq!(at(1_006_000, 3_000), 96_000);
        // The clock has caught up.
        assert_eq!(at(1_007_000, 200_000), 200_000);
    }
}
