//! The vocabulary of Lighter: ids, task definitions, resources, statuses, exits.
//! In: values and text. Out: values, or an error that names the offending field.
//! Owns nothing. Never: performs I/O, reads a clock, draws a random number, knows tokio or gRPC.

pub mod address;
pub mod adjust;
pub mod attribute;
pub mod exit;
pub mod health;
pub mod held;
pub mod ids;
pub mod image_config;
pub mod node;
pub mod overrides;
pub mod placement;
pub mod query;
pub mod report;
pub mod resources;
pub mod score;
pub mod service;
pub mod status;
pub mod tags;
pub mod task_definition;
pub mod task_event;
pub mod trace_context;
pub mod wait;
