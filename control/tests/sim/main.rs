//! The deterministic simulation: the real core, writer, sessions and monitors with simulated nodes,
//! network, store and time. One seed gives one run (docs/reliability.md).
//! In: seeds. Out: verdicts; a failing seed is printed and can be run again alone.
//! Never: a thread, a real clock or a real socket inside a world.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod callers;
mod client;
mod directed;
mod disk;
mod executor;
mod faults;
mod health;
mod history;
mod lease;
mod luck;
mod model;
mod node;
mod plane;
mod queue;
mod run;
mod seeds;
mod services;
mod store;
mod watcher;
mod world;
