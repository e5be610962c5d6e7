//! Starting: what may start now is started, what waits is named with its reason, what never can ends
//! the task; what has ended and is to be started again gets the node's leave first.
//! In: the record. Out: jobs of the crew, an `End`. Owns nothing.
//! Never: starts a container that the record says was started, but to restart it.

use super::crew::{Crew, Done};
use super::{ESSENTIAL_EXITED, End};
use crate::errors::chain;
use crate::facilities::{StartFailure, StartFault, Started};
use crate::task::launch::in_ecs_words;
use crate::task::order::{self, Decision};
use crate::task::{Held, TaskActor};
use crate::time::BootInstant;
use futures_util::FutureExt;
use lighter_model::ids::ContainerName;
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;

impl TaskActor {
    /// Begins everything whose time has come.
    pub(super) fn go_on(&mut self, held: &Held, crew: &mut Crew) -> Option<End> {
        // A lost connection is mended first; its event is next.
        if held.link.as_ref().is_none_or(|link| link.events.is_closed()) {
            return None;
        }
        let now = BootInstant::now().ms();
        let views = crew.views(&self.journal.record);
        let mut waits = Vec::new();
        let decisions = order::decide(&crew.places, &views, now);
        for (at, decision) in decisions.into_iter().enumerate() {
            match decision {
                Decision::Nothing => {}
                Decision::Start => {
                    let name = crew.places[at].name.clone();
                    self.context.limiter.count();
                    self.start(held, crew, name, false);
                }
                Decision::Wait(more) => waits.extend(more),
                Decision::Impossible(impossible) => {
                    let started = self.journal.record.started_at_unix_ms.is_some();
                    let reason = format!("TaskDependencyError: {impossible}");
                    if let Some(container) = self.journal.record.container_mut(&impossible.container) {
                        container.reason = Some(reason.clone());
                    }
                    let code = match started {
                        true => StopCode::EssentialContainerExited,
                        false => StopCode::TaskFailedToStart,
                    };
                    return Some(End { code, reason });
                }
            }
        }
        self.note_waits(crew, waits);
        self.ask_for_turns(crew, now);
        self.check_what_is_due(held, crew);
        None
    }

    fn note_waits(&mut self, crew: &mut Crew, waits: Vec<order::Wait>) {
        let record = &mut self.journal.record;
        if record.status < TaskStatus::Running {
            let texts: Vec<String> = waits.iter().map(ToString::to_string).collect();
            let text = (!texts.is_empty()).then(|| texts.join("; "));
            crew.news |= record.waiting_reason != text;
            record.waiting_reason = text;
        }
        let old = std::mem::replace(&mut crew.waits, waits);
        let log = &self.journal.log;
        for place in &crew.places {
            let of = |wait: &&order::Wait| wait.container == place.name;
            let now: Vec<&order::Wait> = crew.waits.iter().filter(of).collect();
            if now.is_empty() {
                if old.iter().any(|wait| wait.container == place.name) {
                    log.wait_over(WaitKind::Dependency, Some(&place.name));
                }
                continue;
            }
            let each = now.iter().map(|wait| format!("container {} ({})", wait.on, wait.condition.as_str()));
            let what = each.collect::<Vec<_>>().join(" and ");
            let until = now.iter().filter_map(|wait| wait.deadline_boot_ms).min().map(BootInstant::at_ms);
            let ends_by = "the condition becomes true; else the task ends with TaskDependencyError";
            crew.news |= log.wait(
                WaitKind::Dependency,
                Some(&place.name),
                what,
                until.map(BootInstant::until),
                ends_by,
            );
        }
    }

    /// Those whose pause is over ask the node's limiter.
    fn ask_for_turns(&mut self, crew: &mut Crew, now_boot_ms: u64) {
        if self.journal.record.paused {
            // It would be started in a cgroup that stands still.
            return;
        }
        let containers = self.journal.record.containers.iter();
        let due = containers.filter(|c| c.life.again_at_boot_ms.is_some_and(|at| at <= now_boot_ms));
        for container in due.map(|c| c.name.clone()).collect::<Vec<_>>() {
            if crew.starting.contains(&container) || !crew.turns.insert(container.clone()) {
                continue;
            }
            let log = &self.journal.log;
            log.wait_over(WaitKind::Restart, Some(&container));
            let ends_by = "the node's limit on restarts lets it";
            log.wait(WaitKind::StartLimit, Some(&container), "its turn to be started again", None, ends_by);
            let limiter = self.context.limiter.clone();
            crew.jobs.push(
                async move {
                    limiter.turn().await;
                    Done::Turn { container }
                }
                .boxed(),
            );
        }
    }

