//! What a REPLICA service starts and stops now.
//! In: a small view of the service. Out: how many tasks to start, which to take off the endpoint list
//! or to stop. Pure: the same view gives the same decision, and a view that has nothing to be done
//! gives an empty one.
//!
//! ```text
//!   lower = ceil(desired × minimum %)      never below it: healthy tasks
//!   upper = floor(desired × maximum %)     never above it: PENDING + RUNNING tasks
//! ```
//! A task that is *kept* is of the rolled-out deployment, not unhealthy, on an instance that does not
//! drain, and not being moved. Every other one goes as soon as kept ones have taken its place; before
//! that only when there is no room to start them, and then down to the minimum.
//! An orphan takes the place of a task until somebody has decided on it: no second set is started.
//! Never: stops a protected task, unless the service is deleted.
//! Source: Amazon ECS Developer Guide, "Rolling update"; API reference, DeploymentConfiguration.

use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::TaskId;
use std::collections::BTreeMap;

/// ceil(desired × percent / 100).
pub fn lower(desired: u32, percent: u32) -> u32 {
    if wrong_edit::is(WrongEdit::MinimumRoundedDown) {
        return small(u64::from(desired) * u64::from(percent) / 100);
    }
    small((u64::from(desired) * u64::from(percent)).div_ceil(100))
}

/// floor(desired × percent / 100).
pub fn upper(desired: u32, percent: u32) -> u32 {
    if wrong_edit::is(WrongEdit::MaximumRoundedUp) {
        return small((u64::from(desired) * u64::from(percent)).div_ceil(100));
    }
    small(u64::from(desired) * u64::from(percent) / 100)
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not RUNNING yet.
    Pending,
    Running,
    /// Past RUNNING, not STOPPED.
    Ending,
}

/// How a RUNNING task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Unhealthy,
    /// Not long enough RUNNING, or not judged yet.
    Warming,
    /// RUNNING for 40 s, or HEALTHY when there is a health check.
    Healthy,
}

/// A task that is not STOPPED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    pub id: TaskId,
    /// Of the deployment that is rolled out.
    pub current: bool,
    /// Desired status RUNNING.
    pub wanted: bool,
    pub phase: Phase,
    pub health: Health,
    pub protected: bool,
    /// Its instance drains, or is none of the cluster's any more.
    pub draining: bool,
    /// Its instance is not connected.
    pub away: bool,
    /// Exclusive, and nothing says that its lease has ended: it may run wherever it is.
    pub leased: bool,
    /// It has left the endpoint list to be stopped.
    pub leaving: bool,
    /// And everybody has heard of it.
    pub left: bool,
    /// Another takes its place elsewhere.
    pub moving: bool,
    /// Numbers of its zone and instance within this view.
    pub zone: u32,
    pub instance: u32,
}

/// A service as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub desired: u32,
    pub minimum_percent: u32,
    pub maximum_percent: u32,
    pub deleted: bool,
    /// The deployment is paused or has failed: tasks of any revision are kept.
    pub stalled: bool,
    /// Not throttled, and there is a revision to start.
    pub may_start: bool,
    /// No more than these start now: until it is known what its images' tags mean.
    pub most_starts: u32,
    /// Tasks were found to fit nowhere.
    pub cannot_place: bool,
    /// Tasks of it that a store which was set back does not know, and that nobody has decided on.
    pub orphans: u32,
    pub tasks: Vec<TaskView>,
}

/// Why a task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    Deleted,
    Unhealthy,
    Draining,
    Replaced,
    Moved,
    ScaledIn,
    /// Of a DAEMON service: its instance matches no longer.
    Misplaced,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub starts: u32,
    /// Wanted beside these, but for `most_starts`.
    pub held: u32,
    /// To take off the endpoint list, or to stop where nobody needs to hear of it first.
    pub goes: Vec<(TaskId, Why)>,
    /// They have left the list for long enough: to stop.
    pub stops: Vec<TaskId>,
    /// Neither a start nor a stop is allowed by minimum and maximum.
    pub blocked: bool,
    /// Would go but for their protection.
    pub protected: Vec<TaskId>,
}

impl Decision {
    pub fn is_nothing(&self) -> bool {
        self.starts == 0 && self.goes.is_empty() && self.stops.is_empty()
    }
}

