//! How long its owner surely leads: a deadline on the boot-time clock, which also runs while the
//! process or the whole machine is stopped.
//! In: answered renewals, with the time they were sent. Out: `is_valid`. Owns: the deadline.
//! Never: counts from when an answer came: the store counts from when it got the question.

pub use crate::time::boot_ms as now_ms;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A lease that ends when the clock reaches this never ends.
const FOR_EVER: u64 = u64::MAX;

/// Between two looks at the clock; every answer looks for itself.
const LOOK: Duration = Duration::from_millis(250);

/// How surely the owner of a store leads. Clones share it.
#[derive(Debug, Clone)]
pub struct Lease(Arc<AtomicU64>);

impl Lease {
    /// Of a store that nobody else can open: always valid.
    pub fn for_ever() -> Self {
        Self(Arc::new(AtomicU64::new(FOR_EVER)))
    }

    /// Not valid until it is extended.
    pub fn none() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    /// Whether nobody else can be leading now.
    pub fn is_valid(&self) -> bool {
        let until = self.0.load(Ordering::Acquire);
        until == FOR_EVER || now_ms() < until
    }

    /// Waits until it is not valid any more: for ever, of a store that nobody else can open.
    pub async fn lapsed(&self) {
        if self.0.load(Ordering::Acquire) == FOR_EVER {
            std::future::pending::<()>().await;
        }
        while self.is_valid() {
            crate::time::sleep(LOOK).await;
        }
    }

    /// A renewal sent at that time on the boot-time clock (`now_ms`) was granted for so long. Clocks
    /// may differ by a tenth in rate, and an answer takes a moment to leave: that is kept back.
    pub fn extend(&self, sent_at_ms: u64, granted: Duration) {
        let granted = u64::try_from(granted.as_millis()).unwrap_or(u64::MAX / 2);
        self.0.store(sent_at_ms.saturating_add(granted - granted / 8), Ordering::Release);
    }

    /// Does not lead any more.
    pub fn end(&self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_valid_from_its_sending_and_never_for_the_whole_time_granted() {
        assert!(Lease::for_ever().is_valid());
        let lease = Lease::none();
        assert!(!lease.is_valid());
        lease.extend(now_ms(), Duration::from_secs(10));
        assert!(lease.is_valid());
        // Sent long ago, answered now: nine seconds of ten are over.
        lease.extend(now_ms() - 9_000, Duration::from_secs(10));
        assert!(!lease.is_valid());
        lease.extend(now_ms(), Duration::from_secs(10));
        lease.end();
        assert!(!lease.is_valid());
    }
}
