//! Between the node service's messages and our own types; here and in the crate's `convert` only.
//! In: NodeMessage. Out: `NodeSaid`; and ControlMessages from records. Never: decides anything.

mod size;

use super::hello::Hello;
use super::logs::LogRequest;
use super::questions::Question;
use super::streams::{Said, StreamRequest};
use crate::core::instance::NodeFacts;
use crate::core::join::check_name;
use crate::core::record::{DefinitionRecord, InstanceRecord, OrphanFacts, TaskRecord};
use crate::error::{ApiError, StreamFault};
use lighter_model::attribute;
use lighter_model::exit::{ContainerExit, ExitStatus};
use lighter_model::health::{ContainerHealth, HealthStatus};
use lighter_model::ids::{Family, Generation, IdError, TaskId};
use lighter_model::node::{Notice, NoticeKind};
use lighter_model::report::{ContainerReport, KernelLimits, NetworkBinding, TaskReport};
use lighter_model::resources::{GrantedDevice, HostPort, Resources};
use lighter_model::status::{ContainerStatus, DesiredStatus, StopCode, TaskStatus};
use lighter_model::task_definition::{TransportProtocol, input};
use lighter_model::task_event::{TaskEvent, TaskEventKind};
use lighter_model::wait::{Wait, WaitKind};
use lighter_proto::v1;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lines as they travel.
pub type LogBatch = Vec<v1::LogLine>;
/// What a person sends on a stream, as it travels.
pub type StreamInput = v1::StreamInput;
/// What a node sends on a stream, as it travels.
pub type StreamOutput = v1::StreamOutput;
/// What a stream is for, as it travels.
pub type StreamOrder = v1::StreamOrder;
/// Counters of a node's containers, as they travel.
pub type StatsSample = v1::StatsSample;
/// What a node says of its images, as it travels.
pub type ImageReport = v1::ImageReport;
/// What is sent to a node.
pub type Outgoing = v1::ControlMessage;
/// On its way to the transport. Boxed: a channel has room for 32 at once, for each of thousands of nodes.
pub type Sent = Result<Box<Outgoing>, tonic::Status>;

/// The largest message of a manifest, in bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Attributes of one node: ECS's built-in ones, its capabilities and its own.
const ATTRIBUTES_MAX: usize = 256;

/// What a node says within a session.
#[derive(Debug)]
pub enum NodeSaid {
    /// Boxed: it comes once a session and is many times as large as the others.
    Hello(Box<Hello>),
    Heartbeat(u64),
    Acknowledge(u64),
    Reports(Vec<TaskReport>),
    ConfirmStop(Vec<TaskId>),
    State(NodeFacts),
    /// The answer to the question of this id.
    TaskEvents(String, Vec<TaskEvent>),
}

fn wrong(message: impl Into<String>) -> ApiError {
    ApiError::ProtocolViolation { message: message.into() }
}

/// A word of an enum; one that is not known here is refused, not taken for the default.
fn known<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, ApiError> {
    E::try_from(value).map_err(|_| wrong(format!("{value} is no {field}")))
}

fn task_id(text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|error: IdError| wrong(error.to_string()))
}

/// Reads one message.
pub fn node_said(message: v1::NodeMessage) -> Result<NodeSaid, ApiError> {
    use v1::node_message::Message;
    Ok(match message.message.ok_or_else(|| wrong("an empty message, or one of a newer agent"))? {
        Message::Hello(hello) => NodeSaid::Hello(Box::new(read_hello(hello)?)),
        Message::Heartbeat(heartbeat) => NodeSaid::Heartbeat(heartbeat.number),
        Message::Acknowledge(acknowledge) => NodeSaid::Acknowledge(acknowledge.sequence),
        Message::TaskReports(reports) => {
            NodeSaid::Reports(reports.reports.into_iter().map(read_report).collect::<Result<_, _>>()?)
        }
        Message::ConfirmStop(stop) => {
            NodeSaid::ConfirmStop(stop.task_ids.iter().map(|id| task_id(id)).collect::<Result<_, _>>()?)
        }
        Message::NodeState(state) => NodeSaid::State(read_state(state)?),
        Message::TaskEvents(answer) => {
            NodeSaid::TaskEvents(answer.question_id, answer.events.into_iter().map(read_event).collect())
        }
    })
}