impl TaskView {
    /// Counts against the maximum. What was given up on an instance that is away counts no more, what is
    /// exclusive until it is STOPPED or its lease must have ended.
    pub fn occupies(&self) -> bool {
        let uncounted = self.phase == Phase::Pending && wrong_edit::is(WrongEdit::PendingNotCounted);
        let leased = self.leased && !wrong_edit::is(WrongEdit::ServiceLeaseNotAwaited);
        (leased || self.phase != Phase::Ending && (self.wanted || !self.away)) && !uncounted
    }
    /// Wanted, and not on its way out.
    pub fn is_live(&self) -> bool {
        self.wanted && !self.leaving && self.phase != Phase::Ending
    }
    /// Counts for the minimum.
    pub fn is_healthy(&self) -> bool {
        let there = !self.away || wrong_edit::is(WrongEdit::AwayCountsAsHealthy);
        self.is_live() && there && self.phase == Phase::Running && self.health == Health::Healthy
    }
    fn serves(&self) -> bool {
        self.is_live() && !self.away && self.phase == Phase::Running && self.health != Health::Unhealthy
    }
    fn is_unhealthy(&self) -> bool {
        self.phase == Phase::Running && self.health == Health::Unhealthy
    }
    /// Stays when there are no more than wanted.
    pub fn is_kept(&self, stalled: bool) -> bool {
        let leaves = self.draining && !wrong_edit::is(WrongEdit::DrainingCountsAsKept);
        self.is_live() && (self.current || stalled) && !leaves && !self.moving && !self.is_unhealthy()
    }
    fn why(&self) -> Why {
        if self.is_unhealthy() {
            Why::Unhealthy
        } else if self.draining {
            Why::Draining
        } else if self.moving {
            Why::Moved
        } else {
            Why::Replaced
        }
    }
}

impl View {
    pub fn healthy(&self) -> u32 {
        count(&self.tasks, TaskView::is_healthy)
    }
    /// PENDING + RUNNING.
    pub fn occupied(&self) -> u32 {
        count(&self.tasks, TaskView::occupies).saturating_add(self.orphans)
    }
    /// Everything is as wanted, and nothing is on its way.
    pub fn is_steady(&self) -> bool {
        let settled = |task: &TaskView| task.is_kept(false) && task.is_healthy();
        let gone = |task: &TaskView| !task.occupies();
        let early = wrong_edit::is(WrongEdit::CompletedTooEarly);
        (early || self.tasks.iter().all(|task| settled(task) || gone(task))) && self.healthy() == self.desired
    }
}

fn count(tasks: &[TaskView], is: impl Fn(&TaskView) -> bool) -> u32 {
    small(tasks.iter().filter(|task| is(task)).count() as u64)
}

/// Tasks by how many of the service are in their zone and on their instance: who goes first when some
/// are too many. The zone with the most, then the instance with the most, then the newest.
#[derive(Debug, Default)]
struct Spread {
    zones: BTreeMap<u32, u32>,
    instances: BTreeMap<u32, u32>,
}

impl Spread {
    fn of(tasks: &[TaskView]) -> Self {
        let mut spread = Self::default();
        for task in tasks.iter().filter(|task| task.is_live()) {
            *spread.zones.entry(task.zone).or_default() += 1;
            *spread.instances.entry(task.instance).or_default() += 1;
        }
        spread
    }
    fn rank(&self, task: &TaskView) -> (u32, u32) {
        let of = |map: &BTreeMap<u32, u32>, key| map.get(&key).copied().unwrap_or(0);
        (of(&self.zones, task.zone), of(&self.instances, task.instance))
    }
    fn take(&mut self, task: &TaskView) {
        for (map, key) in [(&mut self.zones, task.zone), (&mut self.instances, task.instance)] {
            if let Some(number) = map.get_mut(&key) {
                *number = number.saturating_sub(1);
            }
        }
    }
}

/// What is left to give away while stops are chosen.
struct Budget {
    healthy: u32,
    serving: u32,
    /// Stops below what is desired, to make room.
    room_wanted: u32,
    /// One that is unhealthy may go before another has taken its place.
    one_unhealthy: bool,
    lower: u32,
    desired: u32,
}

impl Budget {
    /// Whether so much is left without this task; takes it off then.
    fn allows(&mut self, task: &TaskView, may_make_room: bool) -> bool {
        let have = if task.is_healthy() { self.healthy } else { self.serving };
        // One that does not count for the minimum now may serve all the same: it goes when others do.
        let counted = u32::from(task.serves());
        let after = have.saturating_sub(counted);
        let enough = after >= self.desired.max(self.lower) && have >= counted;
        let bearable = after >= self.lower || (task.is_unhealthy() && self.one_unhealthy);
        let make_room = !enough && may_make_room && self.room_wanted > 0 && bearable;
        if enough || make_room {
            self.one_unhealthy &= after >= self.lower;
            self.room_wanted -= u32::from(make_room);
            self.healthy -= u32::from(task.is_healthy());
            self.serving -= u32::from(task.serves());
            return true;
        }
        false
    }
}

