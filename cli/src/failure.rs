//! Why a command failed: the words, the causes, the next thing to try, and the exit code.
//! In: errors of the API, of the transport, of files. Out: lines on standard error and an exit code.
//! Owns: the meaning of exit codes. Never: hides a cause, or prints one twice.

use lighter_proto::v1;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What an exit code of ours means; listed in `lighter --help` and docs/cli.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Refused = 3,
    NotFound = 4,
    Unavailable = 5,
    NotPermitted = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// `run --wait`: Lighter itself could not run the task (Docker's number for it).
pub const EXIT_NOT_RUN: u8 = 125;
/// `run --wait`: the program was there and could not be started.
pub const EXIT_NOT_STARTED: u8 = 126;
/// `run --wait`: there is no such program in the image.
pub const EXIT_NO_PROGRAM: u8 = 127;

/// Whether the way there broke, rather than that something was refused: a control plane that is killed
/// says nothing, and what the transport makes of that has its cause below it, as no refusal has.
pub fn is_break(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

/// A command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The control plane or the agent refused or could not.
    #[error("cannot {what}")]
    Rpc {
        what: String,
        #[source]
        status: Box<Status>,
    },
    #[error("cannot reach the {peer} at {endpoint}")]
    Connect {
        peer: &'static str,
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error(
        "no control plane is known: there is no --endpoint, no LIGHTER_ENDPOINT, no socket and no key on this machine"
    )]
    NoEndpoint,
    #[error("the endpoint {endpoint:?} {problem}")]
    Endpoint { endpoint: String, problem: String },
    #[error("the key {path:?} {problem}")]
    Key { path: PathBuf, problem: String },
    #[error("{message}")]
    Refused { message: String, next: String },
    #[error("{message}")]
    NotFound { message: String, next: String },
    #[error("{message}")]
    Unavailable { message: String, next: String },
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// Files could not be read or written; the source has the words.
    #[error("cannot {what}")]
    Files {
        what: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Some of several were not done; the message has a line each.
    #[error("{message}")]
    Partial { message: String, next: String },
    /// A daemon, or joining, ended; the source has the words.
    #[error("cannot {what}")]
    Daemon {
        what: &'static str,
        exit: Exit,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The reader of our output has gone; nobody is left to complain to.
    #[error("standard output is closed")]
    OutputClosed,
}

impl Failure {
    /// For `map_err` after a call: `what` goes on from "cannot".
    pub fn rpc(what: impl Into<String>) -> impl FnOnce(Status) -> Self {
        let what = what.into();
        move |status| Self::Rpc { what, status: Box::new(status) }
    }

    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// For `map_err` around a daemon: `what` goes on from "cannot".
    pub fn daemon(what: &'static str, exit: Exit, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Daemon { what, exit, source: source.into() }
    }

    /// What the process ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Rpc { status, .. } => exit_of_code(status.code()),
            Self::Connect { source, .. } if is_denied(source) => Exit::NotPermitted,
            Self::Connect { .. } | Self::NoEndpoint | Self::Unavailable { .. } => Exit::Unavailable,
            Self::Endpoint { .. } => Exit::Usage,
            Self::Key { .. } => Exit::NotPermitted,
            Self::Refused { .. } => Exit::Refused,
            Self::NotFound { .. } => Exit::NotFound,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Exit::NotFound,
                std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
                _ => Exit::Failed,
            },
            Self::Files { .. } | Self::Partial { .. } => Exit::Failed,
            Self::Daemon { exit, .. } => *exit,
            Self::OutputClosed => Exit::Done,
        }
    }

    /// The next thing to try.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Rpc { status, .. } => next_of_status(status),
            Self::Connect { endpoint, .. } if endpoint.starts_with("unix:") => Some(
                "see whether the daemon runs: systemctl status lighter-control lighter-agent; root may be needed for its socket".into(),
            ),
            Self::Connect { .. } => Some(
                "check the address and that `lighter control` runs there; a certificate that is not accepted means a key of another control plane".into(),
            ),
            Self::NoEndpoint => {
                Some("lighter --endpoint https://HOST:7443 --key admin.pem …; or `sudo lighter dev` to try Lighter on this machine".into())
            }
            Self::Endpoint { .. } => Some("write https://host:port, or unix:///path of its socket".into()),
            Self::Key { .. } => Some(
                "copy admin.pem from the control plane's data directory (by default /var/lib/lighter/admin.pem) and chmod 600 it".into(),
            ),
            Self::Refused { next, .. }
            | Self::NotFound { next, .. }
            | Self::Partial { next, .. }
            | Self::Unavailable { next, .. } => Some(next.clone()),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run it as root, or as the owner of the file".into())
            }
            Self::Files { .. } => Some("see that the paths are there and may be written: ls -ld".into()),
            Self::Io { .. } | Self::Daemon { .. } | Self::OutputClosed => None,
        }
    }
}

