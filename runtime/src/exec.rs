//! Running something beside a container's main process, and joining in with that process: probes
//! (output kept, time limited), exec (with pipes or a terminal), attach.
//! In: orders. Out: outcomes; sessions whose streams are the container's own pipes or terminal.
//! A session ends with its process; dropping it hangs the process up (SIGHUP, closed streams).
//! Never: starts a container; needs libcontainer.

mod session;

pub use session::{
    ExecSession, SessionCommand, SessionControl, SessionDriver, SessionError, SessionInput, SessionOutput,
};

use crate::handle::{RequestError, ShimHandle};
use lighter_model::ids::ContainerName;
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
    /// capabilities, limits, namespaces, cgroup, seccomp) and waits for its end, at most `timeout`.
    pub async fn probe(
        &self,
        _container: &ContainerName,
        _argv: &[String],
        _timeout: Duration,
    ) -> Result<ProbeOutcome, RequestError> {
        Err(RequestError::OldShim)
    }

    /// Runs a program in the container with streams of its own: a terminal of that size, or pipes.
    /// `stdin`: the program can be written to; else it reads /dev/null.
    pub async fn exec(
        &self,
        _container: &ContainerName,
        _order: &ExecOrder,
        _terminal: Option<WindowSize>,
        _stdin: bool,
    ) -> Result<ExecSession, ExecError> {
        Err(RequestError::OldShim.into())
    }

    /// Live output of the container's main process from now on, and its standard input when the
    /// definition says `interactive`. An attacher that does not read is dropped
    /// (`SessionError::TooSlow`).
    pub async fn attach(&self, _container: &ContainerName) -> Result<AttachSession, ExecError> {
        Err(RequestError::OldShim.into())
    }
}
