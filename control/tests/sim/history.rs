//! What callers asked and were told, and when: each key's history must be one that a single copy could
//! have given, one call after another.
//! In: calls as they begin and end. Out: the first key without such an order.
//! Owns: calls since the last restore. Never: looks at the store; that is the model's account.
//!
//! A call that was answered took effect between its begin and its end; one that nobody answered at any
//! time after its begin, or never. Beside keys with values there are floors: a number that only grows
//! (a task's version, the last event of the state) may never be shown lower than it was shown to
//! anybody before the call began. That is the same promise for things that nodes change too.

mod linear;
mod spec;

use crate::world::World;
pub(crate) use spec::{Op, Told};
use std::collections::BTreeMap;

/// Calls of one key; then another name is used, so that the search stays small.
pub(crate) const CALLS_MAX: usize = 40;

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    begin: u64,
    /// `None`: nobody knows.
    end: Option<(u64, Told)>,
    op: Op,
}

/// Names a call that has begun.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    key: String,
    place: usize,
    epoch: u64,
}

#[derive(Default)]
pub(crate) struct History {
    clock: u64,
    /// Grows when the store is set back.
    epoch: u64,
    calls: BTreeMap<String, Vec<Option<Call>>>,
    floors: BTreeMap<String, u64>,
    checked: u64,
}

impl History {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Calls of this key so far.
    pub(crate) fn count(&self, key: &str) -> usize {
        self.calls.get(key).map_or(0, Vec::len)
    }

    pub(crate) fn begin(&mut self, key: &str, op: Op) -> Begun {
        self.clock += 1;
        let calls = self.calls.entry(key.to_owned()).or_default();
        calls.push(Some(Call { begin: self.clock, end: None, op }));
        Begun { key: key.to_owned(), place: calls.len() - 1, epoch: self.epoch }
    }

    fn call(&mut self, begun: &Begun) -> Option<&mut Option<Call>> {
        let same_store = begun.epoch == self.epoch;
        self.calls.get_mut(&begun.key).filter(|_| same_store).and_then(|calls| calls.get_mut(begun.place))
    }

    /// The call was answered.
    pub(crate) fn end(&mut self, begun: &Begun, told: Told) {
        self.clock += 1;
        let now = self.clock;
        if let Some(Some(call)) = self.call(begun) {
            call.end = Some((now, told));
        }
    }

    /// The call was refused: it has surely done nothing.
    pub(crate) fn refused(&mut self, begun: &Begun) {
        if let Some(call) = self.call(begun) {
            *call = None;
        }
    }

    /// What was shown of a number that only grows.
    pub(crate) fn floor(&self, key: &str) -> u64 {
        self.floors.get(key).copied().unwrap_or_default()
    }

    /// A number is shown by a call that began when its floor was `floor`.
    pub(crate) fn shows(&mut self, world: &World, key: &str, floor: u64, number: u64) {
        world.check(number >= floor, || format!("{key} is shown at {number}, after {floor} was shown"));
        let known = self.floors.entry(key.to_owned()).or_default();
        *known = number.max(*known);
    }

    /// Looks for an order of every key's calls.
    pub(crate) fn check(&mut self, world: &World) {
        for (key, calls) in std::mem::take(&mut self.calls) {
            let calls: Vec<Call> = calls.into_iter().flatten().collect();
            self.checked += calls.len() as u64;
            world.check(linear::is_linear(&calls), || format!("{key} has no order: {}", told(&calls)));
        }
        world.say(format_args!("{} calls have an order", self.checked));
    }

    /// The store was set back: what was told of it is void.
    pub(crate) fn set_back(&mut self, world: &World) {
        self.check(world);
        self.floors.clear();
        self.epoch += 1;
    }
}

/// A history in words, by begin.
fn told(calls: &[Call]) -> String {
    let one = |call: &Call| match &call.end {
        Some((end, told)) => format!("{}-{end} {:?}: {told:?}", call.begin, call.op),
        None => format!("{}-? {:?}", call.begin, call.op),
    };
    calls.iter().map(one).collect::<Vec<_>>().join("; ")
}
