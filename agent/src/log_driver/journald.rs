//! Driver `journald`: systemd's native protocol, one datagram a record.
//! In: records. Out: datagrams with Docker's field names and our own (`LIGHTER_…`).
//! A record counts as taken when it is in the journal's socket, which systemd keeps while journald
//! is restarted. Owns: the socket. Never: writes a file for a large record; ours are at most 16 KiB.
//! Source: systemd's "Native Journal Protocol"; Docker's journald driver for the names.

use super::batch::Record;
use super::identity::Identity;
use super::sink::{SendError, Sink};
use futures_util::future::BoxFuture;
use lighter_runtime::logs::LogStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixDatagram;

const DRIVER: &str = "journald";
/// syslog(3): LOG_INFO, LOG_WARNING, LOG_ERR.
const PRIORITIES: (u8, u8, u8) = (6, 4, 3);

pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The fields that are the same for every record.
    fixed: Vec<u8>,
}

impl Journald {
    pub(super) fn new(path: &Path, identity: &Identity) -> Self {
        let mut fixed = Vec::new();
        let fields = [
            ("CONTAINER_NAME", &identity.container),
            ("CONTAINER_ID", &identity.short_id),
            ("CONTAINER_ID_FULL", &identity.full_id),
            ("CONTAINER_TAG", &identity.tag),
            ("SYSLOG_IDENTIFIER", &identity.tag),
            ("IMAGE_NAME", &identity.image),
            ("LIGHTER_TASK_ID", &identity.task),
            ("LIGHTER_FAMILY", &identity.family),
            ("LIGHTER_CLUSTER", &identity.cluster),
        ];
        fields.iter().for_each(|(name, value)| field(&mut fixed, name, value.as_bytes()));
        for (name, value) in &identity.extra {
            field(&mut fixed, &field_name(name), value.as_bytes());
        }
        Self { path: path.to_path_buf(), socket: None, fixed }
    }

    fn datagram(&self, record: &Record) -> Vec<u8> {
        let line = &record.line;
        let mut bytes = Vec::with_capacity(self.fixed.len() + line.text.len() + 160);
        field(&mut bytes, "MESSAGE", &line.text);
        let priority = match line.stream {
            LogStream::Stdout => PRIORITIES.0,
            LogStream::Lighter => PRIORITIES.1,
            LogStream::Stderr => PRIORITIES.2,
        };
        field(&mut bytes, "PRIORITY", priority.to_string().as_bytes());
        field(&mut bytes, "SYSLOG_TIMESTAMP", line.time.as_bytes());
        field(&mut bytes, "CONTAINER_LOG_ORDINAL", record.number.to_string().as_bytes());
        if line.partial {
            field(&mut bytes, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        bytes.extend_from_slice(&self.fixed);
        bytes
    }

    fn connected(&mut self) -> std::io::Result<&UnixDatagram> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path)?;
            self.socket = Some(socket);
        }
        self.socket.as_ref().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
    }
}

impl Sink for Journald {
    fn send<'a>(&'a mut self, records: &'a [Record]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            for (taken, record) in records.iter().enumerate() {
                let datagram = self.datagram(record);
                let sent = match self.connected() {
                    Ok(socket) => socket.send(&datagram).await.map(drop),
                    Err(error) => Err(error),
                };
                if let Err(error) = sent {
                    self.socket = None;
                    return Err(SendError::later(DRIVER, taken, error));
                }
            }
            Ok(())
        })
    }
}

/// `NAME=value`, or with a length where the value has a newline.
fn field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        to.push(b'\n');
        to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        to.push(b'=');
    }
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// Upper-case letters, digits and underscores, not beginning with either of the latter: the journal
/// takes fields of other names for its own or drops them.
fn field_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let plain: String = upper.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain.starts_with(|c: char| c.is_ascii_alphabetic()) { plain } else { format!("X{plain}") }
}
