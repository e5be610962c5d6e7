//! What a DAEMON service starts and stops now: one task on each instance that matches.
//! In: a small view of the service and its instances. Out: instances to start one on, tasks that go.
//! Pure. First in: it is asked before other services. Last out: on an instance that drains its task
//! goes when no other task is left there.
//! Never: two tasks on one instance: another starts when the one before is STOPPED.
//! Source: Amazon ECS Developer Guide, "Daemon strategy".

use super::decide::{Decision, Phase, TaskView, View, Why, lower};
use crate::wrong_edit::{self, WrongEdit};
use std::collections::{BTreeMap, BTreeSet};

/// An instance as a decision sees it; numbered as in the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceView {
    pub instance: u32,
    /// ACTIVE, and every constraint holds.
    pub matches: bool,
    /// DRAINING, and tasks other than daemons' are left on it.
    pub waits: bool,
    pub connected: bool,
    /// It has one that this store does not know.
    pub orphaned: bool,
}

/// Decides; the numbers of the instances that may be started on come with the decision.
pub fn decide(view: &View, instances: &[InstanceView], limit: usize) -> (Decision, Vec<u32>) {
    let mut decision = Decision::default();
    let left = view.tasks.iter().filter(|task| task.wanted && task.left && task.phase != Phase::Ending);
    decision.stops = left.map(|task| task.id.clone()).take(limit).collect();
    let limit = limit - decision.stops.len();
    let live = || view.tasks.iter().filter(|task| task.is_live());
    if view.deleted {
        decision.goes = live().map(|task| (task.id.clone(), Why::Deleted)).take(limit).collect();
        return (decision, Vec::new());
    }
    let by_number: BTreeMap<u32, &InstanceView> = instances.iter().map(|i| (i.instance, i)).collect();
    let lower = lower(desired(instances), view.minimum_percent);
    let free = free(view, instances);
    // Nor does one go for another that does not start yet.
    let on_its_way = view.tasks.iter().any(|task| !task.is_live() && !task.away);
    let startable = !free.is_empty() && !view.cannot_place;
    let enough = view.most_starts == 1 && (on_its_way || startable);
    let mut exchanges = if enough { 0 } else { view.most_starts };
    let mut healthy = view.healthy();
    let mut served = BTreeSet::new();
    // The one that is kept of several on an instance is the first of the newest revision.
    let mut tasks: Vec<&TaskView> = live().collect();
    tasks.sort_by_key(|task| (!task.is_kept(view.stalled), task.id.clone()));
    for task in tasks {
        // Those that leave may have used it up.
        if decision.goes.len() >= limit {
            break;
        }
        let place = by_number.get(&task.instance);
        let why = match place {
            Some(place) if place.waits => continue,
            Some(place) if !place.matches && task.draining => Why::Draining,
            Some(place) if !place.matches => Why::Misplaced,
            None => Why::Draining,
            Some(_) if task.is_kept(view.stalled) && served.insert(task.instance) => continue,
            Some(_) if task.is_kept(view.stalled) => Why::ScaledIn,
            Some(_) if task.phase == Phase::Running && task.health == super::decide::Health::Unhealthy => {
                Why::Unhealthy
            }
            Some(_) => Why::Replaced,
        };
        let for_good = matches!(why, Why::Draining | Why::Misplaced | Why::Unhealthy);
        let is_left = task.protected && !wrong_edit::is(WrongEdit::ProtectedDaemonStopped);
        if is_left && why != Why::Unhealthy {
            decision.protected.push(task.id.clone());
        } else if why == Why::Replaced && exchanges == 0 {
            decision.held += 1;
        } else if for_good || !task.is_healthy() || healthy > lower {
            exchanges = exchanges.saturating_sub(u32::from(why == Why::Replaced));
            healthy -= u32::from(task.is_healthy());
            decision.goes.push((task.id.clone(), why));
        }
    }
    let wanted = if view.may_start { u32::try_from(free.len()).unwrap_or(u32::MAX) } else { 0 };
    decision.starts = wanted.min(view.most_starts);
    decision.held += wanted - decision.starts;
    // All of them: where there is no room for the first, another may have it.
    let starts = if decision.starts > 0 { free } else { Vec::new() };
    (decision, starts)
}

