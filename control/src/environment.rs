//! The clock and the luck of the control plane, in one place, so that tests bring their own.
//! In: the wall clock and the kernel's random numbers. Out: `Moment`s and random texts.
//! Never: used inside the core; the core is given moments.

use crate::core::Moment;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where time and randomness come from.
#[derive(Clone)]
pub struct Environment {
    wall_unix_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    luck: Luck,
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
        Self { wall_unix_ms: Arc::new(wall_unix_ms), luck }
    }

    /// With another wall clock and numbers that are not random: for simulations, where the same seed
    /// has to give the same run. Nothing secret can be made of it.
    pub fn simulated(
        wall_unix_ms: impl Fn() -> u64 + Send + Sync + 'static,
        luck: impl Fn() -> u128 + Send + Sync + 'static,
    ) -> Self {
        Self { wall_unix_ms: Arc::new(wall_unix_ms), luck: Luck::Given(Arc::new(luck)) }
    }

    pub fn wall_unix_ms(&self) -> u64 {
        (self.wall_unix_ms)()
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

/// Lower-case hex digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
