//! Running something beside a container's main process, and joining in with that process: probes
//! (output kept, time limited), exec (with pipes or a terminal), attach.
//! In: orders. Out: outcomes; sessions whose streams are the container's own pipes or terminal.
//! A session ends with its process; dropping it hangs the process up (SIGHUP, closed streams).
//! Never: starts a container; needs libcontainer.

mod descriptor;
mod link;
pub(crate) mod profile;
mod session;

pub use session::{
    ExecSession, SessionCommand, SessionControl, SessionDriver, SessionError, SessionInput, SessionOutput,
};

use crate::handle::{RequestError, ShimHandle, unexpected_beside};
use crate::user::UserError;
use lighter_model::ids::ContainerName;
use lighter_shim_wire::exec::{self as wire, ExecRequest, ProbeRequest, ProbeResult, WireWindow};
use lighter_shim_wire::{Reply, Request};
use link::Refusal;
use std::io;
use std::time::Duration;

/// What to run in a container, beside what its definition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOrder {
    /// Program and arguments; the program is looked for in the container's PATH.
    pub argv: Vec<String>,
    /// Set in addition to the container's environment, or instead of what that says.
    pub environment_added: Vec<(String, String)>,
    /// Absolute; `None`: the container's.
    pub working_directory: Option<String>,
    /// `user[:group]`, names or numbers of the image; `None`: the container's.
    pub user: Option<String>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

/// How a probe ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeEnd {
    Exited(i32),
    Signaled(i32),
    /// It and everything it had started were killed.
    TimedOut,
    /// Docker's words for why.
    CannotStart(String),
}

/// What a probe did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOutcome {
    pub end: ProbeEnd,
    /// The first 4 KiB of what it wrote to standard output and error.
    pub output: Vec<u8>,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The program could not be run, in Docker's words.
    #[error("{message}")]
    CannotStart { message: String },
    #[error("there is nothing to run: the command is empty")]
    NoCommand,
    #[error("the user cannot be resolved")]
    User { source: UserError },
    #[error("a session cannot be opened")]
    Connect(#[source] io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A session with the main process of a container: the same as one of exec, but its end is the
/// container's, and dropping it ends nothing.
pub type AttachSession = ExecSession;

impl ShimHandle {
    /// Runs `argv` in the container exactly as the container's own process runs (user, groups,
    /// capabilities, limits, namespaces, cgroup, seccomp) and waits for its end, at most `timeout`;
    /// then it is killed with everything it has started.
    pub async fn probe(
        &self,
        container: &ContainerName,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ProbeOutcome, RequestError> {
        self.speaks_sessions()?;
        let order = ExecOrder { argv: argv.to_vec(), ..ExecOrder::default() };
        let not_run = |text| Ok(ProbeOutcome { end: ProbeEnd::CannotStart(text), output: Vec::new() });
        if argv.is_empty() {
            return not_run(ExecError::NoCommand.to_string());
        }
        let process = match self.profile(container)?.process(&order, false) {
            Ok(process) => process,
            Err(error) => return not_run(error.to_string()),
        };
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let request = ProbeRequest { name: container.to_string(), process, timeout_ms };
        match self.ask(Request::Probe(request)).await? {
            Reply::Probed(ProbeResult { end, output }) => {
                let end = match end {
                    wire::ProbeEnd::Exited(code) => ProbeEnd::Exited(code),
                    wire::ProbeEnd::Signaled(signal) => ProbeEnd::Signaled(signal),
                    wire::ProbeEnd::TimedOut => ProbeEnd::TimedOut,
                    wire::ProbeEnd::CannotStart(failure) => {
                        ProbeEnd::CannotStart(profile::failure_text(failure, &order))
                    }
                };
                Ok(ProbeOutcome { end, output })
            }
            other => Err(unexpected_beside(other, container.as_str())),
        }
    }

    /// Runs a program in the container with streams of its own: a terminal of that size, or pipes.
    /// `stdin`: the program can be written to; else it reads /dev/null. A terminal always can.
    pub async fn exec(
        &self,
        container: &ContainerName,
        order: &ExecOrder,
        terminal: Option<WindowSize>,
        stdin: bool,
    ) -> Result<ExecSession, ExecError> {
        self.speaks_sessions()?;
        if order.argv.is_empty() {
            return Err(ExecError::NoCommand);
        }
        let profile = self.profile(container)?;
        let (resolved, has_terminal) = (order.clone(), terminal.is_some());
        // A named user means reading the container's files, whatever they are.
        let process = tokio::task::spawn_blocking(move || profile.process(&resolved, has_terminal)).await;
        let process =
            process.map_err(|_| RequestError::Unexpected)?.map_err(|source| ExecError::User { source })?;
        let window = terminal.map(|size| WireWindow { rows: size.rows, columns: size.columns });
        let name = container.to_string();
        let request = Request::Exec(ExecRequest { name, process, terminal: window, stdin });
        link::open(self.task_dir(), container.as_str(), &request, false).await.map_err(
            |refusal| match refusal {
                Refusal::Program(failure) => {
                    ExecError::CannotStart { message: profile::failure_text(failure, order) }
                }
                Refusal::Error(error) => error,
            },
        )
    }

    /// Live output of the container's main process from now on, and its standard input when the
    /// definition says `interactive`. An attacher that does not read is dropped
    /// (`SessionError::TooSlow`).
    pub async fn attach(&self, container: &ContainerName) -> Result<AttachSession, ExecError> {
        self.speaks_sessions()?;
        let request = Request::Attach(container.to_string());
        let opened = link::open(self.task_dir(), container.as_str(), &request, true).await;
        opened.map_err(|refusal| match refusal {
            Refusal::Program(_) => RequestError::Unexpected.into(),
            Refusal::Error(error) => error,
        })
    }
}

#[cfg(test)]
mod tests;
