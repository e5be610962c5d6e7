//! What changes of a task while it runs: pause, resume, other limits.
//! In: a task, and a definition with the limits wanted. Out: the kernel's word. Idempotent.
//! Never: decides whether there is room for more; remembers: cgroup files are the truth.

use super::Runtime;
use crate::cgroup::limits::to_kernel_limits;
use crate::cgroup::{CgroupError, is_v2, resize};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::report::KernelLimits;
use lighter_model::task_definition::TaskDefinition;
use lighter_shim_wire::CgroupVersion;
use tokio::task::spawn_blocking;

/// Why a running task was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AdjustError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("the node is shutting down")]
    Cancelled,
}

impl Runtime {
    /// Freezes every process of the task, or lets them go on; returns when the kernel says so.
    pub async fn set_frozen(&self, task: &TaskId, frozen: bool) -> Result<(), AdjustError> {
        let (this, task) = (self.clone(), task.clone());
        let done = spawn_blocking(move || this.config.cgroup.set_frozen(&task, frozen)).await;
        Ok(done.map_err(|_| AdjustError::Cancelled)??)
    }

    /// Gives `containers`, which run, the CPU and memory that `definition` has for them, all or
    /// none; returns the limits as read back from the kernel.
    pub async fn set_limits(
        &self,
        task: &TaskId,
        definition: &TaskDefinition,
        containers: &[ContainerName],
    ) -> Result<Vec<(ContainerName, KernelLimits)>, AdjustError> {
        let version = if is_v2() { CgroupVersion::V2 } else { CgroupVersion::V1 };
        let wanted = definition.container_definitions.iter().filter(|c| containers.contains(&c.name));
        let of = |c| resize::wanted(c, version, self.config.cpu_quota);
        let wanted: Vec<_> = wanted.map(|c| (c.name.clone(), of(c))).collect();
        let (this, task) = (self.clone(), task.clone());
        let done = spawn_blocking(move || this.config.cgroup.resize(&task, &wanted)).await;
        let limits = done.map_err(|_| AdjustError::Cancelled)??;
        Ok(limits.into_iter().map(|(name, limits)| (name, to_kernel_limits(&limits))).collect())
    }
}
