//! Who passes the head of the queue never delays it: against all ways in which running tasks can end.

use super::*;
use crate::scheduler::pass::Head;

fn waiting(number: u64, instance: ContainerInstanceId, group: &str, resources: Resources) -> TaskRecord {
    let mut task = task_record(number, "PENDING", group);
    (task.instance, task.resources) = (instance, resources);
    task
}

/// Whether the task finds a place once these have ended.
fn fits_after(state: &State, ended: &[TaskId], ask: Ask<'_>) -> bool {
    let mut state = state.clone();
    ended.iter().for_each(|id| state.apply(&Mutation::TaskGone(id.clone())));
    Reference { state: &state, ask }.choose().is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4_000 }))]

    #[test]
    fn whoever_passes_never_delays_the_head(
        changes in proptest::collection::vec(any_change(), 4..24), text in any_placement(),
        need in any_resources(), passer in any_resources(), groups in (any_group(), any_group()),
    ) {
        let state = state(changes);
        let placement = Placement::read(text).unwrap();
        let (none, anywhere) = (BTreeSet::new(), Placement::default());
        let ask = |resources, group, placement| Ask {
            resources, required: &none, leases: false, group, placement, reserve: Reserve::default(), luck: 0, head: None,
        };
        let own = ask(&need, groups.0, &placement);
        let nodes = state.columns().of(&cluster());
        let id = TaskId::from_parts(99, 0);
        let head = Head::new(nodes, &id, own);
        let by = Ask { head: Some(&head), ..ask(&passer, groups.1, &anywhere) };
        let running: Vec<TaskId> =
            state.tasks.values().filter(|task| task.last != TaskStatus::Stopped).map(|task| task.id.clone()).collect();
        prop_assume!(running.len() <= 8);
        for row in feasible(nodes, &by).iter() {
            let mut passed = state.clone();
            let task = waiting(98, nodes.id(row).clone(), groups.1, passer.clone());
            passed.apply(&Mutation::Task(Arc::new(task)));
            for ends in 0..1u32 << running.len() {
                let ended: Vec<TaskId> =
                    running.iter().enumerate().filter(|(at, _)| ends >> at & 1 == 1).map(|(_, id)| id.clone()).collect();
                let before = fits_after(&state, &ended, own);
                prop_assert!(!before || fits_after(&passed, &ended, own), "row {row} after {ended:?}");
            }
        }
    }
}
