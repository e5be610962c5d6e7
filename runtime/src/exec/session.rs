//! One exec or attach session as its user sees it: streams, and a control that resizes, signals
//! and waits. In: commands. Out: bytes, the end. `SessionDriver` is the other side: the real one
//! is a tokio task that owns the connection to the shim; tests make their own.
//! Never: buffers output; who does not read slows nobody but the exec'd program.

use super::WindowSize;
use lighter_model::exit::ExitStatus;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

/// Bytes to the program; dropping it is the end of its input, with a terminal it changes nothing.
pub type SessionInput = Box<dyn AsyncWrite + Send + Unpin>;
/// Bytes from the program.
pub type SessionOutput = Box<dyn AsyncRead + Send + Unpin>;

/// A program that runs in a container, or the container's main process.
pub struct ExecSession {
    pub stdin: Option<SessionInput>,
    /// With a terminal everything the program writes.
    pub stdout: SessionOutput,
    /// `None` with a terminal.
    pub stderr: Option<SessionOutput>,
    pub control: SessionControl,
}

/// Why a session did not come to the end of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("the connection to the task's shim is lost")]
    Disconnected,
    #[error("the output was not read fast enough; the session was cut off")]
    TooSlow,
    #[error("the session has no terminal")]
    NoTerminal,
    #[error("the session has ended")]
    Ended,
}

/// What a session can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCommand {
    Resize(WindowSize),
    Signal(i32),
}

/// A person resizes a window some ten times a second; more waits.
const COMMANDS_DEPTH: usize = 16;

/// Resizes, signals and waits; cheap to clone. The session lives until every clone is dropped.
#[derive(Clone)]
pub struct SessionControl {
    commands: mpsc::Sender<SessionCommand>,
    ended: watch::Receiver<Option<Result<ExitStatus, SessionError>>>,
    terminal: bool,
}

impl SessionControl {
    /// A control and what serves it.
    pub fn new(terminal: bool) -> (Self, SessionDriver) {
        let (commands, asked) = mpsc::channel(COMMANDS_DEPTH);
        let (end, ended) = watch::channel(None);
        (Self { commands, ended, terminal }, SessionDriver { commands: asked, end })
    }

    /// The program is told by SIGWINCH.
    pub async fn resize(&self, size: WindowSize) -> Result<(), SessionError> {
        if !self.terminal {
            return Err(SessionError::NoTerminal);
        }
        self.send(SessionCommand::Resize(size)).await
    }

    /// To the program; with attach, to the container's main process.
    pub async fn signal(&self, signal: i32) -> Result<(), SessionError> {
        self.send(SessionCommand::Signal(signal)).await
    }

    async fn send(&self, command: SessionCommand) -> Result<(), SessionError> {
        self.commands.send(command).await.map_err(|_| SessionError::Ended)
    }

    /// How the program ended. What it wrote before may still be unread in the streams, and a process
    /// it has left behind may keep them open. May be dropped and called again.
    pub async fn wait(&self) -> Result<ExitStatus, SessionError> {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.map_err(|_| SessionError::Disconnected)?;
        end.unwrap_or(Err(SessionError::Disconnected))
    }
}

/// The side of a session that does what its control is told. Dropped without `finish` it is a lost
/// connection.
pub struct SessionDriver {
    commands: mpsc::Receiver<SessionCommand>,
    end: watch::Sender<Option<Result<ExitStatus, SessionError>>>,
}

impl SessionDriver {
    /// The next command; `None` when nobody holds the session any more. May be dropped at its await.
    pub async fn next_command(&mut self) -> Option<SessionCommand> {
        self.commands.recv().await
    }

    pub fn finish(self, end: Result<ExitStatus, SessionError>) {
        self.end.send_replace(Some(end));
    }
}
