//! Decides what to do next: assignments + what is known + what the node has → actions. Pure.
//! In: one line a task, the ledger. Out: actions, in the order of task ids (oldest first).
//! Owns nothing. Never: waits, acts, or remembers; called again after every change, it says the
//! same as long as nothing has changed.
//! Admission is not a queue: a task that does not fit is passed over, so that a large one never
//! keeps small ones from running; each pass looks at the oldest first.

use crate::resources::{Impossible, Ledger, Waiting};
use lighter_model::ids::TaskId;
use lighter_model::node::next_to_stop;
use lighter_model::resources::Resources;
use lighter_model::status::DesiredStatus;
use std::collections::{BTreeMap, BTreeSet};

/// How far a task is, as far as the plan cares. Only ever goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Known {
    /// Recorded; holds nothing of the node.
    Waiting,
    /// Admitted: holds its needs.
    Active,
    /// Was told to stop or refused, whether it holds anything or not.
    Ending,
    /// Nothing runs; the STOPPED report is in the outbox.
    Stopped,
}

/// A task, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanTask {
    pub desired: DesiredStatus,
    pub forget: bool,
    pub known: Known,
    /// `None` while its definition has not come.
    pub needs: Option<Resources>,
    /// Begins before the others after a start of the node, and stops after them.
    pub daemon: bool,
    /// Was RUNNING.
    pub up: bool,
}

/// What holds for the whole node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NodePlan {
    /// All tasks are to stop, and none begins.
    pub closing: bool,
    /// The others wait until the daemon tasks are up.
    pub daemons_first: bool,
}

/// What to do with one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Its needs are held from now on.
    Admit(TaskId, Resources),
    Wait(TaskId, Waiting),
    /// It can never run here.
    Refuse(TaskId, Impossible),
    Stop(TaskId),
    Forget(TaskId),
}

/// The actions for the picture as it is; daemon tasks come first.
pub(crate) fn plan(tasks: &BTreeMap<TaskId, PlanTask>, ledger: &Ledger, node: NodePlan) -> Vec<Action> {
    let mut ledger = ledger.clone();
    let mut actions = Vec::new();
    let hold = hold_back(tasks, node);
    let close: BTreeSet<&TaskId> = if node.closing { stops_now(tasks) } else { BTreeSet::new() };
    let (daemons, others): (Vec<_>, Vec<_>) = tasks.iter().partition(|(_, task)| task.daemon);
    for (id, task) in daemons.into_iter().chain(others) {
        let desired = if close.contains(id) { DesiredStatus::Stopped } else { task.desired };
        let held = hold.as_ref().filter(|_| node.closing || !task.daemon);
        let action = match (task.known, desired) {
            (Known::Stopped, _) => task.forget.then(|| Action::Forget(id.clone())),
            (Known::Waiting | Known::Active, DesiredStatus::Stopped) => Some(Action::Stop(id.clone())),
            (Known::Waiting, DesiredStatus::Running) => Some(match held {
                Some(why) => Action::Wait(id.clone(), why.clone()),
                None => admit(id, task, &mut ledger),
            }),
            (Known::Active, DesiredStatus::Running) | (Known::Ending, _) => None,
        };
        actions.extend(action);
    }
    actions
}

/// Why tasks do not begin now, whatever room there is; daemon tasks wait only when the node closes.
fn hold_back(tasks: &BTreeMap<TaskId, PlanTask>, node: NodePlan) -> Option<Waiting> {
    if node.closing {
        return Some(Waiting::Closing);
    }
    let coming = |task: &PlanTask| {
        task.daemon && !task.up && task.desired == DesiredStatus::Running && task.known <= Known::Active
    };
    let daemon = tasks.iter().find(|(_, task)| node.daemons_first && coming(task));
    daemon.map(|(id, _)| Waiting::Daemon { task: id.clone() })
}

/// Tasks that are to stop now because the node closes.
fn stops_now(tasks: &BTreeMap<TaskId, PlanTask>) -> BTreeSet<&TaskId> {
    let begun = tasks.iter().filter(|(_, task)| matches!(task.known, Known::Active | Known::Ending));
    let now = next_to_stop(begun.map(|(id, task)| ((id, task.known), task.daemon)));
    now.into_iter().filter(|(_, known)| *known == Known::Active).map(|(id, _)| id).collect()
}

