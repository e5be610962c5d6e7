//! What a task waits for, as one type for every wait there is: the node says it, the control plane
//! keeps it, `lighter task why` shows it.
//! In: words. Out: values. Never: decides when a wait is over.

use crate::ids::ContainerName;
use crate::status::ecs_enum;
use serde::{Deserialize, Serialize};
use std::fmt;

ecs_enum!(
    /// Which part of a task's life waits.
    WaitKind {
        /// For the node to take the assignment over, or to be heard of again.
        Node = "NODE",
        /// For the task definition to arrive on the node.
        Definition = "DEFINITION",
        /// For CPU, memory or a host port of the node.
        Resource = "RESOURCE",
        /// For an image that is being pulled.
        Pull = "PULL",
        /// For the next try of a pull that failed.
        PullRetry = "PULL_RETRY",
        /// For the node to let the next container start.
        StartLimit = "START_LIMIT",
        /// For the container another one depends on.
        Dependency = "DEPENDENCY",
        /// For the next start of a container that ended.
        Restart = "RESTART",
        /// For the first verdict of a health check.
        Health = "HEALTH",
        /// For the node to begin the stop that was asked for.
        Stop = "STOP",
        /// For a container to end after its stop signal.
        StopSignal = "STOP_SIGNAL",
        /// For a container to end after SIGKILL.
        Kill = "KILL",
        /// For the next try of giving back what the task held.
        Teardown = "TEARDOWN",
        /// For the task's monitor to answer.
        Monitor = "MONITOR",
        /// For room in the cluster, in the queue.
        Queue = "QUEUE",
        /// A kind this program does not know.
        Other = "OTHER",
    }
);

/// One wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub kind: WaitKind,
    /// The container that waits; `None`: the task.
    pub container: Option<ContainerName>,
    /// What it waits for, in words.
    pub what: String,
    pub since_unix_ms: u64,
    /// When it ends by itself at the latest; `None`: it has no such moment.
    pub until_unix_ms: Option<u64>,
    /// What would end it, in words.
    pub ends_by: String,
}

impl Wait {
    /// The same wait, however long it has lasted and whatever is said of it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.container == other.container
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.container {
            Some(container) => write!(f, "container {container} waits for {}", self.what),
            None => write!(f, "waits for {}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_words_and_a_wait_says_whose_it_is() {
        for kind in WaitKind::ALL {
            assert_eq!(WaitKind::from_ecs(kind.as_str()), Some(*kind));
        }
        let wait = Wait {
            kind: WaitKind::Dependency,
            container: Some("web".parse().unwrap()),
            what: "container db to be HEALTHY".into(),
            since_unix_ms: 1,
            until_unix_ms: None,
            ends_by: "its health check".into(),
        };
        assert_eq!(wait.to_string(), "container web waits for container db to be HEALTHY");
        let text = serde_json::to_string(&wait).unwrap();
        assert_eq!(serde_json::from_str::<Wait>(&text).unwrap(), wait);
        assert!(wait.is_same(&Wait { since_unix_ms: 9, ..wait.clone() }));
        assert!(!wait.is_same(&Wait { container: None, ..wait.clone() }));
    }
}
