//! What a simulated node has recorded: assignments, its tasks, what it knows of the store.
//! In: assignments (agent/src/assignment.rs is the truth), steps of tasks. Out: reports, what to ask.
//! Never: lets an older generation replace a newer one, or a desired status go back.

use crate::health::Health;
use crate::lease::Lease;
use crate::luck::Luck;
use crate::services::Life;
use crate::world::World;
use lighter_control::convert::task_status;
use lighter_model::ids::TaskId;
use lighter_model::status::{DesiredStatus, TaskStatus};
use lighter_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

/// One step of a task's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Activate,
    Run,
    /// Its health check is made.
    Judge,
    Exit,
    Stopping,
    Stopped,
}

#[derive(Default)]
pub(crate) struct Disk {
    book: BTreeMap<TaskId, Assigned>,
    pub(crate) tasks: BTreeMap<TaskId, Running>,
    pub(crate) definitions: BTreeSet<String>,
    pub(crate) term: u64,
    pub(crate) incarnation: String,
    pub(crate) revision: u64,
    /// When the last hello or heartbeat that was answered was sent.
    pub(crate) renewed_ms: u64,
    /// Of the machine's clock; 0: as the cluster's.
    pub(crate) rate: u64,
}

struct Assigned {
    assignment: v1::Assignment,
    desired: DesiredStatus,
    /// The incarnation that listed it last; empty: its silence means nothing.
    listed_by: String,
    disowned: bool,
}

/// A task as the node knows it.
pub(crate) struct Running {
    life: Life,
    health: Health,
    pub(crate) status: TaskStatus,
    /// Of the newest report.
    pub(crate) sequence: u64,
    /// Of the last report acknowledged.
    pub(crate) applied: u64,
    pub(crate) next: Option<(u64, Step)>,
    pub(crate) ending: bool,
    pub(crate) lease: Lease,
    pub(crate) ended_by_lease: bool,
    /// A program of it runs.
    pub(crate) process: bool,
    settled: u64,
    paused: bool,
    refusal: String,
    by_itself: bool,
    /// What its image's tag means for all: as it was assigned.
    pinned: Option<String>,
    /// Of a service: others of it are told what this one has found.
    of_service: bool,
    /// What it runs; nothing of one that its node has had from an archive.
    digest: Option<String>,
}

/// Tags move.
const TAG_MOVES_MS: u64 = 7_000;

/// What the tag of every image means now.
fn digest_now(now_ms: u64) -> String {
    format!("sha256:{:064x}", now_ms / TAG_MOVES_MS)
}