fn read_hello(hello: v1::NodeHello) -> Result<Hello, ApiError> {
    size::hello(&hello)?;
    let protocol = hello.protocol.unwrap_or_default();
    Ok(Hello {
        protocol_min: protocol.min,
        protocol_max: protocol.max,
        agent_version: hello.agent_version,
        boot_id: hello.boot_id,
        run_id: hello.agent_run_id,
        features: hello.features,
        term: hello.term,
        incarnation: hello.incarnation,
        revision: hello.revision,
        facts: read_state(hello.state.unwrap_or_default())?,
        held: held(&hello.tasks)?,
        tasks: hello.tasks.iter().map(orphan_facts).collect::<Result<_, _>>()?,
        revisions: read_revisions(hello.revisions)?,
    })
}

fn held(tasks: &[v1::HeldTask]) -> Result<BTreeMap<TaskId, Generation>, ApiError> {
    let read = |task: &v1::HeldTask| {
        size::generation(task.generation)?;
        Ok((task_id(&task.task_id)?, Generation(task.generation)))
    };
    tasks.iter().map(read).collect()
}

fn orphan_facts(task: &v1::HeldTask) -> Result<(TaskId, OrphanFacts), ApiError> {
    let definition = text(task.task_definition.clone()).map(|name| name.parse()).transpose();
    let facts = OrphanFacts {
        definition: definition.map_err(|error: IdError| wrong(error.to_string()))?,
        last: read_task_status(known("last_status", task.last_status)?),
        resources: read_resources(&task.resources.clone().unwrap_or_default())?,
        group: task.group.clone(),
    };
    Ok((task_id(&task.task_id)?, facts))
}

fn read_revisions(revisions: HashMap<String, u32>) -> Result<BTreeMap<Family, u32>, ApiError> {
    let read = |(family, revision): (String, u32)| Ok((family.parse()?, revision));
    let read: Result<_, IdError> = revisions.into_iter().map(read).collect();
    read.map_err(|error| wrong(error.to_string()))
}

fn read_state(state: v1::NodeState) -> Result<NodeFacts, ApiError> {
    size::state(&state)?;
    if !state.name.is_empty() {
        check_name(&state.name).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(NodeFacts {
        name: state.name,
        offered: read_resources(&state.resources.unwrap_or_default())?,
        attributes: read_attributes(state.attributes)?,
        notices: state.notices.into_iter().map(read_notice).collect::<Result<_, _>>()?,
    })
}

fn read_attributes(attributes: Vec<v1::Attribute>) -> Result<BTreeMap<String, String>, ApiError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(wrong(format!("{} attributes; {ATTRIBUTES_MAX} are allowed", attributes.len())));
    }
    let checked = |a: v1::Attribute| match attribute::check(&a.name, &a.value) {
        Ok(()) => Ok((a.name, a.value)),
        Err(why) => Err(wrong(why)),
    };
    attributes.into_iter().map(checked).collect()
}

fn read_notice(notice: v1::Notice) -> Result<Notice, ApiError> {
    size::word(&notice.id)?;
    let kind = match notice.kind() {
        v1::NoticeKind::SpotInterruption => NoticeKind::SpotInterruption,
        v1::NoticeKind::Maintenance => NoticeKind::Maintenance,
        v1::NoticeKind::Unspecified => return Err(wrong("a notice without a kind, or of a newer agent")),
    };
    Ok(Notice {
        id: notice.id,
        kind,
        at_unix_ms: happened(notice.at_unix_ms).unwrap_or_default(),
        detail: size::cut(notice.detail),
        stop_tasks_at_unix_ms: happened(notice.stop_tasks_at_unix_ms),
    })
}

