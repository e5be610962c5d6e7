//! The owners of the netfilter sockets: a thread for nf_tables that does requests one after the
//! other, and one for connection tracking that does what has come in together.
//! In: closures that use the socket; wishes. Out: their results. Owns the threads and, in them, the
//! sockets, which stay in the network namespace where `start` was called.
//! Never: a lock; never on a worker of the runtime, which another program's large transaction
//! (`nft -f` of a big file) could hold up.

use crate::conntrack::{self, ConntrackError, Wanted};
use crate::netlink::socket::Socket;
use nix::errno::Errno;
use std::io;
use tokio::sync::{mpsc, oneshot};

type Job = Box<dyn FnOnce(&mut Socket) + Send>;

/// A job takes microseconds; more than this many waiting means that the kernel is held up, and the
/// callers, one per task, then wait in line.
const QUEUE_DEPTH: usize = 64;

/// A handle to the thread; the thread ends with its last handle.
#[derive(Debug, Clone)]
pub(crate) struct Firewall {
    jobs: mpsc::Sender<Job>,
}

impl Firewall {
    /// Opens the socket in the calling thread's network namespace.
    pub(crate) fn start() -> io::Result<Self> {
        let mut socket = Socket::open().map_err(io::Error::from)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_DEPTH);
        let thread = std::thread::Builder::new().name("lighter-nft".to_owned());
        thread.spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut socket);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Does `work` with the socket. Work that was accepted is done even when the caller gives up.
    pub(crate) async fn run<T: Send + 'static, E: From<FirewallGone> + Send + 'static>(
        &self,
        work: impl FnOnce(&mut Socket) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let (send, receive) = oneshot::channel();
        let job: Job = Box::new(move |socket| {
            let _ = send.send(work(socket));
        });
        self.jobs.send(job).await.map_err(|_| FirewallGone)?;
        receive.await.map_err(|_| FirewallGone)?
    }
}

/// A request for the deletion of tracked connections, and who waits for it.
type Sweep = (Wanted, oneshot::Sender<Result<(), ConntrackError>>);

/// The owner of a second socket, for connection tracking: its walks take milliseconds, which no port
/// mapping shall wait for. Requests that come meanwhile are done together by the next walk.
#[derive(Debug, Clone)]
pub(crate) struct Flows {
    sweeps: mpsc::Sender<Sweep>,
}

impl Flows {
    /// Opens the socket in the calling thread's network namespace.
    pub(crate) fn start() -> io::Result<Self> {
        let mut socket = Socket::open().map_err(io::Error::from)?;
        let (sweeps, mut queue) = mpsc::channel::<Sweep>(QUEUE_DEPTH);
        let thread = std::thread::Builder::new().name("lighter-ct".to_owned());
        thread.spawn(move || {
            while let Some(first) = queue.blocking_recv() {
                let mut waiting = vec![first];
                while waiting.len() < QUEUE_DEPTH
                    && let Ok(next) = queue.try_recv()
                {
                    waiting.push(next);
                }
                let (wanted, answers): (Vec<Wanted>, Vec<_>) = waiting.into_iter().unzip();
                let swept = conntrack::sweep(&mut socket, &wanted).map(drop);
                for answer in answers {
                    let _ = answer.send(swept);
                }
            }
        })?;
        Ok(Self { sweeps })
    }

    /// Deletes entries and waits for it.
    pub(crate) async fn delete(&self, wanted: Wanted) -> Result<(), ConntrackError> {
        let (send, receive) = oneshot::channel();
        self.sweeps.send((wanted, send)).await.map_err(|_| FirewallGone)?;
        receive.await.map_err(|_| FirewallGone)?
    }
}

/// The thread has ended, which it does only by a panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirewallGone;

impl From<FirewallGone> for crate::nft::NftError {
    fn from(_: FirewallGone) -> Self {
        Self { what: "request: the thread for it has ended", errno: Errno::ECANCELED }
    }
}

impl From<FirewallGone> for ConntrackError {
    fn from(_: FirewallGone) -> Self {
        Self { what: "reach the thread for", errno: Errno::ECANCELED }
    }
}
