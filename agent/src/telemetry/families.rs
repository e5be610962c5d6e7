//! The numbers of the agent, by name; docs/telemetry.md lists them. Never: a label without bound.

use lighter_telemetry::metrics::{Family, Kind};

/// From a cached start to a pull over a slow line, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

pub(crate) const TASKS: &str = "lighter_agent_tasks";
pub(crate) const STARTS: &str = "lighter_agent_task_starts_total";
pub(crate) const START_SECONDS: &str = "lighter_agent_start_seconds";
pub(crate) const STEP_SECONDS: &str = "lighter_agent_step_seconds";
pub(crate) const STEP_FAILURES: &str = "lighter_agent_step_failures_total";
pub(crate) const EVENTS: &str = "lighter_agent_task_events_total";
pub(crate) const PULLS: &str = "lighter_agent_pulls_total";
pub(crate) const PULLED_BYTES: &str = "lighter_agent_pulled_bytes_total";
pub(crate) const SESSION: &str = "lighter_agent_session_connected";
pub(crate) const QUEUE: &str = "lighter_agent_reconciler_queue_length";
pub(crate) const COMMIT_SECONDS: &str = "lighter_agent_store_commit_seconds";
pub(crate) const SPANS_DROPPED: &str = "lighter_agent_spans_dropped_total";
pub(crate) const LOG_RECORDS_SENT: &str = "lighter_agent_log_records_sent_total";
pub(crate) const LOG_BYTES_SENT: &str = "lighter_agent_log_bytes_sent_total";
pub(crate) const LOG_RECORDS_LOST: &str = "lighter_agent_log_records_lost_total";
pub(crate) const LOG_RECORDS_REFUSED: &str = "lighter_agent_log_records_refused_total";
pub(crate) const LOG_SEND_FAILURES: &str = "lighter_agent_log_send_failures_total";
pub(crate) const LOG_CONTAINERS: &str = "lighter_agent_log_containers";
pub(crate) const LOG_BEHIND_BYTES: &str = "lighter_agent_log_behind_bytes";
pub(crate) const CONTAINER_CPU: &str = "lighter_container_cpu_seconds_total";
pub(crate) const CONTAINER_MEMORY: &str = "lighter_container_memory_bytes";
pub(crate) const CONTAINER_THROTTLED: &str = "lighter_container_cpu_throttled_seconds_total";
pub(crate) const CONTAINER_OOM: &str = "lighter_container_oom_kills_total";

pub(crate) const FAMILIES: &[Family] = &[
    Family { name: TASKS, help: "Tasks of this node, by last status.", kind: Kind::Gauge },
    Family { name: STARTS, help: "Tasks that were started or could not be.", kind: Kind::Counter },
    Family {
        name: START_SECONDS,
        help: "From the admission of a task to its RUNNING.",
        kind: Kind::Histogram(SECONDS),
    },
    Family { name: STEP_SECONDS, help: "Steps of tasks.", kind: Kind::Histogram(SECONDS) },
    Family { name: STEP_FAILURES, help: "Steps of tasks that failed.", kind: Kind::Counter },
    Family {
        name: EVENTS,
        help: "Lines of task journals, by kind: HEALTH are changes of health, RESTART restarts.",
        kind: Kind::Counter,
    },
    Family { name: PULLS, help: "Pulls of images.", kind: Kind::Counter },
    Family { name: PULLED_BYTES, help: "Bytes of layers fetched.", kind: Kind::Counter },
    Family { name: SESSION, help: "1 with a session to the control plane.", kind: Kind::Gauge },
    Family { name: QUEUE, help: "Inputs that wait for the reconciler.", kind: Kind::Gauge },
    Family {
        name: COMMIT_SECONDS,
        help: "Commits of the agent's store, as their askers wait for them.",
        kind: Kind::Histogram(SECONDS),
    },
    Family { name: SPANS_DROPPED, help: "Spans that did not reach the collector.", kind: Kind::Gauge },
    Family {
        name: LOG_RECORDS_SENT,
        help: "Records of logs that a sink has taken, by driver; one sent twice counts twice.",
        kind: Kind::Counter,
    },
    Family { name: LOG_BYTES_SENT, help: "Bytes of the text of those records.", kind: Kind::Counter },
    Family {
        name: LOG_RECORDS_LOST,
        help: "Records that left the ring on disk before they were sent.",
        kind: Kind::Counter,
    },
    Family { name: LOG_RECORDS_REFUSED, help: "Records a sink will not take.", kind: Kind::Counter },
    Family {
        name: LOG_SEND_FAILURES,
        help: "Batches that a sink did not take and that are sent again.",
        kind: Kind::Counter,
    },
    Family { name: LOG_CONTAINERS, help: "Containers whose log is being sent.", kind: Kind::Gauge },
    Family {
        name: LOG_BEHIND_BYTES,
        help: "Bytes of rings on disk that are still to be sent.",
        kind: Kind::Gauge,
    },
    Family { name: CONTAINER_CPU, help: "CPU time of running containers.", kind: Kind::Counter },
    Family { name: CONTAINER_MEMORY, help: "Memory of running containers.", kind: Kind::Gauge },
    Family { name: CONTAINER_THROTTLED, help: "Time stopped by the CPU quota.", kind: Kind::Counter },
    Family { name: CONTAINER_OOM, help: "Processes killed for want of memory.", kind: Kind::Counter },
];
