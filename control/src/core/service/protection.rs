//! Task protection: tasks that scale-in, deployments and rebalancing leave alone for a while.
//! In: tasks of services, for how long. Out: until when each is protected; failures.
//! Never: keeps an unhealthy task, or one whose service is deleted.
//! Source: Amazon ECS API reference, UpdateTaskProtection (1 minute to 48 hours).

use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::named;
use crate::core::record::{PlacementFailure, TaskRecord};
use crate::core::run_task::require_cluster;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use lighter_model::ids::{ClusterName, TaskId};
use lighter_model::status::DesiredStatus;

/// When nothing is said.
const DEFAULT_MINUTES: u32 = 120;
const LONGEST_MINUTES: u32 = 48 * 60;
/// Of one call.
const MAX_TASKS: usize = 10;

/// Protects tasks, or ends their protection.
#[derive(Debug, Clone)]
pub struct UpdateProtection {
    pub cluster: ClusterName,
    /// 1 to 10 ids, ARNs or unique beginnings.
    pub tasks: Vec<String>,
    pub enabled: bool,
    /// 0: 120.
    pub minutes: u32,
}

/// A task with its protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protected {
    pub task: TaskId,
    /// `None`: it is not protected.
    pub until_unix_ms: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    pub tasks: Vec<Protected>,
    pub failures: Vec<PlacementFailure>,
}

impl Protection {
    pub(crate) fn fail(&mut self, id: &str, reason: &str, detail: String) {
        self.failures.push(PlacementFailure { id: id.to_owned(), reason: reason.to_owned(), detail });
    }
}

/// The protection of a task, if it is of a service.
pub fn of(task: &TaskRecord, now_ms: u64) -> Option<Protected> {
    let until_unix_ms = task.service.as_ref()?.protected_until_unix_ms.filter(|until| *until > now_ms);
    Some(Protected { task: task.id.clone(), until_unix_ms })
}

impl Command for UpdateProtection {
    type Answer = Protection;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Protection, ApiError> {
        require_cluster(changes.state(), &self.cluster)?;
        if self.tasks.is_empty() || self.tasks.len() > MAX_TASKS {
            let message = format!("name 1 to {MAX_TASKS}, got {}", self.tasks.len());
            return Err(ApiError::invalid("tasks", message));
        }
        if self.minutes > LONGEST_MINUTES {
            let message = format!("must be 1 to {LONGEST_MINUTES}, got {}", self.minutes);
            return Err(ApiError::invalid("expiresInMinutes", message));
        }
        let minutes = if self.minutes == 0 { DEFAULT_MINUTES } else { self.minutes };
        let now = changes.now_ms();
        let until = self.enabled.then_some(now + u64::from(minutes) * 60_000);
        let mut answer = Protection::default();
        let found = |name: &str| find_task(changes.state(), &self.cluster, name);
        for (name, task) in named::each(&self.tasks, found)? {
            let task = match task {
                Ok(task) => task,
                Err(error) => {
                    answer.fail(name, "MISSING", error.to_string());
                    continue;
                }
            };
            let mut task = (*task).clone();
            let stopping = task.desired == DesiredStatus::Stopped;
            match task.service.as_mut() {
                None => answer.fail(name, "TASK_NOT_VALID", "it is not of a service".to_owned()),
                Some(of) if stopping || of.leaving_since_unix_ms.is_some() => {
                    answer.fail(name, "TASK_NOT_VALID", "it is stopping".to_owned());
                }
                Some(of) => {
                    let changed = of.protected_until_unix_ms != until;
                    of.protected_until_unix_ms = until;
                    answer.tasks.push(Protected { task: task.id.clone(), until_unix_ms: until });
                    if changed {
                        changes.put_task(task);
                    }
                }
            }
        }
        Ok(answer)
    }
}
