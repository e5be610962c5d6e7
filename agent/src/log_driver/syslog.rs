//! Driver `syslog`: RFC 5424 and RFC 3164 over Unix sockets, UDP and TCP.
//! In: records. Out: one datagram each, or lines on a stream, framed by newlines as Docker does
//! (RFC 6587 §3.4.2). Syslog has no acknowledgements: a record counts as taken when the kernel has
//! it. Owns: the connection. Never: TLS; that address is refused when the definition is registered.

use super::batch::Record;
use super::identity::Identity;
use super::peer::Peer;
use super::sink::{SendError, Sink};
use futures_util::future::BoxFuture;
use lighter_model::task_definition::log::{SyslogAddress, SyslogFormat, SyslogSettings};
use lighter_runtime::logs::{LogLine, LogStream};
use std::io;
use tokio::net::{UdpSocket, UnixDatagram, lookup_host};

const DRIVER: &str = "syslog";
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// RFC 5424 §6.2.5.
const APP_NAME_MAX: usize = 48;

pub(super) struct Syslog {
    settings: SyslogSettings,
    tag: String,
    host: String,
    connection: Option<Connection>,
}

enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Stream(Peer),
}

impl Syslog {
    pub(super) fn new(settings: SyslogSettings, identity: &Identity) -> Self {
        let printable = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
        };
        let (tag, host) = (printable(&identity.tag), printable(&identity.host));
        Self { settings, tag, host, connection: None }
    }

    /// How many were taken, if not all.
    async fn try_send(&mut self, records: &[Record]) -> Result<(), (usize, io::Error)> {
        // Out of its place while it is used: whatever goes wrong, or a send that is dropped half-way,
        // ends the connection.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.settings.address).await.map_err(|error| (0, error))?,
        };
        let messages: Vec<Vec<u8>> = records.iter().map(|record| self.message(&record.line)).collect();
        connection.send(&messages).await?;
        self.connection = Some(connection);
        Ok(())
    }

    fn message(&self, line: &LogLine) -> Vec<u8> {
        let severity = match line.stream {
            LogStream::Stdout => 6,
            LogStream::Lighter => 4,
            LogStream::Stderr => 3,
        };
        let priority = u16::from(self.settings.facility.0) * 8 + severity;
        let (tag, host, pid) = (&self.tag, &self.host, std::process::id());
        let head = match self.settings.format {
            SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: ", stamp(&line.time)),
            SyslogFormat::Rfc3164 => format!("<{priority}>{} {host} {tag}[{pid}]: ", stamp(&line.time)),
            SyslogFormat::Rfc5424 => {
                let time = line.time.get(..19).unwrap_or_default();
                format!("<{priority}>1 {time}Z {host} {} {pid} - - ", app_name(tag))
            }
            SyslogFormat::Rfc5424Micro => {
                let time = line.time.get(..26).unwrap_or_default();
                format!("<{priority}>1 {time}Z {host} {} {pid} - - ", app_name(tag))
            }
        };
        [head.as_bytes(), &line.text].concat()
    }
}

impl Connection {
    async fn send(&mut self, messages: &[Vec<u8>]) -> Result<(), (usize, io::Error)> {
        if let Self::Stream(peer) = self {
            let lines: Vec<u8> = messages.iter().flat_map(|m| m.iter().chain(b"\n")).copied().collect();
            // What a broken stream has taken is not known: all of it is sent again.
            return peer.write(&lines).await.map_err(|error| (0, error));
        }
        for (taken, message) in messages.iter().enumerate() {
            let sent = match self {
                Self::Unix(socket) => socket.send(message).await,
                Self::Udp(socket) => socket.send(message).await,
                Self::Stream(_) => Ok(0),
            };
            sent.map_err(|error| (taken, error))?;
        }
        Ok(())
    }
}

async fn connect(address: &SyslogAddress) -> io::Result<Connection> {
    match address {
        SyslogAddress::Tcp(address) => Peer::tcp(address).await.map(Connection::Stream),
        SyslogAddress::Unix(path) => {
            let socket = UnixDatagram::unbound()?;
            match socket.connect(path) {
                Ok(()) => Ok(Connection::Unix(socket)),
                // EPROTOTYPE: it is a stream socket.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::PROTOTYPE.raw_os_error()) => {
                    Peer::unix(path).await.map(Connection::Stream)
                }
                Err(error) => Err(error),
            }
        }
        SyslogAddress::Udp(address) => {
            let to = lookup_host(address).await?.next();
            let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
            let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
            socket.connect(to).await?;
            Ok(Connection::Udp(socket))
        }
    }
}

impl Sink for Syslog {
    fn send<'a>(&'a mut self, records: &'a [Record]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            let sent = self.try_send(records).await;
            sent.map_err(|(taken, error)| SendError::later(DRIVER, taken, error))
        })
    }
}

/// RFC 3164's date of `2026-01-31T23:59:59.…`, in UTC: `Jan 31 23:59:59`.
fn stamp(time: &str) -> String {
    let month = time.get(5..7).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let day = time.get(8..10).and_then(|text| text.parse::<u8>().ok()).unwrap_or(1);
    let name = MONTHS.get(month.saturating_sub(1)).copied().unwrap_or("Jan");
    format!("{name} {day:>2} {}", time.get(11..19).unwrap_or_default())
}

/// The tag is printable ASCII.
fn app_name(tag: &str) -> &str {
    if tag.is_empty() { "-" } else { &tag[..tag.len().min(APP_NAME_MAX)] }
}
