//! Orders and frames of data streams between the wire and the agent's own words.
//! In: OpenStream, StreamInput. Out: `Order`, `Input`; and frames. Pure.

use crate::facilities::{ImageRow, PrunedImages, PullStep};
use crate::session::convert as session;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::task_definition::PullBehavior;
use lighter_proto::v1;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_order::Order as Wire;
use lighter_proto::v1::stream_output::Output;
use lighter_runtime::{ContainerStats, ExecOrder, Pressure, WindowSize};
use std::time::Duration;

/// What goes out.
pub(super) type Frame = v1::NodeFrame;
/// What comes in.
pub(super) type Incoming = v1::ControlFrame;
/// One look at all containers.
pub(super) type Sample = v1::StatsSample;
/// One container in it.
pub(super) type Row = v1::ContainerStats;

/// What is wanted, of what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    /// `None`: the node itself.
    pub task: Option<TaskId>,
    /// `None`: every container.
    pub container: Option<ContainerName>,
    pub order: Order,
    pub user: String,
}

/// What for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Order {
    Exec { order: ExecOrder, terminal: Option<WindowSize>, stdin: bool },
    Attach { stdin: bool, terminal: Option<WindowSize> },
    CopyIn(CopyIn),
    CopyOut { path: String, follow_link: bool },
    Stats { interval: Duration },
    Query { topic: String },
    Images(ImagesOrder),
}

impl Order {
    /// For the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::CopyIn(_) => "copy-in",
            Self::CopyOut { .. } => "copy-out",
            Self::Stats { .. } => "stats",
            Self::Query { .. } => "query",
            Self::Images(_) => "images",
        }
    }
}

/// What is to be done with this node's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImagesOrder {
    /// `None`: as this node does.
    Pull {
        images: Vec<String>,
        behavior: Option<PullBehavior>,
    },
    List,
    Prune,
}

/// Files to be put into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CopyIn {
    pub path: String,
    /// `None`: as in the archive.
    pub owner: Option<(u32, u32)>,
    pub into: bool,
}

/// What a person sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Data(Vec<u8>),
    DataEnd,
    Resize(WindowSize),
    Signal(i32),
    /// Of a newer control plane.
    Unknown,
}

/// Why it could not be done; the reasons are those of the control plane's error table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    pub reason: &'static str,
    pub message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// How a stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Signaled(i32),
    /// So many files were copied, or nothing was to be counted.
    Done(u64),
}

fn parse<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>, Fault> {
    match text {
        "" => Ok(None),
        text => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Fault::new("INVALID", format!("{field}: {text:?} is not valid"))),
        },
    }
}

fn text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn window(size: &v1::WindowSize) -> WindowSize {
    let small = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    WindowSize { rows: small(size.rows), columns: small(size.columns) }
}

/// Reads what is wanted.
pub(super) fn wanted(open: v1::OpenStream) -> Result<Wanted, Fault> {
    let order = open.order.and_then(|order| order.order);
    let unknown = || Fault::new("NOT_SUPPORTED", "this node's agent is too old for this; upgrade it");
    Ok(Wanted {
        task: parse("task", &open.task_id)?,
        container: parse("container", &open.container)?,
        order: read_order(order.ok_or_else(unknown)?)?,
        user: open.user,
    })
}

fn read_images(order: v1::ImageOrder) -> Result<ImagesOrder, Fault> {
    use v1::image_order::Order as Images;
    let unknown = || Fault::new("NOT_SUPPORTED", "this node's agent is too old for this; upgrade it");
    Ok(match order.order.ok_or_else(unknown)? {
        Images::Pull(v1::ImagePull { images, pull_behavior }) => {
            let behavior = session::pull_behavior(&pull_behavior);
            let behavior = behavior.map_err(|error| Fault::new("INVALID", error.to_string()))?;
            ImagesOrder::Pull { images, behavior }
        }
        Images::List(_) => ImagesOrder::List,
        Images::Prune(_) => ImagesOrder::Prune,
    })
}

fn read_order(order: Wire) -> Result<Order, Fault> {
    Ok(match order {
        Wire::Exec(exec) => Order::Exec {
            terminal: exec.terminal.as_ref().map(window),
            stdin: exec.stdin,
            order: ExecOrder {
                argv: exec.command,
                environment_added: exec.environment.into_iter().map(|e| (e.name, e.value)).collect(),
                working_directory: text(exec.working_directory),
                user: text(exec.user),
            },
        },
        Wire::Attach(attach) => {
            Order::Attach { stdin: attach.stdin, terminal: attach.terminal.as_ref().map(window) }
        }
        Wire::CopyIn(copy) => Order::CopyIn(CopyIn {
            path: copy.path,
            owner: (!copy.keep_owner).then_some((copy.owner_uid, copy.owner_gid)),
            into: copy.into,
        }),
        Wire::CopyOut(copy) => Order::CopyOut { path: copy.path, follow_link: copy.follow_link },
        Wire::Stats(stats) => {
            let interval_ms = if stats.interval_ms == 0 { 1_000 } else { stats.interval_ms.max(200) };
            Order::Stats { interval: Duration::from_millis(interval_ms.into()) }
        }
        Wire::Query(query) => Order::Query { topic: query.topic },
        Wire::Images(order) => Order::Images(read_images(order)?),
    })
}