impl Disk {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, ..Self::default() }
    }

    pub(crate) fn held(&self) -> Vec<v1::HeldTask> {
        let held = self.book.iter().map(|(id, assigned)| v1::HeldTask {
            task_id: id.to_string(),
            generation: assigned.assignment.generation,
            last_status: self.tasks.get(id).map_or(0, |task| task_status(task.status).into()),
            ..Default::default()
        });
        held.collect()
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = &TaskId> {
        self.book.keys()
    }

    pub(crate) fn accept(&mut self, world: &World, assignment: v1::Assignment, incarnation: &str) {
        let known = self.definitions.contains(&assignment.task_definition);
        world.check(known || assignment.forget, || {
            format!("{} is assigned before its definition {}", assignment.task_id, assignment.task_definition)
        });
        let id: TaskId = assignment.task_id.parse().unwrap();
        let wanted = if assignment.desired_status == i32::from(v1::DesiredStatus::Stopped) {
            DesiredStatus::Stopped
        } else {
            DesiredStatus::Running
        };
        match self.book.get_mut(&id) {
            None if assignment.forget => {}
            None => {
                let listed_by = incarnation.to_owned();
                let assigned = Assigned { assignment, desired: wanted, listed_by, disowned: false };
                self.book.insert(id, assigned);
            }
            Some(known) => {
                if assignment.generation > known.assignment.generation {
                    known.desired = known.desired.max(wanted);
                    known.assignment = assignment;
                }
                incarnation.clone_into(&mut known.listed_by);
            }
        }
    }

    /// Takes a whole manifest; the tasks whose end has to be confirmed, and whether the store was set back.
    pub(crate) fn manifest(
        &mut self,
        world: &World,
        all: Vec<v1::Assignment>,
        incarnation: &str,
        revision: u64,
    ) -> (Vec<TaskId>, bool) {
        let listed: BTreeSet<TaskId> = all.iter().map(|a| a.task_id.parse().unwrap()).collect();
        all.into_iter().for_each(|assignment| self.accept(world, assignment, incarnation));
        let known_store = self.incarnation.is_empty() || self.incarnation == incarnation;
        let set_back = !known_store || revision < self.revision;
        if set_back {
            // It may not know what it has acknowledged.
            self.tasks.values_mut().for_each(|task| task.applied = 0);
        }
        let mut ask = Vec::new();
        for (id, assigned) in self.book.iter_mut().filter(|(id, a)| !listed.contains(id) && !a.disowned) {
            if set_back {
                assigned.listed_by.clear();
            } else if assigned.listed_by == incarnation {
                ask.push(id.clone());
            }
        }
        (self.incarnation, self.revision) = (incarnation.to_owned(), revision);
        (ask, set_back)
    }

    /// The control plane, asked twice, does not know this task.
    pub(crate) fn disown(&mut self, world: &World, id: &TaskId) {
        let Some(assigned) = self.book.get_mut(id).filter(|assigned| !assigned.disowned) else { return };
        let listed = !assigned.listed_by.is_empty();
        world.check(listed, || format!("task {id} of another store is stopped"));
        (assigned.disowned, assigned.desired) = (true, DesiredStatus::Stopped);
    }

    pub(crate) fn applied(&mut self, report: &v1::AppliedReport) {
        if let Some(task) = self.tasks.get_mut(&report.task_id.parse().unwrap()) {
            task.applied = task.applied.max(report.sequence);
        }
    }

    /// Brings tasks to what is wanted.
    pub(crate) fn act(&mut self, now_ms: u64, luck: &mut Luck) {
        let mut gone = Vec::new();
        for (id, assigned) in &self.book {
            let wanted = &assigned.assignment;
            let rate = if self.rate == 0 { 1_000 } else { self.rate };
            let lease = Lease::new(wanted.lease_s, rate);
            let task = self.tasks.entry(id.clone()).or_insert_with(|| Running {
                pinned: wanted.image_digests.get("web").cloned(),
                of_service: wanted.group.starts_with("service:") || wanted.group.starts_with("daemon:"),
                ..Running::new(now_ms, luck, lease, &wanted.task_definition)
            });
            if task.status == TaskStatus::Stopped {
                if wanted.forget || assigned.disowned {
                    gone.push(id.clone());
                }
            } else if assigned.desired == DesiredStatus::Stopped && !task.ending {
                task.ending = true;
                let step = if task.status == TaskStatus::Running { Step::Stopping } else { Step::Stopped };
                task.next = Some((now_ms + luck.between(5, 500), step));
            } else if task.settled < wanted.generation && !task.ending {
                let refused = wanted.generation > 1 && luck.percent(10);
                task.refusal = if refused { "no".to_owned() } else { String::new() };
                task.paused = if refused { task.paused } else { wanted.paused };
                task.settled = wanted.generation;
                task.sequence += 1;
            }
        }
        for id in gone {
            self.book.remove(&id);
            self.tasks.remove(&id);
        }
    }

    pub(crate) fn next_step(&self) -> Option<u64> {
        let steps = self.tasks.values().filter_map(|task| task.next_step().map(|(at, _)| at));
        steps.chain(self.next_expiry()).min()
    }

    pub(crate) fn due(&self, now_ms: u64) -> Option<(TaskId, Step)> {
        let due = self.tasks.iter().filter_map(|(id, task)| Some((id, task.next_step()?)));
        let due = due.filter(|(_, (at, _))| *at <= now_ms).min_by_key(|(_, (at, _))| *at);
        due.map(|(id, (_, step))| (id.clone(), step))
    }

    /// Makes one step of a task; when all is calm its health does not fail any more.
    pub(crate) fn make(&mut self, id: &TaskId, step: Step, now_ms: u64, calm: bool, luck: &mut Luck) {
        match self.tasks.get_mut(id) {
            Some(task) if step == Step::Judge => {
                task.sequence += u64::from(task.health.judge(now_ms, calm, luck));
            }
            Some(task) => task.make(step, now_ms, luck),
            None => {}
        }
        self.act(now_ms, luck);
    }

    /// The machine starts anew: nothing that ran runs.
    pub(crate) fn reboot(&mut self, now_ms: u64) {
        for task in self.tasks.values_mut().filter(|task| task.status > TaskStatus::Pending) {
            if task.status != TaskStatus::Stopped {
                (task.next, task.ending, task.process) = (Some((now_ms, Step::Stopped)), true, false);
            }
        }
    }
}

