//! Properties of the policy of silence, of the brake and of the limit of replacements. In: generated nodes and times.
//! Out: verdicts. Never: asks a clock.

use super::brake::{BrakeRecord, PERIOD_MS, Sight, SilentNode, Step, step};
use super::most_a_second;
use super::policy::{SETTLED_BEATS, SilencePolicy};
use lighter_model::task_definition::{TaskDefinition, input};
use proptest::prelude::*;

const BEAT_MS: u64 = 5_000;

fn definition(stop_timeouts: &[Option<u32>]) -> TaskDefinition {
    let containers: Vec<String> = stop_timeouts
        .iter()
        .enumerate()
        .map(|(number, timeout)| {
            let timeout = timeout.map_or(String::new(), |s| format!(r#","stopTimeout":{s}"#));
            format!(r#"{{"name":"c{number}","image":"i","memory":8{timeout}}}"#)
        })
        .collect();
    let json = format!(r#"{{"family":"f","containerDefinitions":[{}]}}"#, containers.join(","));
    input::parse(&json).expect("a definition")
}

fn checked(asked: SilencePolicy) -> Result<Option<SilencePolicy>, String> {
    let definition = definition(&[Some(10), Some(40)]);
    asked.checked(&definition, BEAT_MS).map_err(|error| error.to_string())
}

#[test]
fn a_policy_is_completed_or_refused_in_words() {
    let nothing = SilencePolicy::default();
    assert_eq!(checked(nothing), Ok(None));
    let replaced = SilencePolicy { replace: true, ..nothing };
    assert_eq!(checked(replaced), Ok(Some(SilencePolicy { lost_after_s: 300, ..replaced })));
    let exclusive = SilencePolicy { exclusive: true, ..nothing };
    assert_eq!(checked(exclusive), Ok(Some(SilencePolicy { lease_s: 80, ..exclusive })));
    let kept = SilencePolicy { lost_after_s: 60, lease_s: 600, replace: true, exclusive: true };
    assert_eq!(checked(kept), Ok(Some(kept)));
    let refused = |asked: SilencePolicy, word: &str| {
        let error = checked(asked).expect_err("refused");
        assert!(error.contains(word), "{error}");
    };
    refused(SilencePolicy { lost_after_s: 60, ..nothing }, "without replace");
    refused(SilencePolicy { lost_after_s: 24, ..replaced }, "at least 25");
    refused(SilencePolicy { lost_after_s: 604_801, ..replaced }, "at most");
    refused(SilencePolicy { lease_s: 60, ..replaced }, "exclusive tasks only");
    refused(SilencePolicy { lease_s: 79, ..exclusive }, "must be 80");
    refused(SilencePolicy { lease_s: 86_401, ..exclusive }, "must be 80 to 86400");
}

#[test]
fn a_lease_outlasts_three_heartbeats_before_the_stop_signal() {
    let exclusive = SilencePolicy { exclusive: true, ..SilencePolicy::default() };
    let lease = |timeouts: &[Option<u32>], beat| {
        exclusive.checked(&definition(timeouts), beat).map(|policy| policy.map(|p| p.lease_s))
    };
    assert_eq!(lease(&[Some(2)], 15_000), Ok(Some(47)));
    assert_eq!(lease(&[None], 5_000), Ok(Some(60)));
}

#[test]
fn one_in_a_hundred_is_replaced_a_second_and_ten_at_least() {
    assert_eq!([0, 999, 1_000, 1_099, 100_000].map(most_a_second), [10, 10, 10, 10, 1_000]);
}

proptest! {
    /// Two clocks that differ by 1 %: what was sent before we heard it has ended on its node before
    /// we replace it.
    #[test]
    fn a_lease_has_run_out_on_its_node_when_a_task_is_replaced(
        lost_after_s in 0_u32..700, lease_s in 4_u32..86_400, rate in 990_u64..=1_010, beat in 10_u64..60_000,
    ) {
        let policy = SilencePolicy { lost_after_s, replace: true, exclusive: true, lease_s };
        let due = policy.due_ms(beat);
        // The node's clock shows lease_s after so many milliseconds of ours.
        let ended = u64::from(lease_s) * 1_000 * 1_000 / rate;
        prop_assert!(due >= ended + u64::from(lease_s) * 80);
        prop_assert!(due >= u64::from(lost_after_s) * 1_000 && due >= SETTLED_BEATS * beat);
    }

    #[test]
    fn the_brake_is_on_when_more_than_a_fifth_and_three_fall_silent_within_the_period(
        nodes in 1_usize..60, silent_ms in prop::collection::vec(0_u64..3 * PERIOD_MS, 0..60),
    ) {
        let now = 10 * PERIOD_MS;
        let all: Vec<SilentNode> = silent_ms.iter().take(nodes)
            .map(|ms| SilentNode { silent_ms: *ms, fell_at_unix_ms: now - ms }).collect();
        let recent = all.iter().filter(|n| n.silent_ms <= PERIOD_MS + SETTLED_BEATS * BEAT_MS).count();
        let sight = Sight { silent: &all, nodes, watched_ms: now, watched_from_unix_ms: 0, heartbeat_ms: BEAT_MS, released_at_unix_ms: None };
        match step(None, &sight, now) {
            Step::On(brake) => {
                prop_assert!(recent >= 3 && recent * 5 > nodes);
                prop_assert_eq!(brake.silent as usize, recent);
                // What set it keeps it, and when they are back it is off.
                prop_assert_eq!(step(Some(&brake), &sight, now), Step::Keep);
                let none = Sight { silent: &[], ..sight };
                prop_assert_eq!(step(Some(&brake), &none, now), Step::Off);
                // Who has just begun to listen takes nothing off.
                let just = Sight { watched_ms: SETTLED_BEATS * BEAT_MS - 1, ..none };
                prop_assert_eq!(step(Some(&brake), &just, now), Step::Keep);
                // Once released, the same nodes do not set it again.
                let released = Sight { released_at_unix_ms: Some(now), ..sight };
                prop_assert_eq!(step(None, &released, now), Step::Keep);
            }
            other => {
                prop_assert_eq!(other, Step::Keep);
                prop_assert!(recent < 3 || recent * 5 <= nodes);
            }
        }
    }
}

#[test]
fn nodes_dead_for_long_neither_set_nor_keep_the_brake() {
    let now = 100 * PERIOD_MS;
    let node = |silent_ms| SilentNode { silent_ms, fell_at_unix_ms: now - silent_ms };
    let dead: Vec<_> = (0..4).map(|n| node((10 + n) * PERIOD_MS)).collect();
    let sight = |silent| Sight {
        silent,
        nodes: 10,
        watched_ms: now,
        watched_from_unix_ms: 0,
        heartbeat_ms: BEAT_MS,
        released_at_unix_ms: None,
    };
    assert_eq!(step(None, &sight(&dead), now), Step::Keep);
    let brake = BrakeRecord { since_unix_ms: now, counted_from_unix_ms: now - 20_000, silent: 3, nodes: 10 };
    assert_eq!(step(Some(&brake), &sight(&dead), now), Step::Off);
    let fresh: Vec<_> = dead.iter().copied().chain([15_000, 16_000, 17_000].map(node)).collect();
    assert_eq!(step(Some(&brake), &sight(&fresh), now), Step::Keep);
}

/// After a start everybody counts as just seen, and falls silent anew by the clock of who listens.
#[test]
fn nodes_dead_since_before_a_start_do_not_set_the_brake() {
    let started = 100 * PERIOD_MS;
    let now = started + 15_000;
    let fell = |at| SilentNode { silent_ms: 15_000, fell_at_unix_ms: at };
    let sight = |silent| Sight {
        silent,
        nodes: 10,
        watched_ms: 15_000,
        watched_from_unix_ms: started,
        heartbeat_ms: BEAT_MS,
        released_at_unix_ms: None,
    };
    let days = [fell(0), fell(PERIOD_MS), fell(90 * PERIOD_MS)];
    assert_eq!(step(None, &sight(&days), now), Step::Keep);
    // Those that fell silent just before it, and those that do now, are one incident.
    let at_once = [fell(started - 60_000), fell(now), fell(now)];
    assert!(matches!(step(None, &sight(&at_once), now), Step::On(_)));
}
