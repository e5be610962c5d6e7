//! Both directions of exec and attach: keys, sizes and signals go in, output comes out.
//! In: an open call. Out: how it ended. Owns: standard input and output meanwhile.
//! Never: holds more than a few chunks; reads input faster than the container takes it.

use crate::detach::DetachKeys;
use crate::failure::Failure;
use crate::terminal::{self, RawMode};
use lighter_proto::v1;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_input::Input;
use lighter_proto::v1::stream_output::Output;
use std::io::Write;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Streaming;

/// Bytes of one frame; the API refuses more than 64 KiB.
pub const CHUNK_BYTES: usize = 32 * 1024;
/// Messages on their way: one is made while another is sent.
pub const MESSAGES: usize = 2;

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signaled(i32),
    Done(u64),
    /// The person left; whatever runs goes on.
    Detached,
}

impl End {
    /// As a shell gives it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signaled(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Done(_) | Self::Detached => 0,
        }
    }
}

/// What of the person's side is passed on.
pub struct Person {
    /// Standard input.
    pub stdin: bool,
    /// Raw mode and sizes, when the other side has a terminal.
    pub terminal: bool,
    /// Keys that leave without ending anything.
    pub detach: Option<DetachKeys>,
    /// Whether SIGTERM and the like go to the container's program rather than end this one.
    pub pass_signals: bool,
}

/// Turns an input into the call's own message.
pub type Wrap<T> = fn(v1::StreamInput) -> T;

/// A frame for the container.
pub fn frame(input: Input) -> v1::StreamInput {
    v1::StreamInput { input: Some(input) }
}

/// The person's window, as it travels.
pub fn window() -> Option<v1::WindowSize> {
    terminal::size().map(|(rows, columns)| v1::WindowSize { rows, columns })
}

/// What ends this program, and the signal's number.
struct Ending {
    signals: Vec<(i32, Signal)>,
}

impl Ending {
    fn new() -> std::io::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let signals = kinds.into_iter().map(|kind| Ok((kind.as_raw_value(), signal(kind)?)));
        Ok(Self { signals: signals.collect::<std::io::Result<_>>()? })
    }

    async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.signals {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Runs until the other side has ended, the person has left, or a signal ends this program.
pub async fn run<T: Send + 'static>(
    what: &str,
    person: Person,
    to: mpsc::Sender<T>,
    wrap: Wrap<T>,
    mut from: Streaming<v1::StreamOutput>,
) -> Result<End, Failure> {
    let io = |source| Failure::io("set up the terminal", source);
    let mut ending = Ending::new().map_err(io)?;
    let mut resized = signal(SignalKind::window_change()).map_err(io)?;
    let raw = person.terminal && terminal::stdin_is_terminal();
    // Given back when this function is left, however it is.
    let _raw_mode = if raw && person.stdin { Some(RawMode::enter().map_err(io)?) } else { None };
    let reading = read_stdin(person.stdin, person.detach, to.clone(), wrap);
    tokio::pin!(reading);
    let mut reads = true;
    loop {
        tokio::select! {
            output = from.message() => {
                let output = output.map_err(Failure::rpc(what))?.and_then(|output| output.output);
                match output {
                    Some(Output::Stdout(data)) => write(std::io::stdout().lock(), &data)?,
                    Some(Output::Stderr(data)) => write(std::io::stderr().lock(), &data)?,
                    Some(Output::Started(_) | Output::Stats(_) | Output::Images(_)) => {}
                    Some(Output::Ended(ended)) => return end(ended, what),
                    None => return Err(cut_off(what)),
                }
            }
            left = &mut reading, if reads => match left {
                Read::Detached => return Ok(End::Detached),
                Read::End => reads = false,
            },
            Some(()) = resized.recv(), if raw => {
                if let Some(size) = window() {
                    // Whoever does not take it any more says so by the end of the output.
                    let _ = to.send(wrap(frame(Input::Resize(size)))).await;
                }
            }
            number = ending.next() => {
                if !person.pass_signals || to.try_send(wrap(frame(Input::Signal(number)))).is_err() {
                    return Ok(End::Signaled(number));
                }
            }
        }
    }
}

fn cut_off(what: &str) -> Failure {
    Failure::Unavailable {
        message: format!("cannot {what}: the stream ended without a result"),
        next: "lighter node ls; the node or the control plane may have gone away".to_owned(),
    }
}

fn end(ended: v1::StreamEnded, what: &str) -> Result<End, Failure> {
    match ended.result {
        Some(Ended::Exited(code)) => Ok(End::Exited(code)),
        Some(Ended::Signaled(signal)) => Ok(End::Signaled(signal)),
        Some(Ended::Done(done)) => Ok(End::Done(done.entries)),
        Some(Ended::Failed(failure)) => Err(Failure::Unavailable {
            message: format!("cannot {what}: {}", failure.message),
            next: "lighter task show TASK".to_owned(),
        }),
        None => Err(cut_off(what)),
    }
}

fn write(mut to: impl Write, data: &[u8]) -> Result<(), Failure> {
    match to.write_all(data).and_then(|()| to.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(source) => Err(Failure::io("write the output", source)),
    }
}

enum Read {
    /// Nothing more is to be sent.
    End,
    Detached,
}

async fn read_stdin<T>(
    wanted: bool,
    mut detach: Option<DetachKeys>,
    to: mpsc::Sender<T>,
    wrap: Wrap<T>,
) -> Read {
    if !wanted {
        return Read::End;
    }
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = stdin.read(&mut chunk).await.unwrap_or(0);
        if count == 0 {
            let _ = to.send(wrap(frame(Input::DataEnd(v1::DataEnd {})))).await;
            return Read::End;
        }
        let (data, left) = match &mut detach {
            Some(keys) => keys.take(&chunk[..count]),
            None => (chunk[..count].to_vec(), false),
        };
        if !data.is_empty() && to.send(wrap(frame(Input::Data(data)))).await.is_err() {
            return Read::End;
        }
        if left {
            return Read::Detached;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_commands_own() {
        assert_eq!(End::Exited(7).exit_code(), 7);
        assert_eq!(End::Signaled(9).exit_code(), 137);
        assert_eq!(End::Detached.exit_code(), 0);
    }
}