/// Instances to start one on.
fn free(view: &View, instances: &[InstanceView]) -> Vec<u32> {
    let taken = view.tasks.iter().filter(|task| !wrong_edit::is(WrongEdit::SecondDaemon) || task.is_live());
    let taken: BTreeSet<u32> = taken.map(|task| task.instance).collect();
    let free =
        instances.iter().filter(|i| i.matches && i.connected && !i.orphaned && !taken.contains(&i.instance));
    free.map(|i| i.instance).collect()
}

/// How many there should be.
pub fn desired(instances: &[InstanceView]) -> u32 {
    u32::try_from(instances.iter().filter(|i| i.matches).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::decide::tests::task;
    use super::*;

    fn view(tasks: Vec<TaskView>) -> View {
        View {
            desired: 0,
            minimum_percent: 0,
            maximum_percent: 100,
            deleted: false,
            stalled: false,
            may_start: true,
            most_starts: u32::MAX,
            cannot_place: false,
            orphans: 0,
            tasks,
        }
    }

    fn instance(instance: u32) -> InstanceView {
        InstanceView { instance, matches: true, waits: false, connected: true, orphaned: false }
    }

    #[test]
    fn each_matching_instance_gets_one_and_a_draining_one_loses_it_last() {
        let on = |number: u32| TaskView { instance: number, ..task(u64::from(number)) };
        let instances = [instance(0), instance(1), InstanceView { matches: false, ..instance(2) }];
        let (decision, starts) = decide(&view(vec![on(0)]), &instances, 10);
        assert_eq!((decision.goes.as_slice(), starts.as_slice()), (&[][..], &[1][..]));
        let draining = TaskView { draining: true, ..on(2) };
        let waits = [InstanceView { matches: false, waits: true, ..instance(2) }];
        assert!(decide(&view(vec![draining.clone()]), &waits, 10).0.is_nothing());
        let alone = [InstanceView { matches: false, ..instance(2) }];
        let (decision, _) = decide(&view(vec![draining]), &alone, 10);
        assert_eq!(decision.goes[0].1, Why::Draining);
        // Not even the next revision starts before the last one is STOPPED.
        let old = TaskView { current: false, ..on(0) };
        let (decision, starts) = decide(&view(vec![old]), &[instance(0)], 10);
        assert_eq!((decision.goes[0].1, starts.len()), (Why::Replaced, 0));
        // What leaves uses the limit up for what goes.
        let leaves = TaskView { leaving: true, left: true, ..on(0) };
        let busy = view(vec![leaves, TaskView { current: false, ..on(1) }]);
        let (decision, _) = decide(&busy, &instances, 1);
        assert_eq!((decision.stops.len(), decision.goes.len()), (1, 0));
        // Until a digest is known one starts and one is exchanged.
        let held = |most_starts, tasks| View { most_starts, ..view(tasks) };
        let all: Vec<InstanceView> = (0..4).map(instance).collect();
        let begins = decide(&held(1, Vec::new()), &all, 10);
        assert_eq!((begins.0.starts, begins.0.held, begins.1.len()), (1, 3, 4));
        let olds: Vec<_> = (0..4).map(|n| TaskView { current: false, ..on(n) }).collect();
        let (decision, _) = decide(&held(1, olds.clone()), &all, 10);
        assert_eq!((decision.goes.len(), decision.starts, decision.held), (1, 0, 3));
        let mut ends = olds.clone();
        ends[0].wanted = false;
        assert!(decide(&held(1, ends.clone()), &all, 10).0.is_nothing());
        // Where one may start none goes for it, unless there is no room.
        let three = held(1, olds[1..].to_vec());
        assert_eq!((decide(&three, &all, 10).0.goes.len(), decide(&three, &all, 10).0.starts), (0, 1));
        let full = View { cannot_place: true, ..three };
        assert_eq!(decide(&full, &all, 10).0.goes.len(), 1);
        // One that ends on an instance that is away is not waited for.
        ends[0].away = true;
        assert_eq!(decide(&held(1, ends), &all, 10).0.goes.len(), 1);
        assert!(decide(&held(0, olds.clone()), &all, 10).0.is_nothing());
        assert_eq!(decide(&view(olds), &all, 10).0.goes.len(), 4);
        let strict = View { minimum_percent: 100, ..view(vec![TaskView { current: false, ..on(0) }]) };
        assert!(decide(&strict, &[instance(0)], 10).0.is_nothing());
    }
}
