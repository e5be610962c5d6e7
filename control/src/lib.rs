//! The control plane: API, durable state, placement, node sessions, identity.
//! In: a `ControlConfig`. Out: a running server behind a `ControlHandle`.
//! Owns: control.redb, the CA and the administrator key under the data directory.
//! Never: touches containers, images or networks, and never acts on what is not yet committed.

pub mod api;
pub mod config;
pub mod convert;
pub mod core;
pub mod environment;
pub mod error;
mod file_limit;
pub mod format;
pub mod grpc;
pub mod identity;
pub mod leadership;
pub mod listen;
mod metrics;
pub mod rate_limit;
pub mod scheduler;
pub mod session;
pub mod snapshot;
pub mod start;
pub mod store;
pub mod time;
pub mod transfer;
pub mod view;
mod waiting;
pub mod work;
pub mod writer;
pub mod wrong_edit;

pub use config::{ConfigError, ControlConfig, ControlOverrides};
pub use start::{Control, ControlHandle, StartError};
pub use waiting::Patience;
