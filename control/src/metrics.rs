//! The control plane's numbers, for Prometheus: what they are, and the listener that shows them.
//! In: commits as they are timed; the committed view and the sessions when a scrape asks.
//! Out: text. Owns the listener's connections. docs/telemetry.md lists the names.
//! Never: a label without bound; a number that is not durable.

use crate::api::{Context, now_ms};
use crate::core::Command;
use crate::core::mutation::Changes;
use crate::core::recovery::is_awaited;
use crate::error::ApiError;
use crate::store::Level;
use crate::waiting::Reason;
use lighter_model::status::TaskStatus;
use lighter_telemetry::http::{Answer, Question, serve};
use lighter_telemetry::metrics::{CONTENT_TYPE, Family, Kind, Metrics};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const CONNECTIONS_MAX: usize = 8;
/// A store that takes longer for one commit is in trouble.
const READY_LIMIT: Duration = Duration::from_secs(2);
/// From an SSD's fsync to a disk that is in trouble, in seconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const TASKS: &str = "lighter_control_tasks";
const INSTANCES: &str = "lighter_control_container_instances";
const QUEUE: &str = "lighter_control_queue_length";
const QUEUED: &str = "lighter_control_queued_tasks";
const QUEUED_OLDEST: &str = "lighter_control_queue_oldest_seconds";
const SESSIONS: &str = "lighter_control_sessions";
const TERM: &str = "lighter_control_term";
const LEADER: &str = "lighter_control_leader";
const BRAKES: &str = "lighter_control_replacement_brakes";
pub(crate) const REPLACED: &str = "lighter_control_tasks_replaced_total";
const STORE_BYTES: &str = "lighter_control_store_bytes";
const STORE_FULL: &str = "lighter_control_store_full";
const STORE_LIMIT: &str = "lighter_control_store_limit_bytes";
const EVENT_SEQUENCE: &str = "lighter_control_event_sequence";
pub(crate) const COMMIT_SECONDS: &str = "lighter_control_store_commit_seconds";
pub(crate) const GROUP_RECORDS: &str = "lighter_control_store_group_records";
pub(crate) const DECISION_SECONDS: &str = "lighter_control_decision_seconds";
/// Records of a group, up to what one transaction may hold.
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0, 128.0];
/// A decision is memory only.
const DECISIONS: &[f64] = &[0.000_005, 0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.1];
pub(crate) const COMMITS: &str = "lighter_control_store_commits_total";

const FAMILIES: &[Family] = &[
    Family { name: TASKS, help: "Tasks that are kept, by last status.", kind: Kind::Gauge },
    Family { name: INSTANCES, help: "Container instances, by connection.", kind: Kind::Gauge },
    Family { name: QUEUE, help: "Commands that wait for the writer.", kind: Kind::Gauge },
    Family { name: QUEUED, help: "Tasks that wait in the queue for room.", kind: Kind::Gauge },
    Family {
        name: QUEUED_OLDEST,
        help: "How long the one that came first has waited in the queue; 0: none waits.",
        kind: Kind::Gauge,
    },
    Family { name: SESSIONS, help: "Nodes with a live session.", kind: Kind::Gauge },
    Family { name: TERM, help: "The term this control plane leads in.", kind: Kind::Gauge },
    Family { name: LEADER, help: "1 while this control plane leads.", kind: Kind::Gauge },
    Family { name: STORE_BYTES, help: "Size of the store.", kind: Kind::Gauge },
    Family { name: STORE_LIMIT, help: "Size the store may grow to; 0: unknown.", kind: Kind::Gauge },
    Family {
        name: STORE_FULL,
        help: "1: no new work is accepted; 2: the reserve is used up.",
        kind: Kind::Gauge,
    },
    Family {
        name: BRAKES,
        help: "Clusters in which too many nodes are silent for lost tasks to be replaced.",
        kind: Kind::Gauge,
    },
    Family { name: REPLACED, help: "Tasks of silent nodes that were replaced.", kind: Kind::Counter },
    Family { name: GROUP_RECORDS, help: "Records of a committed group.", kind: Kind::Histogram(RECORDS) },
    Family { name: DECISION_SECONDS, help: "Deciding one command.", kind: Kind::Histogram(DECISIONS) },
    Family { name: EVENT_SEQUENCE, help: "Number of the last event.", kind: Kind::Gauge },
    Family { name: COMMIT_SECONDS, help: "Commits of groups to the store.", kind: Kind::Histogram(SECONDS) },
    Family { name: COMMITS, help: "Commits of groups, by outcome.", kind: Kind::Counter },
];

pub(crate) fn new() -> Metrics {
    Metrics::new(FAMILIES)
}

/// What the listener shows: a reason until the control plane serves, then its numbers.
#[derive(Default)]
pub(crate) struct Starting {
    pub(crate) reason: Reason,
    context: OnceLock<Context>,
}

impl Starting {
    /// From now on the control plane serves.
    pub(crate) fn done(&self, context: &Context) {
        self.context.get_or_init(|| context.clone());
    }
}