/// Reads a person's frame.
pub(super) fn input(frame: Incoming) -> Input {
    use v1::stream_input::Input as Wire;
    match frame.input.and_then(|input| input.input) {
        Some(Wire::Data(data)) => Input::Data(data),
        Some(Wire::DataEnd(_)) => Input::DataEnd,
        Some(Wire::Resize(size)) => Input::Resize(window(&size)),
        Some(Wire::Signal(signal)) => Input::Signal(signal),
        None => Input::Unknown,
    }
}

fn frame(output: Output) -> Frame {
    Frame { stream_id: String::new(), output: Some(v1::StreamOutput { output: Some(output) }) }
}

/// The first message: whose answer this is.
pub(super) fn hello(stream_id: &str) -> Frame {
    Frame { stream_id: stream_id.to_owned(), output: None }
}

pub(super) fn started(wanted: &Wanted, terminal: bool) -> Frame {
    let text = |value: Option<String>| value.unwrap_or_default();
    frame(Output::Started(v1::StreamStarted {
        task_id: text(wanted.task.as_ref().map(ToString::to_string)),
        container: text(wanted.container.as_ref().map(ToString::to_string)),
        terminal,
    }))
}

pub(super) fn stdout(data: Vec<u8>) -> Frame {
    frame(Output::Stdout(data))
}

pub(super) fn stderr(data: Vec<u8>) -> Frame {
    frame(Output::Stderr(data))
}

fn image_report(report: v1::image_report::Report) -> Frame {
    frame(Output::Images(v1::ImageReport { report: Some(report) }))
}

pub(super) fn image_step(image: &str, step: &PullStep) -> Frame {
    image_report(v1::image_report::Report::Progress(session::pull_progress(image, step)))
}

/// With its digest, or why it failed.
pub(super) fn image_pulled(image: &str, pulled: Result<String, String>) -> Frame {
    let (image_digest, error) = match pulled {
        Ok(digest) => (digest, String::new()),
        Err(words) => (String::new(), words),
    };
    let pulled = v1::ImagePulled { image: image.to_owned(), image_digest, error };
    image_report(v1::image_report::Report::Pulled(pulled))
}

pub(super) fn image_rows(rows: &[ImageRow]) -> Frame {
    let images = rows.iter().cloned().map(session::local_image).collect();
    image_report(v1::image_report::Report::Images(v1::LocalImages { images }))
}

pub(super) fn images_pruned(pruned: &PrunedImages) -> Frame {
    let &PrunedImages { images, layers, bytes, .. } = pruned;
    image_report(v1::image_report::Report::Pruned(v1::ImagesPruned { images, layers, bytes }))
}

pub(super) fn sample(sample: Sample) -> Frame {
    frame(Output::Stats(sample))
}

pub(super) fn ended(end: Result<End, Fault>) -> Frame {
    let result = match end {
        Ok(End::Exited(code)) => Ended::Exited(code),
        Ok(End::Signaled(signal)) => Ended::Signaled(signal),
        Ok(End::Done(entries)) => Ended::Done(v1::StreamDone { entries }),
        Err(Fault { reason, message }) => {
            Ended::Failed(v1::StreamFailure { reason: reason.to_owned(), message })
        }
    };
    frame(Output::Ended(v1::StreamEnded { result: Some(result) }))
}

/// One container's counters.
pub(super) fn row(task: &TaskId, container: &ContainerName, read_at_ns: u64, stats: &ContainerStats) -> Row {
    let some = |pressure: Option<Pressure>| pressure.map(|pressure| pressure.some_avg10_percent);
    let full = |pressure: Option<Pressure>| pressure.map(|pressure| pressure.full_avg10_percent);
    let ContainerStats { cpu, memory, io, pressure, pids, .. } = stats;
    Row {
        task_id: task.to_string(),
        container: container.to_string(),
        read_at_ns,
        cpu_usage_ns: Some(cpu.usage_ns),
        cpu_throttled_ns: Some(cpu.throttled_ns),
        cpu_throttled_periods: Some(cpu.throttled_periods),
        // As Docker shows it: what can be dropped first is not counted.
        memory_bytes: Some(memory.current_bytes.saturating_sub(memory.inactive_file_bytes)),
        memory_peak_bytes: memory.peak_bytes,
        memory_limit_bytes: memory.limit_bytes,
        memory_anon_bytes: Some(memory.anon_bytes),
        memory_file_bytes: Some(memory.file_bytes),
        pids: Some(*pids),
        io_read_bytes: Some(io.read_bytes),
        io_write_bytes: Some(io.write_bytes),
        cpu_some_avg10: some(pressure.cpu),
        memory_some_avg10: some(pressure.memory),
        memory_full_avg10: full(pressure.memory),
        io_some_avg10: some(pressure.io),
        io_full_avg10: full(pressure.io),
        ..Row::default()
    }
}
