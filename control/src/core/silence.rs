//! What becomes of tasks whose node falls silent.
//! In: how long each silent node of a cluster has said nothing. Out: replacements, the brake.
//! Owns: the policy of a task, the brake of a cluster, how many are replaced a second.
//! Never: reads a clock: how long nodes are silent comes in with the command, on a clock that no
//! change of the wall clock moves.

pub mod brake;
pub mod policy;
pub mod replace;

/// The most tasks of a cluster that are replaced within a second: 1 % of those it has, at least 10.
pub fn most_a_second(tasks: usize) -> usize {
    const LEAST: usize = 10;
    (tasks / 100).max(LEAST)
}

#[cfg(test)]
mod tests;