fn admit(id: &TaskId, task: &PlanTask, ledger: &mut Ledger) -> Action {
    let Some(needs) = &task.needs else {
        return Action::Wait(id.clone(), Waiting::Definition);
    };
    if let Err(impossible) = ledger.possible(needs) {
        return Action::Refuse(id.clone(), impossible);
    }
    match ledger.fits(needs) {
        Ok(()) => {
            ledger.hold(id.clone(), needs.clone());
            Action::Admit(id.clone(), needs.clone())
        }
        Err(why) => Action::Wait(id.clone(), why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lighter_model::resources::HostPort;
    use lighter_model::task_definition::TransportProtocol::Tcp;
    use proptest::prelude::*;

    fn offered() -> Ledger {
        Ledger::new(Resources { cpu_units: 1000, memory_mib: 1000, ..Resources::default() })
    }

    fn needs(cpu_units: u32, port: Option<u16>) -> Resources {
        let host_ports = port.into_iter().map(|port| HostPort { protocol: Tcp, port }).collect();
        Resources { cpu_units, memory_mib: 1, host_ports, ..Resources::default() }
    }

    fn waiting(needs: Resources) -> PlanTask {
        PlanTask {
            desired: DesiredStatus::Running,
            forget: false,
            known: Known::Waiting,
            needs: Some(needs),
            daemon: false,
            up: false,
        }
    }

    fn id(number: u64) -> TaskId {
        TaskId::from_parts(number, 0)
    }

    #[test]
    fn a_large_task_does_not_keep_a_small_one_waiting() {
        let tasks = [
            (id(1), waiting(needs(900, None))),
            (id(2), waiting(needs(900, None))),
            (id(3), waiting(needs(100, None))),
        ];
        let actions = plan(&tasks.into(), &offered(), NodePlan::default());
        assert!(matches!(&actions[0], Action::Admit(task, _) if *task == id(1)));
        assert_eq!(actions[1], Action::Wait(id(2), Waiting::Cpu { needs: 900, free: 100 }));
        assert!(matches!(&actions[2], Action::Admit(task, _) if *task == id(3)));
    }

    #[test]
    fn what_can_never_run_is_refused_and_what_is_unknown_waits() {
        let unknown = PlanTask { needs: None, ..waiting(needs(1, None)) };
        let tasks = [(id(1), waiting(needs(1001, None))), (id(2), unknown)];
        let actions = plan(&tasks.into(), &offered(), NodePlan::default());
        assert!(matches!(&actions[0], Action::Refuse(..)));
        assert_eq!(actions[1], Action::Wait(id(2), Waiting::Definition));
    }

    fn any_task() -> impl Strategy<Value = PlanTask> {
        let known =
            prop_oneof![Just(Known::Waiting), Just(Known::Ending), Just(Known::Active), Just(Known::Stopped)];
        let desired = prop_oneof![Just(DesiredStatus::Running), Just(DesiredStatus::Stopped)];
        let needs = (0u32..1200, proptest::option::of(80u16..84)).prop_map(|(cpu, port)| needs(cpu, port));
        (desired, any::<bool>(), known, proptest::option::of(needs), any::<bool>(), any::<bool>()).prop_map(
            |(desired, forget, known, needs, daemon, up)| PlanTask {
                desired,
                forget,
                known,
                needs,
                daemon,
                up,
            },
        )
    }

    proptest! {
        #[test]
        fn a_node_that_closes_begins_nothing_and_stops_daemons_last(tasks in proptest::collection::btree_map((0u64..20).prop_map(id), any_task(), 0..20)) {
            let node = NodePlan { closing: true, daemons_first: true };
            let actions = plan(&tasks, &offered(), node);
            let others_run = tasks.values().any(|t| !t.daemon && matches!(t.known, Known::Active | Known::Ending));
            for action in &actions {
                prop_assert!(!matches!(action, Action::Admit(..)), "{action:?}");
                if let Action::Stop(task) = action {
                    let wanted = tasks[task].desired == DesiredStatus::Running;
                    prop_assert!(!(wanted && tasks[task].daemon && others_run), "{task} stops before the others");
                }
            }
            let stops = |id: &TaskId| actions.contains(&Action::Stop(id.clone()));
            let next = |t: &PlanTask| t.known == Known::Active && (!t.daemon || !others_run);
            prop_assert!(tasks.iter().filter(|(_, t)| next(t)).all(|(id, _)| stops(id)));
        }

        #[test]
        fn after_a_start_daemons_go_first_and_then_all(tasks in proptest::collection::btree_map((0u64..20).prop_map(id), any_task(), 0..20)) {
            let first = NodePlan { daemons_first: true, closing: false };
            let actions = plan(&tasks, &offered(), first);
            let coming = tasks.values().any(|t| t.daemon && !t.up && t.desired == DesiredStatus::Running && t.known <= Known::Active);
            let admits_other = actions.iter().any(|a| matches!(a, Action::Admit(id, _) if !tasks[id].daemon));
            prop_assert!(!(coming && admits_other));
            if !coming {
                prop_assert_eq!(actions, plan(&tasks, &offered(), NodePlan::default()));
            }
        }

        #[test]
        fn plans_hold_their_promises(tasks in proptest::collection::btree_map((0u64..20).prop_map(id), any_task(), 0..20)) {
            let mut ledger = offered();
            for (task, line) in tasks.iter().filter(|(_, line)| line.known == Known::Active) {
                if let Some(needs) = &line.needs {
                    ledger.hold(task.clone(), needs.clone());
                }
            }
            let actions = plan(&tasks, &ledger, NodePlan::default());
            prop_assert_eq!(&actions, &plan(&tasks, &ledger, NodePlan::default()));
            for action in &actions {
                match action {
                    Action::Admit(task, needs) => {
                        prop_assert_eq!((tasks[task].known, tasks[task].desired), (Known::Waiting, DesiredStatus::Running));
                        prop_assert!(ledger.fits(needs).is_ok());
                        ledger.hold(task.clone(), needs.clone());
                    }
                    Action::Wait(task, _) | Action::Refuse(task, _) => prop_assert_eq!(tasks[task].known, Known::Waiting),
                    Action::Stop(task) => {
                        prop_assert_eq!(tasks[task].desired, DesiredStatus::Stopped);
                        prop_assert!(matches!(tasks[task].known, Known::Waiting | Known::Active));
                    }
                    Action::Forget(task) => prop_assert!(tasks[task].forget && tasks[task].known == Known::Stopped),
                }
            }
            // Nobody who fits is left waiting.
            for action in &actions {
                if let Action::Wait(task, why) = action && *why != Waiting::Definition {
                    prop_assert!(tasks[task].needs.as_ref().is_some_and(|needs| ledger.fits(needs).is_err()));
                }
            }
        }
    }
}
