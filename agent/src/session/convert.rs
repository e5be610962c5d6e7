//! The one place where the model meets the wire: both directions, field by field, no wildcard.
//! In: messages, or values of the model. Out: the other. Pure.
//! A message that does not make sense is an error that names the field.
//! Never: lets a type of `lighter_proto` that stands beside a model type out to another file.

use super::NodeFacts;
use crate::assignment::Assignment;
use crate::facilities::{ImageRow, LogLine, LogOrigin, PullOrder, PullStep};
use crate::reconcile::{HelloFacts, Inbound, LocalTask, Outbound};
use crate::store::records::InstanceStanding;
use lighter_model::adjust::ContainerResources;
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::health::{ContainerHealth, HealthStatus, task_health};
use lighter_model::ids::{ContainerName, Generation, TaskId};
use lighter_model::node::{Notice, NoticeKind};
use lighter_model::overrides::TaskOverride;
use lighter_model::report::{ContainerReport, KernelLimits, NetworkBinding, TaskReport};
use lighter_model::resources::{GrantedDevice, Resources};
use lighter_model::status::{ContainerInstanceStatus, ContainerStatus, DesiredStatus, StopCode, TaskStatus};
use lighter_model::task_definition::{PullBehavior, TaskDefinition, TransportProtocol};
use lighter_model::task_event::TaskEvent;
use lighter_model::wait::Wait;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message as Control;
use lighter_proto::v1::node_message::Message as Node;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The one version of the protocol this agent speaks.
const PROTOCOL: u32 = 1;
/// The word that says this agent answers an AskTaskEvents.
const JOURNALS_FEATURE: &str = "journals";
/// Answers OpenStream.
const STREAMS_FEATURE: &str = "streams";
/// This agent understands how the control plane sees its node (`InstanceState`).
const STATE_FEATURE: &str = "instance-state";
/// It says when a log has ended.
const LOG_END_FEATURE: &str = "log-end";
/// It keeps leases: without it a task with one must not be assigned.
const LEASES_FEATURE: &str = "leases";
const HEARTBEAT_MS_DEFAULT: u64 = 5_000;

/// Which field of a message makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not valid")]
pub(crate) struct ConvertError {
    field: &'static str,
    value: String,
}

/// The control plane's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ControlHello {
    pub term: u64,
    pub incarnation: String,
    pub heartbeat: Duration,
}

/// What is wanted of a log, and the stream that waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogRequest {
    pub stream_id: String,
    pub task: TaskId,
    pub containers: Vec<ContainerName>,
    pub follow: bool,
    pub tail_lines: Option<u32>,
    pub since_unix_ms: u64,
}

/// A message of the control plane.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Received {
    Hello(ControlHello),
    HeartbeatAnswer {
        number: u64,
        term: u64,
    },
    ManifestChunk {
        revision: u64,
        assignments: Vec<Assignment>,
        last: bool,
    },
    OpenLogStream(LogRequest),
    /// Read where it is served, so that an order this agent does not know is refused alone.
    OpenStream(v1::OpenStream),
    AskTaskEvents {
        question_id: String,
        task: TaskId,
    },
    Message(Inbound),
}

fn wrong(field: &'static str, value: impl ToString) -> ConvertError {
    ConvertError { field, value: value.to_string() }
}

fn parse<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, ConvertError> {
    text.parse().map_err(|_| wrong(field, text))
}

