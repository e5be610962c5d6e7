//! Decisions of where tasks run: pure functions over what the core knows.
//! In: candidates and needs. Out: a choice, or ECS's reasons. Never: changes state.

pub mod placement;
