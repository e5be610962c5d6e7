//! What the agent writes down: one assignment and one progress record a task, the definitions, the
//! session's high-water marks. In: values. Out: JSON with a format version, and back.
//! The assignment belongs to the reconciler, the task record to the task's actor: two writers never
//! share a record. A golden test holds the format.
//! Never: a field whose meaning depends on the code's version without the version being raised.

mod life;

pub(crate) use life::{HealthSettings, Life};

use lighter_model::adjust::ContainerResources;
use lighter_model::exit::ContainerExit;
use lighter_model::ids::{ContainerName, Generation, TaskDefinitionId, TaskId};
use lighter_model::overrides::TaskOverride;
use lighter_model::report::{ContainerReport, KernelLimits, NetworkBinding, TaskReport};
use lighter_model::resources::GrantedDevice;
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, StopCode, TaskStatus};
use lighter_model::task_definition::log::LogConfiguration;
use lighter_model::trace_context::TraceParent;
use lighter_net::AttachmentRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format this build writes; a store with a newer one is set aside.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// What the control plane wants of a task, as last recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AssignmentRecord {
    pub version: u16,
    pub task: TaskId,
    pub generation: Generation,
    pub desired: DesiredStatus,
    pub definition: TaskDefinitionId,
    pub stop_code: Option<StopCode>,
    pub stop_reason: String,
    /// No time for its containers to end by themselves.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop_force: bool,
    /// The control plane has applied the STOPPED report.
    pub forget: bool,
    pub group: String,
    /// What the tags of these containers mean for this task, as the revision's first task found out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub image_digests: BTreeMap<ContainerName, String>,
    /// Incarnation of the control plane's store that listed it; empty when that store may not know
    /// of it (it was set back, or is another one), and then its silence means nothing.
    pub listed_by: String,
    /// The control plane confirmed that it does not know the task.
    pub disowned: bool,
    /// No process of it shall run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Limits in place of the definition's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ContainerResources>,
    /// The span of the call that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<TraceParent>,
    /// Seconds; the task must not run longer without an answered heartbeat. 0: none.
    #[serde(default, skip_serializing_if = "is_zero_s")]
    pub lease_s: u32,
    /// What differs from the definition.
    #[serde(default, skip_serializing_if = "TaskOverride::is_empty")]
    pub overrides: TaskOverride,
    /// What of it this agent did not understand, so that it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

/// How far a task is; each step is written before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// Leases are recorded; root file systems and attachments may exist. Nothing was started.
    Preparing,
    /// Containers may have been started.
    Launching,
    /// Every bundle is there and containers run; those that the shim does not know are started from
    /// their bundles when their turn comes.
    Running,
    /// Containers are being stopped.
    Stopping,
    /// Every exit that can be known is recorded; things are being given back.
    TearingDown,
    /// Nothing is left but this record, which is the outbox entry of the STOPPED report.
    Stopped,
}

/// A container of a task record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub name: ContainerName,
    pub image: String,
    pub essential: bool,
    pub status: ContainerStatus,
    pub exit: Option<ContainerExit>,
    pub reason: Option<String>,
    pub pid: Option<i32>,
    pub image_digest: Option<String>,
    pub stop_signal: i32,
    pub stop_timeout_s: u32,
    pub attachment: Option<AttachmentRecord>,
    pub bindings: Vec<NetworkBinding>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<GrantedDevice>,
    pub limits: KernelLimits,
    #[serde(default, skip_serializing_if = "Life::is_new")]
    pub life: Life,
}

/// How far a task is on this node, and all that its reports say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    pub version: u16,
    pub task: TaskId,
    pub step: Step,
    /// Boot in which `step` was written.
    pub boot_id: String,
    /// Of the last report.
    pub sequence: u64,
    pub status: TaskStatus,
    pub stop_code: Option<StopCode>,
    pub stopped_reason: Option<String>,
    pub waiting_reason: Option<String>,
    pub containers: Vec<ContainerRecord>,
    pub pull_started_at_unix_ms: Option<u64>,
    pub pull_stopped_at_unix_ms: Option<u64>,
    pub started_at_unix_ms: Option<u64>,
    pub stopping_at_unix_ms: Option<u64>,
    pub execution_stopped_at_unix_ms: Option<u64>,
    pub stopped_at_unix_ms: Option<u64>,
    /// Its processes stand still.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Generation of the assignment that was last looked at for pause and limits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub settled: Generation,
    /// The limits of that assignment, in force unless there is a refusal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjusted: Vec<ContainerResources>,
    /// Why the last change of pause or limits is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_zero_s(seconds: &u32) -> bool {
    *seconds == 0
}