pub(super) fn received(message: v1::ControlMessage) -> Result<Received, ConvertError> {
    let message = message.message.ok_or_else(|| wrong("message", "nothing"))?;
    Ok(match message {
        Control::Hello(hello) => Received::Hello(control_hello(hello)?),
        Control::HeartbeatAnswer(answer) => {
            Received::HeartbeatAnswer { number: answer.number, term: answer.term }
        }
        Control::Manifest(chunk) => Received::ManifestChunk {
            revision: chunk.revision,
            assignments: assignments(chunk.assignments),
            last: chunk.last_chunk,
        },
        Control::Assignments(delta) => {
            let (revision, assignments) = (delta.revision, assignments(delta.assignments));
            Received::Message(Inbound::Assignments { revision, assignments })
        }
        Control::Definitions(list) => {
            let read = |d: v1::Definition| Ok((parse("task_definition", &d.task_definition)?, d.json));
            Received::Message(Inbound::Definitions(readable(list.definitions, read)))
        }
        Control::ReportsApplied(list) => {
            let read = |a: v1::AppliedReport| Ok((parse("task_id", &a.task_id)?, a.sequence));
            Received::Message(Inbound::Applied(readable(list.applied, read)))
        }
        Control::StopConfirmed(list) => {
            let read = |id: String| parse("task_id", &id);
            Received::Message(Inbound::StopConfirmed(readable(list.task_ids, read)))
        }
        Control::InstanceState(state) => Received::Message(Inbound::InstanceState(standing(state)?)),
        Control::OpenLogStream(open) => Received::OpenLogStream(log_request(open)?),
        Control::OpenStream(open) => Received::OpenStream(open),
        Control::AskTaskEvents(ask) => {
            Received::AskTaskEvents { question_id: ask.question_id, task: parse("task_id", &ask.task_id)? }
        }
    })
}

fn standing(state: v1::InstanceState) -> Result<InstanceStanding, ConvertError> {
    let status = match state.status() {
        v1::ContainerInstanceStatus::Unspecified => return Err(wrong("status", state.status)),
        v1::ContainerInstanceStatus::Registering => ContainerInstanceStatus::Registering,
        v1::ContainerInstanceStatus::RegistrationFailed => ContainerInstanceStatus::RegistrationFailed,
        v1::ContainerInstanceStatus::Active => ContainerInstanceStatus::Active,
        v1::ContainerInstanceStatus::Draining => ContainerInstanceStatus::Draining,
        v1::ContainerInstanceStatus::Deregistering => ContainerInstanceStatus::Deregistering,
        v1::ContainerInstanceStatus::Inactive => ContainerInstanceStatus::Inactive,
    };
    let deadline_unix_ms = u64::try_from(state.deadline_unix_ms).ok().filter(|at| *at > 0);
    Ok(InstanceStanding { status, reason: state.reason, deadline_unix_ms })
}

/// How the control plane sees this node, on the local socket.
pub(crate) fn instance_status(status: ContainerInstanceStatus) -> v1::ContainerInstanceStatus {
    match status {
        ContainerInstanceStatus::Registering => v1::ContainerInstanceStatus::Registering,
        ContainerInstanceStatus::RegistrationFailed => v1::ContainerInstanceStatus::RegistrationFailed,
        ContainerInstanceStatus::Active => v1::ContainerInstanceStatus::Active,
        ContainerInstanceStatus::Draining => v1::ContainerInstanceStatus::Draining,
        ContainerInstanceStatus::Deregistering => v1::ContainerInstanceStatus::Deregistering,
        ContainerInstanceStatus::Inactive => v1::ContainerInstanceStatus::Inactive,
    }
}

pub(crate) fn notice(notice: &Notice) -> v1::Notice {
    let kind = match notice.kind {
        NoticeKind::SpotInterruption => v1::NoticeKind::SpotInterruption,
        NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
    };
    v1::Notice {
        id: notice.id.clone(),
        kind: kind.into(),
        at_unix_ms: time(Some(notice.at_unix_ms)),
        detail: notice.detail.clone(),
        stop_tasks_at_unix_ms: time(notice.stop_tasks_at_unix_ms),
    }
}

/// A notice given on this node; its id is made of the rest.
pub(crate) fn notice_of(message: v1::Notice) -> Result<Notice, ConvertError> {
    let kind = match message.kind() {
        v1::NoticeKind::SpotInterruption => NoticeKind::SpotInterruption,
        v1::NoticeKind::Maintenance => NoticeKind::Maintenance,
        v1::NoticeKind::Unspecified => return Err(wrong("kind", message.kind)),
    };
    let at_unix_ms = u64::try_from(message.at_unix_ms).unwrap_or(0);
    let id = format!("{} {at_unix_ms} {}", kind.as_str(), message.detail);
    Ok(Notice { id, kind, at_unix_ms, detail: message.detail, stop_tasks_at_unix_ms: None })
}

