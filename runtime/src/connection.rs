//! One connection to a shim: a tokio task that owns the socket, matches replies to requests by id
//! and hands out events. In: requests from handles. Out: replies, events, and once `Disconnected`.
//! Owns the task; it ends when the last handle is dropped or the shim closes the socket.
//! Never: reconnects; `Runtime::adopt` does, after it has looked at who the shim is.

use crate::handle::ShimEvent;
use lighter_shim_wire::message::HelloReply;
use lighter_shim_wire::{
    Event, FrameBuffer, HelloRange, Reply, Request, ShimMessage, ShimStatus, VERSION_MAX, VERSION_MIN, agree,
    encode_frame,
};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};

/// A shim that is alive answers a greeting at once; one that does not is stuck on its log's disk.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A task has at most ten containers, each with one request and one probe in flight, and the ports;
/// with room for who asks by hand.
const REQUESTS_MAX: usize = 32;
/// Ten containers end once each, and the connection once.
const EVENTS_MAX: usize = 64;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to the shim's socket {path}")]
    Connect { path: String, source: io::Error },
    #[error("the shim did not answer within {} s", HELLO_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("the shim closed the connection")]
    Closed,
    #[error(
        "the shim speaks versions {min} to {max} of the protocol, this agent {VERSION_MIN} to {VERSION_MAX}"
    )]
    Version { min: u16, max: u16 },
    #[error("the shim answered the greeting with something else")]
    Unexpected,
}

pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Reply>,
}

/// The sending side, and the first receiver of events.
pub(crate) struct Connection {
    pub(crate) requests: mpsc::Sender<Ask>,
    pub(crate) events: broadcast::Sender<ShimEvent>,
    pub(crate) first_events: broadcast::Receiver<ShimEvent>,
    pub(crate) status: ShimStatus,
    /// The version both sides use.
    pub(crate) version: u16,
}

/// A new connection to the shim's socket, about which the shim knows nothing yet.
pub(crate) async fn connect_socket(task_dir: &Path) -> io::Result<UnixStream> {
    // Through the directory's descriptor: a socket's name holds at most 108 bytes (unix(7)).
    let directory = std::fs::File::open(task_dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/shim.sock", directory.as_raw_fd())).await
}

pub(crate) async fn connect(task_dir: &Path) -> Result<Connection, ConnectError> {
    let path = task_dir.join("shim.sock");
    let failed = |source| ConnectError::Connect { path: path.display().to_string(), source };
    let stream = connect_socket(task_dir).await.map_err(failed)?;
    let (read, write) = stream.into_split();
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let (events, first_events) = broadcast::channel(EVENTS_MAX);
    tokio::spawn(serve(read, write, asked, events.clone()));
    let (status, version) = greet(&requests).await?;
    Ok(Connection { requests, events, first_events, status, version })
}

async fn greet(requests: &mpsc::Sender<Ask>) -> Result<(ShimStatus, u16), ConnectError> {
    let ours = HelloRange { min: VERSION_MIN, max: VERSION_MAX };
    let (answer, reply) = oneshot::channel();
    requests.send(Ask { request: Request::Hello(ours), answer }).await.map_err(|_| ConnectError::Closed)?;
    let reply = tokio::time::timeout(HELLO_TIMEOUT, reply).await.map_err(|_| ConnectError::NoAnswer)?;
    match reply.map_err(|_| ConnectError::Closed)? {
        Reply::Hello(HelloReply { range, status }) => match agree(ours, range) {
            Some(version) => Ok((status, version)),
            None => Err(ConnectError::Version { min: range.min, max: range.max }),
        },
        _ => Err(ConnectError::Unexpected),
    }
}

/// The task that owns the socket.
async fn serve(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut asked: mpsc::Receiver<Ask>,
    events: broadcast::Sender<ShimEvent>,
) {
    let mut waiting: HashMap<u32, oneshot::Sender<Reply>> = HashMap::new();
    let mut incoming = FrameBuffer::default();
    let mut next_id: u32 = 0;
    let mut chunk = vec![0; 4096];
    loop {
        tokio::select! {
            // Both arms may be dropped half-way: recv and read lose nothing then (tokio docs).
            ask = asked.recv() => {
                let Some(Ask { request, answer }) = ask else { return };
                // Id 0 is for what comes unasked.
                next_id = next_id.checked_add(1).unwrap_or(1);
                waiting.insert(next_id, answer);
                if write.write_all(&encode_frame(next_id, &request)).await.is_err() {
                    break;
                }
            }
            count = read.read(&mut chunk) => {
                let Ok(count @ 1..) = count else { break };
                incoming.push(&chunk[..count]);
                if !deliver(&mut incoming, &mut waiting, &events) {
                    break;
                }
            }
        }
    }
    // Those who wait see their channel close; whoever follows events is told.
    drop(waiting);
    let _ = events.send(ShimEvent::Disconnected);
}

/// Whether the stream can be read on.
fn deliver(
    incoming: &mut FrameBuffer,
    waiting: &mut HashMap<u32, oneshot::Sender<Reply>>,
    events: &broadcast::Sender<ShimEvent>,
) -> bool {
    loop {
        match incoming.next_frame::<ShimMessage>() {
            Ok(None) => return true,
            Ok(Some((id, ShimMessage::Reply(reply)))) => {
                if let Some(answer) = waiting.remove(&id) {
                    let _ = answer.send(reply);
                }
            }
            Ok(Some((_, ShimMessage::Event(Event::Exited(exited))))) => match exited.name.parse() {
                // Nobody listening is no error: the exit is also in the status and on disk.
                Ok(container) => drop(
                    events.send(ShimEvent::Exited { container, exit: crate::handle::exit_of(exited.exit) }),
                ),
                Err(_) => return false,
            },
            Ok(Some((_, ShimMessage::Event(Event::LeaseOver)))) => drop(events.send(ShimEvent::LeaseOver)),
            // Of sessions, which have connections of their own.
            Ok(Some((_, ShimMessage::Event(Event::SessionEnded(_))))) => {}
            Err(error) => {
                tracing::warn!(%error, "a shim sent what cannot be read; the connection is closed");
                return false;
            }
        }
    }
}