fn is_zero(generation: &Generation) -> bool {
    generation.0 == 0
}

/// A container's log on its way to a sink; it outlives the task's own records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogDeliveryRecord {
    pub version: u16,
    pub task: TaskId,
    pub container: ContainerName,
    pub image: String,
    pub family: String,
    pub configuration: LogConfiguration,
    /// Labels and variables that go along with each line.
    pub extra: BTreeMap<String, String>,
    /// Number of the first record of the ring that may not have been taken.
    pub next: u64,
}

/// The highest the node has seen of its control plane.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub version: u16,
    pub term: u64,
    pub incarnation: String,
    pub revision: u64,
    /// How the control plane sees this node, as last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceStanding>,
}

/// How the control plane sees this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceStanding {
    pub status: ContainerInstanceStatus,
    pub reason: String,
    pub deadline_unix_ms: Option<u64>,
}

impl TaskRecord {
    /// The report this record amounts to.
    pub(crate) fn report(&self) -> TaskReport {
        TaskReport {
            task: self.task.clone(),
            sequence: self.sequence,
            status: self.status,
            stop_code: self.stop_code,
            stopped_reason: self.stopped_reason.clone(),
            waiting_reason: self.waiting_reason.clone(),
            waits: Vec::new(),
            containers: self.containers.iter().map(ContainerRecord::report).collect(),
            paused: self.paused,
            settled: self.settled,
            refusal: self.refusal.clone(),
            pull_started_at_unix_ms: self.pull_started_at_unix_ms,
            pull_stopped_at_unix_ms: self.pull_stopped_at_unix_ms,
            started_at_unix_ms: self.started_at_unix_ms,
            stopping_at_unix_ms: self.stopping_at_unix_ms,
            execution_stopped_at_unix_ms: self.execution_stopped_at_unix_ms,
            stopped_at_unix_ms: self.stopped_at_unix_ms,
        }
    }

    pub(crate) fn container_mut(&mut self, name: &ContainerName) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|container| container.name == *name)
    }

    pub(crate) fn attachments(&self) -> impl Iterator<Item = &AttachmentRecord> {
        self.containers.iter().filter_map(|container| container.attachment.as_ref())
    }
}

impl ContainerRecord {
    fn report(&self) -> ContainerReport {
        ContainerReport {
            name: self.name.clone(),
            status: self.status,
            exit: self.exit.clone(),
            reason: self.reason.clone(),
            pid: self.pid,
            image_digest: self.image_digest.clone(),
            address: self.attachment.as_ref().and_then(|a| a.address).map(|address| address.to_string()),
            network_bindings: self.bindings.clone(),
            limits: self.limits.clone(),
            health: self.life.health.clone(),
            restart_count: self.life.restarts,
            last_exit: self.life.last_exit.clone(),
            devices: self.devices.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member that is null and one that is not there are read the same.
    fn without_nulls(value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Object(members) => {
                let kept = members.into_iter().filter(|(_, value)| !value.is_null());
                Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
            }
            Value::Array(values) => values.into_iter().map(without_nulls).collect(),
            other => other,
        }
    }

    #[test]
    fn the_format_is_the_one_on_peoples_disks() {
        let golden = include_str!("golden/task-record-1.json");
        let record: TaskRecord = serde_json::from_str(golden).unwrap();
        assert_eq!(record.version, FORMAT_VERSION);
        assert_eq!(record.step, Step::Launching);
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(without_nulls(again), without_nulls(serde_json::from_str(golden).unwrap()));
        let golden = include_str!("golden/assignment-1.json");
        let record: AssignmentRecord = serde_json::from_str(golden).unwrap();
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(without_nulls(again), without_nulls(serde_json::from_str(golden).unwrap()));
    }

    #[test]
    fn a_report_says_what_the_record_says() {
        let record: TaskRecord = serde_json::from_str(include_str!("golden/task-record-1.json")).unwrap();
        let report = record.report();
        assert_eq!(report.sequence, 7);
        assert_eq!(report.containers[0].address.as_deref(), Some("172.29.0.2"));
        assert_eq!(record.attachments().count(), 1);
    }
}
