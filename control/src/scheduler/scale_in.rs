//! Which task of a service goes first when there are to be fewer: the placement strategies the other way round.
//! In: tasks of a group that may be stopped, each with its row. Out: the one to stop.
//! Never: knows protection or health: the caller leaves out what must stay.
//! Source: Amazon ECS Developer Guide, "Task placement strategies": spread takes from where there are most; binpack
//! takes from the instance that has the most left after the task is gone.

use crate::core::columns::Nodes;
use crate::scheduler::strategy::{Scores, lot};
use lighter_model::ids::TaskId;
use lighter_model::placement::{PackField, Strategy};
use lighter_model::resources::Resources;

/// A task that may go.
#[derive(Debug, Clone, Copy)]
pub struct Leaver<'a> {
    pub id: &'a TaskId,
    /// Of its instance, see `Nodes::row`; `None`: that is no longer there, so the task goes first.
    pub row: Option<usize>,
    pub resources: &'a Resources,
}

/// The place in `leavers` of the task that goes first; of equal ones the newest, by its id. Ask again for the next,
/// after the first is wanted STOPPED: spread counts tasks that are wanted RUNNING.
pub fn first_to_go(
    nodes: &Nodes,
    group: &str,
    strategies: &[Strategy],
    leavers: &[Leaver<'_>],
    luck: u128,
) -> Option<usize> {
    let mut left: Vec<usize> = (0..leavers.len()).collect();
    let nowhere = |index: &usize| leavers[*index].row.is_none();
    if left.iter().any(nowhere) {
        left.retain(nowhere);
        return newest(leavers, &left);
    }
    for strategy in strategies {
        if *strategy == Strategy::Random {
            left.sort_by_key(|index| leavers[*index].id);
            return lot(luck, left.len()).map(|index| left[index]);
        }
        let scores = Scores::new(nodes, group, strategy);
        let key = |index: usize| {
            let leaver = &leavers[index];
            let Some(row) = leaver.row else { return i64::MAX };
            let freed = match strategy {
                Strategy::Binpack(PackField::Cpu) => leaver.resources.cpu_units.into(),
                Strategy::Binpack(PackField::Memory) => {
                    i64::try_from(leaver.resources.memory_mib).unwrap_or(i64::MAX)
                }
                _ => 0,
            };
            // An instance that a custom strategy refuses is the worst of all.
            scores.key(row).map_or(i64::MAX, |key| key.saturating_add(freed))
        };
        let keys: Vec<i64> = left.iter().map(|index| key(*index)).collect();
        let worst = keys.iter().copied().max();
        left = left
            .into_iter()
            .zip(keys)
            .filter(|(_, key)| Some(*key) == worst)
            .map(|(index, _)| index)
            .collect();
    }
    newest(leavers, &left)
}

fn newest(leavers: &[Leaver<'_>], left: &[usize]) -> Option<usize> {
    left.iter().copied().max_by_key(|index| leavers[*index].id)
}
