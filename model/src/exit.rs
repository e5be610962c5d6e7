//! How a process ended. Exit code and signal stay apart until they are shown to a person.

use serde::{Deserialize, Serialize};

/// How the main process of a container ended (wait(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It called exit with this code, 0 to 255.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl ExitStatus {
    /// The single number that shells, Docker and ECS show: the code, or 128 + the signal.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// What is known of a container that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerExit {
    pub status: ExitStatus,
    /// The main process ended by SIGKILL and `oom_kill` of its cgroup had risen.
    pub oom_killed: bool,
    /// Milliseconds since the Unix epoch.
    pub finished_at_unix_ms: u64,
}