/// Serves `/metrics`, `/livez` and `/readyz` until the token is cancelled; the address that was bound.
pub(crate) async fn start(
    starting: Arc<Starting>,
    address: SocketAddr,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let handler = move |question: Question| {
        let starting = starting.clone();
        async move { answer(&starting, &question).await }
    };
    // Ends with the token; nobody waits for it.
    tokio::spawn(serve(listener, CONNECTIONS_MAX, handler, stop));
    Ok(bound)
}

/// A command that changes nothing: answered when the writer decides and the store commits.
#[derive(Debug)]
struct Probe;

impl Command for Probe {
    type Answer = ();
    fn decide(self, _changes: &mut Changes<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Ready: a command gets through, so the state is loaded, this one leads, and its store commits.
async fn ready(context: &Context) -> Answer {
    if context.stop.is_cancelled() {
        return Answer::text(503, "shutting down\n");
    }
    match tokio::time::timeout(READY_LIMIT, context.writer.submit(Probe)).await {
        // What runs is served all the same: a probe that failed would take that away as well.
        Ok(Ok(())) if context.writer.room().level() > Level::Free => {
            Answer::text(200, format!("ready, but {}\n", context.writer.room().refusal()))
        }
        Ok(Ok(())) => Answer::text(200, readiness(context)),
        Ok(Err(error)) => Answer::text(503, format!("{error}\n")),
        Err(_) => Answer::text(503, "the store does not commit\n"),
    }
}

/// Nodes that this store has not heard get no tasks; all else is served.
fn readiness(context: &Context) -> String {
    let awaited = context.view.read(|shown| {
        let instances = shown.state.instances.values();
        instances.filter(|instance| is_awaited(instance, &shown.incarnation)).count()
    });
    match awaited {
        0 => "ready\n".to_owned(),
        nodes => format!("ready; {nodes} nodes have not said hello since the store was set back or moved\n"),
    }
}

async fn answer(starting: &Starting, question: &Question) -> Answer {
    match (question.path.as_str(), starting.context.get()) {
        ("/livez", _) => Answer::text(200, "alive\n"),
        ("/metrics", Some(context)) => numbers(context),
        ("/readyz", Some(context)) => ready(context).await,
        ("/metrics" | "/readyz", None) => Answer::text(503, format!("{}\n", starting.reason.text())),
        _ => Answer::text(404, "ask for /metrics, /livez or /readyz\n"),
    }
}

fn numbers(context: &Context) -> Answer {
    let (tasks, connected, away, brakes, sequence, term) = context.view.read(|shown| {
        let state = &shown.state;
        let count = |status: TaskStatus| state.tasks.values().filter(|task| task.last == status).count();
        let tasks: Vec<_> = TaskStatus::ALL.iter().map(|status| (status.as_str(), count(*status))).collect();
        let connected = state.instances.values().filter(|instance| instance.connected).count();
        let brakes = state.clusters.values().filter(|cluster| cluster.brake.is_some()).count();
        (tasks, connected, state.instances.len() - connected, brakes, state.meta.event_sequence, shown.term)
    });
    let metrics = context.writer.metrics();
    let rows = tasks.into_iter().map(|(status, count)| (vec![("status", status.to_owned())], count as f64));
    metrics.replace(TASKS, rows.collect());
    for (state, count) in [("true", connected), ("false", away)] {
        metrics.set(INSTANCES, &[("connected", state)], count as f64);
    }
    let (queued, oldest_s) = queued(context);
    metrics.set(QUEUED, &[], queued as f64);
    metrics.set(QUEUED_OLDEST, &[], oldest_s);
    metrics.set(BRAKES, &[], brakes as f64);
    metrics.set(QUEUE, &[], context.writer.queued() as f64);
    metrics.set(SESSIONS, &[], context.sessions.connected().len() as f64);
    metrics.set(TERM, &[], term as f64);
    let leads = context.writer.leadership().check().is_ok();
    metrics.set(LEADER, &[], f64::from(u8::from(leads)));
    let room = context.writer.room();
    metrics.set(STORE_BYTES, &[], room.size().used_bytes as f64);
    metrics.set(STORE_LIMIT, &[], room.size().limit_bytes as f64);
    metrics.set(STORE_FULL, &[], f64::from(room.level() as u8));
    metrics.set(EVENT_SEQUENCE, &[], sequence as f64);
    Answer { status: 200, content_type: CONTENT_TYPE, body: metrics.render().into_bytes() }
}

/// How many tasks wait in queues, and for how many seconds the oldest of them.
fn queued(context: &Context) -> (usize, f64) {
    context.view.read(|shown| {
        let (state, now) = (&shown.state, now_ms(context, shown));
        let turns = || state.queue().values().flatten();
        let created = turns().filter_map(|turn| Some(state.tasks.get(&turn.task)?.times.created_at)).min();
        (turns().count(), created.map_or(0.0, |at| now.saturating_sub(at) as f64 / 1_000.0))
    })
}
