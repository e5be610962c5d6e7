//! A program in a container, or the container's own, with a person's terminal or pipes at its ends.
//! In: frames (data, sizes, signals). Out: its output, its end. Owns the session of the shim.
//! When the person goes away an exec'd program is hung up, and killed if that does not end it; a
//! container's own program is left alone.
//! Never: reads output faster than it is sent; holds more than one chunk of each stream.

use super::convert::{End, Fault, Frame, Input, Wanted, started, stderr, stdout};
use super::{CHUNK_BYTES, Gone, Pipe, monitor};
use crate::task::TaskContext;
use crate::task::board::Monitor;
use crate::time::sleep;
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_runtime::exec::{SessionInput, SessionOutput};
use lighter_runtime::{
    ExecError, ExecOrder, ExecSession, RequestError, SessionControl, SessionError, WindowSize,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// signal(7).
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;
/// From the hang-up to the kill.
const HANG_UP_LIMIT: Duration = Duration::from_secs(5);
/// From the hang-up to the end of the program's input, for the signal to arrive first.
const HEAD_START: Duration = Duration::from_millis(100);
/// Output after the program's end: a child of its may hold the streams open for ever.
const QUIET_AFTER_END: Duration = Duration::from_millis(300);
/// Chunks of input that wait for the program to read.
const INPUTS: usize = 1;

/// Runs a program beside the container's own.
pub(super) async fn exec(
    context: &TaskContext,
    wanted: &Wanted,
    order: ExecOrder,
    terminal: Option<WindowSize>,
    stdin: bool,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let (monitor, container) = match monitored_container(context, wanted) {
        Ok(found) => found,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut session = match monitor.shim.exec(container, &order, terminal, stdin).await {
        Ok(session) => session,
        Err(error) => return Ok(Err(fault(&error))),
    };
    if !stdin {
        session.stdin = None;
    }
    let control = session.control.clone();
    let served = serve(wanted, session, Left::HangUp { terminal: terminal.is_some() }, pipe).await;
    if served.is_err() {
        end(control).await;
    }
    served
}

/// Joins the streams of the container's own program.
pub(super) async fn attach(
    context: &TaskContext,
    wanted: &Wanted,
    stdin: bool,
    terminal: Option<WindowSize>,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let (monitor, container) = match monitored_container(context, wanted) {
        Ok(found) => found,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut session = match monitor.shim.attach(container).await {
        Ok(session) => session,
        Err(error) => return Ok(Err(fault(&error))),
    };
    // Held for as long as the session lives: dropped, it would be the end of the container's input.
    let unused = if stdin { None } else { session.stdin.take() };
    let has_terminal = session.stderr.is_none();
    if let (Some(size), true) = (terminal, has_terminal) {
        // A container that has just ended says so itself.
        let _ = session.control.resize(size).await;
    }
    let served = serve(wanted, session, Left::Leave { terminal: has_terminal }, pipe).await;
    drop(unused);
    served
}

/// What the caller is told of a session that did not begin.
fn fault(error: &ExecError) -> Fault {
    let reason = match error {
        ExecError::CannotStart { message } => cannot_start(message),
        ExecError::User { .. } => "USER_NOT_FOUND",
        ExecError::NoCommand => "INVALID",
        ExecError::Request(RequestError::NotRunning(_)) => "CONTAINER_NOT_RUNNING",
        ExecError::Request(RequestError::NotFound(_)) => "CONTAINER_NOT_RUNNING",
        ExecError::Request(RequestError::OldShim) => "NOT_SUPPORTED",
        ExecError::Connect(_) | ExecError::Request(_) => "STREAM_FAILED",
    };
    Fault::new(reason, crate::errors::chain(error))
}

/// Docker's words tell a missing program from one that may not be run.
fn cannot_start(message: &str) -> &'static str {
    if message.contains("not found") || message.contains("no such file or directory") {
        "COMMAND_NOT_FOUND"
    } else if message.contains("permission denied") || message.contains("exec format error") {
        "COMMAND_NOT_EXECUTABLE"
    } else {
        "STREAM_FAILED"
    }
}

/// What the program is told when its reader goes away.
#[derive(Clone, Copy)]
enum Left {
    HangUp { terminal: bool },
    Leave { terminal: bool },
}

async fn serve(
    wanted: &Wanted,
    session: ExecSession,
    left: Left,
    pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    let (Left::HangUp { terminal } | Left::Leave { terminal }) = left;
    let began = pipe.send(started(wanted, terminal)).await;
    let ExecSession { stdin, stdout: output, stderr: errors, control } = session;
    let out = pipe.out.clone();
    let outputs = async {
        let errors = async {
            match errors {
                Some(errors) => pump(errors, &out, &control, stderr).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(pump(output, &out, &control, stdout), errors).map(drop)
    };
    let (data, chunks) = mpsc::channel(INPUTS);
    let inputs = inputs(pipe, stdin.is_some().then_some(data), &control);
    // Apart from `inputs`, which drops what it has when the person is gone: see the hang-up below.
    let writing = write(stdin, chunks);
    tokio::pin!(outputs, inputs, writing);
    let end = async {
        began?;
        tokio::select! {
            done = &mut outputs => done?,
            gone = &mut inputs => return Err(gone),
            gone = &mut writing => return Err(gone),
            () = out.closed() => return Err(Gone),
        }
        tokio::select! {
            end = control.wait() => Ok(end),
            gone = &mut inputs => Err(gone),
            gone = &mut writing => Err(gone),
            () = out.closed() => Err(Gone),
        }
    };
    let end = end.await;
    if let (Err(_), Left::HangUp { .. }) = (&end, left) {
        // Before its streams are closed: a program tells a hang-up from an end of input.
        let _ = control.signal(SIGHUP).await;
        tokio::select! {
            _ = control.wait() => {}
            () = sleep(HEAD_START) => {}
        }
    }
    Ok(match end? {
        Ok(ExitStatus::Exited(code)) => Ok(End::Exited(code)),
        Ok(ExitStatus::Signaled(signal)) => Ok(End::Signaled(signal)),
        Err(error) => Err(session_fault(error)),
    })
}

fn session_fault(error: SessionError) -> Fault {
    Fault::new("STREAM_FAILED", error.to_string())
}

/// Passes one stream on until it ends, or the program has and nothing more comes.
async fn pump(
    mut from: SessionOutput,
    out: &mpsc::Sender<Frame>,
    control: &SessionControl,
    frame: fn(Vec<u8>) -> Frame,
) -> Result<(), Gone> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let quiet = async {
            // A lost monitor is an end too; its streams may stay open.
            let _ = control.wait().await;
            sleep(QUIET_AFTER_END).await;
        };
        let count = tokio::select! {
            read = from.read(&mut chunk) => match read {
                // EIO is how a terminal whose last user is gone ends.
                Ok(0) | Err(_) => return Ok(()),
                Ok(count) => count,
            },
            () = quiet => return Ok(()),
        };
        out.send(frame(chunk[..count].to_vec())).await.map_err(|_| Gone)?;
    }
}

/// Passes the person's frames on; returns only when the person is gone.
async fn inputs(pipe: &mut Pipe, mut data: Option<mpsc::Sender<Vec<u8>>>, control: &SessionControl) -> Gone {
    loop {
        // A program that has ended takes neither input nor sizes; its end comes otherwise.
        match pipe.input().await {
            Some(Input::Data(bytes)) => {
                if let Some(data) = &data {
                    let _ = data.send(bytes).await;
                }
            }
            Some(Input::DataEnd) => data = None,
            Some(Input::Resize(size)) => drop(control.resize(size).await),
            Some(Input::Signal(signal)) => drop(control.signal(signal).await),
            Some(Input::Unknown) => {}
            None => return Gone,
        }
    }
}

/// Writes what comes; a program that closes its input loses the rest. Dropping `stdin` at the end
/// is the end of the program's input. Never returns, as there is nothing to say of it.
async fn write(stdin: Option<SessionInput>, mut chunks: mpsc::Receiver<Vec<u8>>) -> Gone {
    if let Some(mut stdin) = stdin {
        while let Some(chunk) = chunks.recv().await {
            if stdin.write_all(&chunk).await.is_err() || stdin.flush().await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Kills a program that has been hung up and does not end.
async fn end(control: SessionControl) {
    tokio::select! {
        _ = control.wait() => return,
        () = sleep(HANG_UP_LIMIT) => {}
    }
    // One that has ended meanwhile is what was wanted.
    let _ = control.signal(SIGKILL).await;
}

/// The task's monitor and the container, which has to be named.
fn monitored_container<'a>(
    context: &TaskContext,
    wanted: &'a Wanted,
) -> Result<(Monitor, &'a ContainerName), Fault> {
    let monitor = monitor(context, wanted)?;
    let unnamed = || Fault::new("INVALID", "a container has to be named");
    Ok((monitor, wanted.container.as_ref().ok_or_else(unnamed)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_failed_start_tell_what_is_wrong() {
        for (message, reason) in [
            ("exec: \"nope\": executable file not found in $PATH", "COMMAND_NOT_FOUND"),
            ("exec /bin/nope: no such file or directory", "COMMAND_NOT_FOUND"),
            ("exec /etc/passwd: permission denied", "COMMAND_NOT_EXECUTABLE"),
            ("something else", "STREAM_FAILED"),
        ] {
            assert_eq!(cannot_start(message), reason, "{message}");
        }
    }
}
