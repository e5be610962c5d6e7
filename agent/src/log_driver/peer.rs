//! A connection to a sink that is a stream: TCP or a Unix socket. In: an address. Out: bytes there,
//! answers back. Owns: the socket. Never: waits for a peer longer than it is told; the shipper bounds
//! every send.

use crate::time::sleep;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// A host that drops packets is given up sooner than the kernel's two minutes.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

trait Duplex: AsyncRead + AsyncWrite + AsFd + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + AsFd + Send + Unpin> Duplex for T {}

pub(super) struct Peer(Box<dyn Duplex>);

impl Peer {
    /// `host:port`.
    pub(super) async fn tcp(address: &str) -> io::Result<Self> {
        let stream = tokio::select! {
            stream = TcpStream::connect(address) => stream?,
            () = sleep(CONNECT_LIMIT) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stream.set_nodelay(true)?;
        Ok(Self(Box::new(stream)))
    }

    pub(super) async fn unix(path: &str) -> io::Result<Self> {
        Ok(Self(Box::new(UnixStream::connect(path).await?)))
    }

    /// Writes all. A peer that has closed its end is noticed before, and right after as far as its
    /// answer is there already; more than that only a protocol with acknowledgements can tell.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check_open()?;
        self.0.write_all(bytes).await?;
        self.0.flush().await?;
        self.check_open()
    }

    pub(super) async fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes).await.map(drop)
    }

    /// Asks the kernel, not the runtime, which hears of it a moment later. Sinks do not speak unasked.
    fn check_open(&self) -> io::Result<()> {
        match recv(self.0.as_fd(), &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "the sink closed the connection"))
            }
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
