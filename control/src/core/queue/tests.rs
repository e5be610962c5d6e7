//! The order of the queue over random clusters and entries: in turn within a shape, and nobody waits for ever.

use super::tend::{TendQueue, Tended};
use super::*;
use crate::core::mutation::{Changes, Mutation};
use crate::core::run_task::pending;
use crate::core::{Command, Moment};
use lighter_model::resources::Resources;
use lighter_model::status::TaskStatus;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

const SIZES: u32 = 4;
/// No instance is so large.
const IMPOSSIBLE: u32 = SIZES + 1;

fn cluster() -> ClusterName {
    "default".parse().unwrap()
}

fn definition(cpu: u32) -> DefinitionRecord {
    let text = json!({"family": format!("f{cpu}"), "containerDefinitions": [
        {"name": "c", "image": "i", "cpu": cpu, "memory": 6, "essential": true}]});
    let definition = lighter_model::task_definition::input::parse(&text.to_string()).unwrap();
    serde_json::from_value(json!({
        "id": format!("f{cpu}:1"), "definition": definition, "registered_by": "", "registered_at_unix_ms": 0,
        "deregistered_at_unix_ms": null,
    }))
    .unwrap()
}

/// Instances with so many units each, and the definitions.
fn world(instances: &[u32]) -> State {
    let mut state = State::default();
    for (number, cpu) in instances.iter().enumerate() {
        let offered = Resources { cpu_units: *cpu, memory_mib: 1_000, ..Resources::default() };
        let record = serde_json::from_value(json!({
            "id": ContainerInstanceId::from_parts(number as u64 + 1, 0), "cluster": "default", "name": "n",
            "status": "ACTIVE", "connected": true, "agent_version": "", "boot_id": "", "address": null,
            "offered": offered, "token_attributes": {}, "node_attributes": {}, "registered_at_unix_ms": 0,
            "orphans": [],
        }));
        state.apply(&Mutation::Instance(Arc::new(record.unwrap())));
    }
    (1..=IMPOSSIBLE).for_each(|cpu| state.apply(&Mutation::Definition(Arc::new(definition(cpu)))));
    state
}

fn wait(state: &mut State, number: u64, cpu: u32, priority: i32) -> TaskId {
    let id = TaskId::from_parts(number, 0);
    let definition = state.definitions[&format!("f{cpu}:1").parse().unwrap()].clone();
    let queue = QueueRecord { priority, until_unix_ms: u64::MAX, store: 0 };
    let task = TaskRecord {
        last: TaskStatus::Provisioning,
        resources: Resources { cpu_units: cpu, memory_mib: 6, ..Resources::default() },
        queue: Some(queue),
        ..pending(id.clone(), &definition, (cluster(), nowhere()), number)
    };
    state.apply(&Mutation::Task(Arc::new(task)));
    id
}

/// Steps until every entry was looked at.
fn tend(state: &mut State) {
    let (settings, mut after, mut head) = (Settings::default(), None, None);
    loop {
        let mut changes = Changes::new(state, &settings, Moment { wall_unix_ms: 1, random: 7 });
        let step = TendQueue { cluster: cluster(), after, head, may_start: true };
        let Tended { next, head: found, .. } = step.decide(&mut changes).unwrap();
        assert!(changes.finish().len() < 128, "within one group");
        let Some(next) = next else { return };
        (after, head) = (Some(next), found);
    }
}

fn running(state: &State) -> Vec<Arc<TaskRecord>> {
    let tasks = state.tasks.values().filter(|task| task.queue.is_none() && task.last != TaskStatus::Stopped);
    tasks.cloned().collect()
}

/// The head needs all of the first instance, where three of four units run; the second is too small for it.
#[test]
fn small_ones_pass_where_the_head_can_never_start_and_nowhere_else() {
    let mut state = world(&[4, 2]);
    wait(&mut state, 11, 3, 0);
    tend(&mut state);
    let head = wait(&mut state, 12, 4, 0);
    let small: Vec<TaskId> = (13..16).map(|number| wait(&mut state, number, 1, 0)).collect();
    tend(&mut state);
    let at = |state: &State, id| state.tasks[id].instance.clone();
    let second = ContainerInstanceId::from_parts(2, 0);
    assert_eq!(
        [&head, &small[0], &small[1], &small[2]].map(|id| at(&state, id)),
        [nowhere(), second.clone(), second, nowhere()]
    );
    let waiting = Waiting::of(&state, &small[2]).unwrap();
    let lacks = lacks(&state, &Settings::default(), &waiting);
    assert!(lacks.contains(&format!("is kept free for task {head}, which waits at the head")), "{lacks}");
    state.apply(&Mutation::TaskGone(TaskId::from_parts(11, 0)));
    tend(&mut state);
    assert_eq!(at(&state, &head), ContainerInstanceId::from_parts(1, 0));
}

/// Room that comes between two steps is for the first that asks for it, and an earlier step has looked at that one.
#[test]
fn a_later_step_lets_nobody_overtake_who_was_looked_at_before() {
    let mut state = world(&[4, 1]);
    wait(&mut state, 11, 4, 0);
    wait(&mut state, 12, 1, 0);
    tend(&mut state);
    let [head, first, second] =
        [(13, 4), (14, 1), (15, 1)].map(|(number, cpu)| wait(&mut state, number, cpu, 0));
    state.apply(&Mutation::TaskGone(TaskId::from_parts(12, 0)));
    let settings = Settings::default();
    let mut changes = Changes::new(&mut state, &settings, Moment { wall_unix_ms: 1, random: 7 });
    let [after, head] = [&first, &head].map(|id| Turn::of(&changes.state().tasks[id]));
    let tended = TendQueue { cluster: cluster(), after, head, may_start: true }.decide(&mut changes).unwrap();
    assert_eq!(tended, Tended::default());
    changes.finish();
    tend(&mut state);
    assert!(state.tasks[&first].queue.is_none() && state.tasks[&second].queue.is_some());
}

