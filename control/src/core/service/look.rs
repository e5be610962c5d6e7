//! A service as decisions and people see it, made of the records.
//! In: the state, a service, the time. Out: `View`s for decisions, counts for people.
//! Pure. Never: decides.

use super::daemon::{self, InstanceView};
use super::decide::{Health, Phase, TaskView, View};
use super::digest::{self, Hold};
use super::place;
use super::record::{ServiceRecord, ServiceTask};
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::state::State;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::attribute::AVAILABILITY_ZONE;
use lighter_model::health::HealthStatus;
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::node::is_daemon;
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a task without a health check is RUNNING before it counts as healthy (ECS).
pub const WARM_MS: u64 = 40_000;

/// What a decision is made on.
#[derive(Debug, Clone)]
pub struct Look {
    pub view: View,
    /// By number.
    pub instance_ids: Vec<ContainerInstanceId>,
    /// Of a DAEMON service: every instance of the cluster.
    pub instances: Vec<InstanceView>,
    /// What keeps tasks from being started.
    pub hold: Hold,
}

#[derive(Default)]
struct Numbers<'a> {
    instances: BTreeMap<&'a ContainerInstanceId, u32>,
    ids: Vec<ContainerInstanceId>,
    zones: BTreeMap<&'a str, u32>,
}

impl<'a> Numbers<'a> {
    fn of(&mut self, id: &'a ContainerInstanceId) -> u32 {
        let next = self.ids.len() as u32;
        *self.instances.entry(id).or_insert_with(|| {
            self.ids.push(id.clone());
            next
        })
    }
    fn zone(&mut self, instance: Option<&'a InstanceRecord>) -> u32 {
        let zone = instance.and_then(|instance| instance.attribute(AVAILABILITY_ZONE)).unwrap_or("");
        let next = self.zones.len() as u32;
        *self.zones.entry(zone).or_insert(next)
    }
}

/// Looks at a service.
pub fn look(state: &State, service: &ServiceRecord, now_ms: u64) -> Look {
    let mut numbers = Numbers::default();
    let current = service.current();
    let mut tasks = Vec::new();
    for task in state.tasks_of_service(&service.key()).filter(|task| task.last != TaskStatus::Stopped) {
        let Some(of) = &task.service else { continue };
        let instance = state.instances.get(&task.instance).map(Arc::as_ref);
        let left_at =
            of.leaving_since_unix_ms.map(|at| at + u64::from(service.deregistration_delay_s) * 1_000);
        let protected = of
            .protected_until_unix_ms
            .filter(|until| *until > now_ms || wrong_edit::is(WrongEdit::ProtectionNeverEnds));
        tasks.push(TaskView {
            id: task.id.clone(),
            current: current.contains(&of.deployment.as_str()) && !digest::differs(service, task),
            wanted: task.desired == DesiredStatus::Running,
            phase: phase(task.last),
            health: health(state, service, task, of, now_ms),
            protected: protected.is_some(),
            draining: instance.is_none_or(|i| i.status != ContainerInstanceStatus::Active),
            away: instance.is_none_or(|i| !i.connected),
            leased: !of.lost && task.silence.is_some_and(|policy| policy.exclusive),
            leaving: left_at.is_some(),
            left: left_at.is_some_and(|at| at <= now_ms || task.last < TaskStatus::Running),
            moving: of.moving,
            zone: numbers.zone(instance),
            instance: numbers.of(&task.instance),
        });
    }
    let daemon = service.strategy == SchedulingStrategy::Daemon;
    let group = service.group();
    let orphans: Vec<_> = state.orphans_of_group(&service.cluster, &group).collect();
    let mut instances = if daemon { instances(state, service, &mut numbers) } else { Vec::new() };
    for id in &orphans {
        let number = numbers.of(id);
        instances.iter_mut().filter(|i| i.instance == number).for_each(|i| i.orphaned = true);
    }
    let hold = digest::hold(state, service, now_ms);
    let view = View {
        desired: if daemon { daemon::desired(&instances) } else { service.desired },
        minimum_percent: service.minimum_percent,
        maximum_percent: service.maximum_percent,
        deleted: !service.is_active(),
        stalled: service.is_stalled(),
        may_start: (service.throttle.until_unix_ms <= now_ms || wrong_edit::is(WrongEdit::ThrottleIgnored))
            && service.starting().is_some(),
        most_starts: hold.most(),
        // What a DAEMON lacks on one instance it may find where another goes.
        cannot_place: daemon && !service.told.unplaced.is_empty(),
        orphans: orphans.len() as u32,
        tasks,
    };
    Look { view, instance_ids: numbers.ids, instances, hold }
}

fn phase(last: TaskStatus) -> Phase {
    match last {
        TaskStatus::Running => Phase::Running,
        before if before < TaskStatus::Running => Phase::Pending,
        _ => Phase::Ending,
    }
}

