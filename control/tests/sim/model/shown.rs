//! What a plane shows, against the account: each change as it comes, now and then everything.
//! In: shown states. Out: the first difference. Never: asks the plane what is right.

use super::{Model, Taken};
use crate::world::World;
use lighter_control::core::state::State;
use lighter_control::view::Shown;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::status::TaskStatus;
use std::collections::BTreeSet;

/// Looks at what is shown between two complete comparisons.
const FULL_EVERY: u64 = 256;

impl Model {
    /// A plane shows a state: it must be the store at that sequence. `from` was shown before.
    pub(crate) fn shown(&mut self, world: &World, plane: usize, from: u64, shown: &Shown) {
        let newest = world.store.sequence.get();
        if shown.sequence > newest {
            return world.fail(format!("plane {plane} shows {}, {newest} is committed", shown.sequence));
        }
        let mut touched: BTreeSet<&String> = BTreeSet::new();
        let log = world.store.log.borrow();
        let first = world.store.log_from.get();
        for sequence in from.max(first)..shown.sequence {
            touched.extend(log[usize::try_from(sequence - first).unwrap()].keys());
        }
        if shown.sequence < newest {
            return;
        }
        let state = &shown.state;
        for key in touched {
            let Some((kind, id)) = key.split_once('/') else { continue };
            match kind {
                "task" => self.same_task(world, plane, state, id),
                "instance" => self.same_instance(world, plane, state, id),
                _ => {}
            }
        }
        let same = state.meta == self.meta && state.tasks.len() == self.tasks.len();
        world.check(same, || format!("plane {plane} shows another number of tasks or time than is stored"));
        self.looks += 1;
        if self.looks.is_multiple_of(FULL_EVERY) {
            full(world, plane, state);
        }
    }

    fn same_task(&self, world: &World, plane: usize, state: &State, id: &str) {
        let id: TaskId = id.parse().unwrap();
        let same = state.tasks.get(&id).map(AsRef::as_ref) == self.tasks.get(&id);
        world.check(same, || format!("plane {plane} shows task {id} otherwise than it is stored"));
        if let Some(task) = self.tasks.get(&id) {
            self.same_ledger(world, plane, state, &task.instance);
        }
    }

    fn same_instance(&self, world: &World, plane: usize, state: &State, id: &str) {
        let id: ContainerInstanceId = id.parse().unwrap();
        let same = state.instances.get(&id).map(AsRef::as_ref) == self.instances.get(&id);
        world.check(same, || format!("plane {plane} shows node {id} otherwise than it is stored"));
    }

    fn same_ledger(&self, world: &World, plane: usize, state: &State, instance: &ContainerInstanceId) {
        let nothing = Taken::default();
        let own = self.taken.get(instance).unwrap_or(&nothing);
        let ledger = state.reserved(instance);
        let same = ledger.cpu_units == own.cpu_units
            && ledger.memory_mib == own.memory_mib
            && ledger.host_ports.iter().eq(own.ports.keys())
            && ledger.tasks == own.tasks;
        world.check(same, || {
            format!("the ledger of plane {plane} for {instance} is {ledger:?}, counted: {own:?}")
        });
    }

    /// Everything at once, at the end.
    pub(crate) fn at_the_end(&self, world: &World, plane: usize, shown: &Shown) {
        full(world, plane, &shown.state);
        for instance in self.instances.keys() {
            self.same_ledger(world, plane, &shown.state, instance);
        }
        for id in &self.stops {
            let stopped = self.tasks.get(id).is_none_or(|task| task.last == TaskStatus::Stopped);
            world.check(stopped, || format!("task {id} was to stop and has not"));
        }
    }
}

/// Memory against the store, and the ledger against its own recount.
fn full(world: &World, plane: usize, state: &State) {
    let records = world.store.records.borrow().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let stored = State::from_records(records).unwrap();
    world.check(*state == stored, || {
        let first = first_difference(state, &stored);
        format!("plane {plane} shows another state than the store gives back: {first}")
    });
    world.check(*state.ledger() == state.recount(), || {
        format!("plane {plane}: the ledger is not what the tasks take")
    });
}

/// The first line in which two states differ, with the lines it stands in.
fn first_difference(shown: &State, stored: &State) -> String {
    let (shown, stored) = (format!("{shown:#?}"), format!("{stored:#?}"));
    let (mut inside, mut pairs) = (Vec::new(), shown.lines().zip(stored.lines()));
    let Some((one, other)) = pairs.find(|(one, other)| {
        let depth = one.len() - one.trim_start().len();
        inside.retain(|(outer, _)| *outer < depth);
        if one == other {
            inside.push((depth, one.trim()));
        }
        one != other
    }) else {
        return "not in words".to_owned();
    };
    let inside: Vec<&str> = inside.into_iter().map(|(_, line)| line).collect();
    format!("{} {} is stored as {}", inside.join(" "), one.trim(), other.trim())
}
