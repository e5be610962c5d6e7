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

/// Decides; the numbers of the instances to start on come with the decision.
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
    let mut healthy = view.healthy();
    let mut served = BTreeSet::new();
    // The one that is kept of several on an instance is the first of the newest revision.
    let mut tasks: Vec<&TaskView> = live().collect();
    tasks.sort_by_key(|task| (!task.is_kept(view.stalled), task.id.clone()));
    for task in tasks {
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
        } else if for_good || !task.is_healthy() || healthy > lower {
            healthy -= u32::from(task.is_healthy());
            decision.goes.push((task.id.clone(), why));
        }
        if decision.goes.len() >= limit {
            break;
        }
    }
    let taken = view.tasks.iter().filter(|task| !wrong_edit::is(WrongEdit::SecondDaemon) || task.is_live());
    let taken: BTreeSet<u32> = taken.map(|task| task.instance).collect();
    let free =
        instances.iter().filter(|i| i.matches && i.connected && !i.orphaned && !taken.contains(&i.instance));
    let starts: Vec<u32> = free.map(|i| i.instance).collect();
    let starts = if view.may_start { starts } else { Vec::new() };
    decision.starts = u32::try_from(starts.len()).unwrap_or(u32::MAX);
    (decision, starts)
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
        let strict = View { minimum_percent: 100, ..view(vec![TaskView { current: false, ..on(0) }]) };
        assert!(decide(&strict, &[instance(0)], 10).0.is_nothing());
    }
}
