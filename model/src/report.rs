//! What a node tells the control plane of a task; each report carries the whole task as the node
//! knows it, so that a lost or repeated report does no harm.

use crate::exit::ContainerExit;
use crate::health::ContainerHealth;
use crate::ids::{ContainerName, Generation, TaskId};
use crate::resources::GrantedDevice;
use crate::status::{ContainerStatus, StopCode, TaskStatus};
use crate::task_definition::TransportProtocol;
use crate::wait::Wait;
use serde::{Deserialize, Serialize};

/// One host port that leads to one container port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    /// The host address the port is bound to, normally `0.0.0.0`.
    pub bind_ip: String,
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: TransportProtocol,
}

/// Limits as read back from the kernel after the container was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLimits {
    /// cpu.max quota in microseconds for each period; `None` is `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_period_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u64>,
    /// memory.max in bytes; `None` is `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
}

/// A container of a task as its node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerReport {
    pub name: ContainerName,
    pub status: ContainerStatus,
    pub exit: Option<ContainerExit>,
    /// Like `OutOfMemoryError: container killed due to memory usage`.
    pub reason: Option<String>,
    /// Pid of the main process on the node.
    pub pid: Option<i32>,
    /// Digest of the image manifest, `sha256:…`.
    pub image_digest: Option<String>,
    pub address: Option<String>,
    pub network_bindings: Vec<NetworkBinding>,
    pub limits: KernelLimits,
    /// `None`: it has no health check.
    pub health: Option<ContainerHealth>,
    /// How often it was started again.
    pub restart_count: u32,
    /// How the attempt before this one ended.
    pub last_exit: Option<ContainerExit>,
    /// What it has to itself of the node's devices.
    pub devices: Vec<GrantedDevice>,
}

/// A task as its node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: TaskId,
    /// Grows by one for each report of this task, across restarts of the agent.
    pub sequence: u64,
    pub status: TaskStatus,
    pub stop_code: Option<StopCode>,
    pub stopped_reason: Option<String>,
    /// What the task is waiting for, in words, while it is not yet running.
    pub waiting_reason: Option<String>,
    /// Everything it waits for now, `waiting_reason` among it.
    pub waits: Vec<Wait>,
    pub containers: Vec<ContainerReport>,
    /// No process of it runs: the kernel says so.
    pub paused: bool,
    /// Generation of the last assignment whose pause and limits are in force, or were refused.
    pub settled: Generation,
    /// Why the last change of pause or limits is not in force.
    pub refusal: Option<String>,
    pub pull_started_at_unix_ms: Option<u64>,
    pub pull_stopped_at_unix_ms: Option<u64>,
    pub started_at_unix_ms: Option<u64>,
    pub stopping_at_unix_ms: Option<u64>,
    pub execution_stopped_at_unix_ms: Option<u64>,
    pub stopped_at_unix_ms: Option<u64>,
}
