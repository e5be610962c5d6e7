//! Exclusive tasks: started only under a lease, renewed by answered heartbeats of a session that has listed
//! them, ended by their monitor, reported once. In: assignments with `lease_s`, answers or none.
//! Never: waits for a lease of real length; the fake monitor is told when it is over.

use super::bench::{Bench, task};
use super::control::wait;
use crate::facilities::fakes::Program;
use crate::time::BootInstant;
use lighter_model::ids::TaskId;
use lighter_proto::v1::{StopCode, TaskStatus};

const LEASE_S: u32 = 60;

fn assign(bench: &Bench, number: u64, lease_s: u32) -> (TaskId, String) {
    let id = task(number).to_string();
    bench.control.with(|state| state.assignments.entry(id.clone()).or_default().lease_s = lease_s);
    bench.control.assign(&id, "small:1");
    (task(number), id)
}

fn lease_ends_ms(bench: &Bench, task: &TaskId) -> u64 {
    bench.machine.with(|world| world.shims.get(task).map_or(0, |shim| shim.lease_ends_ms))
}

fn starts(bench: &Bench, task: &TaskId) -> u32 {
    bench
        .machine
        .with(|world| world.starts.iter().filter(|((of, _), _)| of == task).map(|(_, count)| count).sum())
}

#[test]
fn answered_heartbeats_renew_the_lease_and_answers_of_a_lower_term_do_not() {
    let mut bench = Bench::new();
    bench.control.with(|state| (state.heartbeat_ms, state.term) = (20, 5));
    bench.start();
    let begun = BootInstant::now().ms();
    let (exclusive, id) = assign(&bench, 1, LEASE_S);
    let (plain, plain_id) = assign(&bench, 2, 0);
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.wait_status(&plain_id, TaskStatus::Running);
    let first = lease_ends_ms(&bench, &exclusive);
    assert!(first + 20_000 > begun + u64::from(LEASE_S) * 1000, "{first} {begun}");
    wait("a renewal", || (lease_ends_ms(&bench, &exclusive) > first).then_some(()), String::new);
    assert_eq!(lease_ends_ms(&bench, &plain), 0);
    let events = bench.control.ask_events(&id);
    assert!(events.iter().any(|event| event.text.starts_with("lease of 60 s: the task is ended at")));
    assert!(bench.control.with(|state| state.hellos[0].features.contains(&"leases".to_owned())));
    // A leader that is none any more still answers.
    bench.control.with(|state| state.term = 4);
    let beats = |bench: &Bench| bench.control.with(|state| state.heartbeats);
    let settled = beats(&bench) + 3;
    wait("answers of the old leader", || (beats(&bench) > settled).then_some(()), String::new);
    let before = lease_ends_ms(&bench, &exclusive);
    let settled = beats(&bench) + 5;
    wait("more of them", || (beats(&bench) > settled).then_some(()), String::new);
    assert_eq!(lease_ends_ms(&bench, &exclusive), before);
}

#[test]
fn a_lease_too_short_for_two_stops_is_refused_in_words() {
    let mut bench = Bench::new();
    bench.start();
    let (refused, id) = assign(&bench, 1, 1);
    let report = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(report.stop_code(), StopCode::TaskFailedToStart);
    assert!(report.stopped_reason.contains("less than twice the stopTimeout"), "{}", report.stopped_reason);
    assert_eq!(starts(&bench, &refused), 0);
}

#[test]
fn the_end_of_a_lease_is_reported_with_its_reason_and_nothing_starts_again() {
    let mut bench = Bench::new();
    bench.control.define(
        "again:1",
        r#"{"family":"again","containerDefinitions":[{"name":"small","image":"side","cpu":10,"memory":10,"stopTimeout":1,
            "restartPolicy":{"enabled":true,"restartAttemptPeriod":0}}]}"#,
    );
    bench.start();
    let id = task(1).to_string();
    bench.control.with(|state| state.assignments.entry(id.clone()).or_default().lease_s = LEASE_S);
    bench.control.assign(&id, "again:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.end_lease(&task(1));
    let report = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(report.stop_code(), StopCode::InfrastructureHealth);
    assert!(report.stopped_reason.starts_with("lease expired: "), "{}", report.stopped_reason);
    assert_eq!(starts(&bench, &task(1)), 1);
    bench.control.change(&id, |assignment| assignment.forget = true);
    bench.wait_forgotten(&[task(1)]);
    assert_eq!(bench.control.stopped_reports(&id), 1);
}

#[test]
fn a_lease_that_ended_without_an_agent_is_reported_by_the_next() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("small".parse().unwrap(), Program::IgnoresStop));
    bench.start();
    let (exclusive, id) = assign(&bench, 1, LEASE_S);
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    bench.machine.end_lease(&exclusive);
    bench.start();
    let report = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert!(report.stopped_reason.starts_with("lease expired: "), "{}", report.stopped_reason);
    assert_eq!((starts(&bench, &exclusive), bench.control.stopped_reports(&id)), (1, 1));
}

#[test]
fn a_monitor_of_an_older_release_is_named_and_starts_nothing() {
    let mut bench = Bench::new();
    bench.start();
    let (exclusive, id) = assign(&bench, 1, LEASE_S);
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    bench.machine.with(|world| world.shims.get_mut(&exclusive).unwrap().old = true);
    bench.start();
    let report = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert!(report.stopped_reason.contains("keeps no lease"), "{}", report.stopped_reason);
}
