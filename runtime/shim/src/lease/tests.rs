//! Properties of the lease's arithmetic, with a monitor that looks at it whenever it says so.

use super::{Due, Lease};
use lighter_shim_wire::lease::{LeaseRequest, LeaseStop};
use proptest::prelude::*;

fn request(ends_at_boot_ms: u64, timeouts_ms: &[u64]) -> LeaseRequest {
    let stops = timeouts_ms.iter().enumerate();
    let stop = |(at, timeout_ms): (usize, &u64)| LeaseStop {
        name: format!("c{at}"),
        signal: 10 + at as i32,
        timeout_ms: *timeout_ms,
    };
    LeaseRequest { ends_at_boot_ms, stops: stops.map(stop).collect(), thaw: None }
}

/// Signals as (moment, container, what), from `now_ms` until everything has had SIGKILL.
fn run(lease: &mut Lease, names: &[String], mut now_ms: u64) -> Vec<(u64, String, Due)> {
    let mut sent = Vec::new();
    let mut killed = Vec::new();
    while killed.len() < names.len() {
        for name in names.iter().filter(|name| !killed.contains(*name)).cloned().collect::<Vec<_>>() {
            let due = lease.due(&name, now_ms);
            match due {
                Due::Nothing => continue,
                Due::Stop(_) => lease.tell(&name),
                Due::Kill => killed.push(name.clone()),
            }
            sent.push((now_ms, name, due));
        }
        lease.expire(now_ms);
        let live = names.iter().filter(|name| !killed.contains(*name)).map(String::as_str);
        let next = lease.next_ms(live, now_ms);
        assert!(next > now_ms, "it would turn for ever");
        now_ms = next;
    }
    sent
}

proptest! {
    #[test]
    fn every_container_is_asked_at_its_own_time_and_killed_at_the_end(
        end in 100_000u64..200_000,
        timeouts in proptest::collection::vec(0u64..60_000, 1..5),
        renewals in proptest::collection::vec((0u64..150_000, 1u64..200_000), 0..10),
    ) {
        let mut lease = Lease::new(&request(end, &timeouts));
        let names: Vec<String> = (0..timeouts.len()).map(|at| format!("c{at}")).collect();
        let mut expected = end;
        let mut now = 0;
        for (after, ends) in renewals {
            // The monitor looks at its lease before it hears the agent.
            let first_stop = timeouts.iter().map(|timeout| expected - timeout).min().unwrap();
            if now + after >= first_stop {
                break;
            }
            now += after;
            lease.renew(&request(ends, &timeouts), now);
            expected = expected.max(ends);
            prop_assert_eq!(lease.state().ends_at_boot_ms, expected, "never backwards");
            prop_assert!(!lease.state().over);
        }
        let sent = run(&mut lease, &names, now);
        prop_assert!(lease.state().over);
        for (at, timeout) in timeouts.iter().enumerate() {
            let own: Vec<_> = sent.iter().filter(|(_, name, _)| *name == names[at]).collect();
            let kill = own.iter().find(|(_, _, due)| *due == Due::Kill).unwrap();
            prop_assert_eq!(kill.0, expected.max(now));
            let stops: Vec<u64> =
                own.iter().filter(|(_, _, due)| matches!(due, Due::Stop(_))).map(|(at, _, _)| *at).collect();
            // Without time between signal and SIGKILL there is only the latter.
            let asked = if *timeout == 0 { vec![] } else { vec![(expected - timeout).max(now)] };
            prop_assert_eq!(stops, asked);
        }
        // Over is over.
        lease.renew(&request(expected + 1_000_000, &timeouts), expected + 1);
        prop_assert_eq!(lease.state().ends_at_boot_ms, expected);
        prop_assert!(!lease.admits(0));
    }

    #[test]
    fn nothing_starts_that_would_have_to_stop(end in 1u64..100_000, timeout in 0u64..60_000, now in 0u64..120_000) {
        let lease = Lease::new(&request(end, &[timeout]));
        prop_assert_eq!(lease.admits(now), now < end.saturating_sub(timeout) || (timeout == 0 && now < end));
    }
}

#[test]
fn a_renewal_that_comes_late_saves_nothing() {
    let mut lease = Lease::new(&request(1_000, &[100]));
    lease.renew(&request(5_000, &[]), 1_000);
    assert_eq!((lease.state().ends_at_boot_ms, lease.state().over), (1_000, true));
    assert_eq!(lease.due("c0", 1_000), Due::Kill);
    assert_eq!(lease.due("unknown to the lease", 1_000), Due::Kill);
}

#[test]
fn a_stop_signal_is_sent_once_by_whomever() {
    let mut lease = Lease::new(&request(1_000, &[500, 100]));
    assert!(!lease.has_sent("c0", 10), "while it is kept, the agent's signals are its own affair");
    assert_eq!(lease.due("c0", 500), Due::Stop(10));
    lease.tell("c0");
    assert_eq!(lease.due("c0", 501), Due::Nothing);
    assert!(lease.has_sent("c0", 10));
    assert!(!lease.has_sent("c0", 1), "another signal is another matter");
    assert!(!lease.has_sent("c1", 11), "sent by the agent, for the task is to end");
    assert_eq!(lease.due("c1", 950), Due::Nothing);
}
