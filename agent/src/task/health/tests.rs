//! Health against a slow reference of Docker's rules, the settings of definition and image.

use super::*;
use lighter_model::task_definition::OnUnhealthy;
use proptest::prelude::*;

fn settings_of(interval_ms: u64, start_period_ms: u64, retries: u32) -> HealthSettings {
    HealthSettings {
        argv: vec!["/up".into()],
        interval_ms,
        timeout_ms: 10,
        start_period_ms,
        retries,
        on_unhealthy: OnUnhealthy::Report,
    }
}

fn checked(passed: bool, began_ms: u64) -> Checked {
    Checked { passed, began_ms, end: "exit code".into(), output: String::new() }
}

/// Docker's rules, from the whole history.
fn reference(settings: &HealthSettings, history: &[(bool, u64)]) -> HealthStatus {
    let grace = settings.start_period_ms.max(settings.interval_ms);
    let first_pass = history.iter().position(|(passed, _)| *passed);
    let mut status = HealthStatus::Unknown;
    for end in 1..=history.len() {
        let counted: Vec<bool> = history[..end]
            .iter()
            .enumerate()
            .filter(|(at, (_, began))| {
                *began >= grace
                    || first_pass.is_some_and(|first| first <= *at)
                    || reference_unhealthy_before(settings, &history[..*at], grace)
            })
            .map(|(_, (passed, _))| *passed)
            .collect();
        let streak = counted.iter().rev().take_while(|passed| !**passed).count();
        if history[end - 1].0 {
            status = HealthStatus::Healthy;
        } else if streak >= settings.retries as usize {
            status = HealthStatus::Unhealthy;
        }
    }
    status
}

fn reference_unhealthy_before(settings: &HealthSettings, history: &[(bool, u64)], grace: u64) -> bool {
    let late = history.iter().filter(|(passed, began)| !passed && *began >= grace).count();
    late >= settings.retries as usize
}

proptest! {
    #[test]
    fn a_check_follows_docker_and_a_slow_reference(
        interval in 5..50u64,
        start_period in 0..100u64,
        retries in 1..5u32,
        results in prop::collection::vec((any::<bool>(), 0..20u64), 0..30),
    ) {
        let settings = settings_of(interval, start_period, retries);
        let mut health = ContainerHealth::default();
        let (mut now, mut history) = (0, Vec::new());
        for (passed, pause) in results {
            now += pause;
            history.push((passed, now));
            let (next, _) = after(&health, &settings, &checked(passed, now), now);
            let told = next.status != health.status;
            prop_assert_eq!(next.since_unix_ms == now, told || (next.since_unix_ms == health.since_unix_ms && health.since_unix_ms == now));
            health = next;
            prop_assert_eq!(health.status, reference(&settings, &history), "{:?}", history);
        }
    }

    #[test]
    fn checks_keep_to_shared_ticks_and_to_their_interval(
        interval_s in 5..300u64,
        odd_ms in 0..1000u64,
        checks in 2..100u32,
        now in 0..10_000_000u64,
        status in prop::sample::select(vec![HealthStatus::Healthy, HealthStatus::Unhealthy]),
        took_ms in prop::collection::vec(0..250u64, 20),
    ) {
        // An image may say any interval.
        let odd = settings_of(interval_s * 1000 + odd_ms, 0, 3);
        let due = due_ms(&odd, status, checks, 7, now);
        prop_assert_eq!(due % (odd.interval_ms / 10).min(1000), 0);
        prop_assert!(due.abs_diff(now + odd.interval_ms) <= odd.interval_ms / 20);
        // Whole seconds, as a definition has them, are kept exactly: checks that take a moment are not fewer for it.
        let whole = settings_of(interval_s * 1000, 0, 3);
        let first = due_ms(&whole, status, checks, 7, now);
        let last = took_ms.iter().fold(first, |at, took| due_ms(&whole, status, checks, 7, at + took));
        prop_assert_eq!(last, first + 20 * whole.interval_ms);
    }

    #[test]
    fn pauses_are_bounded_and_spread(interval in 5_000..300_000u64, checks in 0..100u32, a in 0..255u8) {
        let settings = settings_of(interval, 0, 3);
        for status in HealthStatus::ALL {
            let pause = pause_ms(&settings, status, checks, a);
            prop_assert!(pause >= 100 && pause <= interval);
            prop_assert!(status == HealthStatus::Unknown || checks < 2 || pause == interval);
            if checks < 2 {
                prop_assert!(pause_ms(&settings, status, checks, a + 1) >= pause);
            }
        }
    }
}

#[test]
fn equal_results_are_not_worth_a_report() {
    let settings = settings_of(10, 0, 2);
    let mut health = ContainerHealth::default();
    let mut reports = Vec::new();
    for (at, passed) in [true, true, true, false, false, false, true, true].into_iter().enumerate() {
        let (next, report) = after(&health, &settings, &checked(passed, 100 + at as u64), 7);
        (health, _) = (next, reports.push(report));
    }
    assert_eq!(reports, [true, false, false, true, true, false, true, false]);
}

#[test]
fn the_images_check_counts_only_when_asked_for() {
    let image = ImageHealthcheck {
        test: vec!["CMD-SHELL".into(), "curl localhost".into()],
        interval_ns: 7_000_000_000,
        start_period_ns: 1_000_000_000,
        ..ImageHealthcheck::default()
    };
    let own =
        HealthCheck { command: vec!["CMD".into(), "/up".into(), "-v".into()], ..HealthCheck::default() };
    let found = settings(&own, Some(&image), 1000).unwrap();
    assert_eq!(
        (found.argv, found.interval_ms, found.timeout_ms),
        (vec!["/up".into(), "-v".into()], 30_000, 5_000)
    );
    let asked = HealthCheck { from_image: true, retries: Some(9), ..HealthCheck::default() };
    let found = settings(&asked, Some(&image), 1000).unwrap();
    assert_eq!(found.argv, ["/bin/sh", "-c", "curl localhost"]);
    assert_eq!(
        (found.interval_ms, found.timeout_ms, found.start_period_ms, found.retries),
        (7_000, 30_000, 1_000, 9)
    );
    assert!(settings(&asked, None, 1000).is_none(), "the image has none");
    let none = HealthCheck { command: vec!["NONE".into()], ..HealthCheck::default() };
    assert!(settings(&none, Some(&image), 1000).is_none());
}

#[test]
fn what_a_check_printed_is_kept_in_bounds() {
    let outcome = ProbeOutcome { end: ProbeEnd::TimedOut, output: vec![b'x'; 4096] };
    let checked = Checked::of(&outcome, &settings_of(10, 0, 1), 0);
    assert_eq!((checked.output.len(), checked.passed), (1024, false));
    assert!(checked.end.contains("10 ms"), "{}", checked.end);
}
