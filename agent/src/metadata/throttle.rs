//! ECS's limit on questions: 40 a second from one address, 60 at once.
//! In: addresses. Out: yes or no. Owns one bucket an address, at most `BUCKETS_MAX`; a full bucket is
//! the same as none. Never: waits.

use crate::time::BootInstant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

const PER_SECOND: f64 = 40.0;
const BURST: f64 = 60.0;
const BUCKETS_MAX: usize = 4096;

/// Clones share the buckets.
#[derive(Clone, Default)]
pub(super) struct Throttle {
    // Held for one map operation, never over an await.
    buckets: Arc<Mutex<BTreeMap<IpAddr, (f64, BootInstant)>>>,
}

impl Throttle {
    pub(super) fn allows(&self, from: IpAddr) -> bool {
        self.allows_at(from, BootInstant::now())
    }

    fn allows_at(&self, from: IpAddr, now: BootInstant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level =
            |(tokens, at): (f64, BootInstant)| (tokens + now.since(at).as_secs_f64() * PER_SECOND).min(BURST);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| level(*bucket) < BURST);
        }
        let tokens = buckets.get(&from).map_or(BURST, |bucket| level(*bucket));
        let allowed = tokens >= 1.0 && (buckets.len() < BUCKETS_MAX || buckets.contains_key(&from));
        let left = if allowed { tokens - 1.0 } else { tokens };
        if buckets.len() < BUCKETS_MAX || buckets.contains_key(&from) {
            buckets.insert(from, (left, now));
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sixty_at_once_then_forty_a_second_for_each_address() {
        let throttle = Throttle::default();
        let (one, other) = ("172.29.0.2".parse().unwrap(), "172.29.0.3".parse().unwrap());
        let now = BootInstant::now();
        let allowed = |at| (0..100).filter(|_| throttle.allows_at(one, at)).count();
        assert_eq!(allowed(now), 60);
        assert_eq!(allowed(now.after(Duration::from_secs(1))), 40);
        assert_eq!(allowed(now.after(Duration::from_secs(60))), 60);
        assert!(throttle.allows_at(other, now));
    }

    #[test]
    fn addresses_do_not_fill_the_memory() {
        let throttle = Throttle::default();
        let now = BootInstant::now();
        for number in 0..BUCKETS_MAX as u32 + 10 {
            throttle.allows_at(IpAddr::from(number.to_be_bytes()), now);
        }
        assert!(throttle.buckets.lock().unwrap().len() <= BUCKETS_MAX);
        assert!(throttle.allows_at("9.9.9.9".parse().unwrap(), now.after(Duration::from_secs(9))));
    }
}
