//! Puts the agent together: facilities, store, recovery, session, local socket, in this order.
//! In: `AgentConfig`. Out: `AgentHandle`. Owns: the tasks it spawns, all of which end when the
//! handle's `shutdown` is called. "The agent leaves" is that and nothing else: no task is touched.
//! Never: decides anything about a task.

use crate::config::AgentConfig;

/// Why the agent does not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("lighter agent must run as root, for namespaces, mounts and cgroups; it runs as uid {uid}")]
    NotRoot { uid: u32 },
}

/// Starts agents.
#[derive(Debug)]
pub struct Agent;

/// A running agent.
#[derive(Debug)]
pub struct AgentHandle {}

impl Agent {
    /// Starts everything; returns when the surviving tasks are adopted and the session is under way.
    pub async fn start(_config: AgentConfig) -> Result<AgentHandle, StartError> {
        Ok(AgentHandle {})
    }
}

impl AgentHandle {
    /// The agent leaves: it stops accepting, persists and ends. Tasks go on.
    pub async fn shutdown(&self) {}

    /// Waits until the agent has ended, by `shutdown` or by a fault it cannot survive.
    pub async fn join(self) -> Result<(), StartError> {
        Ok(())
    }
}
