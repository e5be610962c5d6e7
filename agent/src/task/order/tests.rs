//! The order against a slow reference and against generated lives: nothing starts before its
//! condition, everything comes to an end, stopping goes the other way round.

use super::*;
use proptest::prelude::*;

fn name(index: usize) -> ContainerName {
    format!("c{index}").parse().unwrap()
}

const CONDITIONS: [DependencyCondition; 4] = [
    DependencyCondition::Start,
    DependencyCondition::Complete,
    DependencyCondition::Success,
    DependencyCondition::Healthy,
];

/// Edges only lead to earlier places, as validation guarantees no circles.
fn any_places() -> impl Strategy<Value = Vec<Place>> {
    let edges = prop::collection::vec((any::<prop::sample::Index>(), 0..4usize), 0..3);
    let place = (edges, prop::option::of(1..50u64));
    prop::collection::vec(place, 1..8).prop_map(|list| {
        let each = list.into_iter().enumerate();
        each.map(|(at, (edges, start_timeout_ms))| Place {
            name: name(at),
            after: edges
                .into_iter()
                .filter(|_| at > 0)
                .map(|(index, condition)| (index.index(at.max(1)), CONDITIONS[condition]))
                .collect(),
            start_timeout_ms,
        })
        .collect()
    })
}

fn any_view() -> impl Strategy<Value = View> {
    let phase = prop_oneof![
        Just(Phase::Pending),
        Just(Phase::Starting),
        Just(Phase::Running),
        prop::option::of(0..3i32).prop_map(|exit_code| Phase::Ended { exit_code }),
        Just(Phase::NeverStarted),
    ];
    (phase, 0..3usize, 0..50u64).prop_map(|(phase, health, started)| View {
        phase,
        health: HealthStatus::ALL[health],
        started_boot_ms: matches!(phase, Phase::Running | Phase::Ended { .. }).then_some(started),
    })
}

/// ECS's words, one condition at a time: Ok(true) it holds, Ok(false) not yet, Err never.
fn reference(condition: DependencyCondition, other: &Place, view: &View, now: u64) -> Result<bool, ()> {
    let ended = matches!(view.phase, Phase::Ended { .. });
    let runs = view.phase == Phase::Running;
    if view.phase == Phase::NeverStarted {
        return Err(());
    }
    let met = match condition {
        DependencyCondition::Start => runs || ended,
        DependencyCondition::Complete => ended,
        DependencyCondition::Success => view.phase == Phase::Ended { exit_code: Some(0) },
        DependencyCondition::Healthy => runs && view.health == HealthStatus::Healthy,
    };
    if met {
        return Ok(true);
    }
    if ended {
        return Err(());
    }
    let limit = match (condition, other.start_timeout_ms) {
        (DependencyCondition::Start, _) => None,
        (DependencyCondition::Healthy, None) => Some(HEALTHY_WAIT_MS),
        (_, limit) => limit,
    };
    match (runs, limit, view.started_boot_ms) {
        (true, Some(limit), Some(started)) if now >= started + limit => Err(()),
        _ => Ok(false),
    }
}

/// What becomes of a container once it is started.
#[derive(Debug, Clone, Copy)]
struct Fate {
    can_start: bool,
    healthy_after: Option<u64>,
    ends_after: Option<u64>,
    exit_code: i32,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    (any::<bool>(), prop::option::of(0..20u64), prop::option::of(0..60u64), 0..2i32, 0..5u8).prop_map(
        |(_, healthy_after, ends_after, exit_code, dice)| Fate {
            can_start: dice > 0,
            healthy_after,
            ends_after,
            exit_code,
        },
    )
}

