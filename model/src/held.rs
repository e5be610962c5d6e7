//! A task as its node holds it, told to a control plane whose store does not know it.
//! In: what was recorded of it. Out: JSON, and back. Owns nothing. Never: decides what becomes of it.

use crate::adjust::ContainerResources;
use crate::ids::{ContainerName, Generation, TaskDefinitionId, TaskId};
use crate::report::TaskReport;
use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The topic under which a node is asked for it.
pub const HELD_TASK_TOPIC: &str = "held-task";

/// Everything that a record of the task is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldTask {
    pub task: TaskId,
    /// Of the last assignment; the node takes none that is not newer.
    pub generation: Generation,
    pub definition: TaskDefinitionId,
    /// ECS's JSON form; `None`: the node could not read it itself.
    pub definition_json: Option<String>,
    pub group: String,
    pub paused: bool,
    /// Limits in place of the definition's.
    pub container_resources: Vec<ContainerResources>,
    pub image_digests: BTreeMap<ContainerName, String>,
    /// What it holds of the node.
    pub resources: Resources,
    /// `None`: it was never reported on.
    pub report: Option<TaskReport>,
}
