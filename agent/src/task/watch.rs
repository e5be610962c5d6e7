//! Rows 9 to 11: starts the containers of a prepared task in their order, follows them, checks their
//! health, starts again what its policy says, until the task has to end.
//! In: events of the shim, orders, timers. Out: Stopping with the reason in the record, or TearingDown
//! when everything has ended already. Owns: the `Crew`, which is what is under way.
//! Each turn decides anew from the record (`order`, `health`, `restart` are pure); the record is
//! written before a container is started again, so no attempt is lost or made twice.
//! A lost connection is not a lost task: the shim is asked again, and only a shim that is gone
//! itself ends the task. Never: polls.

mod begin;
mod check;
mod crew;

use super::lease::expired;
use super::{Bundles, Held, StopOrder, TaskActor, TaskPhase, adjust, told_to_kill, told_to_stop};
use crate::errors::chain;
use crate::facilities::{Found, ShimEvent, ShimLink};
use crate::store::records::{Step, TaskRecord};
use crate::time::{BootInstant, sleep, sleep_until, unix_ms};
use crew::{Crew, Done};
use futures_util::StreamExt;
use lighter_model::exit::ContainerExit;
use lighter_model::ids::ContainerName;
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use lighter_model::wait::WaitKind;
use std::collections::BTreeSet;
use std::time::Duration;

/// ECS's words.
const ESSENTIAL_EXITED: &str = "Essential container in task exited";
const MONITOR_GONE: &str = "the task's monitor (lighter-shim) ended, so its containers were stopped";
/// Between questions to a shim that lives and does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What a turn of the loop begins with.
enum Happened {
    Event(ShimEvent),
    Done(Done),
    Order(StopOrder),
    /// Other limits, pause or resume.
    Adjust,
    Time,
}

/// Why the task ends.
struct End {
    code: StopCode,
    reason: String,
}

/// How long a start may take once its task has to stop; a loaded machine takes seconds.
const START_ENDS: Duration = Duration::from_secs(30);
/// The helper of a killed start answers at once.
const KILLED_START_ENDS: Duration = Duration::from_secs(5);

impl TaskActor {
    pub(super) async fn watch(&mut self, mut held: Held, bundles: Bundles) -> TaskPhase {
        let mut crew = Crew::new(&self.context, &held.definition, bundles);
        if let Some(order) = self.lease_over(&held).await {
            return self.end(held, crew, order.code, order.reason).await;
        }
        self.go_on_ending(&held, &mut crew).await;
        loop {
            if held.link.is_none() {
                crew.forget();
                monitor_gone(&mut self.journal.record);
                return TaskPhase::TearingDown { left: held };
            }
            let end = self.has_to_end().or_else(|| self.go_on(&held, &mut crew));
            if let Some(End { code, reason }) = end {
                return self.end(held, crew, Some(code), reason).await;
            }
            self.keep_and_tell(&mut crew).await;
            match self.next(&mut held, &mut crew).await {
                Happened::Event(ShimEvent::Exited { container, exit }) => {
                    self.crew_exited(&mut crew, &container, exit).await;
                }
                Happened::Event(ShimEvent::Disconnected) => {
                    if let Some(order) = self.lost(&mut held).await {
                        crew.forget();
                        self.journal.stopping(order.code, order.reason);
                        return TaskPhase::TearingDown { left: held };
                    }
                    if let Some(order) = self.lease_over(&held).await {
                        return self.end(held, crew, order.code, order.reason).await;
                    }
                }
                Happened::Event(ShimEvent::LeaseOver) => {
                    let order = expired(&self.orders.borrow().lease);
                    return self.end(held, crew, order.code, order.reason).await;
                }
                Happened::Done(done) => {
                    if let Some(End { code, reason }) = self.done(&held, &mut crew, done).await {
                        return self.end(held, crew, Some(code), reason).await;
                    }
                }
                Happened::Order(order) => return self.end(held, crew, order.code, order.reason).await,
                Happened::Adjust => self.adjust().await,
                Happened::Time => self.kill_overdue(&held, &mut crew).await,
            }
        }
    }