#[test]
fn a_queue_moves_with_its_store_and_an_older_one_does_not() {
    let mut state = world(&[1]);
    let (own, old) = (wait(&mut state, 11, 1, 0), wait(&mut state, 12, 1, 0));
    let in_store = |id: &TaskId, store| {
        let mut task = TaskRecord::clone(&state.tasks[id]);
        task.queue.as_mut().unwrap().store = store;
        (format!("task/{id}"), encode(&task).unwrap())
    };
    let mut records = vec![in_store(&own, 5), in_store(&old, 4), ("task/damaged".to_owned(), vec![1, b'x'])];
    let before = records.clone();
    moved(&mut records, 5, 6);
    assert_eq!(records, [in_store(&own, 6), before[1].clone(), before[2].clone()]);
}

/// What a node holds of another store's queue is its own; of this one's nothing is, and nothing else is placed.
#[test]
fn entries_of_a_store_that_was_set_back_go_where_they_are_or_end() {
    let mut state = world(&[4, 4]);
    let (there, gone, own) =
        (wait(&mut state, 11, 1, 0), wait(&mut state, 12, 1, 0), wait(&mut state, 13, 1, 0));
    let mut task = TaskRecord::clone(&state.tasks[&own]);
    task.queue.as_mut().unwrap().store = 7;
    state.apply(&Mutation::Task(Arc::new(task)));
    let settings = Settings { store: 7, ..Settings::default() };
    let node = ContainerInstanceId::from_parts(2, 0);
    let mut changes = Changes::new(&mut state, &settings, Moment { wall_unix_ms: 1, random: 7 });
    assert_eq!(take_back(&mut changes, &node, [&there, &own].into_iter(), 9), 1);
    let step = TendQueue { cluster: cluster(), after: None, head: None, may_start: true };
    let tended = step.decide(&mut changes).unwrap();
    assert_eq!((tended.placed, tended.ended), (1, 1));
    changes.finish();
    assert_eq!(state.tasks[&there].instance, node);
    assert_eq!(state.tasks[&gone].last, TaskStatus::Stopped);
    assert!(state.tasks[&gone].stopped_reason.as_deref().unwrap().starts_with("The store was set back"));
    assert_eq!(state.tasks[&own].last, TaskStatus::Pending);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Small tasks come without end; whatever runs when an entry becomes the head ends one by one, and by then the
    /// head runs as well, whatever waits before it that can run nowhere.
    #[test]
    fn the_head_starts_once_what_ran_has_ended(
        instances in proptest::collection::vec(1..=SIZES, 1..4), first in proptest::collection::vec(1..=SIZES, 1..8),
        ends in proptest::collection::vec((any::<usize>(), 1..=SIZES), 64),
        impossible in proptest::sample::select(vec![0, 1, 3, 70]),
    ) {
        let mut state = world(&instances);
        let largest = instances.iter().copied().max().unwrap();
        let mut number = 10;
        for cpu in &first {
            number += 1;
            wait(&mut state, number, *cpu, 0);
        }
        tend(&mut state);
        for _ in 0..impossible {
            number += 1;
            wait(&mut state, number, IMPOSSIBLE, 10);
        }
        number += 1;
        let head = wait(&mut state, number, largest, 9);
        tend(&mut state);
        let (mut before, mut ends) = (running(&state), ends.into_iter().cycle());
        while state.tasks[&head].queue.is_some() {
            prop_assert!(!before.is_empty(), "what ran before has ended and the head waits");
            let (which, cpu) = ends.next().unwrap();
            let task = before.remove(which % before.len());
            number += 1;
            wait(&mut state, number, cpu, 0);
            state.apply(&Mutation::TaskGone(task.id.clone()));
            tend(&mut state);
        }
        prop_assert_eq!(state.recount(), state.ledger().clone());
    }

    /// Of the same size nobody overtakes, but by priority.
    #[test]
    fn within_a_size_and_a_priority_who_came_first_goes_first(
        instances in proptest::collection::vec(1..=SIZES, 1..4),
        entries in proptest::collection::vec((1..=SIZES, -1i32..2), 1..90),
    ) {
        let mut state = world(&instances);
        for (number, (cpu, priority)) in entries.iter().enumerate() {
            wait(&mut state, number as u64 + 10, *cpu, *priority);
        }
        tend(&mut state);
        let mut waits = BTreeMap::new();
        for turn in state.queue_of(&cluster()) {
            waits.entry(state.tasks[&turn.task].resources.cpu_units).or_insert(turn.clone());
        }
        for task in running(&state) {
            let at = (u128::from_str_radix(task.id.as_str(), 16).unwrap() >> 80) as usize - 10;
            let turn = Turn { priority: Reverse(entries[at].1), task: task.id.clone() };
            if let Some(first) = waits.get(&task.resources.cpu_units) {
                prop_assert!(turn < *first, "{turn:?} has passed {first:?}");
            }
        }
    }
}
