//! Every way in: TLS addresses, Unix sockets, loopback addresses; each connection gets its `Peer`
//! here, once, before its first request.
//! In: listeners. Out: connections with their caller. Owns: the socket files.
//! Never: serves another address without TLS; an unfinished handshake holds up nobody.

use crate::identity::ca::ServerIdentity;
use crate::identity::caller::Caller;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Connections accepted and not yet taken by the server; it takes them at once.
const ACCEPTED_DEPTH: usize = 64;
/// Handshakes at a time: a few kB each, and no more than two cores can do in a second.
const HANDSHAKES: usize = 256;
/// Bytes of HTTP/2's connection preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// After a failed accept (no descriptors left): others may close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub caller: Caller,
    /// `None` on a Unix socket.
    pub address: Option<SocketAddr>,
}

/// What the listeners allow; Unix sockets are bound by their file's mode alone.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Of them without an identity.
    pub anonymous: usize,
    /// For a TLS handshake, and then for the first bytes of HTTP/2.
    pub handshake: Duration,
}

/// Why there is nothing to listen with.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}")]
    Bind {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is in use: another control plane answers there")]
    SocketInUse { path: PathBuf },
    #[error("the TLS identity cannot be used")]
    Tls {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One accepted connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    peer: Peer,
    /// Until the first bytes of HTTP/2 have come.
    preface: Option<Preface>,
    /// Given back when the connection ends.
    _places: Vec<OwnedSemaphorePermit>,
}

/// What a connection has to say before it is anything but a descriptor held.
struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(preface) = &mut this.preface else { return Pin::new(&mut this.stream).poll_read(cx, buf) };
        if preface.deadline.as_mut().poll(cx).is_ready() {
            tracing::info!(peer = ?this.peer.address, "a connection that said nothing is closed");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
        if preface.missing == 0 {
            this.preface = None;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The accepting side: listeners run until `stop`.
#[derive(Clone)]
pub struct Acceptors {
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
    handshakes: Arc<Semaphore>,
    places: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    limits: Limits,
}

impl Acceptors {
    /// With the receiving end for the server.
    pub fn new(stop: CancellationToken, limits: Limits) -> (Self, mpsc::Receiver<io::Result<Connection>>) {
        let (accepted, connections) = mpsc::channel(ACCEPTED_DEPTH);
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let (places, anonymous) = (semaphore(limits.connections), semaphore(limits.anonymous));
        let handshakes = semaphore(HANDSHAKES);
        (Self { accepted, stop, handshakes, places, anonymous, limits }, connections)
    }

    /// Serves an address with TLS; returns the address bound.
    pub async fn tls(
        &self,
        address: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
    ) -> Result<SocketAddr, ListenError> {
        let (listener, bound) = bind(address).await?;
        let (this, acceptor) = (self.clone(), TlsAcceptor::from(tls));
        tokio::spawn(async move {
            while let Some((stream, peer)) = this.next(listener.accept()).await {
                let Some(stream) = stream else { continue };
                let Some(place) = this.place(peer) else { continue };
                let (this, acceptor) = (this.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let connection = this.handshake(acceptor, stream, peer, place).await;
                    this.give(connection).await;
                });
            }
        });
        Ok(bound)
    }

    async fn handshake(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        peer: Option<SocketAddr>,
        place: OwnedSemaphorePermit,
    ) -> Option<Connection> {
        let late =
            |_: &tokio::time::error::Elapsed| tracing::info!(?peer, "a TLS handshake did not finish in time");
        let limit = self.limits.handshake;
        // Who says nothing holds a descriptor and no place among the handshakes.
        tokio::time::timeout(limit, stream.readable()).await.inspect_err(late).ok()?.ok()?;
        let _turn = self.handshakes.acquire().await.ok()?;
        // Without it small messages of a session wait for each other.
        let _ = stream.set_nodelay(true);
        let done = tokio::time::timeout(limit, acceptor.accept(stream)).await.inspect_err(late).ok()?;
        let stream =
            done.inspect_err(|error| tracing::info!(%error, ?peer, "a TLS handshake failed")).ok()?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let caller = certificate.map_or(Caller::Anonymous, |der| Caller::from_certificate(der));
        self.connection(Box::new(stream), Peer { caller, address: peer }, vec![place])
    }

    /// A place among all connections; none is left when it is `None`.
    fn place(&self, peer: Option<SocketAddr>) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            let limit = self.limits.connections;
            tracing::warn!(?peer, limit, "a connection is refused: connections_max are open");
        }
        place
    }

    /// The connection, unless too many are without an identity.
    fn connection(
        &self,
        stream: Box<dyn Stream>,
        peer: Peer,
        mut places: Vec<OwnedSemaphorePermit>,
    ) -> Option<Connection> {
        if peer.caller == Caller::Anonymous {
            let Ok(place) = self.anonymous.clone().try_acquire_owned() else {
                let limit = self.limits.anonymous;
                tracing::warn!(peer = ?peer.address, limit, "a connection is refused: anonymous_connections_max");
                return None;
            };
            places.push(place);
        }
        let deadline = Box::pin(tokio::time::sleep(self.limits.handshake));
        let preface = Some(Preface { missing: PREFACE_BYTES, deadline });
        Some(Connection { stream, peer, preface, _places: places })
    }

    /// Serves a loopback address without TLS: everybody there is anonymous.
    pub async fn loopback(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        let (listener, bound) = bind(address).await?;
        let this = self.clone();
        tokio::spawn(async move {
            while let Some((stream, peer)) = this.next(listener.accept()).await {
                let Some(stream) = stream else { continue };
                let Some(place) = this.place(peer) else { continue };
                let _ = stream.set_nodelay(true);
                let peer = Peer { caller: Caller::Anonymous, address: peer };
                this.give(this.connection(Box::new(stream), peer, vec![place])).await;
            }
        });
        Ok(bound)
    }

    /// Serves a Unix socket: the kernel says who is there.
    pub async fn unix(&self, path: &Path, own_uid: u32) -> Result<(), ListenError> {
        let listener = bind_unix(path).await?;
        let (this, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move {
            let accept = async || listener.accept().await.map(|(stream, _)| (stream, ()));
            while let Some((stream, _)) = this.next(accept()).await {
                let Some(stream) = stream else { continue };
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                let peer = Peer { caller: Caller::from_unix_peer(uid, own_uid), address: None };
                let connection =
                    Connection { stream: Box::new(stream), peer, preface: None, _places: vec![] };
                this.give(Some(connection)).await;
            }
            let _ = std::fs::remove_file(path);
        });
        Ok(())
    }

    /// The next connection; `(None, None)` after a failed accept, `None` at the end.
    async fn next<S, A>(
        &self,
        accept: impl Future<Output = io::Result<(S, A)>>,
    ) -> Option<(Option<S>, Option<A>)> {
        let accepted = tokio::select! {
            () = self.stop.cancelled() => return None,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, address)) => Some((Some(stream), Some(address))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                Some((None, None))
            }
        }
    }

    async fn give(&self, connection: Option<Connection>) {
        if let Some(connection) = connection {
            // The server is gone only when everything ends.
            let _ = self.accepted.send(Ok(connection)).await;
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |source| ListenError::Bind { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Binds a socket file, with the mode that the umask gives; one left by a dead server is replaced,
/// one that answers is not.
async fn bind_unix(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Bind { address: path.display().to_string(), source };
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::SocketInUse { path: path.to_owned() });
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(failed)
}

/// TLS as the server speaks it: HTTP/2 only, client certificates of our CA if any are shown.
pub fn tls_config(
    identity: ServerIdentity,
    ca: &CertificateDer<'static>,
) -> Result<Arc<rustls::ServerConfig>, ListenError> {
    fn failed(error: impl std::error::Error + Send + Sync + 'static) -> ListenError {
        ListenError::Tls { source: Box::new(error) }
    }
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(failed)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(failed)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
