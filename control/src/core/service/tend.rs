//! Brings a service a step nearer to what is wanted: the only place where services act.
//! In: which service; the state as it is. Out: tasks started, taken off the endpoint list and stopped,
//! a chunk at a time; deployments ended; events. The same command again does what is left, and nothing
//! once nothing is left.
//! Never: decides by itself: `decide`, `daemon`, `breaker` and `throttle` do.

use super::decide::{self, Decision, TaskView, View, Why};
use super::digest::Hold;
use super::look::{self, Look};
use super::record::{RolloutState, ServiceKey, ServiceRecord};
use super::{daemon, deployment, digest, events, place, rebalance, throttle, witness};
use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::TaskRecord;
use crate::core::state::State;
use crate::core::stop_task::wanted_stopped;
use crate::error::ApiError;
use crate::scheduler::explain::Unable;
use crate::scheduler::placement::NO_INSTANCES;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::service::SchedulingStrategy;
use lighter_model::status::{StopCode, TaskStatus};
use std::sync::Arc;

/// Tasks that one command changes, to stay within one group with their events and the service's.
const CHUNK: usize = 8;

/// Tends one service.
#[derive(Debug, Clone)]
pub struct Tend {
    pub key: ServiceKey,
    /// Not where the store has no room for more.
    pub may_start: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    /// Something was done, and more may be left: give the command again.
    pub more: bool,
    /// Tasks fit nowhere.
    pub unplaced: bool,
}

impl Command for Tend {
    type Answer = Tended;

    fn is_new_work(&self, ahead: &State) -> bool {
        self.may_start && ahead.services.contains_key(&self.key)
    }

    fn decide(self, changes: &mut Changes<'_>) -> Result<Tended, ApiError> {
        let Some(before) = changes.state().services.get(&self.key).cloned() else {
            return Ok(Tended::default());
        };
        if before.inactive_at_unix_ms.is_some() {
            return Ok(Tended::default());
        }
        let mut service = (*before).clone();
        let seen = witness::before(changes.state(), &self.key);
        let tended = tend(changes, &mut service, self.may_start);
        witness::tell(seen, changes.state(), &service, changes.now_ms());
        if service != *before {
            changes.put_service(service);
        }
        Ok(tended)
    }
}

fn tend(changes: &mut Changes<'_>, service: &mut ServiceRecord, may_start: bool) -> Tended {
    if account(changes, service) == CHUNK {
        return Tended { more: true, unplaced: false };
    }
    let now = changes.now_ms();
    let mut seen = look::look(changes.state(), service, now);
    note_healthy(changes.state(), service, &seen.view);
    deployment::trip(changes, service, seen.view.desired);
    if service.is_active() && seen.view.is_steady() {
        deployment::complete(changes, service);
    }
    // What has just ended or begun is decided on, too.
    seen = look::look(changes.state(), service, now);
    seen.view.may_start &= may_start;
    let gone = seen.view.tasks.is_empty() || wrong_edit::is(WrongEdit::InactiveWithTasks);
    if !service.is_active() && gone {
        service.inactive_at_unix_ms = Some(now);
        return Tended { more: true, unplaced: false };
    }
    let (decision, on) = decide(service, &seen);
    let mut tended = act(changes, service, &seen, decision, on);
    tell_standing(changes, service, &seen.view);
    if !tended.more && !tended.unplaced && rebalance::step(changes, service, &seen) {
        tended.more = true;
    }
    tended
}

/// Whether tending would change anything, but for what fits nowhere.
pub fn is_needed(state: &State, service: &Arc<ServiceRecord>, now_ms: u64) -> bool {
    if service.inactive_at_unix_ms.is_some() {
        return false;
    }
    let mut unaccounted = state.tasks_of_service(&service.key());
    if unaccounted.any(|task| task.last == TaskStatus::Stopped) {
        return true;
    }
    let seen = look::look(state, service, now_ms);
    let (decision, _) = decide(service, &seen);
    let steady = seen.view.is_steady();
    let in_progress = service.primary().is_some_and(|d| d.state == RolloutState::InProgress);
    !decision.is_nothing()
        || !service.is_active() && seen.view.tasks.is_empty()
        || service.is_active() && steady && (in_progress || !service.told.steady)
        || !steady && service.told.steady
        || decision.blocked != service.told.blocked
        || service.throttle.rounds > 0 && seen.view.healthy() > 0
        || told_protected(&decision, &seen.view) != service.told.protected
        || rebalance::is_possible(state, service, &seen)
}