impl Running {
    fn new(now_ms: u64, luck: &mut Luck, lease: Lease, definition: &str) -> Self {
        Self {
            life: Life::of(definition),
            health: Health::new(definition),
            status: TaskStatus::Pending,
            sequence: 1,
            applied: 0,
            next: Some((now_ms + luck.between(5, 2_000), Step::Activate)),
            ending: false,
            lease,
            ended_by_lease: false,
            process: false,
            settled: 0,
            paused: false,
            refusal: String::new(),
            by_itself: false,
            pinned: None,
            of_service: false,
            digest: None,
        }
    }

    /// The next of its life, or of its health.
    fn next_step(&self) -> Option<(u64, Step)> {
        let judge = self.health.next.map(|at| (at, Step::Judge));
        self.next.into_iter().chain(judge).min_by_key(|(at, _)| *at)
    }

    fn make(&mut self, step: Step, now_ms: u64, luck: &mut Luck) {
        self.health.end();
        let soon = |luck: &mut Luck| now_ms + luck.between(5, 1_000);
        let (status, next) = match step {
            Step::Activate => (TaskStatus::Activating, Some((soon(luck), Step::Run))),
            // The status is not one of its life.
            Step::Judge => return,
            Step::Run => {
                self.health.begin(now_ms, luck);
                let (short, longest) = self.life.short(luck);
                let exit = now_ms + luck.between(1_000, longest);
                (TaskStatus::Running, short.then_some((exit, Step::Exit)))
            }
            Step::Exit => {
                (self.ending, self.by_itself) = (true, true);
                (TaskStatus::Deactivating, Some((soon(luck), Step::Stopped)))
            }
            Step::Stopping => (TaskStatus::Stopping, Some((soon(luck), Step::Stopped))),
            Step::Stopped => (TaskStatus::Stopped, None),
        };
        if step == Step::Activate && self.of_service && !matches!(self.life, Life::Poison) {
            self.digest = self.pinned.clone().or_else(|| Some(digest_now(now_ms)));
        }
        self.process = status >= TaskStatus::Running && status < TaskStatus::Stopped && !self.by_itself;
        (self.status, self.next) = (status, next);
        self.sequence += 1;
    }

    /// What it says of its only container.
    fn containers(&self) -> Vec<v1::Container> {
        let running = self.status == TaskStatus::Running;
        let mut said = if running { self.health.containers() } else { Vec::new() };
        let Some(digest) = &self.digest else { return said };
        if said.is_empty() {
            let status = match self.status {
                TaskStatus::Running => v1::ContainerStatus::Running,
                before if before < TaskStatus::Running => v1::ContainerStatus::Pending,
                _ => v1::ContainerStatus::Stopped,
            };
            let (name, last_status) = ("web".to_owned(), status.into());
            said.push(v1::Container { name, last_status, ..Default::default() });
        }
        said.iter_mut().for_each(|container| container.image_digest.clone_from(digest));
        said
    }

    pub(crate) fn report(&self, id: &TaskId) -> v1::TaskReport {
        let stopped = self.status >= TaskStatus::Deactivating;
        let code = match (self.by_itself, self.ended_by_lease) {
            (true, _) => v1::StopCode::EssentialContainerExited,
            (_, true) => v1::StopCode::InfrastructureHealth,
            _ => v1::StopCode::UserInitiated,
        };
        v1::TaskReport {
            task_id: id.to_string(),
            sequence: self.sequence,
            last_status: task_status(self.status).into(),
            stop_code: if stopped { code.into() } else { 0 },
            stopped_reason: if stopped { "it ended".to_owned() } else { String::new() },
            paused: self.paused,
            settled_generation: self.settled,
            refusal: self.refusal.clone(),
            containers: self.containers(),
            ..Default::default()
        }
    }
}