pub(super) fn node_state(facts: &NodeFacts, offered: &Resources, notices: &[Notice]) -> v1::NodeMessage {
    node(Node::NodeState(state(facts, offered, notices)))
}

fn state(facts: &NodeFacts, offered: &Resources, notices: &[Notice]) -> v1::NodeState {
    let attributes = facts.attributes.iter();
    let attributes = attributes.map(|(name, value)| v1::Attribute {
        name: name.clone(),
        value: value.clone(),
        ..Default::default()
    });
    v1::NodeState {
        resources: Some(resources(offered)),
        attributes: attributes.collect(),
        name: facts.name.clone(),
        notices: notices.iter().map(notice).collect(),
    }
}

fn control_hello(hello: v1::ControlHello) -> Result<ControlHello, ConvertError> {
    if hello.protocol != PROTOCOL {
        return Err(wrong("protocol", hello.protocol));
    }
    let ms = if hello.heartbeat_interval_ms == 0 {
        HEARTBEAT_MS_DEFAULT
    } else {
        hello.heartbeat_interval_ms.into()
    };
    Ok(ControlHello {
        term: hello.term,
        incarnation: hello.incarnation,
        heartbeat: Duration::from_millis(ms),
    })
}

/// Those that can be read; the others are refused alone and named in the log.
fn readable<M, T>(list: Vec<M>, read: impl Fn(M) -> Result<T, ConvertError>) -> Vec<T> {
    let read = list.into_iter().map(read);
    read.filter_map(|item| {
        item.inspect_err(|error| tracing::error!(%error, "the control plane sent an item that makes no sense; it is left out"))
            .ok()
    })
    .collect()
}

/// All whose task can be told; what else cannot be read is named in them, for the task's report.
fn assignments(list: Vec<v1::Assignment>) -> Vec<Assignment> {
    readable(list, |message| {
        assignment(&message).or_else(|error| {
            tracing::error!(%error, "the control plane sent an assignment that this agent cannot read");
            Ok(Assignment { unreadable: Some(error.to_string()), ..understood(&message)? })
        })
    })
}

/// What needs no more than the parts that never change.
fn understood(message: &v1::Assignment) -> Result<Assignment, ConvertError> {
    let stopped = message.desired_status() == v1::DesiredStatus::Stopped;
    let named = parse("task_definition", &message.task_definition);
    Ok(Assignment {
        task: parse("task_id", &message.task_id)?,
        generation: Generation(message.generation),
        desired: if stopped { DesiredStatus::Stopped } else { DesiredStatus::Running },
        definition: named.or_else(|_| parse("task_definition", "unknown:1"))?,
        stop_code: stop_code_of(message.stop_code()),
        stop_reason: message.stop_reason.clone(),
        stop_force: message.stop_force,
        forget: message.forget,
        group: message.group.clone(),
        paused: false,
        resources: Vec::new(),
        image_digests: BTreeMap::new(),
        // A bad one is no reason not to run the task.
        trace_parent: message.trace_parent.parse().ok(),
        lease_s: message.lease_s,
        overrides: TaskOverride::default(),
        unreadable: None,
    })
}

fn assignment(message: &v1::Assignment) -> Result<Assignment, ConvertError> {
    let desired = match message.desired_status() {
        v1::DesiredStatus::Running => DesiredStatus::Running,
        v1::DesiredStatus::Stopped => DesiredStatus::Stopped,
        v1::DesiredStatus::Unspecified => return Err(wrong("desired_status", message.desired_status)),
    };
    Ok(Assignment {
        desired,
        definition: parse("task_definition", &message.task_definition)?,
        paused: message.paused,
        resources: message.container_resources.iter().map(container_resources).collect::<Result<_, _>>()?,
        image_digests: image_digests(&message.image_digests)?,
        overrides: TaskOverride::parse(&message.overrides_json)
            .map_err(|_| wrong("overrides_json", &message.overrides_json))?,
        ..understood(message)?
    })
}