fn decide(service: &ServiceRecord, seen: &Look) -> (Decision, Vec<u32>) {
    match service.strategy {
        SchedulingStrategy::Replica => (decide::decide(&seen.view, CHUNK), Vec::new()),
        SchedulingStrategy::Daemon => daemon::decide(&seen.view, &seen.instances, CHUNK),
    }
}

/// Takes note of tasks that have STOPPED: how many.
fn account(changes: &mut Changes<'_>, service: &mut ServiceRecord) -> usize {
    let state = changes.state();
    let stopped = state.tasks_of_service(&service.key()).filter(|task| task.last == TaskStatus::Stopped);
    let stopped: Vec<Arc<TaskRecord>> = stopped.take(CHUNK).cloned().collect();
    for task in &stopped {
        let mut noted = (**task).clone();
        if let Some(of) = noted.service.as_mut() {
            of.accounted = true;
        }
        // Nobody else needs to hear of it: without an event.
        changes.record(Mutation::Task(Arc::new(noted)));
        if matches!(task.stop_code, Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited)) {
            failed(changes, service, task);
        }
    }
    stopped.len()
}

/// A task has failed: for its deployment, for the breaker unless it was healthy first, for the throttle.
fn failed(changes: &mut Changes<'_>, service: &mut ServiceRecord, task: &TaskRecord) {
    let now = changes.now_ms();
    let Some(of) = &task.service else { return };
    let ended = task.times.settled_at.unwrap_or(now);
    let ran = of.running_since_unix_ms.map(|since| ended.saturating_sub(since));
    let was_healthy =
        if look::is_checked(changes.state(), task) && !wrong_edit::is(WrongEdit::OldCountsAsTried) {
            of.was_healthy
        } else {
            ran.is_some_and(|ran| ran >= look::WARM_MS) && task.stop_code != Some(StopCode::TaskFailedToStart)
        };
    let starting = service.starting().is_some_and(|deployment| deployment.id == of.deployment);
    if let Some(deployment) = service.deployments.iter_mut().find(|d| d.id == of.deployment) {
        deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
        deployment.updated_at_unix_ms = now;
        if deployment.state == RolloutState::InProgress && !was_healthy {
            deployment.breaker_count = deployment.breaker_count.saturating_add(1);
            deployment.last_failure_unix_ms = now;
        }
    }
    if starting && service.is_active() && service.throttle.failed(task.times.created_at, now) {
        let impaired = service.throttle.rounds >= throttle::IMPAIRED && !service.told.impaired;
        if impaired {
            service.told.impaired = true;
            events::tell(changes, service, events::IMPAIRED);
        }
    }
}

/// A healthy task ends the row of failures.
fn note_healthy(state: &State, service: &mut ServiceRecord, view: &View) {
    let healthy = view.tasks.iter().filter(|task| task.is_healthy() && task.current);
    let records = healthy.filter_map(|task| state.tasks.get(&task.id));
    let reset = service.breaker.reset_on_healthy_task;
    for task in records {
        let since = task.service.as_ref().and_then(|of| of.running_since_unix_ms).unwrap_or(0);
        if service.throttle.rounds > 0 {
            service.throttle.healthy(task.times.created_at);
            service.told.impaired &= service.throttle.rounds > 0;
        }
        let primary = service.deployments.first_mut().filter(|_| reset);
        if let Some(primary) = primary.filter(|d| d.breaker_count > 0 && since > d.last_failure_unix_ms) {
            primary.breaker_count = 0;
        }
    }
}

