//! Driver `fluentd`: the forward protocol, one Forward-mode message a batch.
//! In: records. Out: MessagePack with Docker's keys and our own. With `fluentd-request-ack` a batch
//! counts as taken when the sink has acknowledged it; without, when the kernel has it.
//! Owns: the connection. Never: TLS or shared keys.
//! Source: Fluentd's Forward Protocol Specification v1.

use super::batch::{Record, stream_name};
use super::identity::Identity;
use super::msgpack;
use super::peer::Peer;
use super::sink::{SendError, Sink};
use crate::errors::{Cause, words};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use lighter_model::task_definition::log::{FluentdAddress, FluentdSettings};

const DRIVER: &str = "fluentd";

pub(super) struct Fluentd {
    settings: FluentdSettings,
    tag: String,
    /// Pairs that are the same for every record.
    fixed: Vec<(String, String)>,
    peer: Option<Peer>,
}

impl Fluentd {
    pub(super) fn new(settings: FluentdSettings, identity: &Identity) -> Self {
        let fixed = [
            ("container_id", &identity.full_id),
            ("container_name", &identity.container),
            ("task_id", &identity.task),
            ("task_family", &identity.family),
            ("cluster", &identity.cluster),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value.clone()));
        let fixed = fixed.chain(identity.extra.iter().cloned()).collect();
        Self { settings, tag: identity.tag.clone(), fixed, peer: None }
    }

    async fn try_send(&mut self, records: &[Record]) -> Result<(), Cause> {
        // Out of its place while it is used: whatever goes wrong, or a send that is dropped half-way,
        // ends the connection.
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => match &self.settings.address {
                FluentdAddress::Tcp(address) => Peer::tcp(address).await?,
                FluentdAddress::Unix(path) => Peer::unix(path).await?,
            },
        };
        let chunk = if self.settings.request_ack { Some(chunk_id()?) } else { None };
        peer.write(&self.message(records, chunk.as_deref())).await?;
        if let Some(chunk) = &chunk {
            let expected = acknowledgement(chunk);
            let mut answer = vec![0; expected.len()];
            peer.read_exact(&mut answer).await?;
            if answer != expected {
                return Err(words("it acknowledged something else than what was sent"));
            }
        }
        self.peer = Some(peer);
        Ok(())
    }

    fn message(&self, records: &[Record], chunk: Option<&str>) -> Vec<u8> {
        let mut bytes = Vec::new();
        msgpack::array(&mut bytes, 3);
        msgpack::text(&mut bytes, &self.tag);
        msgpack::array(&mut bytes, records.len());
        records.iter().for_each(|record| self.entry(&mut bytes, record));
        msgpack::map(&mut bytes, 1 + usize::from(chunk.is_some()));
        msgpack::text(&mut bytes, "size");
        msgpack::number(&mut bytes, records.len() as u64);
        if let Some(chunk) = chunk {
            msgpack::text(&mut bytes, "chunk");
            msgpack::text(&mut bytes, chunk);
        }
        bytes
    }

    fn entry(&self, bytes: &mut Vec<u8>, record: &Record) {
        let line = &record.line;
        msgpack::array(bytes, 2);
        if self.settings.sub_second_precision {
            msgpack::event_time(bytes, line.unix_ns);
        } else {
            msgpack::number(bytes, line.unix_ns / 1_000_000_000);
        }
        msgpack::map(bytes, 2 + usize::from(line.partial) + self.fixed.len());
        let log = String::from_utf8_lossy(&line.text);
        let mut pair = |name: &str, value: &str| {
            msgpack::text(bytes, name);
            msgpack::text(bytes, value);
        };
        pair("log", &log);
        pair("source", stream_name(line.stream));
        if line.partial {
            pair("partial_message", "true");
        }
        self.fixed.iter().for_each(|(name, value)| pair(name, value));
    }
}

impl Sink for Fluentd {
    fn send<'a>(&'a mut self, records: &'a [Record]) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(
            async move { self.try_send(records).await.map_err(|error| SendError::later(DRIVER, 0, error)) },
        )
    }
}

/// 128 random bits in 24 letters, so that the answer has one form only.
fn chunk_id() -> Result<String, Cause> {
    Ok(STANDARD.encode(crate::random::bytes::<16>()?))
}

/// `{"ack": chunk}`
fn acknowledgement(chunk: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    msgpack::map(&mut bytes, 1);
    msgpack::text(&mut bytes, "ack");
    msgpack::text(&mut bytes, chunk);
    bytes
}
