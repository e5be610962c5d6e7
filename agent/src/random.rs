//! Random bytes from the kernel, in one place. In: how many. Out: those bytes, or that there are none.
//! Owns nothing. Never: falls back to something that can be guessed; each caller says what a failure
//! means to it.

use ring::rand::{SecureRandom, SystemRandom};

/// The kernel has no random numbers; nothing of TLS works then either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel has no random numbers")]
pub(crate) struct NoRandomNumbers;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomNumbers> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomNumbers)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<16>(), super::bytes::<16>());
    }
}
