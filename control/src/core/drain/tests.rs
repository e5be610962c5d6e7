//! What notices make of an instance, and what their end gives back.

use super::*;
use serde_json::json;

const NOW_MS: u64 = 1_000_000;
const TWO_MINUTES_MS: u64 = NOW_MS + 120_000;
const NEXT_WEEK_MS: u64 = NOW_MS + 7 * 86_400_000;

fn instance() -> InstanceRecord {
    serde_json::from_value(json!({
        "id": ContainerInstanceId::from_parts(1, 0), "cluster": "default", "name": "n", "status": "ACTIVE",
        "connected": true, "agent_version": "", "boot_id": "", "address": null,
        "offered": lighter_model::resources::Resources::default(), "token_attributes": {}, "node_attributes": {},
        "registered_at_unix_ms": 0, "orphans": [],
    }))
    .unwrap()
}

fn notice(id: &str, kind: NoticeKind, at_unix_ms: u64, stops: bool) -> Notice {
    let stop_tasks_at_unix_ms = stops.then(|| at_unix_ms - 30_000);
    Notice { id: id.to_owned(), kind, at_unix_ms, detail: String::new(), stop_tasks_at_unix_ms }
}

fn drained_by(draining: bool, deadline_unix_ms: Option<u64>, stop_tasks: bool) -> InstanceRecord {
    asked(&instance(), draining, deadline_unix_ms, stop_tasks)
}

fn asked(
    old: &InstanceRecord,
    draining: bool,
    deadline_unix_ms: Option<u64>,
    stop_tasks: bool,
) -> InstanceRecord {
    let reason = draining.then(|| "a person's".to_owned());
    let cluster = "default".parse().unwrap();
    let asked = UpdateInstancesState {
        cluster,
        instances: Vec::new(),
        draining,
        reason,
        deadline_unix_ms,
        stop_tasks,
    };
    asked.applied(old, NOW_MS)
}

fn heeded(old: &InstanceRecord, notices: &[&Notice]) -> InstanceRecord {
    let mut new = old.clone();
    heed_notices(&mut new, notices.iter().map(|notice| (*notice).clone()).collect(), NOW_MS + 1);
    new
}

fn stops_at(instance: &InstanceRecord) -> Option<u64> {
    instance.drain.as_ref().filter(|drain| drain.stop_tasks).and_then(|drain| drain.deadline_unix_ms)
}

#[test]
fn a_notice_only_tightens_the_drain_of_a_person_and_its_end_gives_it_back() {
    let person = drained_by(true, Some(NOW_MS + 600_000), true);
    // A window of next week, and one that says nothing of when, are no more pressing.
    let later = notice("window", NoticeKind::Maintenance, NEXT_WEEK_MS, true);
    let sometime = notice("sometime", NoticeKind::Maintenance, 0, false);
    for calm in [&later, &sometime] {
        let stands = heeded(&person, &[calm]);
        assert_eq!((&stands.drain, stands.status), (&person.drain, person.status));
        let over = heeded(&stands, &[]);
        assert_eq!((over.drain, over.status), (person.drain.clone(), ContainerInstanceStatus::Draining));
    }
    let spot = notice("spot", NoticeKind::SpotInterruption, TWO_MINUTES_MS, true);
    let tightened = heeded(&person, &[&spot, &later]);
    assert_eq!(stops_at(&tightened), Some(TWO_MINUTES_MS - 30_000));
    assert_eq!(tightened.drain.as_ref().unwrap().stop_code, StopCode::SpotInterruption);
    let over = heeded(&tightened, &[&later]);
    assert_eq!((over.drain, over.status), (person.drain.clone(), ContainerInstanceStatus::Draining));
    // A drain that stops nothing gets the notice's end, and has none again.
    let gentle = drained_by(true, None, false);
    assert_eq!(stops_at(&heeded(&gentle, &[&later])), Some(NEXT_WEEK_MS - 30_000));
    assert_eq!(heeded(&heeded(&gentle, &[&later]), &[]).drain, gentle.drain);
}

#[test]
fn the_most_pressing_of_all_notices_counts_whenever_it_came() {
    let spot = notice("spot", NoticeKind::SpotInterruption, TWO_MINUTES_MS, true);
    let later = notice("window", NoticeKind::Maintenance, NEXT_WEEK_MS, true);
    let first = heeded(&instance(), &[&spot]);
    let both = heeded(&first, &[&spot, &later]);
    assert_eq!(stops_at(&both), Some(TWO_MINUTES_MS - 30_000));
    assert_eq!(heeded(&both, &[&spot, &later]), both, "heard again it is the same");
    // What is left drains it on, and the end of all gives it back.
    let left = heeded(&both, &[&later]);
    assert_eq!(
        (stops_at(&left), left.status),
        (Some(NEXT_WEEK_MS - 30_000), ContainerInstanceStatus::Draining)
    );
    assert_eq!(
        heeded(&heeded(&instance(), &[&later]), &[&spot, &later]).drain.unwrap().reason,
        both.drain.unwrap().reason
    );
    let over = heeded(&left, &[]);
    assert_eq!((over.drain, over.status), (None, ContainerInstanceStatus::Active));
}

#[test]
fn a_person_s_word_stands_against_every_notice_that_is_not_new() {
    let spot = notice("spot", NoticeKind::SpotInterruption, TWO_MINUTES_MS, true);
    let later = notice("window", NoticeKind::Maintenance, NEXT_WEEK_MS, true);
    let active = asked(&heeded(&instance(), &[&spot]), false, None, false);
    assert_eq!(heeded(&active, &[&spot]).status, ContainerInstanceStatus::Active);
    // A new one drains it, and only that one.
    let anew = heeded(&active, &[&spot, &later]);
    assert_eq!(stops_at(&anew), Some(NEXT_WEEK_MS - 30_000));
    assert_eq!(heeded(&anew, &[&spot]).status, ContainerInstanceStatus::Active);
    let person = asked(&heeded(&instance(), &[&spot]), true, None, false);
    assert_eq!(heeded(&person, &[&spot]).drain, person.drain);
    assert_eq!(heeded(&person, &[]).drain, person.drain);
}