fn container_resources(message: &v1::ContainerResources) -> Result<ContainerResources, ConvertError> {
    Ok(ContainerResources {
        container: parse("container", &message.container)?,
        cpu_units: message.cpu_units,
        memory_mib: message.memory_mib,
    })
}

/// A pull that a person asked for; `nodes_own` is the node's behaviour.
pub(crate) fn pull_order(
    request: v1::PullImageRequest,
    nodes_own: PullBehavior,
) -> Result<PullOrder, ConvertError> {
    let behavior = pull_behavior(&request.pull_behavior)?.unwrap_or(nodes_own);
    Ok(PullOrder { reference: request.image, behavior })
}

/// `None`: none was said.
pub(super) fn pull_behavior(text: &str) -> Result<Option<PullBehavior>, ConvertError> {
    match text {
        "" => Ok(None),
        text => PullBehavior::parse(text).map(Some).ok_or_else(|| wrong("pull_behavior", text)),
    }
}

pub(crate) fn pull_progress(image: &str, step: &PullStep) -> v1::PullProgress {
    v1::PullProgress {
        container: String::new(),
        image: image.to_owned(),
        bytes_done: step.bytes_done,
        bytes_total: step.bytes_total,
        layers_done: step.layers_done,
        layers_total: step.layers_total,
        finished: step.finished,
    }
}

pub(crate) fn local_image(row: ImageRow) -> v1::LocalImage {
    v1::LocalImage {
        reference: row.reference,
        image_digest: row.image_digest,
        config_digest: row.config_digest,
        platform: row.platform,
        size_bytes: row.size_bytes,
        in_use: row.in_use,
        from_registry: row.from_registry,
        last_used_at_unix_ms: i64::try_from(row.last_used_unix_ms).unwrap_or(i64::MAX),
    }
}

fn image_digests(map: &HashMap<String, String>) -> Result<BTreeMap<ContainerName, String>, ConvertError> {
    map.iter().map(|(name, digest)| Ok((parse("image_digests", name)?, digest.clone()))).collect()
}

fn log_request(open: v1::OpenLogStream) -> Result<LogRequest, ConvertError> {
    let names = if open.containers.is_empty() { vec![open.container] } else { open.containers };
    let containers: Result<Vec<ContainerName>, _> =
        names.iter().map(|name| parse("container", name)).collect();
    Ok(LogRequest {
        stream_id: open.stream_id,
        task: parse("task_id", &open.task_id)?,
        containers: containers?,
        follow: open.follow,
        tail_lines: open.tail_lines,
        since_unix_ms: u64::try_from(open.since_unix_ms).unwrap_or(0),
    })
}

fn node(message: Node) -> v1::NodeMessage {
    v1::NodeMessage { message: Some(message) }
}

