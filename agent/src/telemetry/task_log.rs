//! One task's log: its journal, what it waits for now, the spans and timings of its steps.
//! In: what its actor and the actor's strands note. Out: journal lines, waits, metrics, spans.
//! Owns: the newest `KEPT` lines, the waits, the file. Clones are the same log; the lock is held for
//! a list operation and one append to the page cache, never over an await.
//! Never: decides anything; keeps a step open when its guard is dropped.

use super::file::{EventFile, KEPT};
use super::{Telemetry, families};
use crate::lease::Lease;
use crate::metadata::ids::{MetadataKey, container_id};
use crate::store::records::TaskRecord;
use crate::time::{BootInstant, unix_ms};
use lighter_model::ids::{ContainerName, TaskDefinitionId, TaskId};
use lighter_model::task_definition::TaskDefinition;
use lighter_model::task_event::{TaskEvent, TaskEventKind};
use lighter_model::trace_context::TraceParent;
use lighter_model::wait::{Wait, WaitKind};
use lighter_telemetry::metrics::Metrics;
use lighter_telemetry::trace::{Span, Tracer};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A line longer than this is cut: error chains quote what others say.
const TEXT_BYTES_MAX: usize = 2048;

/// A task as its actor last told it.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub record: Arc<TaskRecord>,
    pub definition: Arc<TaskDefinition>,
    pub definition_id: TaskDefinitionId,
}

#[derive(Default)]
struct Published {
    record: Option<Arc<TaskRecord>>,
    definition: Option<Arc<TaskDefinition>>,
    definition_id: Option<TaskDefinitionId>,
    /// The caller's span, which the task's spans are below.
    trace_parent: Option<TraceParent>,
    /// Ids by which containers ask for their metadata.
    ids: Vec<(String, ContainerName)>,
    /// As its monitor keeps it.
    lease: Lease,
}

struct State {
    published: Published,
    events: VecDeque<TaskEvent>,
    file: EventFile,
    lines_in_file: usize,
    waits: Vec<Wait>,
    /// Number of the next span, and when the start under way began.
    spans: u64,
    started: Option<Opened>,
}

/// A span under way.
#[derive(Debug, Clone, Copy)]
struct Opened {
    number: u64,
    at: BootInstant,
    unix_ms: u64,
}

struct Inner {
    task: TaskId,
    metrics: Metrics,
    tracer: Tracer,
    state: Mutex<State>,
    waits_changed: Notify,
}

/// See the file's header.
#[derive(Clone)]
pub(crate) struct TaskLog {
    inner: Arc<Inner>,
}

