//! A task's record: what is written down of it, and what is told of it.
//! In: changes. Out: commits to the store, reports to the reconciler. Owns: the `TaskRecord`.
//! A step is committed before it begins; a report needs no commit of its own, because after a
//! restart the sequence goes on above any that may have been sent.
//! Never: performs a step.

use crate::facilities::{ContainerPhase, ShimStatus, Started};
use crate::reconcile::plan::Known;
use crate::reconcile::{CoreInput, News};
use crate::store::records::{ContainerRecord, FORMAT_VERSION, Life, Step, TaskRecord};
use crate::store::{Store, StoreError, StoreOp};
use crate::task::{Pace, TaskContext, restart};
use crate::telemetry::task_log::TaskLog;
use crate::time::{BootInstant, unix_ms};
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::health::ContainerHealth;
use lighter_model::ids::{ContainerName, Generation, TaskId};
use lighter_model::report::{KernelLimits, TaskReport};
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use lighter_model::task_definition::{DEFAULT_STOP_TIMEOUT_S, TaskDefinition};
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;
use tokio::sync::mpsc;

/// More reports than an agent can send between two commits of a task.
const SEQUENCE_GAP: u64 = 1000;

/// Where the sequence goes on when reports may have been sent that no record knows of: the agent was
/// killed before the first commit, or the store was lost. The clock is above them all, because a
/// sequence starts at the clock and a task sends less than a report a millisecond.
pub(crate) fn sequence_after(recorded: u64) -> u64 {
    unix_ms().max(recorded + SEQUENCE_GAP)
}

/// ECS's words for a container ended by the kernel for want of memory.
pub(crate) const OUT_OF_MEMORY: &str = "OutOfMemoryError: container killed due to memory usage";

/// Waits that have no meaning once the task has to end.
const BEFORE_RUNNING: &[WaitKind] = &[
    WaitKind::Definition,
    WaitKind::Resource,
    WaitKind::Pull,
    WaitKind::PullRetry,
    WaitKind::StartLimit,
    WaitKind::Dependency,
    WaitKind::Restart,
    WaitKind::Health,
];

fn in_words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Exited(code) => format!("exited with {code}"),
        ExitStatus::Signaled(signal) => format!("ended by signal {signal}"),
    }
}

/// The record and where it goes.
pub(crate) struct Journal {
    pub(crate) record: TaskRecord,
    pub(crate) known: Known,
    /// What people and tools are told of it while it goes on.
    pub(crate) log: TaskLog,
    store: Store,
    reconciler: mpsc::Sender<CoreInput>,
}

/// A record of a task that has not begun.
pub(crate) fn new_record(task: TaskId, boot_id: &str, recorded_sequence: u64) -> TaskRecord {
    TaskRecord {
        version: FORMAT_VERSION,
        task,
        step: Step::Preparing,
        boot_id: boot_id.to_owned(),
        sequence: sequence_after(recorded_sequence),
        status: TaskStatus::Pending,
        stop_code: None,
        stopped_reason: None,
        waiting_reason: None,
        containers: Vec::new(),
        pull_started_at_unix_ms: None,
        pull_stopped_at_unix_ms: None,
        started_at_unix_ms: None,
        stopping_at_unix_ms: None,
        execution_stopped_at_unix_ms: None,
        stopped_at_unix_ms: None,
        paused: false,
        settled: Generation::default(),
        adjusted: Vec::new(),
        refusal: None,
    }
}

/// The containers of a task that has not begun.
pub(crate) fn new_containers(definition: &TaskDefinition) -> Vec<ContainerRecord> {
    let containers = definition.container_definitions.iter();
    containers
        .map(|container| ContainerRecord {
            name: container.name.clone(),
            image: container.image.clone(),
            essential: container.essential,
            status: ContainerStatus::Pending,
            exit: None,
            reason: None,
            pid: None,
            image_digest: None,
            stop_signal: 15,
            stop_timeout_s: container.stop_timeout_s.unwrap_or(DEFAULT_STOP_TIMEOUT_S),
            attachment: None,
            bindings: Vec::new(),
            devices: Vec::new(),
            limits: KernelLimits::default(),
            life: Life { policy: container.restart_policy.clone(), ..Life::default() },
        })
        .collect()
}

impl Journal {
    pub(crate) fn new(record: TaskRecord, known: Known, context: &TaskContext) -> Self {
        let log = context.telemetry.task(&record.task);
        Self { record, known, log, store: context.store.clone(), reconciler: context.reconciler.clone() }
    }

    /// A journal taken up again after a restart: reports go on above all that were sent.
    pub(crate) fn resumed(mut record: TaskRecord, known: Known, context: &TaskContext) -> Self {
        // The STOPPED report is in the store itself, under the very number it is sent with.
        if record.step != Step::Stopped {
            record.sequence = sequence_after(record.sequence);
        }
        let journal = Self::new(record, known, context);
        if journal.record.step != Step::Stopped {
            let text = format!("taken up by a new agent; {}", journal.record.status);
            journal.log.event(TaskEventKind::Adopted, None, text);
        }
        journal
    }

