//! Changes what is wanted of a running task: paused or not, other limits of a container.
//! In: `PauseTask`, `UpdateTask`. Out: the task, whose node hears of it by the new generation; the
//! audit record goes into the same commit. Never: gives a node's task more than the node has left,
//! or limits that its definition could not have asked for.

use crate::core::Command;
use crate::core::audit::{Asker, AuditStarted};
use crate::core::mutation::Changes;
use crate::core::record::{AuditOutcome, ResizeRecord, TaskRecord};
use crate::core::run_task::require_cluster;
use crate::core::stop_task::find_task;
use crate::error::ApiError;
use crate::scheduler::placement::{Candidate, Reserve, misfit};
use lighter_model::adjust::{ContainerResources, with_resources};
use lighter_model::ids::{ClusterName, ContainerInstanceId, ContainerName};
use lighter_model::report::TaskReport;
use lighter_model::resources::{Resources, required_resources};
use lighter_model::status::DesiredStatus;
use lighter_model::task_definition::input;
use std::sync::Arc;

/// No process of the task is to run, or all of them again.
#[derive(Debug, Clone)]
pub struct PauseTask {
    pub asker: Asker,
    pub cluster: ClusterName,
    /// An id, an ARN, or the beginning of an id that is unique in the cluster.
    pub task: String,
    pub paused: bool,
}

/// Other limits for one container.
#[derive(Debug, Clone)]
pub struct UpdateTask {
    pub asker: Asker,
    pub cluster: ClusterName,
    pub task: String,
    /// Empty: the only container.
    pub container: String,
    pub cpu_units: Option<u32>,
    pub memory_mib: Option<u64>,
}

impl Command for PauseTask {
    type Answer = Arc<TaskRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        let task = running(changes, &self.cluster, &self.task)?;
        let action = if self.paused { "pause" } else { "unpause" };
        audit(changes, self.asker, action, &task, String::new(), Vec::new());
        if task.paused == self.paused {
            return Ok(task);
        }
        let mut task = TaskRecord::clone(&task);
        task.paused = self.paused;
        task.refusal = None;
        task.generation.0 += 1;
        Ok(changes.put_task(task))
    }
}

impl Command for UpdateTask {
    type Answer = Arc<TaskRecord>;

    fn decide(self, changes: &mut Changes<'_>) -> Result<Self::Answer, ApiError> {
        if self.cpu_units.is_none() && self.memory_mib.is_none() {
            return Err(ApiError::invalid("cpu", "give cpu, memory or both"));
        }
        let task = running(changes, &self.cluster, &self.task)?;
        let container = named(&task, &self.container)?;
        let mut wanted = TaskRecord::clone(&task);
        change_own(&mut wanted, &container, |resources| {
            resources.cpu_units = self.cpu_units.or(resources.cpu_units);
            resources.memory_mib = self.memory_mib.or(resources.memory_mib);
        });
        let Some(definition) = changes.state().definitions.get(&task.definition) else {
            return Err(ApiError::TaskDefinitionNotFound { name: task.definition.to_string() });
        };
        // Taken when the task was made.
        let own = task.overrides.apply(&definition.definition);
        let own = own.unwrap_or_else(|_| definition.definition.clone());
        let definition = with_resources(&own, &wanted.container_resources);
        // What the definition's own rules refuse is refused here too.
        if let Err(error) = input::parse(&input::to_json(&definition)) {
            return Err(ApiError::invalid(error.field(), error.message()));
        }
        let after = required_resources(&definition);
        let need = grown(&task.resources, &after);
        room(changes, &task.instance, &need)?;
        let words = [("cpu", self.cpu_units.map(u64::from)), ("memory", self.memory_mib)];
        let words = words.iter().filter_map(|(word, value)| Some(format!("{word}={}", (*value)?)));
        audit(changes, self.asker, "update", &task, container.to_string(), words.collect());
        wanted.generation.0 += 1;
        unsettled(&mut wanted, &task, after);
        Ok(changes.put_task(wanted))
    }
}

/// Until the node has settled the change, the task takes the larger of both.
fn unsettled(wanted: &mut TaskRecord, old: &TaskRecord, after: Resources) {
    wanted.refusal = None;
    wanted.resources = old.resources.clone().max(&after);
    let (before, resources_before) = match &old.resize {
        // Of several changes that are under way none counts before the last.
        Some(earlier) => (earlier.before.clone(), earlier.resources_before.clone()),
        None => (old.container_resources.clone(), old.resources.clone()),
    };
    let generation = wanted.generation;
    let resize = ResizeRecord { generation, before, resources_before, resources_after: after };
    wanted.resize = Some(Box::new(resize));
}

