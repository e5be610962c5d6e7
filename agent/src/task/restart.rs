//! Whether a container that has ended is started again, and when. Pure.
//! In: the policy, the exit, how long it ran. Out: yes or no, and the pause before it.
//! As ECS: enabled, the exit code not ignored, and it ran for at least restartAttemptPeriod. Ours: the
//! pause doubles with every restart that comes soon after another, up to a cap, and is forgotten when
//! the container ran long enough (`Backoff`). Owns nothing. Never: reads a clock.
//! Source: Amazon ECS Developer Guide, "Restart individual containers in Amazon ECS tasks".

pub(crate) mod limiter;
pub(crate) mod pressure;

use lighter_model::exit::ContainerExit;
use lighter_model::task_definition::{RESTART_ATTEMPT_PERIOD_S, RestartPolicy};

/// How long restarts wait; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Before the second of two restarts in a row; the first comes at once, as in ECS.
    pub first_ms: u64,
    pub cap_ms: u64,
    /// A container that ran this long begins anew.
    pub reset_ms: u64,
}

/// Kubernetes has 10 s to 300 s, reset after 600 s; the first pause is shorter, because a restart
/// after restartAttemptPeriod is rare already.
pub(crate) const BACKOFF: Backoff = Backoff { first_ms: 1_000, cap_ms: 300_000, reset_ms: 600_000 };

/// Whether an exit is followed by a restart.
pub(crate) fn restarts(
    policy: Option<&RestartPolicy>,
    exit: &ContainerExit,
    ran_ms: u64,
    second_ms: u64,
) -> bool {
    let Some(policy) = policy.filter(|policy| policy.enabled) else { return false };
    let period_s = policy.attempt_period_s.unwrap_or(RESTART_ATTEMPT_PERIOD_S);
    !policy.ignored_exit_codes.contains(&exit.status.exit_code()) && ran_ms >= u64::from(period_s) * second_ms
}

/// The restarts in a row before this one, and the pause before it.
pub(crate) fn pause(backoff: &Backoff, streak: u32, ran_ms: u64) -> (u32, u64) {
    let streak = if ran_ms >= backoff.reset_ms { 0 } else { streak };
    let pause = match streak {
        0 => 0,
        more => backoff.first_ms.saturating_mul(1 << (more - 1).min(32)).min(backoff.cap_ms),
    };
    (streak, pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lighter_model::exit::ExitStatus;
    use proptest::prelude::*;

    fn exit(code: i32) -> ContainerExit {
        ContainerExit { status: ExitStatus::Exited(code), oom_killed: false, finished_at_unix_ms: 1 }
    }

    #[test]
    fn a_restart_follows_ecs() {
        let policy = |ignored: &[i32], attempt_period_s| RestartPolicy {
            enabled: true,
            ignored_exit_codes: ignored.to_vec(),
            attempt_period_s,
        };
        let ask = |policy: &RestartPolicy, code, ran_ms| restarts(Some(policy), &exit(code), ran_ms, 1000);
        assert!(ask(&policy(&[], None), 1, 300_000), "ECS's default is 300 s");
        assert!(!ask(&policy(&[], None), 1, 299_999));
        assert!(ask(&policy(&[], Some(60)), 0, 60_000), "0 counts like any other");
        assert!(!ask(&policy(&[0, 3], Some(60)), 3, 60_000));
        assert!(ask(&policy(&[], Some(0)), 1, 0), "ours: at once");
        assert!(!ask(&RestartPolicy { enabled: false, ..policy(&[], Some(0)) }, 1, 999_999));
        assert!(!restarts(None, &exit(1), 999_999, 1000));
        let killed = ContainerExit { status: ExitStatus::Signaled(9), ..exit(0) };
        assert!(!restarts(Some(&policy(&[137], Some(0))), &killed, 0, 1000), "128 + the signal");
    }

    proptest! {
        #[test]
        fn pauses_double_up_to_the_cap_and_are_forgotten(streak in 0..100u32, ran in 0..700_000u64) {
            let (counted, wait) = pause(&BACKOFF, streak, ran);
            if ran >= BACKOFF.reset_ms {
                prop_assert_eq!((counted, wait), (0, 0));
            } else {
                prop_assert_eq!(counted, streak);
                let slow = (1..streak).fold(BACKOFF.first_ms, |pause, _| (pause * 2).min(BACKOFF.cap_ms));
                prop_assert_eq!(wait, if streak == 0 { 0 } else { slow });
            }
        }
    }
}
