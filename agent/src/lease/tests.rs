//! The arithmetic of leases on the agent's side.

use super::*;
use proptest::prelude::*;

proptest! {
    /// Answers in any order, repeated, lost: the lease counts from the sending of an answered heartbeat
    /// and never goes back.
    #[test]
    fn a_lease_counts_from_the_sending_of_what_was_answered(
        gaps in proptest::collection::vec(1u64..10_000, 1..40),
        answers in proptest::collection::vec(0u64..50, 0..40),
        lease_s in 1u32..1_000,
    ) {
        let mut lease = Lease::of_seconds(lease_s);
        let mut beats = Beats::default();
        let mut sent = Vec::new();
        let mut now = 0;
        for (at, gap) in gaps.iter().enumerate() {
            now += gap;
            beats.sent(at as u64 + 1, BootInstant::at_ms(now));
            sent.push(now);
        }
        let mut newest = 0;
        for number in answers {
            let before = lease.ends_at_boot_ms();
            if let Some(at) = beats.answered(number) {
                prop_assert_eq!(at.ms(), sent[number as usize - 1]);
                lease.renew(at);
            }
            if (1..=sent.len() as u64).contains(&number) {
                newest = newest.max(number);
            }
            let end = lease.ends_at_boot_ms();
            prop_assert!(end >= before);
            let expected = if newest == 0 { 0 } else { sent[newest as usize - 1] + u64::from(lease_s) * 1000 };
            prop_assert_eq!(end, expected);
        }
    }

    #[test]
    fn a_lease_has_room_for_two_stops(lease_s in 0u32..200, timeouts in proptest::collection::vec(0u32..100, 1..4)) {
        let containers: Vec<_> = timeouts.iter().enumerate().map(|(at, timeout)| {
            serde_json::json!({ "name": format!("c{at}"), "image": "i", "memory": 8, "stopTimeout": timeout })
        }).collect();
        let json = serde_json::json!({ "family": "f", "containerDefinitions": containers });
        let definition: TaskDefinition = serde_json::from_value(json).unwrap();
        let longest = timeouts.iter().max().unwrap();
        prop_assert_eq!(refusal(lease_s, &definition).is_none(), lease_s == 0 || lease_s >= 2 * longest);
    }
}

#[test]
fn a_task_without_a_lease_is_never_renewed() {
    let mut lease = Lease::of_seconds(0);
    assert!(!lease.renew(BootInstant::at_ms(5)));
    assert_eq!(lease.ends_at_boot_ms(), 0);
    assert_eq!(
        refusal(
            3,
            &serde_json::from_value(serde_json::json!({
                "family": "f", "containerDefinitions": [{ "name": "c", "image": "i", "memory": 8 }]
            }))
            .unwrap()
        )
        .unwrap(),
        "ResourceInitializationError: a lease of 3 s is less than twice the stopTimeout of container c (30 s)"
    );
}