fn read_resources(resources: &v1::Resources) -> Result<Resources, ApiError> {
    let mut host_ports = BTreeSet::new();
    let protocols =
        [(TransportProtocol::Tcp, &resources.ports_tcp), (TransportProtocol::Udp, &resources.ports_udp)];
    for (protocol, ports) in protocols {
        for port in ports {
            host_ports.insert(HostPort { protocol, port: read_port(*port)? });
        }
    }
    Ok(Resources {
        cpu_units: resources.cpu_units,
        memory_mib: resources.memory_mib,
        host_ports,
        devices: resources.devices.clone().into_iter().collect(),
    })
}

fn read_port(port: u32) -> Result<u16, ApiError> {
    u16::try_from(port).map_err(|_| wrong(format!("{port} is no port")))
}

/// 0 means that it has not happened.
fn happened(unix_ms: i64) -> Option<u64> {
    u64::try_from(unix_ms).ok().filter(|ms| *ms > 0)
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn read_report(report: v1::TaskReport) -> Result<TaskReport, ApiError> {
    size::report(&report)?;
    size::generation(report.settled_generation)?;
    let status = known("last_status", report.last_status)?;
    let stop_code = known("stop_code", report.stop_code)?;
    Ok(TaskReport {
        task: task_id(&report.task_id)?,
        sequence: report.sequence,
        status: read_task_status(status).ok_or_else(|| wrong("a report without a status"))?,
        stop_code: read_stop_code(stop_code),
        stopped_reason: text(size::cut(report.stopped_reason)),
        waiting_reason: text(size::cut(report.waiting_reason)),
        waits: report.waits.into_iter().map(read_wait).collect(),
        containers: report.containers.into_iter().map(read_container).collect::<Result<_, _>>()?,
        pull_started_at_unix_ms: happened(report.pull_started_at_unix_ms),
        pull_stopped_at_unix_ms: happened(report.pull_stopped_at_unix_ms),
        started_at_unix_ms: happened(report.started_at_unix_ms),
        stopping_at_unix_ms: happened(report.stopping_at_unix_ms),
        execution_stopped_at_unix_ms: happened(report.execution_stopped_at_unix_ms),
        stopped_at_unix_ms: happened(report.stopped_at_unix_ms),
        paused: report.paused,
        settled: Generation(report.settled_generation),
        refusal: text(size::cut(report.refusal)),
    })
}

/// Kinds and containers this program does not know are kept as well as may be: a line that is shown
/// must not cost a session.
fn read_wait(wait: v1::Wait) -> Wait {
    Wait {
        kind: WaitKind::from_ecs(&wait.kind).unwrap_or(WaitKind::Other),
        container: wait.container.parse().ok(),
        what: size::cut(wait.what),
        since_unix_ms: happened(wait.since_unix_ms).unwrap_or_default(),
        until_unix_ms: happened(wait.until_unix_ms),
        ends_by: size::cut(wait.ends_by),
    }
}

fn read_event(event: v1::TaskEvent) -> TaskEvent {
    TaskEvent {
        time_unix_ms: happened(event.time_unix_ms).unwrap_or_default(),
        kind: TaskEventKind::from_ecs(&event.kind).unwrap_or(TaskEventKind::Other),
        container: event.container.parse().ok(),
        text: event.text,
        took_ms: (event.took_ms > 0).then_some(event.took_ms),
    }
}

fn read_container(container: v1::Container) -> Result<ContainerReport, ApiError> {
    let status = match known("last_status", container.last_status)? {
        v1::ContainerStatus::Unspecified | v1::ContainerStatus::Pending => ContainerStatus::Pending,
        v1::ContainerStatus::Running => ContainerStatus::Running,
        v1::ContainerStatus::Stopped => ContainerStatus::Stopped,
    };
    Ok(ContainerReport {
        name: container.name.parse().map_err(|error: IdError| wrong(error.to_string()))?,
        status,
        exit: container.exit.map(read_exit).transpose()?,
        reason: text(size::cut(container.reason)),
        pid: (container.pid != 0).then_some(container.pid),
        image_digest: text(container.image_digest),
        address: text(container.address),
        network_bindings: container
            .network_bindings
            .into_iter()
            .map(read_binding)
            .collect::<Result<_, _>>()?,
        limits: container.limits.map(read_limits).unwrap_or_default(),
        health: container.health.map(read_health),
        restart_count: container.restart_count,
        last_exit: container.last_exit.map(read_exit).transpose()?,
        devices: container.devices.into_iter().map(read_device).collect(),
    })
}

fn read_device(device: v1::GrantedDevice) -> GrantedDevice {
    GrantedDevice { kind: device.kind, id: device.id }
}

fn read_exit(exit: v1::ContainerExit) -> Result<ContainerExit, ApiError> {
    let status = match exit.status.ok_or_else(|| wrong("an exit without a status"))? {
        v1::container_exit::Status::Exited(code) => ExitStatus::Exited(code),
        v1::container_exit::Status::Signaled(signal) => ExitStatus::Signaled(signal),
    };
    let finished_at_unix_ms = happened(exit.finished_at_unix_ms).unwrap_or_default();
    Ok(ContainerExit { status, oom_killed: exit.oom_killed, finished_at_unix_ms })
}

fn read_health(health: v1::ContainerHealth) -> ContainerHealth {
    let status = match health.status() {
        v1::HealthStatus::Unspecified | v1::HealthStatus::Unknown => HealthStatus::Unknown,
        v1::HealthStatus::Healthy => HealthStatus::Healthy,
        v1::HealthStatus::Unhealthy => HealthStatus::Unhealthy,
    };
    ContainerHealth {
        status,
        since_unix_ms: happened(health.since_unix_ms).unwrap_or_default(),
        failing_streak: health.failing_streak,
        last_end: size::cut(health.last_end),
        last_output: size::cut(health.last_output),
    }
}

fn read_binding(binding: v1::NetworkBinding) -> Result<NetworkBinding, ApiError> {
    let protocol = match known("protocol", binding.protocol)? {
        v1::TransportProtocol::Udp => TransportProtocol::Udp,
        v1::TransportProtocol::Tcp | v1::TransportProtocol::Unspecified => TransportProtocol::Tcp,
    };
    Ok(NetworkBinding {
        container_port: read_port(binding.container_port)?,
        host_port: read_port(binding.host_port)?,
        bind_ip: binding.bind_ip,
        protocol,
    })
}

fn read_limits(limits: v1::KernelLimits) -> KernelLimits {
    KernelLimits {
        cpu_quota_us: limits.cpu_quota_us,
        cpu_period_us: limits.cpu_period_us,
        cpu_weight: limits.cpu_weight,
        memory_max_bytes: limits.memory_max_bytes,
        pids_max: limits.pids_max,
    }
}

fn read_task_status(status: v1::TaskStatus) -> Option<TaskStatus> {
    Some(match status {
        v1::TaskStatus::Unspecified => return None,
        v1::TaskStatus::Provisioning => TaskStatus::Provisioning,
        v1::TaskStatus::Pending => TaskStatus::Pending,
        v1::TaskStatus::Activating => TaskStatus::Activating,
        v1::TaskStatus::Running => TaskStatus::Running,
        v1::TaskStatus::Deactivating => TaskStatus::Deactivating,
        v1::TaskStatus::Stopping => TaskStatus::Stopping,
        v1::TaskStatus::Deprovisioning => TaskStatus::Deprovisioning,
        v1::TaskStatus::Stopped => TaskStatus::Stopped,
    })
}

fn read_stop_code(code: v1::StopCode) -> Option<StopCode> {
    Some(match code {
        v1::StopCode::Unspecified => return None,
        v1::StopCode::TaskFailedToStart => StopCode::TaskFailedToStart,
        v1::StopCode::EssentialContainerExited => StopCode::EssentialContainerExited,
        v1::StopCode::UserInitiated => StopCode::UserInitiated,
        v1::StopCode::ServiceSchedulerInitiated => StopCode::ServiceSchedulerInitiated,
        v1::StopCode::SpotInterruption => StopCode::SpotInterruption,
        v1::StopCode::TerminationNotice => StopCode::TerminationNotice,
        v1::StopCode::InfrastructureHealth => StopCode::InfrastructureHealth,
    })
}

/// A stop code on the wire.
pub fn stop_code(code: Option<StopCode>) -> i32 {
    let code = match code {
        None => v1::StopCode::Unspecified,
        Some(StopCode::TaskFailedToStart) => v1::StopCode::TaskFailedToStart,
        Some(StopCode::EssentialContainerExited) => v1::StopCode::EssentialContainerExited,
        Some(StopCode::UserInitiated) => v1::StopCode::UserInitiated,
        Some(StopCode::ServiceSchedulerInitiated) => v1::StopCode::ServiceSchedulerInitiated,
        Some(StopCode::SpotInterruption) => v1::StopCode::SpotInterruption,
        Some(StopCode::TerminationNotice) => v1::StopCode::TerminationNotice,
        Some(StopCode::InfrastructureHealth) => v1::StopCode::InfrastructureHealth,
    };
    code.into()
}

/// A desired status on the wire.
pub fn desired_status(status: DesiredStatus) -> i32 {
    match status {
        DesiredStatus::Running => v1::DesiredStatus::Running.into(),
        DesiredStatus::Stopped => v1::DesiredStatus::Stopped.into(),
    }
}

type Body = v1::control_message::Message;

fn outgoing(body: Body) -> Outgoing {
    Outgoing { sequence: 0, message: Some(body) }
}

/// Gives a message its place in the session.
pub fn numbered(message: Outgoing, sequence: u64) -> Outgoing {
    Outgoing { sequence, ..message }
}

/// What the control plane says first.
#[derive(Debug, Clone)]
pub struct ControlSays {
    pub protocol: u32,
    pub term: u64,
    pub incarnation: String,
    pub container_instance_id: String,
    pub cluster: String,
    pub heartbeat_interval_ms: u32,
}

pub fn control_hello(says: ControlSays) -> Outgoing {
    outgoing(Body::Hello(v1::ControlHello {
        protocol: says.protocol,
        features: Vec::new(),
        term: says.term,
        incarnation: says.incarnation,
        container_instance_id: says.container_instance_id,
        cluster: says.cluster,
        heartbeat_interval_ms: says.heartbeat_interval_ms,
        control_version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

pub fn heartbeat_answer(number: u64, term: u64) -> Outgoing {
    outgoing(Body::HeartbeatAnswer(v1::HeartbeatAnswer { number, term }))
}

fn assignment(task: &TaskRecord) -> v1::Assignment {
    let stopped = task.desired == DesiredStatus::Stopped;
    v1::Assignment {
        task_id: task.id.to_string(),
        generation: task.generation.0,
        desired_status: desired_status(task.desired),
        task_definition: task.definition.to_string(),
        stop_code: stop_code(task.stop_code.filter(|_| stopped)),
        stop_reason: task.stopped_reason.clone().filter(|_| stopped).unwrap_or_default(),
        forget: task.last == TaskStatus::Stopped,
        group: task.group.clone(),
        paused: task.paused,
        stop_force: stopped && task.stop_force,
        container_resources: container_resources(task),
        image_digests: crate::convert::image_digests(&task.image_digests),
        trace_parent: task.trace_parent.map(String::from).unwrap_or_default(),
        lease_s: task.silence.map_or(0, |policy| policy.lease_s),
        overrides_json: crate::convert::overrides_json(task),
    }
}

/// Limits in place of the definition's, on the wire.
pub fn container_resources(task: &TaskRecord) -> Vec<v1::ContainerResources> {
    let resources = task.container_resources.iter();
    let resources = resources.map(|wanted| v1::ContainerResources {
        container: wanted.container.to_string(),
        cpu_units: wanted.cpu_units,
        memory_mib: wanted.memory_mib,
    });
    resources.collect()
}

/// Cuts items into messages of at most 256 KiB; always at least one.
fn chunks<T: Message>(items: impl Iterator<Item = T>) -> Vec<Vec<T>> {
    // Each item has a tag and a length before it, and the message some fields of its own.
    const OVERHEAD: usize = 8;
    const OWN_FIELDS: usize = 64;
    let mut chunks = vec![Vec::new()];
    let mut bytes = OWN_FIELDS;
    for item in items {
        let size = item.encoded_len() + OVERHEAD;
        if bytes + size > CHUNK_BYTES && chunks.last().is_some_and(|chunk| !chunk.is_empty()) {
            chunks.push(Vec::new());
            bytes = OWN_FIELDS;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(item);
        }
    }
    chunks
}

/// The complete list of what the node should hold.
pub fn manifest<'a>(revision: u64, tasks: impl Iterator<Item = &'a TaskRecord>) -> Vec<Outgoing> {
    let chunks = chunks(tasks.map(assignment));
    let last = chunks.len() - 1;
    let numbered = chunks.into_iter().enumerate();
    numbered
        .map(|(index, assignments)| {
            let last_chunk = index == last;
            outgoing(Body::Manifest(v1::Manifest { revision, assignments, last_chunk }))
        })
        .collect()
}

/// What has changed since.
pub fn assignments<'a>(revision: u64, tasks: impl Iterator<Item = &'a TaskRecord>) -> Vec<Outgoing> {
    let chunks = chunks(tasks.map(assignment)).into_iter().filter(|chunk| !chunk.is_empty());
    chunks.map(|assignments| outgoing(Body::Assignments(v1::Assignments { revision, assignments }))).collect()
}

/// Definitions in ECS's JSON form.
pub fn definitions<'a>(records: impl Iterator<Item = &'a DefinitionRecord>) -> Vec<Outgoing> {
    let definitions = records.map(|record| v1::Definition {
        task_definition: record.id.to_string(),
        json: input::to_json(&record.definition),
    });
    let chunks = chunks(definitions).into_iter().filter(|chunk| !chunk.is_empty());
    chunks.map(|definitions| outgoing(Body::Definitions(v1::Definitions { definitions }))).collect()
}

pub fn reports_applied(applied: Vec<(TaskId, u64)>) -> Outgoing {
    let applied = applied.into_iter();
    let applied =
        applied.map(|(task, sequence)| v1::AppliedReport { task_id: task.to_string(), sequence }).collect();
    outgoing(Body::ReportsApplied(v1::ReportsApplied { applied }))
}

pub fn stop_confirmed(tasks: &[TaskId]) -> Outgoing {
    let task_ids = tasks.iter().map(ToString::to_string).collect();
    outgoing(Body::StopConfirmed(v1::StopConfirmed { task_ids }))
}

pub fn ask_task_events(question: Question) -> Outgoing {
    outgoing(Body::AskTaskEvents(v1::AskTaskEvents {
        question_id: question.id,
        task_id: question.task.to_string(),
    }))
}

/// How the control plane sees the node.
pub fn instance_state(instance: &InstanceRecord) -> Outgoing {
    let drain = instance.drain.as_ref();
    outgoing(Body::InstanceState(v1::InstanceState {
        status: crate::convert::instance_status(instance.status).into(),
        reason: drain.map(|drain| drain.reason.clone()).unwrap_or_default(),
        deadline_unix_ms: drain
            .and_then(|drain| i64::try_from(drain.deadline_unix_ms?).ok())
            .unwrap_or_default(),
        stop_tasks: drain.is_some_and(|drain| drain.stop_tasks),
    }))
}

pub fn open_log_stream(mut request: LogRequest) -> Outgoing {
    let container = if request.containers.len() == 1 { request.containers.pop() } else { None };
    outgoing(Body::OpenLogStream(v1::OpenLogStream {
        stream_id: request.stream_id,
        task_id: request.task.to_string(),
        container: container.unwrap_or_default(),
        follow: request.follow,
        tail_lines: request.tail_lines,
        since_unix_ms: request.since_unix_ms,
        containers: request.containers,
    }))
}

pub fn open_stream(request: StreamRequest) -> Outgoing {
    outgoing(Body::OpenStream(v1::OpenStream {
        stream_id: request.stream_id,
        task_id: request.task,
        container: request.container,
        order: Some(request.order),
        user: request.user,
    }))
}

/// Bytes of a person's frame.
pub fn input_bytes(input: &StreamInput) -> usize {
    match &input.input {
        Some(v1::stream_input::Input::Data(data)) => data.len(),
        _ => 0,
    }
}

/// Bytes of a node's frame; empty when it is of another kind.
pub fn data(output: &StreamOutput) -> &[u8] {
    use v1::stream_output::Output;
    match &output.output {
        Some(Output::Stdout(data) | Output::Stderr(data)) => data,
        _ => &[],
    }
}

/// What a node's frame is. An empty one, or one of a newer agent, counts as nothing said.
pub fn said(output: &StreamOutput) -> Said {
    use v1::stream_output::Output;
    match &output.output {
        Some(Output::Started(_)) => Said::Started,
        Some(Output::Stats(_)) => Said::Stats,
        Some(Output::Images(_)) => Said::Images,
        Some(Output::Stdout(_) | Output::Stderr(_)) | None => Said::Data(data(output).len()),
        Some(Output::Ended(ended)) => Said::Ended { result: stream_result(ended) },
    }
}

fn stream_result(ended: &v1::StreamEnded) -> Result<String, ApiError> {
    use v1::stream_ended::Result as Wire;
    match ended.result.as_ref().ok_or_else(|| wrong("a stream ended without a result"))? {
        Wire::Exited(code) => Ok(format!("exited {code}")),
        Wire::Signaled(signal) => Ok(format!("signaled {signal}")),
        Wire::Done(_) => Ok("done".to_owned()),
        Wire::Failed(failure) => Err(ApiError::StreamFailed {
            fault: StreamFault::from_reason(&failure.reason),
            message: failure.message.clone(),
        }),
    }
}

/// The sample of a frame that holds one, as that of the node that sent it.
pub fn stats(output: StreamOutput, instance: &str) -> Option<StatsSample> {
    let Some(v1::stream_output::Output::Stats(mut sample)) = output.output else { return None };
    sample.container_instance_id = instance.to_owned();
    for container in &mut sample.containers {
        container.container_instance_id = instance.to_owned();
    }
    Some(sample)
}

/// Asks for counters.
pub fn stats_order(interval_ms: u32) -> StreamOrder {
    StreamOrder { order: Some(v1::stream_order::Order::Stats(v1::StatsOrder { interval_ms })) }
}

/// Asks an agent a question.
pub fn query(topic: &str, argument_json: &str) -> StreamOrder {
    let order = v1::QueryOrder { topic: topic.to_owned(), argument_json: argument_json.to_owned() };
    StreamOrder { order: Some(v1::stream_order::Order::Query(order)) }
}

/// What a node is to do with its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagesOrder {
    /// Images, and the behaviour; empty: the node's own.
    Pull(Vec<String>, String),
    List,
    Prune,
}

/// Tells a node what to do with its images.
pub fn images_order(order: ImagesOrder) -> StreamOrder {
    use v1::image_order::Order;
    let order = match order {
        ImagesOrder::Pull(images, pull_behavior) => Order::Pull(v1::ImagePull { images, pull_behavior }),
        ImagesOrder::List => Order::List(v1::ImageList {}),
        ImagesOrder::Prune => Order::Prune(v1::ImagePrune {}),
    };
    StreamOrder { order: Some(v1::stream_order::Order::Images(v1::ImageOrder { order: Some(order) })) }
}

/// The report of a frame that holds one.
pub fn image_report(output: StreamOutput) -> Option<ImageReport> {
    match output.output {
        Some(v1::stream_output::Output::Images(report)) => Some(report),
        _ => None,
    }
}