fn act(
    changes: &mut Changes<'_>,
    service: &mut ServiceRecord,
    seen: &Look,
    decision: Decision,
    on: Vec<u32>,
) -> Tended {
    let mut tended = Tended { more: !decision.is_nothing(), unplaced: false };
    let mut room = CHUNK;
    room -= go(changes, service, seen, &decision);
    let on: Vec<ContainerInstanceId> =
        on.iter().filter_map(|number| seen.instance_ids.get(*number as usize).cloned()).collect();
    let daemon = service.strategy == SchedulingStrategy::Daemon;
    // What has just gone may have failed: then the next tasks wait, also those of this decision.
    let waits =
        service.throttle.until_unix_ms > changes.now_ms() && !wrong_edit::is(WrongEdit::ThrottleIgnored);
    let count = if waits { 0 } else { room.min(decision.starts as usize) };
    let Started { tasks: started, fits_nowhere, unable } =
        start(changes, service, count, daemon.then_some(on));
    if !started.is_empty() {
        service.told.unplaced.clear();
        events::tell(changes, service, &events::started(&started));
        digest::note(changes, service, &seen.hold);
        if let (Hold::One, [first], 1..) = (&seen.hold, started.as_slice(), decision.held) {
            events::tell(changes, service, &events::held(first));
        }
    }
    if fits_nowhere {
        tended.unplaced = true;
        tell_unplaced(changes, service, unable);
        stay(changes, seen);
        if started.is_empty() && decision.goes.is_empty() && !daemon {
            // Where nothing fits, what goes may go first.
            let full = View { cannot_place: true, ..seen.view.clone() };
            let decision = decide::decide(&full, room);
            go(changes, service, seen, &decision);
            tended.more = !decision.is_nothing();
        } else {
            tended.more = !started.is_empty() || !decision.goes.is_empty() || !decision.stops.is_empty();
        }
    }
    if decision.blocked && seen.view.tasks.iter().any(|task| task.moving && task.is_live()) {
        // The maximum leaves no room any more for what was to take its place.
        stay(changes, seen);
        return Tended { more: true, unplaced: false };
    }
    if decision.blocked != service.told.blocked {
        service.told.blocked = decision.blocked;
        if decision.blocked {
            events::tell(changes, service, events::BLOCKED);
        }
    }
    let protected = told_protected(&decision, &seen.view);
    let fresh: Vec<String> =
        protected.iter().filter(|id| !service.told.protected.contains(id)).cloned().collect();
    for id in fresh.iter().filter_map(|id| id.parse::<TaskId>().ok()) {
        events::tell(changes, service, &events::protected(&id));
    }
    service.told.protected = protected;
    tended
}

/// There is no room elsewhere: what was to move stays.
fn stay(changes: &mut Changes<'_>, seen: &Look) {
    let moving = seen.view.tasks.iter().filter(|task| task.moving && task.is_live());
    let moving: Vec<_> =
        moving.filter_map(|task| changes.state().tasks.get(&task.id).cloned()).take(CHUNK).collect();
    for task in moving {
        let mut task = (*task).clone();
        if let Some(of) = task.service.as_mut() {
            of.moving = false;
        }
        changes.put_task(task);
    }
}

/// Protected tasks that an instance waits for to drain; as many as are told of at once.
fn told_protected(decision: &Decision, view: &View) -> Vec<String> {
    let drains = |id: &&TaskId| view.tasks.iter().any(|task| task.id == **id && task.draining);
    decision.protected.iter().filter(drains).take(3).map(ToString::to_string).collect()
}

/// What came of starting tasks.
#[derive(Default)]
struct Started {
    tasks: Vec<TaskId>,
    fits_nowhere: bool,
    /// Why the last one fits nowhere.
    unable: Option<Unable>,
}

/// Starts tasks until one fits nowhere; with instances one on each that has room. `count` at most.
fn start(
    changes: &mut Changes<'_>,
    service: &ServiceRecord,
    count: usize,
    on: Option<Vec<ContainerInstanceId>>,
) -> Started {
    let mut started = Started::default();
    let Some(deployment) = service.starting().cloned().filter(|_| count > 0) else { return started };
    let places: Vec<Option<ContainerInstanceId>> = match on {
        None => vec![None; count],
        Some(on) => {
            let (roomy, unable) = place::with_room(changes, service, &deployment, on);
            (started.fits_nowhere, started.unable) = (unable.is_some(), unable);
            roomy.into_iter().take(count).map(Some).collect()
        }
    };
    for only in places {
        match place::place(changes, service, &deployment, only.as_ref()) {
            Ok(task) => {
                started.tasks.push(task.id.clone());
                changes.put_task(task);
            }
            Err(unable) => {
                (started.fits_nowhere, started.unable) = (true, unable);
                break;
            }
        }
    }
    started
}