    /// Tells the reconciler, and through it the control plane, how the task stands.
    pub(crate) async fn tell(&mut self) {
        self.record.sequence += 1;
        self.tell_again().await;
    }

    /// Tells what was told before, with the same number.
    pub(crate) async fn tell_again(&self) {
        self.log.publish(&self.record);
        let report = TaskReport { waits: self.log.waits(), ..self.record.report() };
        let news = News { report: Some(Box::new(report)), known: self.known };
        let _ = self.reconciler.send(CoreInput::Task { task: self.record.task.clone(), news }).await;
    }

    /// The task has ended, and its records may be deleted.
    pub(crate) async fn gone(&self) {
        let _ = self.reconciler.send(CoreInput::TaskGone { task: self.record.task.clone() }).await;
    }

    /// Writes the record as it is, as `step`.
    pub(crate) async fn commit(&mut self, step: Step) -> Result<(), StoreError> {
        self.record.step = step;
        let begun = BootInstant::now();
        let committed = self.store.commit(vec![StoreOp::PutTask(Box::new(self.record.clone()))]).await;
        self.log.committed(BootInstant::now().since(begun));
        committed
    }

    /// The commit of the record as it is now, to be awaited beside other work.
    pub(crate) fn commit_beside(
        &mut self,
        step: Step,
    ) -> impl Future<Output = Result<(), StoreError>> + use<> {
        self.record.step = step;
        let (store, record, log) = (self.store.clone(), self.record.clone(), self.log.clone());
        async move {
            let begun = BootInstant::now();
            let committed = store.commit(vec![StoreOp::PutTask(Box::new(record))]).await;
            log.committed(BootInstant::now().since(begun));
            committed
        }
    }

    /// For steps on the way out: a full disk must not keep a container from being stopped.
    pub(crate) async fn commit_or_warn(&mut self, step: Step) {
        if let Err(error) = self.commit(step).await {
            tracing::warn!(task = %self.record.task, cause = %crate::errors::chain(&error), "the step is not recorded; going on");
        }
    }

    pub(crate) fn stopping(&mut self, code: Option<StopCode>, reason: impl Into<String>) {
        let reason = reason.into();
        if self.record.stopped_reason.is_none() {
            let code = code.map_or("", StopCode::as_str);
            self.log.event(TaskEventKind::Stopping, None, format!("{code}: {reason}"));
            self.log.start_ended(Some(&reason));
        }
        self.log.waits_over(BEFORE_RUNNING);
        self.record.stopping(code, reason);
    }

    pub(crate) fn status(&mut self, status: TaskStatus) {
        if status > self.record.status {
            self.log.event(TaskEventKind::Status, None, status.as_str());
            if status == TaskStatus::Running {
                self.log.start_ended(None);
            }
        }
        self.record.status = self.record.status.max(status);
    }

    /// Notes an exit in the record, as final or, with a clock, as one that a restart may follow.
    pub(crate) fn exited(&mut self, name: &ContainerName, exit: ContainerExit, clock: Option<&Clock>) {
        let news = self.record.containers.iter().any(|c| c.name == *name && c.is_news(&exit));
        if news {
            let oom = if exit.oom_killed { ", out of memory" } else { "" };
            self.log.event(TaskEventKind::Exit, Some(name), format!("{}{oom}", in_words(exit.status)));
            for kind in [WaitKind::StopSignal, WaitKind::Kill, WaitKind::Health] {
                self.log.wait_over(kind, Some(name));
            }
        }
        match clock {
            Some(clock) => self.record.ended(name, exit, clock),
            None => self.record.exited(name, exit),
        }
    }

    /// Names of the containers that run, in the definition's order.
    pub(crate) fn live(&self) -> Vec<ContainerName> {
        let running = self.record.containers.iter().filter(|c| c.status == ContainerStatus::Running);
        running.map(|container| container.name.clone()).collect()
    }
}

impl TaskRecord {
    /// Notes an exit that is final; the first such of a container stays.
    pub(crate) fn exited(&mut self, name: &ContainerName, exit: ContainerExit) {
        let Some(container) = self.container_mut(name) else { return };
        if !container.is_news(&exit) {
            return;
        }
        container.end(exit);
    }

    /// Notes an exit while the task goes on: the container is started again if its policy or its
    /// health says so. An exit that was noted before changes nothing.
    pub(crate) fn ended(&mut self, name: &ContainerName, exit: ContainerExit, clock: &Clock) {
        let stops = self.stopped_reason.is_some();
        let Some(container) = self.container_mut(name) else { return };
        if !container.is_news(&exit) {
            return;
        }
        let ran_ms = clock.ran_ms(container.life.started_boot_ms, &exit);
        let again = container.life.forced
            || restart::restarts(container.life.policy.as_ref(), &exit, ran_ms, clock.pace.second_ms);
        if stops || !again {
            container.end(exit);
        } else {
            container.wait_for_restart(exit, ran_ms, clock);
        }
    }

