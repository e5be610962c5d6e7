//! The agent's numbers over HTTP, for Prometheus.
//! In: scrapes. Out: text. What is a state and no count (tasks by status, the session, queues,
//! containers) is read when it is asked for. Owns the listener's connections.
//! Never: more than one reading of a container for a scrape; labels of tasks unless asked for.

use super::families;
use super::task_log::Snapshot;
use crate::errors::chain;
use crate::facilities::Probe;
use crate::log_driver::LogDriverTotals;
use crate::reconcile::QUEUE_DEPTH;
use crate::session::SessionStatus;
use crate::task::TaskContext;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::status::{ContainerStatus, TaskStatus};
use lighter_telemetry::http::{Answer, serve};
use lighter_telemetry::metrics::{CONTENT_TYPE, SERIES_MAX};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

const CONNECTIONS_MAX: usize = 8;

type Rows = Vec<(Vec<(&'static str, String)>, f64)>;

/// Serves until the agent leaves; a result only when it cannot.
pub(crate) async fn start(
    context: Arc<TaskContext>,
    session: watch::Receiver<SessionStatus>,
) -> Option<Probe> {
    let address = context.config.metrics_address.clone();
    if address.is_empty() {
        return None;
    }
    match TcpListener::bind(&address).await {
        Ok(listener) => {
            let leaving = context.leaving.clone();
            let handler = move |question: lighter_telemetry::http::Question| {
                let (context, session) = (context.clone(), session.clone());
                async move {
                    if question.path != "/metrics" {
                        return Answer::text(404, "ask for /metrics\n");
                    }
                    refresh(&context, &session).await;
                    let body = context.telemetry.metrics.render().into_bytes();
                    Answer { status: 200, content_type: CONTENT_TYPE, body }
                }
            };
            // Ends when the agent leaves; nobody waits for it.
            tokio::spawn(serve(listener, CONNECTIONS_MAX, handler, leaving));
            None
        }
        Err(error) => Some(Probe {
            name: "metrics",
            ok: false,
            detail: format!("{address} cannot be served: {}", chain(&error)),
            mend: "set metrics_address to another address".to_owned(),
            vital: false,
        }),
    }
}

async fn refresh(context: &TaskContext, session: &watch::Receiver<SessionStatus>) {
    let metrics = &context.telemetry.metrics;
    let snapshots = context.telemetry.snapshots();
    let count = |status: TaskStatus| snapshots.iter().filter(|s| s.record.status == status).count() as f64;
    let rows = TaskStatus::ALL.iter();
    let rows: Rows = rows.map(|s| (vec![("status", s.as_str().to_owned())], count(*s))).collect();
    metrics.replace(families::TASKS, rows);
    metrics.set(families::SESSION, &[], f64::from(u8::from(session.borrow().connected)));
    let queued = QUEUE_DEPTH.saturating_sub(context.reconciler.capacity());
    metrics.set(families::QUEUE, &[], queued as f64);
    metrics.set(families::SPANS_DROPPED, &[], context.telemetry.tracer.dropped() as f64);
    log_drivers(context).await;
    if context.config.metrics_containers {
        containers(context, &snapshots).await;
    }
}

async fn log_drivers(context: &TaskContext) {
    let metrics = &context.telemetry.metrics;
    let (totals, behind) = (context.logs.totals(), context.logs.behind().await);
    let by_driver = |value: &dyn Fn(&LogDriverTotals) -> f64| -> Rows {
        totals.iter().map(|row| (vec![("driver", row.driver.to_owned())], value(row))).collect()
    };
    metrics.replace(families::LOG_RECORDS_SENT, by_driver(&|row| row.sent_records as f64));
    metrics.replace(families::LOG_BYTES_SENT, by_driver(&|row| row.sent_bytes as f64));
    metrics.replace(families::LOG_RECORDS_LOST, by_driver(&|row| row.lost_records as f64));
    metrics.replace(families::LOG_RECORDS_REFUSED, by_driver(&|row| row.refused_records as f64));
    metrics.replace(families::LOG_SEND_FAILURES, by_driver(&|row| row.failed_sends as f64));
    let containers = |row: &LogDriverTotals| of_driver(&behind, row.driver).count() as f64;
    metrics.replace(families::LOG_CONTAINERS, by_driver(&containers));
    let bytes = |row: &LogDriverTotals| of_driver(&behind, row.driver).sum::<u64>() as f64;
    metrics.replace(families::LOG_BEHIND_BYTES, by_driver(&bytes));
}

fn of_driver<'a>(behind: &'a [(String, u64)], driver: &'a str) -> impl Iterator<Item = u64> + 'a {
    behind.iter().filter(move |(of, _)| of == driver).map(|(_, bytes)| *bytes)
}

async fn containers(context: &TaskContext, snapshots: &[Snapshot]) {
    let (mut cpu, mut memory, mut throttled, mut oom) = (Rows::new(), Rows::new(), Rows::new(), Rows::new());
    for (task, name, family) in running(snapshots).into_iter().take(SERIES_MAX) {
        let Ok(Some(stats)) = context.facilities.runtime.stats(&task, Some(&name)).await else { continue };
        let labels =
            || vec![("task", task.to_string()), ("container", name.to_string()), ("family", family.clone())];
        cpu.push((labels(), stats.cpu.usage_ns as f64 / 1e9));
        memory.push((labels(), stats.memory.current_bytes as f64));
        throttled.push((labels(), stats.cpu.throttled_ns as f64 / 1e9));
        oom.push((labels(), stats.memory.oom_kills as f64));
    }
    let metrics = &context.telemetry.metrics;
    metrics.replace(families::CONTAINER_CPU, cpu);
    metrics.replace(families::CONTAINER_MEMORY, memory);
    metrics.replace(families::CONTAINER_THROTTLED, throttled);
    metrics.replace(families::CONTAINER_OOM, oom);
}

fn running(snapshots: &[Snapshot]) -> Vec<(TaskId, ContainerName, String)> {
    let mut all = Vec::new();
    for snapshot in snapshots {
        for container in snapshot.record.containers.iter().filter(|c| c.status == ContainerStatus::Running) {
            let family = snapshot.definition.family.to_string();
            all.push((snapshot.record.task.clone(), container.name.clone(), family));
        }
    }
    all
}
