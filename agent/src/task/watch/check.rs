//! Health checks of a running task: each container's own timer, at most `CHECKS_AT_ONCE` on the node.
//! In: the record, outcomes of probes. Out: jobs, health in the record, an `End` when the policy says
//! so. Owns nothing; the timers are the crew's. A probe that could not be made judges nobody.
//! Never: reports the same result twice.

use super::End;
use super::crew::{Check, Crew, Done};
use crate::errors::{Cause, chain};
use crate::store::records::{ContainerRecord, HealthSettings, Step};
use crate::task::health::{self, Checked};
use crate::task::stop::{Ending, kill_overdue};
use crate::task::{Held, TaskActor};
use crate::time::BootInstant;
use futures_util::FutureExt;
use lighter_model::health::HealthStatus;
use lighter_model::ids::ContainerName;
use lighter_model::status::{ContainerStatus, StopCode};
use lighter_model::task_definition::OnUnhealthy;
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;
use lighter_runtime::ProbeOutcome;
use std::time::Duration;

/// ECS's words.
const FAILED_HEALTH_CHECKS: &str = "Task failed container health checks";

impl TaskActor {
    pub(super) fn check_what_is_due(&mut self, held: &Held, crew: &mut Crew) {
        let Some(link) = &held.link else { return };
        // What stands still answers nothing; its checks go on where they were.
        if self.journal.record.paused {
            return;
        }
        let now = BootInstant::now();
        let mut running = Vec::new();
        for container in &self.journal.record.containers {
            let (ContainerStatus::Running, Some(settings), Some(pid)) =
                (container.status, &container.life.check, container.pid)
            else {
                continue;
            };
            let status = container.life.health.as_ref().map(|health| health.status).unwrap_or_default();
            running.push(container.name.clone());
            let first_at = || {
                let spread = spread(self.task().as_str(), &container.name);
                BootInstant::at_ms(health::due_ms(settings, status, 0, spread, now.ms()))
            };
            if status == HealthStatus::Unknown {
                let ends_by = "a check passes, or as many fail in a row as `retries` says";
                let log = &self.journal.log;
                log.wait(WaitKind::Health, Some(&container.name), "its health check", None, ends_by);
            }
            let check = crew.checks.entry(container.name.clone());
            let check =
                check.or_insert_with(|| Check { pid, count: 0, next_at: first_at(), under_way: false });
            if check.pid != pid {
                *check = Check { pid, count: 0, next_at: first_at(), under_way: false };
            }
            if check.under_way || check.next_at > now {
                continue;
            }
            check.under_way = true;
            let (shim, permits) = (link.shim.clone(), self.context.checks.clone());
            let (name, settings) = (container.name.clone(), settings.clone());
            let job = async move {
                // Closed only with the agent.
                let _permit = permits.acquire_owned().await;
                let began = BootInstant::now();
                let timeout = Duration::from_millis(settings.timeout_ms);
                let result = shim.probe(&name, &settings.argv, timeout).await;
                Done::Checked { container: name, pid, began, result }
            };
            crew.jobs.push(job.boxed());
        }
        crew.checks.retain(|name, _| running.contains(name));
    }

    pub(super) async fn checked(
        &mut self,
        held: &Held,
        crew: &mut Crew,
        name: &ContainerName,
        pid: i32,
        began: BootInstant,
        result: Result<ProbeOutcome, Cause>,
    ) -> Option<End> {
        let spread = spread(self.task().as_str(), name);
        let clock = self.clock();
        let check = crew.checks.get_mut(name).filter(|check| check.pid == pid)?;
        check.under_way = false;
        let container = self.journal.record.container_mut(name)?;
        let settings = container.life.check.clone()?;
        let before = container.life.health.clone().unwrap_or_default();
        let mut next = before.clone();
        match result {
            Ok(outcome) => {
                let began_ms = began.ms().saturating_sub(container.life.started_boot_ms.unwrap_or_default());
                let checked = Checked::of(&outcome, &settings, began_ms);
                let (after, report) = health::after(&before, &settings, &checked, clock.unix_ms);
                (crew.news, crew.keep) = (crew.news | report, crew.keep | report);
                next = after;
            }
            Err(cause) => {
                tracing::debug!(%name, cause = %chain(cause.as_ref()), "the health check was not made")
            }
        }
        let changed = next.status != before.status;
        check.count = if changed { 0 } else { check.count.saturating_add(1) };
        let now_ms = BootInstant::now().ms();
        check.next_at =
            BootInstant::at_ms(health::due_ms(&settings, next.status, check.count, spread, now_ms));
        let turned_bad = changed && next.status == HealthStatus::Unhealthy;
        if changed {
            self.journal.log.wait_over(WaitKind::Health, Some(name));
            self.journal.log.event(
                TaskEventKind::Health,
                Some(name),
                format!("{}: {}", next.status, next.last_end),
            );
        }
        container.life.health = Some(next);
        if turned_bad { self.unhealthy(held, crew, name, &settings).await } else { None }
    }

    async fn unhealthy(
        &mut self,
        held: &Held,
        crew: &mut Crew,
        name: &ContainerName,
        settings: &HealthSettings,
    ) -> Option<End> {
        tracing::warn!(task = %self.task(), container = %name, policy = ?settings.on_unhealthy, "the container is unhealthy");
        match settings.on_unhealthy {
            OnUnhealthy::Report => None,
            OnUnhealthy::Stop => Some(End {
                code: StopCode::ServiceSchedulerInitiated,
                reason: format!("{FAILED_HEALTH_CHECKS}: container {name} is unhealthy"),
            }),
            OnUnhealthy::Restart => {
                let record = {
                    let container = self.journal.record.container_mut(name)?;
                    container.life.forced = true;
                    container.clone()
                };
                // That it is to be started again must be known to whoever sees it end.
                self.journal.commit_or_warn(Step::Running).await;
                self.end_unhealthy(held, crew, &record).await;
                None
            }
        }
    }

    /// It is to be started again, which its end leads to.
    async fn end_unhealthy(&self, held: &Held, crew: &mut Crew, record: &ContainerRecord) {
        let Some(link) = &held.link else { return };
        if let Err(error) = link.shim.signal(&record.name, record.stop_signal).await {
            tracing::warn!(container = %record.name, cause = %chain(error.as_ref()), "the stop signal was not sent");
        }
        crew.endings.push(Ending::told(&self.journal.log, record));
    }

    /// What an agent of before has begun to end, and was killed before it had: its deadline is not known.
    pub(super) async fn go_on_ending(&self, held: &Held, crew: &mut Crew) {
        let containers = self.journal.record.containers.iter();
        for record in containers.filter(|c| c.life.forced && c.status == ContainerStatus::Running) {
            self.end_unhealthy(held, crew, record).await;
        }
    }

    /// SIGKILL for unhealthy containers that did not end in their time.
    pub(super) async fn kill_overdue(&self, held: &Held, crew: &mut Crew) {
        if let Some(link) = &held.link {
            kill_overdue(&self.journal.log, &link.shim, &mut crew.endings).await;
        }
    }
}

/// A number of the container's own (FNV-1a), the same in every life of the agent.
fn spread(task: &str, container: &ContainerName) -> u8 {
    let bytes = task.bytes().chain(container.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.to_le_bytes()[4]
}