pub(super) fn hello(facts: &NodeFacts, core: &HelloFacts, notices: &[Notice]) -> v1::NodeMessage {
    let tasks = core.tasks.iter().map(|held| v1::HeldTask {
        task_id: held.task.to_string(),
        generation: held.generation.0,
        last_status: task_status(held.status).into(),
        task_definition: held.definition.to_string(),
        resources: held.resources.as_ref().map(resources),
        group: held.group.clone(),
    });
    let revisions = core.revisions.iter().map(|(family, revision)| (family.to_string(), *revision));
    node(Node::Hello(v1::NodeHello {
        protocol: Some(v1::ProtocolRange { min: PROTOCOL, max: PROTOCOL }),
        features: [STREAMS_FEATURE, JOURNALS_FEATURE, STATE_FEATURE, LOG_END_FEATURE, LEASES_FEATURE]
            .map(str::to_owned)
            .into(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: facts.boot_id.clone(),
        agent_run_id: facts.run_id.clone(),
        term: core.term,
        incarnation: core.incarnation.clone(),
        revision: core.revision,
        state: Some(state(facts, &core.offered, notices)),
        tasks: tasks.collect(),
        revisions: revisions.collect(),
    }))
}

pub(super) fn heartbeat(number: u64) -> v1::NodeMessage {
    node(Node::Heartbeat(v1::Heartbeat { number }))
}

pub(super) fn outbound(message: Outbound) -> v1::NodeMessage {
    node(match message {
        Outbound::Acknowledge(sequence) => Node::Acknowledge(v1::Acknowledge { sequence }),
        Outbound::Reports(reports) => {
            Node::TaskReports(v1::TaskReports { reports: reports.into_iter().map(report).collect() })
        }
        Outbound::ConfirmStop(tasks) => {
            Node::ConfirmStop(v1::ConfirmStop { task_ids: tasks.into_iter().map(String::from).collect() })
        }
    })
}

pub(crate) fn resources(resources: &Resources) -> v1::Resources {
    let ports = |protocol| {
        let ports = resources.host_ports.iter().filter(move |port| port.protocol == protocol);
        ports.map(|port| port.port.into()).collect()
    };
    v1::Resources {
        cpu_units: resources.cpu_units,
        memory_mib: resources.memory_mib,
        ports_tcp: ports(TransportProtocol::Tcp),
        ports_udp: ports(TransportProtocol::Udp),
        devices: resources.devices.clone().into_iter().collect(),
    }
}

fn time(at: Option<u64>) -> i64 {
    at.and_then(|at| i64::try_from(at).ok()).unwrap_or(0)
}

fn wait(wait: Wait) -> v1::Wait {
    v1::Wait {
        kind: wait.kind.to_string(),
        container: wait.container.map(|name| name.to_string()).unwrap_or_default(),
        what: wait.what,
        since_unix_ms: time(Some(wait.since_unix_ms)),
        until_unix_ms: time(wait.until_unix_ms),
        ends_by: wait.ends_by,
    }
}

/// The answer to a question for a task's events.
pub(super) fn task_events(question_id: String, events: Vec<TaskEvent>) -> v1::NodeMessage {
    let events = events.into_iter().map(|event| v1::TaskEvent {
        time_unix_ms: time(Some(event.time_unix_ms)),
        kind: event.kind.to_string(),
        container: event.container.map(|name| name.to_string()).unwrap_or_default(),
        text: event.text,
        took_ms: event.took_ms.unwrap_or(0),
        from_node: true,
    });
    let events = v1::TaskEvents { question_id, events: events.collect() };
    v1::NodeMessage { message: Some(v1::node_message::Message::TaskEvents(events)) }
}

fn report(report: TaskReport) -> v1::TaskReport {
    v1::TaskReport {
        task_id: report.task.to_string(),
        sequence: report.sequence,
        last_status: task_status(report.status).into(),
        stop_code: report.stop_code.map_or(v1::StopCode::Unspecified, stop_code).into(),
        stopped_reason: report.stopped_reason.unwrap_or_default(),
        waiting_reason: report.waiting_reason.unwrap_or_default(),
        waits: report.waits.into_iter().map(wait).collect(),
        containers: report.containers.into_iter().map(container).collect(),
        pull_started_at_unix_ms: time(report.pull_started_at_unix_ms),
        pull_stopped_at_unix_ms: time(report.pull_stopped_at_unix_ms),
        started_at_unix_ms: time(report.started_at_unix_ms),
        stopping_at_unix_ms: time(report.stopping_at_unix_ms),
        execution_stopped_at_unix_ms: time(report.execution_stopped_at_unix_ms),
        stopped_at_unix_ms: time(report.stopped_at_unix_ms),
        paused: report.paused,
        settled_generation: report.settled.0,
        refusal: report.refusal.unwrap_or_default(),
    }
}

fn container(container: ContainerReport) -> v1::Container {
    v1::Container {
        name: container.name.to_string(),
        // The control plane knows both from the definition.
        image: String::new(),
        essential: false,
        last_status: container_status(container.status).into(),
        exit_code: container.exit.as_ref().map(|exit| exit.status.exit_code()),
        exit: container.exit.map(exit),
        reason: container.reason.unwrap_or_default(),
        pid: container.pid.unwrap_or(0),
        image_digest: container.image_digest.unwrap_or_default(),
        address: container.address.unwrap_or_default(),
        network_bindings: container.network_bindings.into_iter().map(binding).collect(),
        limits: Some(limits(&container.limits)),
        health: container.health.map(health),
        restart_count: container.restart_count,
        last_exit: container.last_exit.map(exit),
        devices: container.devices.into_iter().map(device).collect(),
    }
}

fn device(device: GrantedDevice) -> v1::GrantedDevice {
    v1::GrantedDevice { kind: device.kind, id: device.id }
}

fn health_status(status: HealthStatus) -> v1::HealthStatus {
    match status {
        HealthStatus::Unknown => v1::HealthStatus::Unknown,
        HealthStatus::Healthy => v1::HealthStatus::Healthy,
        HealthStatus::Unhealthy => v1::HealthStatus::Unhealthy,
    }
}

fn health(health: ContainerHealth) -> v1::ContainerHealth {
    v1::ContainerHealth {
        status: health_status(health.status).into(),
        since_unix_ms: time(Some(health.since_unix_ms)),
        failing_streak: health.failing_streak,
        last_end: health.last_end,
        last_output: health.last_output,
    }
}

fn exit(exit: ContainerExit) -> v1::ContainerExit {
    let status = match exit.status {
        ExitStatus::Exited(code) => v1::container_exit::Status::Exited(code),
        ExitStatus::Signaled(signal) => v1::container_exit::Status::Signaled(signal),
    };
    v1::ContainerExit {
        status: Some(status),
        oom_killed: exit.oom_killed,
        finished_at_unix_ms: time(Some(exit.finished_at_unix_ms)),
    }
}

fn binding(binding: NetworkBinding) -> v1::NetworkBinding {
    let protocol = match binding.protocol {
        TransportProtocol::Tcp => v1::TransportProtocol::Tcp,
        TransportProtocol::Udp => v1::TransportProtocol::Udp,
    };
    v1::NetworkBinding {
        bind_ip: binding.bind_ip,
        container_port: binding.container_port.into(),
        host_port: binding.host_port.into(),
        protocol: protocol.into(),
    }
}

fn limits(limits: &KernelLimits) -> v1::KernelLimits {
    v1::KernelLimits {
        cpu_quota_us: limits.cpu_quota_us,
        cpu_period_us: limits.cpu_period_us,
        cpu_weight: limits.cpu_weight,
        memory_max_bytes: limits.memory_max_bytes,
        pids_max: limits.pids_max,
    }
}

fn task_status(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Provisioning => v1::TaskStatus::Provisioning,
        TaskStatus::Pending => v1::TaskStatus::Pending,
        TaskStatus::Activating => v1::TaskStatus::Activating,
        TaskStatus::Running => v1::TaskStatus::Running,
        TaskStatus::Deactivating => v1::TaskStatus::Deactivating,
        TaskStatus::Stopping => v1::TaskStatus::Stopping,
        TaskStatus::Deprovisioning => v1::TaskStatus::Deprovisioning,
        TaskStatus::Stopped => v1::TaskStatus::Stopped,
    }
}

