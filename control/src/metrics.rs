//! The control plane's numbers, for Prometheus: what they are, and the listener that shows them.
//! In: commits as they are timed; the committed view and the sessions when a scrape asks.
//! Out: text. Owns the listener's connections. docs/telemetry.md lists the names.
//! Never: a label without bound; a number that is not durable.

use crate::api::Context;
use lighter_model::status::TaskStatus;
use lighter_telemetry::http::{Answer, Question, serve};
use lighter_telemetry::metrics::{CONTENT_TYPE, Family, Kind, Metrics};
use std::net::SocketAddr;
use tokio::net::TcpListener;

const CONNECTIONS_MAX: usize = 8;
/// From an SSD's fsync to a disk that is in trouble, in seconds.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

const TASKS: &str = "lighter_control_tasks";
const INSTANCES: &str = "lighter_control_container_instances";
const QUEUE: &str = "lighter_control_queue_length";
const EVENT_SEQUENCE: &str = "lighter_control_event_sequence";
pub(crate) const COMMIT_SECONDS: &str = "lighter_control_store_commit_seconds";
pub(crate) const COMMITS: &str = "lighter_control_store_commits_total";

const FAMILIES: &[Family] = &[
    Family { name: TASKS, help: "Tasks that are kept, by last status.", kind: Kind::Gauge },
    Family { name: INSTANCES, help: "Container instances, by connection.", kind: Kind::Gauge },
    Family { name: QUEUE, help: "Commands that wait for the writer.", kind: Kind::Gauge },
    Family { name: EVENT_SEQUENCE, help: "Number of the last event.", kind: Kind::Gauge },
    Family { name: COMMIT_SECONDS, help: "Commits of groups to the store.", kind: Kind::Histogram(SECONDS) },
    Family { name: COMMITS, help: "Commits of groups, by outcome.", kind: Kind::Counter },
];

pub(crate) fn new() -> Metrics {
    Metrics::new(FAMILIES)
}

/// Serves `/metrics` until the context's token is cancelled; the address that was bound.
pub(crate) async fn start(context: Context, address: SocketAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let stop = context.stop.clone();
    let handler = move |question: Question| {
        let answer = answer(&context, &question);
        async move { answer }
    };
    // Ends with the token; nobody waits for it.
    tokio::spawn(serve(listener, CONNECTIONS_MAX, handler, stop));
    Ok(bound)
}

fn answer(context: &Context, question: &Question) -> Answer {
    if question.path != "/metrics" {
        return Answer::text(404, "ask for /metrics\n");
    }
    let (tasks, connected, away, sequence) = context.view.read(|shown| {
        let state = &shown.state;
        let count = |status: TaskStatus| state.tasks.values().filter(|task| task.last == status).count();
        let tasks: Vec<_> = TaskStatus::ALL.iter().map(|status| (status.as_str(), count(*status))).collect();
        let connected = state.instances.values().filter(|instance| instance.connected).count();
        (tasks, connected, state.instances.len() - connected, state.meta.event_sequence)
    });
    let metrics = context.writer.metrics();
    let rows = tasks.into_iter().map(|(status, count)| (vec![("status", status.to_owned())], count as f64));
    metrics.replace(TASKS, rows.collect());
    for (state, count) in [("true", connected), ("false", away)] {
        metrics.set(INSTANCES, &[("connected", state)], count as f64);
    }
    metrics.set(QUEUE, &[], context.writer.queued() as f64);
    metrics.set(EVENT_SEQUENCE, &[], sequence as f64);
    Answer { status: 200, content_type: CONTENT_TYPE, body: metrics.render().into_bytes() }
}
