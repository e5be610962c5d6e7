//! The arithmetic against ECS's examples, the bounds against every view, small worlds to their end.

use super::*;
use proptest::prelude::*;

pub(in crate::core::service) fn task(number: u64) -> TaskView {
    TaskView {
        id: TaskId::from_parts(number, 0),
        current: true,
        wanted: true,
        phase: Phase::Running,
        health: Health::Healthy,
        protected: false,
        draining: false,
        away: false,
        leased: false,
        leaving: false,
        left: false,
        moving: false,
        zone: 0,
        instance: 0,
    }
}

fn view(desired: u32, percents: (u32, u32), tasks: Vec<TaskView>) -> View {
    View {
        desired,
        minimum_percent: percents.0,
        maximum_percent: percents.1,
        deleted: false,
        stalled: false,
        may_start: true,
        most_starts: u32::MAX,
        cannot_place: false,
        orphans: 0,
        tasks,
    }
}

fn old(number: u64) -> TaskView {
    TaskView { current: false, ..task(number) }
}

#[test]
fn bounds_are_those_of_the_guide() {
    // 75 % of 2 rounds up to 2: none can be stopped; 125 % of 3 rounds down to 3: none can be started.
    assert_eq!((lower(2, 75), upper(3, 125)), (2, 3));
    assert_eq!((lower(4, 50), lower(5, 50), lower(0, 100), lower(1, 1)), (2, 3, 0, 1));
    assert_eq!((upper(4, 200), upper(5, 150), upper(0, 200), upper(1, 199)), (8, 7, 0, 1));
}

#[test]
fn the_guide_s_examples_of_a_rolling_update() {
    let olds = |count: u64| (0..count).map(old).collect::<Vec<_>>();
    // Minimum 50 %, maximum 100 %, four tasks: two stop before two start.
    let decision = decide(&view(4, (50, 100), olds(4)), 10);
    assert_eq!((decision.starts, decision.goes.len()), (0, 2));
    // Minimum 100 %, maximum 200 %: four start before four stop.
    let decision = decide(&view(4, (100, 200), olds(4)), 10);
    assert_eq!((decision.starts, decision.goes.len()), (4, 0));
    // 125 % of 3 lets none start, 100 % none stop.
    let decision = decide(&view(3, (100, 125), olds(3)), 10);
    assert!(decision.is_nothing() && decision.blocked);
    // 75 % of 2 lets none stop; a maximum of 150 % starts one.
    let decision = decide(&view(2, (75, 150), olds(2)), 10);
    assert_eq!((decision.starts, decision.goes.len()), (1, 0));
}

#[test]
fn an_exclusive_task_that_was_given_up_counts_until_its_lease_is_over() {
    let given_up = TaskView { wanted: false, away: true, leased: true, ..task(0) };
    let ends = TaskView { wanted: false, phase: Phase::Ending, leased: true, ..task(0) };
    for old in [given_up, ends] {
        let waits = view(1, (0, 100), vec![old.clone()]);
        assert!(decide(&waits, 10).is_nothing() && !waits.is_steady());
        let over = view(1, (0, 100), vec![TaskView { leased: false, ..old }]);
        assert_eq!(decide(&over, 10).starts, 1);
    }
}

#[test]
fn an_unhealthy_task_is_replaced_before_it_stops_when_there_is_room() {
    let bad = TaskView { health: Health::Unhealthy, ..task(1) };
    let decision = decide(&view(2, (100, 200), vec![task(0), bad.clone()]), 10);
    assert_eq!((decision.starts, decision.goes.len()), (1, 0));
    let decision = decide(&view(2, (100, 100), vec![task(0), bad.clone()]), 10);
    assert_eq!((decision.starts, decision.goes.as_slice()), (0, &[(bad.id.clone(), Why::Unhealthy)][..]));
    let replaced = decide(&view(2, (100, 200), vec![task(0), bad.clone(), task(2)]), 10);
    assert_eq!(replaced.goes, [(bad.id.clone(), Why::Unhealthy)]);
    // One by one where nothing can be started before.
    let all: Vec<_> = (0..3).map(|n| TaskView { health: Health::Unhealthy, ..task(n) }).collect();
    assert_eq!(decide(&view(3, (100, 100), all), 10).goes.len(), 1);
}

#[test]
fn scale_in_takes_from_the_fullest_zone_and_instance_and_leaves_the_protected() {
    let at = |number, zone, instance| TaskView { zone, instance, ..task(number) };
    let tasks = vec![at(0, 0, 0), at(1, 0, 1), at(2, 0, 1), at(3, 1, 2)];
    let decision = decide(&view(3, (100, 200), tasks.clone()), 10);
    assert_eq!(decision.goes, [(tasks[2].id.clone(), Why::ScaledIn)]);
    let mut kept = tasks.clone();
    kept[2].protected = true;
    let decision = decide(&view(3, (100, 200), kept), 10);
    assert_eq!(decision.goes, [(tasks[1].id.clone(), Why::ScaledIn)]);
    let all: Vec<_> = tasks.into_iter().map(|task| TaskView { protected: true, ..task }).collect();
    assert!(decide(&view(0, (100, 200), all).clone(), 10).is_nothing());
}