fn container_status(status: ContainerStatus) -> v1::ContainerStatus {
    match status {
        ContainerStatus::Pending => v1::ContainerStatus::Pending,
        ContainerStatus::Running => v1::ContainerStatus::Running,
        ContainerStatus::Stopped => v1::ContainerStatus::Stopped,
    }
}

fn stop_code(code: StopCode) -> v1::StopCode {
    match code {
        StopCode::TaskFailedToStart => v1::StopCode::TaskFailedToStart,
        StopCode::EssentialContainerExited => v1::StopCode::EssentialContainerExited,
        StopCode::UserInitiated => v1::StopCode::UserInitiated,
        StopCode::ServiceSchedulerInitiated => v1::StopCode::ServiceSchedulerInitiated,
        StopCode::SpotInterruption => v1::StopCode::SpotInterruption,
        StopCode::TerminationNotice => v1::StopCode::TerminationNotice,
        StopCode::InfrastructureHealth => v1::StopCode::InfrastructureHealth,
    }
}

fn stop_code_of(code: v1::StopCode) -> Option<StopCode> {
    match code {
        v1::StopCode::Unspecified => None,
        v1::StopCode::TaskFailedToStart => Some(StopCode::TaskFailedToStart),
        v1::StopCode::EssentialContainerExited => Some(StopCode::EssentialContainerExited),
        v1::StopCode::UserInitiated => Some(StopCode::UserInitiated),
        v1::StopCode::ServiceSchedulerInitiated => Some(StopCode::ServiceSchedulerInitiated),
        v1::StopCode::SpotInterruption => Some(StopCode::SpotInterruption),
        v1::StopCode::TerminationNotice => Some(StopCode::TerminationNotice),
        v1::StopCode::InfrastructureHealth => Some(StopCode::InfrastructureHealth),
    }
}

