//! What happened to a task, one line at a time: the journal behind `lighter task events`.
//! In: words. Out: values. Never: meaning that a program has to read out of the words.

use crate::ids::ContainerName;
use crate::status::ecs_enum;
use serde::{Deserialize, Serialize};

ecs_enum!(
    /// What kind of line it is.
    TaskEventKind {
        Created = "CREATED",
        Status = "STATUS",
        StepStarted = "STEP_STARTED",
        StepEnded = "STEP_ENDED",
        Pull = "PULL",
        WaitBegun = "WAIT_BEGUN",
        WaitEnded = "WAIT_ENDED",
        Health = "HEALTH",
        Restart = "RESTART",
        Signal = "SIGNAL",
        Exit = "EXIT",
        Error = "ERROR",
        Stopping = "STOPPING",
        Adopted = "ADOPTED",
        Other = "OTHER",
    }
);

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskEvent {
    pub time_unix_ms: u64,
    pub kind: TaskEventKind,
    /// `None`: the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerName>,
    pub text: String,
    /// How long what ended had taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}
