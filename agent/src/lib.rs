//! The node agent: takes assignments from the control plane and makes this machine agree with them.
//! In: `AgentConfig`, the session stream, local questions. Out: reports, and containers that run.
//! Owns: the store `agent.redb`, one tokio task a container task (`task`), one for the whole picture
//! (`reconcile`), one each for leases, reports, the session and the local socket; see docs of each.
//! Entry points: `AgentConfig::load`, `join`, `Agent::start`.
//! Never: calls libcontainer, netlink or mount; that is the work of the crates behind `facilities`.

pub mod config;
mod agent;
mod errors;
mod join;

pub use agent::{Agent, AgentHandle, StartError};
pub use join::{JoinError, JoinOptions, JoinToken, Joined, TokenError, join};
pub use config::{AgentConfig, ConfigError, ConfigOverrides};