/// Whether the socket is another user's.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let denied = io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    denied || error.source().is_some_and(is_denied)
}

/// gRPC's codes in ours; a new code does not compile without a decision.
pub fn exit_of_code(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Done,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::OutOfRange
        | Code::Unimplemented => Exit::Refused,
        Code::NotFound => Exit::NotFound,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Exit::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::Cancelled | Code::Unknown | Code::Aborted | Code::Internal | Code::DataLoss => Exit::Failed,
    }
}

/// The machine-readable reason of an error of ours; empty when it has none.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn next_of_status(status: &Status) -> Option<String> {
    let next = match reason(status).as_str() {
        "INVALID_TASK_DEFINITION" => "docs/task-definition.md lists every member and what it takes",
        "TASK_DEFINITION_NOT_FOUND" => "lighter task-definition ls",
        "TASK_DEFINITION_INACTIVE" => "lighter task-definition register FILE",
        "TASK_NOT_FOUND" => "lighter ps -a",
        "SERVICE_NOT_FOUND" | "SERVICE_NOT_ACTIVE" => "lighter service ls",
        "SERVICE_SCALED" => "lighter service scale SERVICE 0 first, or lighter service rm SERVICE --force",
        "CONTAINER_NOT_FOUND" => "lighter task show TASK",
        "TASK_NOT_RUNNING" => "lighter ps shows what runs; its output is still there: lighter logs TASK",
        "CONTAINER_NOT_RUNNING" => "lighter task show TASK says why; its output: lighter logs TASK",
        "COMMAND_NOT_FOUND" => {
            "give the whole path, or a program that the image has: lighter exec TASK -- ls /bin"
        }
        "COMMAND_NOT_EXECUTABLE" => {
            "lighter exec TASK -- ls -l FILE shows its mode; a script needs its interpreter"
        }
        "USER_NOT_FOUND" => "give a number: --user 1000:1000",
        "PATH_NOT_FOUND" => "lighter exec TASK -- ls -la DIRECTORY",
        "STREAM_LIMIT" => {
            "end one of the open exec, attach, cp or top; lighter audit shows them as `goes on`"
        }
        "AGENT_TOO_OLD" | "NOT_SUPPORTED" => "upgrade the node's agent; lighter node ls shows its version",
        "THROTTLED" => "ask less often, or have rate_limits raised in control.toml",
        "STREAM_BROKEN" => "lighter node ls; then try again",
        "NO_ROOM" => "lighter node ls shows what is free; ask for less, or stop another task",
        "CONTAINER_INSTANCE_NOT_FOUND" | "NODE_NOT_CONNECTED" | "NODE_DID_NOT_ANSWER" => "lighter node ls",
        "CLUSTER_NOT_FOUND" => "name a cluster that exists; `default` always does",
        "UNAUTHENTICATED" | "ACCESS_DENIED" => {
            "give your key: --key admin.pem, or use the control plane's socket as root"
        }
        "CLIENT_TOKEN_CONFLICT" => "use another --client-token for another run",
        "JOIN_TOKEN_INVALID" | "JOIN_TOKEN_EXPIRED" | "JOIN_TOKEN_USED" => "lighter token create",
        "INSTANCE_NAME_TAKEN" => "join under another name: --name NAME",
        "EVENTS_TOO_OLD" => "lighter events without --after",
        "OUTCOME_UNKNOWN" => "see what happened with `lighter ps -a` before repeating it",
        "INTERNAL" => "look into the log of the control plane: journalctl -u lighter-control",
        _ => match exit_of_code(status.code()) {
            Exit::Unavailable => "try again; see whether `lighter control` runs",
            Exit::NotPermitted => "give your key: --key admin.pem, or use the control plane's socket as root",
            _ => return None,
        },
    };
    Some(next.to_owned())
}

/// Why some of several tasks were not done; one line each, with what to try for the first.
pub fn of_failures(what: &str, failures: &[v1::Failure]) -> Failure {
    of_failures_among(what, failures, "lighter ps -a")
}

