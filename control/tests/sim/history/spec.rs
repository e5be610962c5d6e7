//! What one copy of a key would answer.
//! In: a state, a call. Out: the state after it, if it could answer so. Never: time.

use std::collections::BTreeSet;

/// What is asked of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// A value that nobody else writes.
    Put(u64),
    Delete,
    Read,
    Register,
    Deregister(u32),
    Newest,
    /// With the key as client token, repeated until it was answered.
    Run,
    /// Tasks with the key as starter, wanted RUNNING.
    List,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Done,
    Missing,
    Value(Option<u64>),
    Revision(u32),
    Newest(Option<u32>),
    Tasks(BTreeSet<String>),
}

/// A key's state; every key begins as `Nothing`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Nothing,
    Value(u64),
    Family {
        last: u32,
        active: BTreeSet<u32>,
    },
    Tasks(BTreeSet<String>),
    /// Tasks that nobody was told of.
    SomeTasks,
}

/// The state after a call; `None` when it could not have been answered so.
pub(crate) fn after(state: &State, op: &Op, told: Option<&Told>) -> Option<State> {
    match op {
        Op::Put(_) | Op::Delete | Op::Read => register(state, op, told),
        Op::Register | Op::Deregister(_) | Op::Newest => family(state, op, told),
        Op::Run | Op::List => tasks(state, op, told),
    }
}

fn register(state: &State, op: &Op, told: Option<&Told>) -> Option<State> {
    let value = if let State::Value(value) = state { Some(*value) } else { None };
    let (answer, after) = match op {
        Op::Put(value) => (Told::Done, State::Value(*value)),
        Op::Delete if value.is_none() => (Told::Missing, State::Nothing),
        Op::Delete => (Told::Done, State::Nothing),
        _ => (Told::Value(value), state.clone()),
    };
    told.is_none_or(|told| *told == answer).then_some(after)
}

fn family(state: &State, op: &Op, told: Option<&Told>) -> Option<State> {
    let (mut last, mut active) = match state {
        State::Family { last, active } => (*last, active.clone()),
        _ => (0, BTreeSet::new()),
    };
    let answer = match op {
        Op::Register => {
            last += 1;
            active.insert(last);
            Told::Revision(last)
        }
        Op::Deregister(revision) if *revision <= last => {
            active.remove(revision);
            Told::Done
        }
        Op::Deregister(_) => Told::Missing,
        _ => Told::Newest(active.last().copied()),
    };
    let after = if last == 0 { State::Nothing } else { State::Family { last, active } };
    told.is_none_or(|told| *told == answer).then_some(after)
}

fn tasks(state: &State, op: &Op, told: Option<&Told>) -> Option<State> {
    let told = match told {
        Some(Told::Tasks(tasks)) => Some(tasks),
        Some(_) => return None,
        None => None,
    };
    match (op, state, told) {
        // A call that finds no room is not remembered.
        (Op::Run, State::Nothing, Some(made)) if made.is_empty() => Some(State::Nothing),
        (Op::Run, State::Nothing | State::SomeTasks, Some(made)) => Some(State::Tasks(made.clone())),
        (Op::Run, State::Nothing, None) => Some(State::SomeTasks),
        // Some may have stopped so long ago that they are gone; the model looks at that.
        (_, State::Tasks(made), Some(told)) => told.is_subset(made).then(|| state.clone()),
        (Op::List, State::Nothing, Some(told)) => told.is_empty().then_some(State::Nothing),
        _ => Some(state.clone()),
    }
}
