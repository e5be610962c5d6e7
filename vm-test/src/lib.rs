//! The VM harness: a Debian guest, machines booted or loaded in two seconds, scenarios that drive the real `lighter`.
//! In: the built binaries and packaging/. Out: what passed and what failed.
//! Owns: nothing at this level. Never: is linked by the product; never observes with the product's code.

pub mod accel;
pub mod bounded;
pub mod demo;
pub mod example_images;
pub mod guest;
pub mod host;
pub mod hub;
pub mod image;
pub mod machine;
pub mod node;
pub mod oracle;
pub mod payload;
pub mod qmp;
pub mod registry;
pub mod scenarios;
pub mod tally;
pub mod tiers;
pub mod world;
