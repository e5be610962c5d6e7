//! The sessions with the nodes: one bidirectional stream each (decision 7 of ARCHITECTURE.md).
//! In: what nodes say. Out: manifests, assignments, definitions, what was applied.
//! Owns: which sessions live, and when each node was last heard of; neither is stored.
//! Never: waits for a node that does not read; it is cut off and begins again with a manifest.

pub mod convert;
pub mod hello;
pub mod link;
pub mod logs;
pub mod monitor;
pub mod questions;
pub mod queue;
pub mod registry;
pub mod replace;
pub mod run;
pub mod streams;
pub mod tend;
