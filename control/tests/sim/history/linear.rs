//! Whether calls have an order: the search of Wing and Gong, with the memory of Lowe: a set of calls done
//! and the state they led to is looked at once.
//! In: the calls of one key, at most 64. Out: yes or no. Never: gives up: keys are kept small instead.

use super::Call;
use super::spec::{Op, State, Told, after};
use std::collections::{BTreeSet, HashSet};

/// Whether one copy could have answered these calls.
pub(super) fn is_linear(calls: &[Call]) -> bool {
    let calls: Vec<&Call> = calls.iter().filter(|call| matters(call, calls)).collect();
    assert!(calls.len() <= 64, "{} calls of one key", calls.len());
    let mut seen = HashSet::new();
    let mut open = vec![(0_u64, State::Nothing)];
    while let Some((done, state)) = open.pop() {
        let left = || calls.iter().enumerate().filter(|(place, _)| done & (1 << place) == 0);
        let first_end = left().filter_map(|(_, call)| call.end.as_ref().map(|(end, _)| *end)).min();
        let Some(first_end) = first_end else { return true };
        // Calls that nobody answered are tried last.
        let mut next: Vec<(usize, &&Call)> = left().filter(|(_, call)| call.begin < first_end).collect();
        next.sort_by_key(|(_, call)| (call.end.is_some(), std::cmp::Reverse(call.begin)));
        for (place, call) in next {
            let told = call.end.as_ref().map(|(_, told)| told);
            if let Some(state) = after(&state, &call.op, told) {
                let step = (done | 1 << place, state);
                if seen.insert(step.clone()) {
                    open.push(step);
                }
            }
        }
    }
    false
}

/// A read that nobody answered, and a value that was never seen, need no place: whatever order there
/// is without them is one with them (such a call may have had no effect).
fn matters(call: &Call, calls: &[Call]) -> bool {
    let values: BTreeSet<u64> = calls
        .iter()
        .filter_map(|call| match &call.end {
            Some((_, Told::Value(value))) => *value,
            _ => None,
        })
        .collect();
    let deletes =
        calls.iter().any(|call| matches!((&call.op, &call.end), (Op::Delete, Some((_, Told::Done)))));
    call.end.is_some()
        || match call.op {
            Op::Put(value) => deletes || values.contains(&value),
            Op::Read | Op::Newest | Op::List => false,
            _ => true,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(begin: u64, end: u64, op: Op, told: Told) -> Call {
        Call { begin, end: Some((end, told)), op }
    }

    fn lost(begin: u64, op: Op) -> Call {
        Call { begin, end: None, op }
    }

    fn read(begin: u64, end: u64, value: Option<u64>) -> Call {
        call(begin, end, Op::Read, Told::Value(value))
    }

    #[test]
    fn a_stale_read_has_no_order_and_a_concurrent_one_has() {
        let put = |begin, end, value| call(begin, end, Op::Put(value), Told::Done);
        assert!(!is_linear(&[put(1, 2, 1), put(3, 4, 2), read(5, 6, Some(1))]));
        assert!(is_linear(&[put(1, 2, 1), put(3, 6, 2), read(4, 5, Some(1))]));
        // Once shown it stays.
        assert!(!is_linear(&[put(1, 2, 1), put(3, 9, 2), read(4, 5, Some(2)), read(6, 7, Some(1))]));
        assert!(!is_linear(&[read(1, 2, Some(7))]), "a value that nobody wrote");
    }

    #[test]
    fn a_call_that_nobody_answered_may_have_been_done_late_or_never() {
        let unknown = lost(1, Op::Put(1));
        assert!(is_linear(&[unknown.clone(), read(2, 3, None), read(4, 5, Some(1))]));
        assert!(is_linear(&[unknown.clone(), read(2, 3, None)]));
        assert!(!is_linear(&[unknown, read(2, 3, Some(1)), read(4, 5, None)]));
        let deleted = lost(3, Op::Delete);
        assert!(is_linear(&[call(1, 2, Op::Put(1), Told::Done), deleted, read(4, 5, None)]));
    }

    #[test]
    fn revisions_are_given_once_and_without_gaps_but_for_calls_nobody_answered() {
        let register = |begin, revision| call(begin, begin + 1, Op::Register, Told::Revision(revision));
        assert!(is_linear(&[register(1, 1), register(3, 2)]));
        assert!(!is_linear(&[register(1, 1), register(3, 1)]));
        assert!(!is_linear(&[register(1, 1), register(3, 3)]));
        assert!(is_linear(&[register(1, 1), lost(2, Op::Register), register(5, 3)]));
        let newest = |begin, newest| call(begin, begin + 1, Op::Newest, Told::Newest(newest));
        let out = call(5, 6, Op::Deregister(2), Told::Done);
        assert!(is_linear(&[register(1, 1), register(3, 2), out.clone(), newest(7, Some(1))]));
        assert!(!is_linear(&[register(1, 1), register(3, 2), out, newest(7, Some(2))]));
    }

    #[test]
    fn one_client_token_has_one_set_of_tasks() {
        let set = |names: &[&str]| Told::Tasks(names.iter().map(ToString::to_string).collect());
        let run = |begin, names| call(begin, begin + 3, Op::Run, set(names));
        assert!(is_linear(&[run(1, &["a", "b"]), run(2, &["a", "b"])]));
        assert!(!is_linear(&[run(1, &["a"]), run(2, &["b"])]));
        assert!(is_linear(&[run(1, &[]), run(5, &["b"])]));
        assert!(!is_linear(&[call(1, 2, Op::List, set(&["a"])), run(3, &["a"])]));
        assert!(is_linear(&[lost(1, Op::Run), call(2, 3, Op::List, set(&["a"])), run(4, &["a"])]));
    }
}