pub(super) fn log_batch(stream_id: &str, lines: Vec<LogLine>) -> v1::SendLogsRequest {
    let lines = lines.into_iter().map(|line| {
        let source = match line.origin {
            LogOrigin::Stdout => v1::LogSource::Stdout,
            LogOrigin::Stderr => v1::LogSource::Stderr,
            LogOrigin::Marker => v1::LogSource::Marker,
        };
        v1::LogLine {
            container: line.container,
            time_unix_ns: line.time_unix_ns,
            source: source.into(),
            line: line.line,
            partial: line.partial,
        }
    });
    v1::SendLogsRequest { stream_id: stream_id.to_owned(), lines: lines.collect(), ..Default::default() }
}

/// A task as the local socket shows it.
pub(crate) fn local_task(task: LocalTask, cluster: &str, container_instance: &str) -> v1::Task {
    let LocalTask { assignment, report: known, needs, definition, runs: _ } = task;
    let desired = match assignment.desired {
        DesiredStatus::Running => v1::DesiredStatus::Running,
        DesiredStatus::Stopped => v1::DesiredStatus::Stopped,
    };
    let health = local_health(known.as_ref(), definition.as_deref());
    let known = known.map(report).unwrap_or_default();
    let needs = needs.unwrap_or_default();
    v1::Task {
        task_id: assignment.task.to_string(),
        cluster: cluster.to_owned(),
        task_definition: assignment.definition.to_string(),
        container_instance_id: container_instance.to_owned(),
        desired_status: desired.into(),
        last_status: known.last_status,
        stop_code: known.stop_code,
        stopped_reason: known.stopped_reason,
        waiting_reason: known.waiting_reason,
        waits: known.waits,
        group: assignment.group,
        containers: known.containers,
        version: known.sequence,
        cpu_units: needs.cpu_units,
        memory_mib: needs.memory_mib,
        pull_started_at_unix_ms: known.pull_started_at_unix_ms,
        pull_stopped_at_unix_ms: known.pull_stopped_at_unix_ms,
        started_at_unix_ms: known.started_at_unix_ms,
        stopping_at_unix_ms: known.stopping_at_unix_ms,
        execution_stopped_at_unix_ms: known.execution_stopped_at_unix_ms,
        stopped_at_unix_ms: known.stopped_at_unix_ms,
        health_status: health_status(health).into(),
        ..v1::Task::default()
    }
}

fn local_health(known: Option<&TaskReport>, definition: Option<&TaskDefinition>) -> HealthStatus {
    let essential = |name: &ContainerName| {
        let mut containers = definition.iter().flat_map(|definition| &definition.container_definitions);
        containers.any(|container| container.name == *name && container.essential)
    };
    let containers = known.iter().flat_map(|report| &report.containers);
    task_health(containers.map(|c| (essential(&c.name), c.health.as_ref().map(|health| health.status))))
}

/// The id of a task in a local question.
pub(crate) fn task_id(text: &str) -> Result<TaskId, ConvertError> {
    parse("task_id", text)
}