    /// Notes that a container runs; one that has ended stays so.
    pub(crate) fn started(&mut self, name: &ContainerName, started: Started, clock: &Clock) {
        let Some(container) = self.container_mut(name).filter(|container| container.exit.is_none()) else {
            return;
        };
        if container.status != ContainerStatus::Running {
            container.status = ContainerStatus::Running;
            container.reason = None;
            container.life.begin(clock);
        }
        container.pid = Some(started.pid);
        container.limits = started.limits;
        if !self.adjusted.is_empty() {
            // Its bundle may have older limits than the task was given since.
            self.adjusted.clear();
            self.settled = Generation::default();
        }
    }

    /// Takes over what a living shim knows and the record does not.
    pub(crate) fn take_status(&mut self, status: &ShimStatus, clock: &Clock) {
        for (name, phase) in &status.containers {
            match phase {
                ContainerPhase::Exited(exit) => {
                    // It may have been started since the record was written.
                    self.ran_unseen(name, exit, clock);
                    self.ended(name, exit.clone(), clock);
                }
                ContainerPhase::Running(started) => self.started(name, started.clone(), clock),
                ContainerPhase::Starting => {}
            }
        }
    }

    /// A restart that was begun and not recorded, and has ended by now, is one all the same.
    fn ran_unseen(&mut self, name: &ContainerName, exit: &ContainerExit, clock: &Clock) {
        let Some(container) = self.container_mut(name) else { return };
        if container.life.again_at_boot_ms.is_some() && container.life.last_exit.as_ref() != Some(exit) {
            container.life.begin(clock);
        }
    }

    /// Why the task stops; the first reason stays. Nothing is started again from here on.
    pub(crate) fn stopping(&mut self, code: Option<StopCode>, reason: impl Into<String>) {
        if self.stopped_reason.is_none() {
            self.stop_code = code;
            self.stopped_reason = Some(reason.into());
        }
        self.waiting_reason = None;
        self.stopping_at_unix_ms.get_or_insert_with(unix_ms);
        for container in &mut self.containers {
            if container.life.again_at_boot_ms.take().is_some()
                && let Some(exit) = container.life.last_exit.take()
            {
                container.end(exit);
            }
        }
    }

    /// The essential container that ended, if one has.
    pub(crate) fn essential_ended(&self) -> bool {
        self.containers.iter().any(|c| c.essential && c.status == ContainerStatus::Stopped)
    }
}

impl ContainerRecord {
    /// Not noted yet.
    fn is_news(&self, exit: &ContainerExit) -> bool {
        self.exit.is_none() && self.life.last_exit.as_ref() != Some(exit)
    }

    fn end(&mut self, exit: ContainerExit) {
        self.reason = exit.oom_killed.then(|| OUT_OF_MEMORY.to_owned()).or(self.reason.take());
        self.status = ContainerStatus::Stopped;
        self.exit = Some(exit);
    }

    fn wait_for_restart(&mut self, exit: ContainerExit, ran_ms: u64, clock: &Clock) {
        let (streak, pause_ms) = restart::pause(&clock.pace.backoff, self.life.streak, ran_ms);
        let code = exit.status.exit_code();
        self.reason = Some(match exit.oom_killed {
            true => format!("{OUT_OF_MEMORY}; it is started again in {pause_ms} ms"),
            false => format!("ended with exit code {code}; it is started again in {pause_ms} ms"),
        });
        (self.status, self.pid) = (ContainerStatus::Pending, None);
        self.life.streak = streak;
        self.life.again_at_boot_ms = Some(clock.boot_ms + pause_ms);
        self.life.last_exit = Some(exit);
        self.life.judge_anew(clock);
    }
}

impl Life {
    /// Its program runs: for the first time, or again.
    fn begin(&mut self, clock: &Clock) {
        if self.again_at_boot_ms.take().is_some() {
            self.restarts = self.restarts.saturating_add(1);
            self.streak = self.streak.saturating_add(1);
        }
        self.forced = false;
        (self.started_boot_ms, self.started_unix_ms) = (Some(clock.boot_ms), Some(clock.unix_ms));
        self.first_started_boot_ms.get_or_insert(clock.boot_ms);
        self.judge_anew(clock);
    }

    /// Health is not known until the next check.
    fn judge_anew(&mut self, clock: &Clock) {
        let unknown = || ContainerHealth { since_unix_ms: clock.unix_ms, ..ContainerHealth::default() };
        self.health = self.check.is_some().then(unknown);
    }
}

/// One moment on both clocks, and how long things take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub boot_ms: u64,
    pub unix_ms: u64,
    pub pace: Pace,
}

impl Clock {
    pub(crate) fn now(pace: Pace) -> Self {
        Self { boot_ms: BootInstant::now().ms(), unix_ms: unix_ms(), pace }
    }

    /// How long a container ran that was started then. The exit's own time is the wall clock's and
    /// only says how long ago it was: an agent may have been away.
    fn ran_ms(&self, started_boot_ms: Option<u64>, exit: &ContainerExit) -> u64 {
        let Some(started) = started_boot_ms else { return 0 };
        let ago = self.unix_ms.saturating_sub(exit.finished_at_unix_ms);
        self.boot_ms.saturating_sub(ago).saturating_sub(started)
    }
}

#[cfg(test)]
mod tests;
