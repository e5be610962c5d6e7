//! The deployment circuit breaker: after how many failed tasks a deployment is given up.
//! In: its setting, the latest desired count. Out: a number. Pure.
//! Source: Amazon ECS Developer Guide, "How the Amazon ECS deployment circuit breaker detects failures".

use lighter_model::service::{CircuitBreaker, ThresholdType};

/// The bounds of a percentage that is bounded.
const BOUNDS: (u64, u64) = (3, 200);

/// So many failed tasks.
pub fn threshold(breaker: &CircuitBreaker, desired: u32) -> u32 {
    let share = (u64::from(desired) * u64::from(breaker.threshold_value)).div_ceil(100);
    let threshold = match breaker.threshold_type {
        ThresholdType::BoundedPercent => share.clamp(BOUNDS.0, BOUNDS.1),
        ThresholdType::UnboundedPercent => share.max(1),
        ThresholdType::Count => u64::from(breaker.threshold_value),
    };
    u32::try_from(threshold).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_the_guide() {
        let breaker = CircuitBreaker::default();
        let table = [(0, 3), (1, 3), (6, 3), (7, 4), (25, 13), (400, 200), (800, 200)];
        for (desired, expected) in table {
            assert_eq!(threshold(&breaker, desired), expected, "{desired}");
        }
        let unbounded = CircuitBreaker { threshold_type: ThresholdType::UnboundedPercent, ..breaker };
        assert_eq!((threshold(&unbounded, 1), threshold(&unbounded, 800)), (1, 400));
        let count = CircuitBreaker { threshold_type: ThresholdType::Count, threshold_value: 7, ..breaker };
        assert_eq!((threshold(&count, 1), threshold(&count, 800)), (7, 7));
    }
}
