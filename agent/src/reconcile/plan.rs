//! Decides what to do next: assignments + what is known + what the node has → actions. Pure.
//! In: one line a task, the ledger. Out: actions, in the order of task ids (oldest first).
//! Owns nothing. Never: waits, acts, or remembers; called again after every change, it says the
//! same as long as nothing has changed.
//! Admission is not a queue: a task that does not fit is passed over, so that a large one never
//! keeps small ones from running; each pass looks at the oldest first.

use crate::resources::{Impossible, Ledger, Waiting};
use lighter_model::ids::TaskId;
use lighter_model::resources::Resources;
use lighter_model::status::DesiredStatus;
use std::collections::BTreeMap;

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

/// The actions for the picture as it is.
pub(crate) fn plan(tasks: &BTreeMap<TaskId, PlanTask>, ledger: &Ledger) -> Vec<Action> {
    let mut ledger = ledger.clone();
    let mut actions = Vec::new();
    for (id, task) in tasks {
        let action = match (task.known, task.desired) {
            (Known::Stopped, _) => task.forget.then(|| Action::Forget(id.clone())),
            (Known::Waiting | Known::Active, DesiredStatus::Stopped) => Some(Action::Stop(id.clone())),
            (Known::Waiting, DesiredStatus::Running) => Some(admit(id, task, &mut ledger)),
            (Known::Active, DesiredStatus::Running) | (Known::Ending, _) => None,
        };
        actions.extend(action);
    }
    actions
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
        Ledger::new(Resources { cpu_units: 1000, memory_mib: 1000, host_ports: [].into() })
    }

    fn needs(cpu_units: u32, port: Option<u16>) -> Resources {
        let host_ports = port.into_iter().map(|port| HostPort { protocol: Tcp, port }).collect();
        Resources { cpu_units, memory_mib: 1, host_ports }
    }

    fn waiting(needs: Resources) -> PlanTask {
        PlanTask { desired: DesiredStatus::Running, forget: false, known: Known::Waiting, needs: Some(needs) }
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
        let actions = plan(&tasks.into(), &offered());
        assert!(matches!(&actions[0], Action::Admit(task, _) if *task == id(1)));
        assert_eq!(actions[1], Action::Wait(id(2), Waiting::Cpu { needs: 900, free: 100 }));
        assert!(matches!(&actions[2], Action::Admit(task, _) if *task == id(3)));
    }

    #[test]
    fn what_can_never_run_is_refused_and_what_is_unknown_waits() {
        let unknown = PlanTask { needs: None, ..waiting(needs(1, None)) };
        let tasks = [(id(1), waiting(needs(1001, None))), (id(2), unknown)];
        let actions = plan(&tasks.into(), &offered());
        assert!(matches!(&actions[0], Action::Refuse(..)));
        assert_eq!(actions[1], Action::Wait(id(2), Waiting::Definition));
    }

    fn any_task() -> impl Strategy<Value = PlanTask> {
        let known =
            prop_oneof![Just(Known::Waiting), Just(Known::Ending), Just(Known::Active), Just(Known::Stopped)];
        let desired = prop_oneof![Just(DesiredStatus::Running), Just(DesiredStatus::Stopped)];
        let needs = (0u32..1200, proptest::option::of(80u16..84)).prop_map(|(cpu, port)| needs(cpu, port));
        (desired, any::<bool>(), known, proptest::option::of(needs))
            .prop_map(|(desired, forget, known, needs)| PlanTask { desired, forget, known, needs })
    }

    proptest! {
        #[test]
        fn plans_hold_their_promises(tasks in proptest::collection::btree_map((0u64..20).prop_map(id), any_task(), 0..20)) {
            let mut ledger = offered();
            for (task, line) in tasks.iter().filter(|(_, line)| line.known == Known::Active) {
                if let Some(needs) = &line.needs {
                    ledger.hold(task.clone(), needs.clone());
                }
            }
            let actions = plan(&tasks, &ledger);
            prop_assert_eq!(&actions, &plan(&tasks, &ledger));
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