#[test]
fn draining_stops_pending_tasks_at_once_and_others_when_replaced() {
    let pending = TaskView { draining: true, phase: Phase::Pending, ..task(0) };
    let running = TaskView { draining: true, ..task(1) };
    let decision = decide(&view(2, (100, 200), vec![pending.clone(), running]), 10);
    assert_eq!((decision.starts, decision.goes.as_slice()), (2, &[(pending.id, Why::Draining)][..]));
}

#[test]
fn a_stalled_deployment_keeps_what_runs() {
    let mut stalled = view(2, (100, 200), vec![old(0), task(1)]);
    stalled.stalled = true;
    assert!(decide(&stalled, 10).is_nothing());
    stalled.tasks.pop();
    assert_eq!(decide(&stalled, 10).starts, 1);
    // Nothing is stopped for a deployment whose tasks are held back.
    let throttled = View { may_start: false, ..view(2, (0, 200), vec![old(0), old(1)]) };
    assert!(decide(&throttled, 10).is_nothing());
}

#[test]
fn until_a_digest_is_known_one_starts_and_room_is_made_for_one() {
    let olds: Vec<_> = (0..10).map(old).collect();
    let held = |most_starts, percents, tasks| {
        let view = View { most_starts, ..view(10, percents, tasks) };
        let decision = decide(&view, 100);
        (decision.starts, decision.goes.len(), decision.held)
    };
    assert_eq!(held(1, (100, 200), olds.clone()), (1, 0, 9));
    assert_eq!(held(0, (100, 200), olds.clone()), (0, 0, 10));
    // All may go; one does, and no other while the new one pulls.
    assert_eq!(held(1, (0, 100), olds.clone()), (0, 1, 9));
    let pulls = TaskView { phase: Phase::Pending, ..task(10) };
    let nine: Vec<_> = olds.iter().skip(1).cloned().chain([pulls]).collect();
    assert_eq!(held(0, (0, 100), nine.clone()), (0, 0, 9));
    assert_eq!(held(u32::MAX, (0, 100), nine), (0, 9, 0));
}

fn any_task() -> impl Strategy<Value = TaskView> {
    let flags = proptest::collection::vec(proptest::bool::weighted(0.25), 7);
    (flags, 0..3u8, 0..3u8, 0..2u32, 0..3u32).prop_map(|(flags, phase, health, zone, instance)| TaskView {
        current: !flags[0],
        wanted: !flags[1],
        phase: [Phase::Pending, Phase::Running, Phase::Ending][phase as usize],
        health: [Health::Unhealthy, Health::Warming, Health::Healthy][health as usize],
        protected: flags[2],
        draining: flags[3],
        away: flags[4],
        leaving: flags[5],
        left: flags[5] && flags[6],
        moving: flags[6] && !flags[5],
        zone,
        instance,
        ..task(0)
    })
}

