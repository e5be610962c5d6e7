//! Decisions of where tasks run: pure functions over what the core knows.
//! In: rows and needs. Out: a choice, or ECS's reasons. Never: changes state.

pub mod choose;
pub mod explain;
pub mod pass;
pub mod placement;
pub mod strategy;

#[cfg(test)]
mod tests;
