//! The node agent: takes assignments from the control plane and makes this machine agree with them.
//! In: `AgentConfig`, the session stream, local questions. Out: reports, and containers that run.
//! Owns: the store `agent.redb`, one tokio task a container task (`task`), one for the whole picture
//! (`reconcile`), one each for leases, the session, the local socket, log drivers and old logs.
//! Entry points: `AgentConfig::load`, `join`, `Agent::start`.
//! Never: calls libcontainer, netlink or mount; that is the work of the crates behind `facilities`.

mod adapters;
mod agent;
mod assignment;
mod attributes;
pub mod config;
mod errors;
mod facilities;
mod image_cleanup;
mod image_pull;
mod imds;
mod join;
mod lease;
mod leases;
mod local_api;
mod log_driver;
mod log_retention;
mod metadata;
mod notice;
mod policy;
mod random;
mod reconcile;
mod recover;
mod renew;
mod report;
mod resources;
mod self_test;
mod session;
mod store;
mod task;
mod telemetry;
#[cfg(test)]
mod tests;
mod time;

pub use agent::{Agent, AgentHandle, StartError};
pub use config::{AgentConfig, ConfigError, ConfigOverrides};
pub use join::{JoinError, JoinOptions, JoinToken, Joined, TokenError, join};
pub use log_driver::LogDriverTotals;
pub use store::OpenStoreError;