fn any_view() -> impl Strategy<Value = View> {
    let tasks = proptest::collection::vec(any_task(), 0..9);
    let flags = proptest::collection::vec(proptest::bool::weighted(0.2), 5);
    (0..6u32, 0..=100u32, 100..=250u32, tasks, flags).prop_map(|(desired, minimum, maximum, tasks, flags)| {
        let tasks = tasks.into_iter().enumerate();
        let tasks = tasks.map(|(n, task)| TaskView { id: TaskId::from_parts(n as u64, 0), ..task });
        View {
            most_starts: if flags[4] { desired % 2 } else { u32::MAX },
            deleted: flags[0],
            stalled: flags[1],
            may_start: !flags[2],
            cannot_place: flags[3],
            ..view(desired, (minimum, maximum), tasks.collect())
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_decision_breaks_a_bound(view in any_view(), limit in 1..10usize) {
        let decision = decide(&view, limit);
        let (low, high) = (lower(view.desired, view.minimum_percent), upper(view.desired, view.maximum_percent));
        prop_assert!(decision.starts == 0 || view.occupied() + decision.starts <= high);
        // Held back are starts, and stops that would only make room for them.
        prop_assert!(decision.starts <= view.most_starts);
        let free = decide(&View { most_starts: u32::MAX, ..view.clone() }, limit);
        prop_assert!(decision.starts + decision.held >= free.starts && free.held == 0);
        prop_assert!(decision.goes.len() <= free.goes.len());
        let find = |id: &TaskId| view.tasks.iter().find(|task| task.id == *id).unwrap();
        let mut healthy = view.healthy();
        for (id, why) in &decision.goes {
            let task = find(id);
            prop_assert!(task.is_live());
            if *why != Why::Deleted {
                prop_assert!(!task.protected || *why == Why::Unhealthy);
                prop_assert!(!task.is_healthy() || healthy > low, "{view:?}");
            }
            healthy -= u32::from(task.is_healthy());
        }
        prop_assert!(decision.goes.len() + decision.stops.len() <= limit);
        let mut ids: Vec<_> = decision.goes.iter().map(|(id, _)| id).chain(&decision.stops).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), decision.goes.len() + decision.stops.len());
        prop_assert_eq!(decide(&view, limit), decision);
    }

    #[test]
    fn what_is_steady_is_left_alone(count in 0..8u64, minimum in 0..=100u32, maximum in 100..=250u32) {
        let steady = view(count as u32, (minimum, maximum), (0..count).map(task).collect());
        prop_assert!(steady.is_steady() && decide(&steady, 10).is_nothing());
    }
}

/// The world does what was decided, and time goes by: every task a step.
fn advance(view: &mut View, decision: &Decision, next: &mut u64) {
    for task in &mut view.tasks {
        if !task.wanted {
            task.phase = Phase::Ending;
        }
        task.left |= task.leaving;
        match (task.phase, task.health) {
            (Phase::Pending, _) => (task.phase, task.health) = (Phase::Running, Health::Warming),
            (Phase::Running, Health::Warming) => task.health = Health::Healthy,
            _ => {}
        }
    }
    for task in &mut view.tasks {
        let goes = decision.goes.iter().any(|(id, _)| *id == task.id);
        // Every other one is in somebody's list.
        let listed = task.phase == Phase::Running && task.instance % 2 == 0;
        task.leaving |= goes && listed;
        task.wanted &= !((goes && !listed) || decision.stops.contains(&task.id));
    }
    view.tasks.retain(|task| task.phase != Phase::Ending || task.wanted);
    for _ in 0..decision.starts {
        *next += 1;
        let instance = (*next % 3) as u32;
        view.tasks.push(TaskView { phase: Phase::Pending, instance, ..task(*next) });
    }
}

/// Whether no number of tasks between the bounds lets one be exchanged.
fn is_stuck(view: &View) -> bool {
    lower(view.desired, view.minimum_percent) >= view.desired
        && upper(view.desired, view.maximum_percent) <= view.desired
}

/// So many may start while nobody knows what the tags mean: one at a time, until one is RUNNING.
fn hold(view: &mut View) {
    let new = |task: &&TaskView| task.id >= TaskId::from_parts(1_001, 0);
    let pending = view.tasks.iter().filter(new).any(|task| task.phase == Phase::Pending);
    let known = view.most_starts == u32::MAX
        || view.tasks.iter().filter(new).any(|task| task.phase == Phase::Running);
    view.most_starts = if known { u32::MAX } else { u32::from(!pending) };
}

fn converges(mut view: View) {
    let begin = view.clone();
    let mut next = 1_000;
    for _ in 0..200 {
        hold(&mut view);
        let decision = decide(&view, 3);
        if decision.is_nothing() && view.is_steady() {
            return;
        }
        advance(&mut view, &decision, &mut next);
    }
    let blocked = decide(&view, 3).blocked && is_stuck(&view);
    assert!(blocked, "from {begin:?}\nto {view:?}\n{:?}", decide(&view, 3));
}

#[test]
fn every_small_world_comes_to_rest() {
    let kinds: Vec<TaskView> = [Phase::Pending, Phase::Running]
        .into_iter()
        .flat_map(|phase| [Health::Unhealthy, Health::Warming, Health::Healthy].map(|health| (phase, health)))
        .filter(|(phase, health)| *phase == Phase::Running || *health == Health::Warming)
        .flat_map(|(phase, health)| {
            [(true, false), (false, false), (true, true)].map(|(current, draining)| TaskView {
                phase,
                health,
                current,
                draining,
                ..task(0)
            })
        })
        .collect();
    let mut worlds = vec![Vec::new()];
    for _ in 0..3 {
        let grown: Vec<Vec<TaskView>> = worlds
            .iter()
            .flat_map(|world| {
                kinds.iter().map(move |kind| {
                    let number = world.len() as u64;
                    let id = TaskId::from_parts(number, 0);
                    let task = TaskView { id, instance: number as u32, ..kind.clone() };
                    world.iter().cloned().chain([task]).collect()
                })
            })
            .collect();
        worlds.extend(grown);
        worlds.sort_by_key(Vec::len);
        worlds.dedup();
    }
    for tasks in worlds {
        for desired in 0..=3 {
            for percents in [(0, 100), (50, 100), (100, 100), (50, 150), (100, 150), (100, 200)] {
                let free = view(desired, percents, tasks.clone());
                converges(View { most_starts: 1, ..free.clone() });
                converges(free);
            }
        }
    }
}