proptest! {
    #[test]
    fn decisions_are_those_of_a_slow_reference(
        places in any_places(),
        views in prop::collection::vec(any_view(), 8),
        now in 0..100u64,
    ) {
        for (index, decision) in decide(&places, &views[..places.len()], now).iter().enumerate() {
            let results: Vec<_> = places[index]
                .after
                .iter()
                .map(|(on, condition)| reference(*condition, &places[*on], &views[*on], now))
                .collect();
            let matches = if views[index].phase != Phase::Pending {
                *decision == Decision::Nothing
            } else if results.contains(&Err(())) {
                matches!(decision, Decision::Impossible(_))
            } else if results.contains(&Ok(false)) {
                let open = results.iter().filter(|result| **result == Ok(false)).count();
                matches!(decision, Decision::Wait(waits) if waits.len() == open)
            } else {
                *decision == Decision::Start
            };
            prop_assert!(matches, "{index}: {decision:?} {results:?}");
        }
    }

    /// A life, a millisecond at a time: every container is started, or the task ends, or it waits
    /// for something that runs and has no bound.
    #[test]
    fn every_life_comes_to_an_end(places in any_places(), fates in prop::collection::vec(any_fate(), 8)) {
        let fresh = View { phase: Phase::Pending, health: HealthStatus::Unknown, started_boot_ms: None };
        let mut views = vec![fresh; places.len()];
        let mut impossible = false;
        for now in 0..=(HEALTHY_WAIT_MS + 1_000) {
            // Nothing happens between the last fate and the longest bound.
            if (1_000..HEALTHY_WAIT_MS).contains(&now) {
                continue;
            }
            for (view, fate) in views.iter_mut().zip(&fates) {
                let Some(ran) = view.started_boot_ms.map(|started| now - started) else { continue };
                if view.phase == Phase::Running && fate.healthy_after.is_some_and(|after| ran >= after) {
                    view.health = HealthStatus::Healthy;
                }
                if view.phase == Phase::Running && fate.ends_after.is_some_and(|after| ran >= after) {
                    view.phase = Phase::Ended { exit_code: Some(fate.exit_code) };
                }
            }
            for (index, decision) in decide(&places, &views, now).into_iter().enumerate() {
                match decision {
                    Decision::Start => {
                        for (on, condition) in &places[index].after {
                            prop_assert_eq!(reference(*condition, &places[*on], &views[*on], now), Ok(true));
                        }
                        views[index].phase = if fates[index].can_start { Phase::Running } else { Phase::NeverStarted };
                        views[index].started_boot_ms = fates[index].can_start.then_some(now);
                    }
                    Decision::Impossible(_) => impossible = true,
                    Decision::Wait(_) | Decision::Nothing => {}
                }
            }
            if impossible || views.iter().all(|view| view.phase != Phase::Pending) {
                return Ok(());
            }
        }
        for decision in decide(&places, &views, HEALTHY_WAIT_MS + 1_000) {
            let Decision::Wait(waits) = decision else { continue };
            let unbounded = |wait: &Wait| {
                let at = places.iter().position(|place| place.name == wait.on).unwrap();
                views[at].phase == Phase::Pending || (views[at].phase == Phase::Running && fates[at].ends_after.is_none())
            };
            prop_assert!(waits.iter().all(unbounded), "{waits:?}");
        }
    }

    /// Stopping what may stop, round after round, ends everything, and nothing before its dependents.
    #[test]
    fn stopping_is_the_reverse(places in any_places()) {
        let mut live: BTreeSet<ContainerName> = places.iter().map(|place| place.name.clone()).collect();
        for _ in 0..places.len() {
            let free = may_stop(&places, &live);
            prop_assert!(!free.is_empty() || live.is_empty());
            for place in places.iter().filter(|place| live.contains(&place.name)) {
                for (on, _) in &place.after {
                    prop_assert!(!free.contains(&places[*on].name));
                }
            }
            live.retain(|name| !free.contains(name));
        }
        prop_assert!(live.is_empty());
    }
}

#[test]
fn words_name_both_containers_and_the_condition() {
    let impossible = Impossible {
        container: name(1),
        on: name(0),
        condition: DependencyCondition::Success,
        why: Why::EndedWith(Some(3)),
    };
    assert_eq!(impossible.to_string(), "container c1 depends on c0 (SUCCESS), and c0 ended with exit code 3");
    let definition: TaskDefinition = serde_json::from_value(serde_json::json!({"family": "f", "containerDefinitions": [
        {"name": "a", "image": "i", "startTimeout": 2, "volumesFrom": [{"sourceContainer": "b"}]},
        {"name": "b", "image": "i", "startTimeout": 0, "dependsOn": [{"containerName": "gone", "condition": "START"}]},
    ]}))
    .unwrap();
    let places = places(&definition, 1000);
    assert_eq!(places[0].after, [(1, DependencyCondition::Start)]);
    assert_eq!((places[0].start_timeout_ms, places[1].start_timeout_ms), (Some(2000), None));
    assert!(places[1].after.is_empty());
}