    async fn next(&mut self, held: &mut Held, crew: &mut Crew) -> Happened {
        let timer = crew.next_timer(&self.journal.record);
        let Some(link) = &mut held.link else { return Happened::Time };
        let mut orders = self.orders.clone();
        let Crew { jobs, alarm, .. } = crew;
        tokio::select! {
            // All may be dropped: a channel keeps its event, a job stays in its set, an order stays an
            // order, a deadline where it is.
            event = link.events.recv() => Happened::Event(event.unwrap_or(ShimEvent::Disconnected)),
            Some(done) = jobs.next(), if !jobs.is_empty() => Happened::Done(done),
            order = told_to_stop(&mut self.orders) => Happened::Order(order),
            () = adjust::wanted(&mut orders, &self.journal.record) => Happened::Adjust,
            () = async {
                match timer {
                    Some(at) => alarm.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => Happened::Time,
        }
    }

    /// Whether what the record knows ends the task.
    fn has_to_end(&self) -> Option<End> {
        let record = &self.journal.record;
        let all_ended = record.containers.iter().all(|c| c.status == ContainerStatus::Stopped);
        let failed = record.containers.iter().find_map(|c| {
            (c.essential && c.status == ContainerStatus::Stopped && c.exit.is_none()).then_some(&c.reason)
        });
        match failed {
            Some(reason) if record.started_at_unix_ms.is_none() => Some(End {
                code: StopCode::TaskFailedToStart,
                reason: reason.clone().unwrap_or_else(|| ESSENTIAL_EXITED.to_owned()),
            }),
            _ if record.essential_ended() || all_ended => {
                Some(End { code: StopCode::EssentialContainerExited, reason: ESSENTIAL_EXITED.to_owned() })
            }
            _ => None,
        }
    }

    /// Starts that are under way come to their end first: nothing may start behind a stop's back. One that
    /// does not, or not before an order to kill, is ended.
    async fn end(
        &mut self,
        mut held: Held,
        mut crew: Crew,
        code: Option<StopCode>,
        reason: String,
    ) -> TaskPhase {
        crew.drop_what_may_be_dropped();
        // What is started in a cgroup that stands still does not answer.
        self.thaw().await;
        let mut orders = self.orders.clone();
        let (mut killed, mut deadline) = (false, BootInstant::now().after(START_ENDS));
        while !crew.starting.is_empty() {
            let done = tokio::select! {
                // All may be dropped: a job stays in its set, an order stays an order.
                done = crew.jobs.next() => done,
                () = told_to_kill(&mut orders), if !killed => None,
                () = sleep_until(deadline) => None,
            };
            match done {
                Some(done) => drop(self.done(&held, &mut crew, done).await),
                // Teardown kills by the cgroups what is left.
                None if killed => break,
                None => {
                    kill_starting(&held, &crew.starting).await;
                    (killed, deadline) = (true, BootInstant::now().after(KILLED_START_ENDS));
                }
            }
        }
        while let Some(ShimEvent::Exited { container, exit }) =
            held.link.as_mut().and_then(|link| link.events.try_recv().ok())
        {
            let clock = self.clock();
            self.journal.exited(&container, exit, Some(&clock));
        }
        self.journal.stopping(code, reason);
        TaskPhase::Stopping { held }
    }

    /// Commits and reports what the last turn has changed. RUNNING is told before it is written: until
    /// then the shim itself says what runs.
    async fn keep_and_tell(&mut self, crew: &mut Crew) {
        let record = &mut self.journal.record;
        if crew.all_begun(record) && record.status < TaskStatus::Running {
            record.started_at_unix_ms.get_or_insert_with(unix_ms);
            self.journal.status(TaskStatus::Running);
            (crew.news, crew.keep) = (true, true);
        }
        // The first round is over: what is left to start is started from its bundle.
        if crew.starting.is_empty() && self.journal.record.step < Step::Running {
            (crew.news, crew.keep) = (true, true);
        }
        if std::mem::take(&mut crew.news) {
            self.journal.tell().await;
        }
        if std::mem::take(&mut crew.keep) {
            self.journal.commit_or_warn(Step::Running).await;
        }
    }

    async fn crew_exited(&mut self, crew: &mut Crew, container: &ContainerName, exit: ContainerExit) {
        if crew.starting.contains(container) {
            // It ended before the answer to its start is here.
            crew.early_exits.insert(container.clone(), exit);
            return;
        }
        let clock = self.clock();
        self.journal.exited(container, exit, Some(&clock));
        crew.endings.retain(|ending| ending.container != *container);
        let record = self.journal.record.container_mut(container);
        if let Some(at) = record.and_then(|record| record.life.again_at_boot_ms) {
            let pause = Duration::from_millis(at.saturating_sub(clock.boot_ms));
            let ends_by = "its pause is over";
            let what = "being started again, as its restart policy says";
            self.journal.log.wait(WaitKind::Restart, Some(container), what, Some(pause), ends_by);
            // The attempt is on record before the shim's own record of it is removed for the next.
            self.journal.commit_or_warn(Step::Running).await;
        }
        crew.news = true;
    }

    /// An exit while the task stops.
    pub(super) async fn container_exited(&mut self, container: &ContainerName, exit: ContainerExit) {
        self.journal.exited(container, exit, None);
        self.journal.tell().await;
    }

    /// The connection is gone. The order to stop, if one comes before the shim has answered.
    async fn lost(&mut self, held: &mut Held) -> Option<StopOrder> {
        let mut orders = self.orders.clone();
        // Dropped, it has only asked; the question is asked again by whoever goes on.
        let link = tokio::select! {
            link = self.reconnect() => Some(link),
            _ = told_to_stop(&mut orders) => None,
        };
        match link {
            Some(link) => {
                held.link = link;
                self.note_monitor(Some(held));
                None
            }
            None => {
                held.link = None;
                self.stop_order()
            }
        }
    }

    /// A new connection to the shim, or `None` when it is gone; its exit records are noted.
    pub(super) async fn reconnect(&mut self) -> Option<ShimLink> {
        let link = self.ask_until_it_answers().await;
        self.journal.log.wait_over(WaitKind::Monitor, None);
        link
    }

    async fn ask_until_it_answers(&mut self) -> Option<ShimLink> {
        loop {
            match self.context.facilities.runtime.adopt(self.task()).await {
                Ok(Found::Alive { link, status }) => {
                    let clock = self.clock();
                    self.journal.record.take_status(&status, &clock);
                    self.journal.tell().await;
                    return Some(link);
                }
                Ok(Found::Ended { exits }) => {
                    exits.into_iter().for_each(|(name, exit)| self.journal.exited(&name, exit, None));
                    return None;
                }
                Ok(Found::Nothing) => return None,
                Ok(Found::Silent) => sleep(ASK_AGAIN).await,
                Err(error) => {
                    let (what, ends_by) = ("the task's monitor to answer", "it answers, or its process ends");
                    if self.journal.log.wait(WaitKind::Monitor, None, what, None, ends_by) {
                        self.journal.tell().await;
                    }
                    tracing::warn!(task = %self.task(), cause = %chain(error.as_ref()), "the task's monitor does not answer; asking again");
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

/// The reason of a task whose shim is gone: an essential container's exit if that is known.
pub(crate) fn monitor_gone(record: &mut TaskRecord) {
    if record.essential_ended() {
        record.stopping(Some(StopCode::EssentialContainerExited), ESSENTIAL_EXITED);
    } else {
        record.stopping(Some(StopCode::InfrastructureHealth), MONITOR_GONE);
    }
}

/// Those that do not come to the end of their start.
async fn kill_starting(held: &Held, starting: &BTreeSet<ContainerName>) {
    let Some(link) = &held.link else { return };
    for container in starting {
        if let Err(error) = link.shim.kill(container).await {
            tracing::warn!(%container, cause = %chain(error.as_ref()), "a start that hangs was not killed");
        }
    }
}