/// Decides; at most `limit` tasks go.
pub fn decide(view: &View, limit: usize) -> Decision {
    let mut decision = Decision::default();
    let left = view.tasks.iter().filter(|task| task.wanted && task.left && task.phase != Phase::Ending);
    decision.stops = left.map(|task| task.id.clone()).take(limit).collect();
    let limit = limit - decision.stops.len();
    if view.deleted {
        let live = view.tasks.iter().filter(|task| task.is_live());
        decision.goes = live.map(|task| (task.id.clone(), Why::Deleted)).take(limit).collect();
        return decision;
    }
    let kept = count(&view.tasks, |task| task.is_kept(view.stalled));
    let need = view.desired.saturating_sub(kept.saturating_add(view.orphans));
    // Nor is room made for what does not start.
    decision.held = need.saturating_sub(view.most_starts);
    let need = need - decision.held;
    let room = upper(view.desired, view.maximum_percent).saturating_sub(view.occupied());
    let can_start = view.may_start && !view.cannot_place;
    decision.starts = if can_start { need.min(room) } else { 0 };
    let on_their_way = count(&view.tasks, |task| task.occupies() && !task.is_live());
    let short = if room < need || view.cannot_place { need - decision.starts } else { 0 };
    let mut budget = Budget {
        healthy: view.healthy(),
        serving: count(&view.tasks, TaskView::serves),
        // Without a start to be made nothing is gained by room.
        room_wanted: if view.may_start { short.saturating_sub(on_their_way) } else { 0 },
        one_unhealthy: on_their_way == 0,
        lower: lower(view.desired, view.minimum_percent),
        desired: view.desired,
    };
    replaced(view, &mut budget, &mut decision, limit);
    surplus(view, kept, &mut budget, &mut decision, limit);
    let pending = view.tasks.iter().any(|task| task.is_live() && !task.is_healthy());
    decision.blocked = view.may_start && short > 0 && decision.is_nothing() && !pending && on_their_way == 0;
    decision
}

/// Tasks that others take the place of.
fn replaced(view: &View, budget: &mut Budget, decision: &mut Decision, limit: usize) {
    let goes = |task: &&TaskView| task.is_live() && !task.is_kept(view.stalled);
    let is_left = |task: &TaskView| {
        task.protected && !task.is_unhealthy() && !wrong_edit::is(WrongEdit::ProtectedReplaced)
    };
    let (protected, open): (Vec<_>, Vec<_>) = view.tasks.iter().filter(goes).partition(|task| is_left(task));
    decision.protected = protected.into_iter().map(|task| task.id.clone()).collect();
    let mut spread = Spread::of(&view.tasks);
    let mut open: Vec<&TaskView> = open;
    while decision.goes.len() < limit && !open.is_empty() {
        // What never served, then what serves badly, then the others by the rules of spread.
        let order = |task: &TaskView| {
            let warming = task.health == Health::Warming;
            (task.phase == Phase::Pending, task.is_unhealthy(), warming, task.draining, spread.rank(task))
        };
        let place = (0..open.len()).max_by_key(|place| (order(open[*place]), &open[*place].id));
        let Some(task) = place.map(|place| open.swap_remove(place)) else { break };
        let allowed = match task.phase {
            Phase::Pending => !task.moving || task.draining,
            _ => budget.allows(task, !task.moving),
        };
        if allowed {
            spread.take(task);
            decision.goes.push((task.id.clone(), task.why()));
        }
    }
}

/// Tasks beyond the desired count.
fn surplus(view: &View, kept: u32, budget: &mut Budget, decision: &mut Decision, limit: usize) {
    let mut too_many = kept.saturating_sub(view.desired);
    let is_left = |task: &TaskView| task.protected && !wrong_edit::is(WrongEdit::ProtectedScaledIn);
    let mut open: Vec<&TaskView> =
        view.tasks.iter().filter(|task| task.is_kept(view.stalled) && !is_left(task)).collect();
    let mut spread = Spread::of(&view.tasks);
    while too_many > 0 && decision.goes.len() < limit && !open.is_empty() {
        let order = |task: &TaskView| {
            // In a deployment that stands still those of its own revision go first.
            let new = view.stalled && task.current;
            (task.phase == Phase::Pending, new, task.health == Health::Warming, spread.rank(task))
        };
        let place = (0..open.len()).max_by_key(|place| (order(open[*place]), &open[*place].id));
        let Some(task) = place.map(|place| open.swap_remove(place)) else { break };
        if task.phase == Phase::Pending || budget.allows(task, false) {
            spread.take(task);
            too_many -= 1;
            decision.goes.push((task.id.clone(), Why::ScaledIn));
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