/// As `of_failures`, of other things; `list` shows those that there are.
pub fn of_failures_among(what: &str, failures: &[v1::Failure], list: &str) -> Failure {
    let mut message = format!("cannot {what}");
    for failure in failures {
        let of = if failure.id.is_empty() { String::new() } else { format!("{}: ", failure.id) };
        let detail = if failure.detail.is_empty() { String::new() } else { format!(" ({})", failure.detail) };
        // Writing to a String cannot fail.
        let _ = write!(message, "\n  because: {of}{}{detail}", failure.reason);
    }
    let first = failures.first().map_or("", |failure| failure.reason.as_str());
    let next = if first == "MISSING" { list } else { next_of_ecs_reason(first) }.to_owned();
    match first {
        "MISSING" => Failure::NotFound { message, next },
        "INACTIVE" | "TASK_NOT_VALID" => Failure::Refused { message, next },
        _ => Failure::Unavailable { message, next },
    }
}

fn next_of_ecs_reason(reason: &str) -> &'static str {
    match reason {
        "TASK_NOT_VALID" => "lighter task show TASK says what it is; only tasks of a service are protected",
        "INACTIVE" => "lighter task-definition ls",
        "QUEUE" => "lighter queue ls; to wait behind them: lighter run --queue",
        "AGENT" => "lighter node ls; start the agent of a node that is away: systemctl start lighter-agent",
        _ if reason.starts_with("No Container Instances") => {
            "join a node: `lighter token create`, then `lighter agent join` there"
        }
        _ if reason.starts_with("RESOURCE:PORTS") => {
            "lighter ps shows who has the port; leave hostPort out for a free one"
        }
        _ => "lighter node ls shows what is free; ask for less, stop a task, or join a node",
    }
}

/// Prints the failure with its causes and the next thing to try.
pub fn report(failure: &Failure) -> ExitCode {
    if !matches!(failure, Failure::OutputClosed) {
        // Where not even this can be said, the exit code says it.
        let _ = std::io::stderr().write_all(text(failure, crate::output::colour_errors()).as_bytes());
    }
    failure.exit().into()
}

fn text(failure: &Failure, colour: bool) -> String {
    let (bold, plain) = if colour { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    let mut text = format!("{bold}error:{plain} {failure}\n");
    let mut said = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let words = words_of(error);
        // Libraries that repeat their source in their own words would make a stutter; tonic's first
        // word on any connection says nothing.
        if !words.is_empty() && words != "transport error" && !said.contains(&words) {
            let _ = writeln!(text, "  because: {words}");
            said = words;
        }
        cause = error.source();
    }
    if let Some(next) = failure.next() {
        let _ = writeln!(text, "  try: {next}");
    }
    text
}

/// A gRPC status shows its message only; its Display has code and metadata in it.
fn words_of(error: &(dyn Error + 'static)) -> String {
    let status = error.downcast_ref::<Box<Status>>().map(|status| &**status);
    match status.or_else(|| error.downcast_ref::<Status>()) {
        Some(status) if status.message().is_empty() => format!("{}", status.code()),
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn every_grpc_code_has_its_exit_code() {
        let codes = (0..=16).map(Code::from_i32);
        let exits: Vec<u8> = codes.map(|code| exit_of_code(code) as u8).collect();
        assert_eq!(exits, [0, 1, 1, 3, 5, 4, 3, 6, 5, 3, 1, 3, 3, 1, 5, 1, 6]);
    }

    #[test]
    fn a_refusal_shows_cause_and_next_step_once() {
        let info =
            ErrorDetails::with_error_info("TASK_NOT_FOUND", "lighter", std::collections::HashMap::new());
        let status = Status::with_error_details(Code::NotFound, "there is no task \"abc\"", info);
        let failure = Failure::rpc("stop the task")(status);
        assert_eq!(
            text(&failure, false),
            "error: cannot stop the task\n  because: there is no task \"abc\"\n  try: lighter ps -a\n"
        );
        assert_eq!(failure.exit(), Exit::NotFound);
    }

    #[test]
    fn ecs_failures_choose_the_exit_code() {
        let of = |reason: &str| {
            let failure = v1::Failure { id: String::new(), reason: reason.into(), detail: "d".into() };
            of_failures("run the task", &[failure]).exit()
        };
        assert_eq!(of("RESOURCE:MEMORY"), Exit::Unavailable);
        assert_eq!(of("MISSING"), Exit::NotFound);
        assert_eq!(of("INACTIVE"), Exit::Refused);
    }
}