/// Takes over what a node says of pause and limits. What it refuses is no longer wanted: the next
/// assignment takes it back, and the refusal stays until something else is wanted.
pub fn settle(task: &mut TaskRecord, report: &TaskReport) {
    task.settled = report.settled;
    task.paused_on_node = report.paused;
    let refusal = report.refusal.as_ref().filter(|_| report.settled >= task.generation);
    if let Some(refusal) = refusal {
        task.refusal = Some(refusal.as_str().into());
        if task.paused != report.paused {
            task.paused = report.paused;
            task.generation.0 += 1;
        }
    }
    let Some(resize) = task.resize.take_if(|resize| report.settled >= resize.generation) else { return };
    if report.refusal.is_some() {
        task.container_resources = resize.before;
        task.resources = resize.resources_before;
        task.generation.0 += 1;
    } else {
        task.resources = resize.resources_after;
    }
}

fn running(changes: &Changes<'_>, cluster: &ClusterName, task: &str) -> Result<Arc<TaskRecord>, ApiError> {
    require_cluster(changes.state(), cluster)?;
    let task = find_task(changes.state(), cluster, task)?;
    if task.desired == DesiredStatus::Stopped || task.queue.is_some() {
        let (task, status) = (task.id.to_string(), task.last.as_str().to_owned());
        return Err(ApiError::TaskNotRunning { task, status });
    }
    Ok(task)
}

fn named(task: &TaskRecord, name: &str) -> Result<ContainerName, ApiError> {
    let mut names = task.containers.iter().map(|container| &container.name);
    let found = match name {
        "" if task.containers.len() > 1 => {
            return Err(ApiError::invalid("container", "must be given: the task has several containers"));
        }
        "" => names.next(),
        name => names.find(|other| other.as_str() == name),
    };
    found
        .cloned()
        .ok_or_else(|| ApiError::ContainerNotFound { container: name.to_owned(), task: task.id.to_string() })
}

/// Changes the limits of this container among the task's own, made when they are not there yet.
fn change_own(
    task: &mut TaskRecord,
    container: &ContainerName,
    change: impl FnOnce(&mut ContainerResources),
) {
    let mut all = Vec::clone(&task.container_resources);
    let at = all.iter().position(|own| own.container == *container).unwrap_or_else(|| {
        all.push(ContainerResources { container: container.clone(), cpu_units: None, memory_mib: None });
        all.len() - 1
    });
    change(&mut all[at]);
    task.container_resources = all.into();
}

/// What the node must have left for the change.
fn grown(old: &Resources, new: &Resources) -> Resources {
    Resources {
        cpu_units: new.cpu_units.saturating_sub(old.cpu_units),
        memory_mib: new.memory_mib.saturating_sub(old.memory_mib),
        // A running task keeps its ports and devices.
        ..Resources::default()
    }
}

fn room(changes: &Changes<'_>, id: &ContainerInstanceId, need: &Resources) -> Result<(), ApiError> {
    let (state, settings) = (changes.state(), changes.settings());
    let Some(instance) = state.instances.get(id) else { return Ok(()) };
    let used = state.reserved(id);
    let candidate = Candidate {
        id,
        // A node that is away hears of it when it is back.
        connected: true,
        capable: true,
        offered: &instance.offered,
        used_cpu_units: used.cpu_units,
        used_memory_mib: used.memory_mib,
        used_ports: &used.host_ports,
        used_devices: &used.devices,
    };
    let reserve = Reserve { cpu_units: settings.reserve_cpu_units, memory_mib: settings.reserve_memory_mib };
    match misfit(&candidate, need, reserve) {
        None => Ok(()),
        Some(misfit) => {
            let reason = misfit.reason().to_owned();
            Err(ApiError::NoRoom { instance: id.to_string(), reason })
        }
    }
}

fn audit(
    changes: &mut Changes<'_>,
    asker: Asker,
    action: &'static str,
    task: &TaskRecord,
    container: String,
    command: Vec<String>,
) {
    let ended_at_unix_ms = changes.now_ms();
    let outcome = AuditOutcome { ended_at_unix_ms, result: "done".to_owned(), bytes_in: 0, bytes_out: 0 };
    let Asker { user, address } = asker;
    let (cluster, instance) = (task.cluster.to_string(), task.instance.to_string());
    let task = task.id.to_string();
    let outcome = Some(outcome);
    AuditStarted { user, address, action, cluster, task, container, instance, command, outcome }
        .record(changes);
}