/// Takes tasks off the endpoint list, and stops those that nobody waits for: how many were changed.
fn go(changes: &mut Changes<'_>, service: &mut ServiceRecord, seen: &Look, decision: &Decision) -> usize {
    let now = changes.now_ms();
    let state = changes.state();
    let record = |id: &TaskId| state.tasks.get(id).cloned();
    let due: Vec<_> = decision.stops.iter().filter_map(record).collect();
    let goes: Vec<_> = decision.goes.iter().filter_map(|(id, why)| Some((record(id)?, *why))).collect();
    let (mut stopped, mut left) = (Vec::new(), Vec::new());
    for task in due {
        let reason = task.service.as_ref().map(|of| of.leaving_reason.clone()).unwrap_or_default();
        stopped.push(task.id.clone());
        changes.put_task(wanted_stopped(&task, StopCode::ServiceSchedulerInitiated, reason, now));
    }
    for (task, why) in goes {
        if why == Why::Unhealthy {
            events::tell(changes, service, &events::unhealthy(&task.id));
            failed(changes, service, &task);
        }
        let reason = reason(service, why);
        let listed = seen.view.tasks.iter().any(|view| view.id == task.id && waits(view));
        let told = service.deregistration_delay_s > 0 && !wrong_edit::is(WrongEdit::DeregistrationSkipped);
        if listed && told && why != Why::Unhealthy {
            left.push(task.id.clone());
            let mut task = (*task).clone();
            if let Some(of) = task.service.as_mut() {
                (of.leaving_since_unix_ms, of.leaving_reason) = (Some(now), reason);
            }
            changes.put_task(task);
        } else {
            stopped.push(task.id.clone());
            changes.put_task(wanted_stopped(&task, StopCode::ServiceSchedulerInitiated, reason, now));
        }
    }
    if !left.is_empty() {
        events::tell(changes, service, &events::draining(&left));
    }
    if !stopped.is_empty() {
        events::tell(changes, service, &events::stopped(&stopped));
    }
    stopped.len() + left.len()
}

/// Somebody may send it requests.
fn waits(task: &TaskView) -> bool {
    task.phase == decide::Phase::Running
}

/// ECS's reasons.
fn reason(service: &ServiceRecord, why: Why) -> String {
    let primary = service.primary().map(|deployment| deployment.id.as_str()).unwrap_or_default();
    match why {
        Why::Unhealthy => "Task failed container health checks".to_owned(),
        Why::Draining => format!("Scaling activity initiated by {primary}: its container instance drains"),
        Why::Moved => format!("Scaling activity initiated by {primary}: rebalanced"),
        Why::Misplaced => "Its container instance meets the service's constraints no longer".to_owned(),
        Why::Deleted => "Scaling activity initiated by the deletion of the service".to_owned(),
        Why::Replaced | Why::ScaledIn => format!("Scaling activity initiated by (deployment {primary})"),
    }
}

/// Told again when something else is lacked, not when another instance lacks the same.
fn tell_unplaced(changes: &mut Changes<'_>, service: &mut ServiceRecord, unable: Option<Unable>) {
    let words = match &unable {
        Some(Unable::Closest(_, lack)) => lack.event_words(),
        Some(Unable::NoInstances) => NO_INSTANCES.to_owned(),
        Some(Unable::Room) | None => return,
    };
    if let Some(unable) = unable.filter(|_| service.told.unplaced != words) {
        events::tell(changes, service, &events::unplaced(&unable));
        service.told.unplaced = words;
    }
}

/// What is steady is told once.
fn tell_standing(changes: &mut Changes<'_>, service: &mut ServiceRecord, view: &View) {
    let steady = service.is_active() && view.is_steady();
    if steady && !service.told.steady {
        events::tell(changes, service, events::STEADY);
    }
    service.told.steady = steady;
}