/// Whether somebody asks how the task does.
pub fn is_checked(state: &State, task: &TaskRecord) -> bool {
    let definition = state.definitions.get(&task.definition);
    let containers = definition.into_iter().flat_map(|record| &record.definition.container_definitions);
    let mut asked = containers.filter(|container| container.essential && container.health_check.is_some());
    asked.next().is_some() || task.containers.iter().any(|c| c.essential && c.health.is_some())
}

/// How a task does.
fn health(
    state: &State,
    service: &ServiceRecord,
    task: &TaskRecord,
    of: &ServiceTask,
    now_ms: u64,
) -> Health {
    let since = of.running_since_unix_ms.unwrap_or(now_ms);
    if !is_checked(state, task) || wrong_edit::is(WrongEdit::HealthCheckIgnored) {
        let warm_ms = if wrong_edit::is(WrongEdit::WarmingCountsAsHealthy) { 0 } else { WARM_MS };
        return if since + warm_ms <= now_ms { Health::Healthy } else { Health::Warming };
    }
    let grace_over = since + u64::from(service.grace_s) * 1_000;
    let patient = grace_over > now_ms && !wrong_edit::is(WrongEdit::GraceIgnored);
    match task.health() {
        HealthStatus::Healthy => Health::Healthy,
        HealthStatus::Unhealthy if wrong_edit::is(WrongEdit::UnhealthyCountsAsHealthy) => Health::Healthy,
        HealthStatus::Unhealthy if !patient => Health::Unhealthy,
        HealthStatus::Unhealthy | HealthStatus::Unknown => Health::Warming,
    }
}

fn instances<'a>(state: &'a State, service: &ServiceRecord, numbers: &mut Numbers<'a>) -> Vec<InstanceView> {
    let matching = place::matching(state, service);
    let own = state.instances.values().filter(|instance| instance.cluster == service.cluster);
    own.filter(|i| matches!(i.status, ContainerInstanceStatus::Active | ContainerInstanceStatus::Draining))
        .map(|instance| {
            let active = instance.status == ContainerInstanceStatus::Active;
            let tasks = state.reserved(&instance.id).tasks.iter().filter_map(|id| state.tasks.get(id));
            InstanceView {
                instance: numbers.of(&instance.id),
                matches: active && matching.contains(&instance.id),
                waits: !active && tasks.into_iter().any(|task| !is_daemon(&task.group)),
                connected: instance.connected,
                orphaned: false,
            }
        })
        .collect()
}

/// How many tasks of a deployment there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub desired: u32,
    pub pending: u32,
    pub running: u32,
    pub healthy: u32,
    /// Not STOPPED.
    pub tasks: u32,
}

/// A service with its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSnapshot {
    pub service: Arc<ServiceRecord>,
    pub desired: u32,
    pub pending: u32,
    pub running: u32,
    /// In the order of the deployments.
    pub deployments: Vec<Counts>,
    /// Others start when this task has said what its images' tags mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_of: Option<TaskId>,
}

/// Counts the tasks of a service.
pub fn snapshot(state: &State, service: &Arc<ServiceRecord>, now_ms: u64) -> ServiceSnapshot {
    let Look { view, hold, .. } = look(state, service, now_ms);
    let mut of: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    for task in &view.tasks {
        let record = state.tasks.get(&task.id).and_then(|task| task.service.as_ref());
        let Some(record) = record else { continue };
        let deployment = service.primary().filter(|_| task.current).map(|primary| primary.id.as_str());
        let deployment = deployment.unwrap_or(record.deployment.as_str());
        for counts in [&mut all, of.entry(deployment).or_default()] {
            counts.tasks += 1;
            counts.pending += u32::from(task.occupies() && task.phase == Phase::Pending);
            counts.running += u32::from(task.occupies() && task.phase == Phase::Running);
            counts.healthy += u32::from(task.is_healthy());
        }
    }
    let primary = service.primary().map(|deployment| deployment.id.clone());
    let counts = |id: &String| {
        let counts = of.get(id.as_str()).copied().unwrap_or_default();
        // What is wanted of the others is what they still have.
        let desired =
            if Some(id) == primary.as_ref() { view.desired } else { counts.pending + counts.running };
        Counts { desired, ..counts }
    };
    let kept = view.tasks.iter().filter(|task| task.is_kept(view.stalled)).count();
    ServiceSnapshot {
        digest_of: match hold {
            Hold::Waits(task) if kept < view.desired as usize => Some(task),
            _ => None,
        },
        deployments: service.deployments.iter().map(|deployment| counts(&deployment.id)).collect(),
        service: service.clone(),
        desired: view.desired,
        pending: all.pending,
        running: all.running,
    }
}