impl TaskLog {
    /// Goes on with what the file has. Reads it.
    pub(super) fn open(task: &TaskId, file: EventFile, telemetry: &Telemetry) -> Self {
        let events: VecDeque<TaskEvent> = file.read().into();
        let state = State {
            published: Published::default(),
            lines_in_file: events.len(),
            events,
            file,
            waits: Vec::new(),
            spans: 0,
            started: None,
        };
        let inner = Inner {
            task: task.clone(),
            metrics: telemetry.metrics.clone(),
            tracer: telemetry.tracer.clone(),
            state: Mutex::new(state),
            waits_changed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which definition it is of, and whose trace it belongs to.
    pub(crate) fn identify(&self, definition_id: &TaskDefinitionId, trace_parent: Option<TraceParent>) {
        let published = &mut self.state().published;
        published.definition_id = Some(definition_id.clone());
        published.trace_parent = trace_parent;
    }

    /// The task's definition, and the ids of its containers.
    pub(crate) fn define(&self, definition: &Arc<TaskDefinition>, key: &MetadataKey) {
        let mut state = self.state();
        if state.published.definition.is_some() {
            return;
        }
        let names = definition.container_definitions.iter().map(|container| container.name.clone());
        let ids = names.map(|name| (container_id(key, &self.inner.task, &name), name));
        state.published.ids = ids.collect();
        state.published.definition = Some(definition.clone());
    }

    /// How the task stands.
    pub(crate) fn publish(&self, record: &TaskRecord) {
        self.state().published.record = Some(Arc::new(record.clone()));
    }

    /// The task's monitor keeps this lease.
    pub(crate) fn leased(&self, lease: Lease) {
        self.state().published.lease = lease;
    }

    /// The container with this id.
    pub(super) fn container(&self, id: &str) -> Option<ContainerName> {
        let state = self.state();
        state.published.ids.iter().find(|(known, _)| known == id).map(|(_, name)| name.clone())
    }

    /// `None` before the task is defined and has said anything.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let state = self.state();
        Some(Snapshot {
            record: state.published.record.clone()?,
            definition: state.published.definition.clone()?,
            definition_id: state.published.definition_id.clone()?,
        })
    }

    /// Writes a line down.
    pub(crate) fn event(
        &self,
        kind: TaskEventKind,
        container: Option<&ContainerName>,
        text: impl Into<String>,
    ) {
        self.line(kind, container, text.into(), None);
    }

    fn line(
        &self,
        kind: TaskEventKind,
        container: Option<&ContainerName>,
        mut text: String,
        took: Option<Duration>,
    ) {
        if text.len() > TEXT_BYTES_MAX {
            let cut = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(cut);
        }
        self.inner.metrics.add(families::EVENTS, &[("kind", kind.as_str())], 1.0);
        let took_ms = took.map(|took| took.as_millis() as u64);
        let event = TaskEvent { time_unix_ms: unix_ms(), kind, container: container.cloned(), text, took_ms };
        let mut state = self.state();
        let state = &mut *state;
        if state.events.len() == KEPT {
            state.events.pop_front();
        }
        state.events.push_back(event);
        if state.lines_in_file >= 2 * KEPT {
            state.file.replace(state.events.iter());
            state.lines_in_file = state.events.len();
        } else if let Some(event) = state.events.back() {
            state.file.append(event);
            state.lines_in_file += 1;
        }
    }

    /// The journal, oldest first.
    pub(crate) fn events(&self) -> Vec<TaskEvent> {
        let state = self.state();
        let stops = state.published.record.as_ref().is_some_and(|record| record.stopped_reason.is_some());
        let lease = state.published.lease.as_event().filter(|_| !stops);
        state.events.iter().cloned().chain(lease).collect()
    }

    /// The task, or a container of it, waits from now on; the same wait said again keeps its
    /// beginning. `within`: when it ends by itself at the latest. True: there is something to tell.
    pub(crate) fn wait(
        &self,
        kind: WaitKind,
        container: Option<&ContainerName>,
        what: impl Into<String>,
        within: Option<Duration>,
        ends_by: &str,
    ) -> bool {
        let now = unix_ms();
        let mut wait = Wait {
            kind,
            container: container.cloned(),
            what: what.into(),
            since_unix_ms: now,
            until_unix_ms: within.map(|within| now.saturating_add(within.as_millis() as u64)),
            ends_by: ends_by.to_owned(),
        };
        let mut state = self.state();
        let line = match state.waits.iter_mut().find(|known| known.is_same(&wait)) {
            Some(known) => {
                wait.since_unix_ms = known.since_unix_ms;
                let new = known.what != wait.what;
                *known = wait.clone();
                new
            }
            None => {
                state.waits.push(wait.clone());
                true
            }
        };
        drop(state);
        if line {
            self.event(TaskEventKind::WaitBegun, container, wait.what);
            self.inner.waits_changed.notify_one();
        }
        line
    }

    /// The wait is over; nothing happens when there was none.
    pub(crate) fn wait_over(&self, kind: WaitKind, container: Option<&ContainerName>) {
        let mut state = self.state();
        let place =
            state.waits.iter().position(|wait| wait.kind == kind && wait.container.as_ref() == container);
        let Some(over) = place.map(|place| state.waits.remove(place)) else { return };
        drop(state);
        let took = Duration::from_millis(unix_ms().saturating_sub(over.since_unix_ms));
        self.line(TaskEventKind::WaitEnded, container, over.what, Some(took));
        self.inner.waits_changed.notify_one();
    }

    /// No wait of these kinds is left: the part of life they belong to is over.
    pub(crate) fn waits_over(&self, kinds: &[WaitKind]) {
        for wait in self.waits().into_iter().filter(|wait| kinds.contains(&wait.kind)) {
            self.wait_over(wait.kind, wait.container.as_ref());
        }
    }

    /// Everything the task waits for now.
    pub(crate) fn waits(&self) -> Vec<Wait> {
        self.state().waits.clone()
    }

    /// Returns when a wait has begun, changed or ended since the last call. May be dropped.
    pub(crate) async fn waits_changed(&self) {
        self.inner.waits_changed.notified().await;
    }

    /// A commit of the task's record took so long.
    pub(crate) fn committed(&self, took: Duration) {
        self.inner.metrics.observe(families::COMMIT_SECONDS, &[], took.as_secs_f64());
    }

    /// The task is admitted: the span of its start begins.
    pub(crate) fn start_begun(&self) {
        let opened = self.opened();
        self.state().started = Some(opened);
    }

    /// The task is running, or cannot be started. Only the first call after `start_begun` counts.
    pub(crate) fn start_ended(&self, error: Option<&str>) {
        let Some(opened) = self.state().started.take() else { return };
        let took = elapsed(opened.at);
        let result = if error.is_none() { "ok" } else { "failed" };
        self.inner.metrics.add(families::STARTS, &[("result", result)], 1.0);
        if error.is_none() {
            self.inner.metrics.observe(families::START_SECONDS, &[], took.as_secs_f64());
        }
        self.span("task start", opened, took, None, error, true);
    }

    /// A step begins. Say how it ended with `done` or `failed`; a guard that is dropped was given up.
    pub(crate) fn step(&self, name: &'static str, container: Option<&ContainerName>) -> StepGuard {
        self.event(TaskEventKind::StepStarted, container, name);
        let opened = self.opened();
        StepGuard { log: self.clone(), name, container: container.cloned(), opened, ended: false }
    }

    fn opened(&self) -> Opened {
        let mut state = self.state();
        state.spans += 1;
        Opened { number: state.spans, at: BootInstant::now(), unix_ms: unix_ms() }
    }

    fn span(
        &self,
        name: &str,
        opened: Opened,
        took: Duration,
        container: Option<&ContainerName>,
        error: Option<&str>,
        root: bool,
    ) {
        let caller = self.state().published.trace_parent;
        // Where the caller records nothing, its callees do not either.
        if !self.inner.tracer.is_on() || caller.is_some_and(|caller| !caller.sampled) {
            return;
        }
        // Without a caller the trace is the task: its id is 128 bits already. The root's span id
        // follows from it, so that spans may end before it, and those of a later agent find it.
        let task = u128::from_str_radix(self.inner.task.as_str(), 16).unwrap_or(0);
        let own = |id: u64| (id ^ task as u64).to_be_bytes();
        let root_span = own(u64::from_be_bytes(ROOT_SPAN));
        let start_unix_ns = opened.unix_ms.saturating_mul(1_000_000);
        let mut attributes = vec![("lighter.task.id", self.inner.task.to_string())];
        attributes.extend(container.map(|name| ("lighter.container.name", name.to_string())));
        self.inner.tracer.finish(Span {
            trace_id: caller.map_or(task.to_be_bytes(), |caller| caller.trace_id),
            span_id: if root { root_span } else { own(span_number(opened)) },
            parent_span_id: match root {
                true => caller.map_or([0; 8], |caller| caller.span_id),
                false => root_span,
            },
            name: name.to_owned(),
            start_unix_ns,
            end_unix_ns: start_unix_ns.saturating_add(took.as_nanos() as u64),
            attributes,
            error: error.map(str::to_owned),
        });
    }
}

const ROOT_SPAN: [u8; 8] = *b"lighter0";

/// Unique within the task: milliseconds of the begin and a number that counts within one agent.
fn span_number(opened: Opened) -> u64 {
    (opened.unix_ms << 16) | (opened.number & 0xffff)
}

fn elapsed(since: BootInstant) -> Duration {
    BootInstant::now().since(since)
}

/// A step under way.
pub(crate) struct StepGuard {
    log: TaskLog,
    name: &'static str,
    container: Option<ContainerName>,
    opened: Opened,
    ended: bool,
}

impl StepGuard {
    pub(crate) fn done(mut self) {
        self.end(None);
    }

    pub(crate) fn failed(mut self, why: &str) {
        self.end(Some(why));
    }

    /// Ends it as the result says.
    pub(crate) fn result<T, E: std::fmt::Display>(self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.done(),
            Err(error) => self.failed(&error.to_string()),
        }
    }

    fn end(&mut self, error: Option<&str>) {
        self.ended = true;
        let took = elapsed(self.opened.at);
        let labels = [("step", self.name)];
        self.log.inner.metrics.observe(families::STEP_SECONDS, &labels, took.as_secs_f64());
        let (kind, text) = match error {
            None => (TaskEventKind::StepEnded, self.name.to_owned()),
            Some(why) => {
                self.log.inner.metrics.add(families::STEP_FAILURES, &labels, 1.0);
                (TaskEventKind::Error, format!("{}: {why}", self.name))
            }
        };
        self.log.line(kind, self.container.as_ref(), text, Some(took));
        self.log.span(self.name, self.opened, took, self.container.as_ref(), error, false);
    }
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Some("given up"));
        }
    }
}

#[cfg(test)]
mod tests;