    fn start(&self, held: &Held, crew: &mut Crew, container: ContainerName, again: bool) {
        let Some(link) = &held.link else { return };
        let (shim, runtime) = (link.shim.clone(), self.context.facilities.runtime.clone());
        let (task, bundle) = (self.task().clone(), crew.bundle(&container));
        let log = self.journal.log.clone();
        crew.starting.insert(container.clone());
        let job = async move {
            let failed = |source| StartFailure {
                container: container.clone(),
                fault: StartFault::CannotCreate,
                source,
            };
            let begin = async {
                let bundle = match bundle {
                    Some(bundle) => bundle,
                    None => runtime.open_bundle(&task, &container).await.map_err(failed)?,
                };
                if again {
                    shim.remove_container(&container).await.map_err(failed)?;
                }
                shim.start(&container, &bundle).await
            };
            let step = log.step("start", Some(&container));
            let result = begin.await;
            match &result {
                Ok(_) => step.done(),
                Err(failure) => step.failed(&chain(failure)),
            }
            Done::Started { container, result }
        };
        crew.jobs.push(job.boxed());
    }

    pub(super) async fn done(&mut self, held: &Held, crew: &mut Crew, done: Done) -> Option<End> {
        match done {
            Done::Started { container, result } => self.start_ended(crew, container, result).await,
            Done::Turn { container } => {
                // A turn that nobody waits for any more.
                if !crew.turns.remove(&container) {
                    return None;
                }
                let record = self.journal.record.container_mut(&container);
                // Paused meanwhile, it asks again when it goes on.
                let wanted = record.is_some_and(|record| record.life.again_at_boot_ms.is_some());
                if wanted && !self.journal.record.paused {
                    self.start(held, crew, container, true);
                }
                None
            }
            Done::Checked { container, pid, began, result } => {
                self.checked(held, crew, &container, pid, began, result).await
            }
        }
    }

    async fn start_ended(
        &mut self,
        crew: &mut Crew,
        container: ContainerName,
        result: Result<Started, StartFailure>,
    ) -> Option<End> {
        crew.starting.remove(&container);
        self.journal.log.wait_over(WaitKind::StartLimit, Some(&container));
        let early_exit = crew.early_exits.remove(&container);
        match result {
            Ok(started) => {
                let clock = self.clock();
                let again = self.journal.record.container_mut(&container);
                let again = again.is_some_and(|record| record.life.again_at_boot_ms.is_some());
                self.journal.record.started(&container, started, &clock);
                if again {
                    self.journal.log.event(TaskEventKind::Restart, Some(&container), "started again");
                }
                // What waits for the rest of a round is told with it.
                crew.news |= again || (crew.starting.is_empty() && !crew.waits.is_empty());
                crew.keep |= again;
                if let Some(exit) = early_exit {
                    self.crew_exited(crew, &container, exit).await;
                }
                None
            }
            Err(failure) => self.start_failed(crew, &container, &failure),
        }
    }

    /// As in ECS, only an essential container that cannot start ends the task.
    fn start_failed(&mut self, crew: &mut Crew, name: &ContainerName, failure: &StartFailure) -> Option<End> {
        let had_started = self.journal.record.started_at_unix_ms.is_some();
        let container = self.journal.record.container_mut(name)?;
        // The connection broke, and the shim has said meanwhile that it runs.
        if container.status != ContainerStatus::Pending {
            return None;
        }
        tracing::warn!(%name, cause = %chain(failure), "the container was not started");
        let reason = in_ecs_words(failure);
        container.status = ContainerStatus::Stopped;
        container.reason = Some(reason.clone());
        container.life.again_at_boot_ms = None;
        container.exit = container.life.last_exit.clone();
        let essential = container.essential;
        (crew.news, crew.keep) = (true, true);
        essential.then(|| match had_started {
            true => End { code: StopCode::EssentialContainerExited, reason: ESSENTIAL_EXITED.to_owned() },
            false => End { code: StopCode::TaskFailedToStart, reason },
        })
    }
}
