//! What a node is told of its own end, and in which order its tasks begin and stop: daemon tasks
//! (log shippers, proxies, monitors) before the others and after them.
//! In: groups, statuses. Out: who may begin, who is to stop now. Pure.
//! Never: knows why the node ends; starts or stops anything.

use serde::{Deserialize, Serialize};

/// A task of such a group is a daemon task, as the tasks of ECS's DAEMON services are.
pub const DAEMON_GROUP_PREFIX: &str = "daemon:";

/// Tasks of a REPLICA service are of such a group, and no others.
pub const SERVICE_GROUP_PREFIX: &str = "service:";

/// Whether the tasks of this group support the others.
pub fn is_daemon(group: &str) -> bool {
    group.starts_with(DAEMON_GROUP_PREFIX)
}

/// Which of the tasks that have not stopped are to stop now: the others first, the daemon tasks
/// when none of the others is left. In: tasks with whether they are daemon tasks.
pub fn next_to_stop<T>(left: impl IntoIterator<Item = (T, bool)>) -> Vec<T> {
    let (daemons, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, daemon)| *daemon);
    let now = if others.is_empty() { daemons } else { others };
    now.into_iter().map(|(task, _)| task).collect()
}

/// Why a machine will not be there for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The provider takes the machine back (EC2 spot/instance-action).
    SpotInterruption,
    /// Planned work: reboot, stop or retirement (EC2 events/maintenance, or an operator).
    Maintenance,
}

impl NoticeKind {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpotInterruption => "spot interruption",
            Self::Maintenance => "maintenance",
        }
    }
}

/// A notice as a node passes it on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Notice {
    /// The same for as long as it is the same notice.
    pub id: String,
    pub kind: NoticeKind,
    /// When the machine goes, in milliseconds since the Unix epoch; 0: not known.
    #[serde(default)]
    pub at_unix_ms: u64,
    /// Words of whoever gave it.
    #[serde(default)]
    pub detail: String,
    /// When the node wants its tasks stopped, if at all.
    #[serde(default)]
    pub stop_tasks_at_unix_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn daemon_tasks_are_told_by_their_group() {
        assert!(is_daemon("daemon:logs") && !is_daemon("service:web") && !is_daemon("my-daemon:x"));
    }

    proptest! {
        #[test]
        fn all_stop_and_no_daemon_before_another(daemons in proptest::collection::vec(any::<bool>(), 0..20)) {
            let mut left: Vec<(usize, bool)> = daemons.into_iter().enumerate().collect();
            let mut waves = 0;
            while !left.is_empty() {
                let now = next_to_stop(left.clone());
                prop_assert!(!now.is_empty());
                let stops_daemons = left.iter().any(|(task, daemon)| *daemon && now.contains(task));
                prop_assert!(!stops_daemons || left.iter().all(|(_, daemon)| *daemon));
                left.retain(|(task, _)| !now.contains(task));
                waves += 1;
            }
            prop_assert!(waves <= 2);
        }
    }
}
