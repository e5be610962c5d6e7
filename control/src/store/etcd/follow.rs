//! What a standby sees: every batch as the leader committed it, and the end of the leader.
//! In: the sequence it has. Out: what came after. Owns: one watch on the prefix.
//! Never: a gap: a watch that cannot go on says so, and everything is loaded anew.

use super::election::number;
use super::{CallError, EtcdStore, call};
use crate::store::{Batch, Followed};
use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use std::time::Duration;

/// A watch under way.
pub(super) struct Watching {
    stream: WatchStream,
    /// The last sequence handed out.
    after: u64,
    /// The leader's key is gone.
    vacant: bool,
}

impl EtcdStore {
    pub(super) async fn watch_on(&mut self, after: u64, limit: Duration) -> Result<Followed, CallError> {
        if self.watching.as_ref().is_none_or(|watching| watching.after != after) {
            self.watching = None;
            match self.begin_watch(after).await? {
                Some(watching) => self.watching = Some(watching),
                None => return Ok(Followed::TooOld),
            }
        }
        let Some(mut watching) = self.watching.take() else { return Ok(Followed::TooOld) };
        let deadline = tokio::time::Instant::now() + limit;
        while !watching.vacant {
            let message = tokio::time::timeout_at(deadline, watching.stream.message()).await;
            let Ok(message) = message else { break };
            let missing = || CallError::Strange { what: "etcd ended a watch".to_owned() };
            let message = message?.ok_or_else(missing)?;
            if message.canceled() {
                return Ok(Followed::TooOld);
            }
            let batches = self.read(&mut watching, &message)?;
            if !batches.is_empty() {
                self.watching = Some(watching);
                return Ok(Followed::Batches(batches));
            }
        }
        // Told once: if another takes the lead, this watch is the one that sees what it commits.
        let vacant = std::mem::take(&mut watching.vacant);
        self.watching = Some(watching);
        Ok(if vacant { Followed::Vacant } else { Followed::Batches(Vec::new()) })
    }

    /// `None` when what follows is not known one by one.
    async fn begin_watch(&mut self, after: u64) -> Result<Option<Watching>, CallError> {
        let counters = self.counters().await?;
        let from = match (self.loaded, counters.sequence) {
            (Some((sequence, revision)), _) if sequence == after => revision,
            (_, Some((sequence, revision))) if sequence == after => revision,
            (_, None) if after == 0 => 0,
            _ => return Ok(None),
        };
        let options = WatchOptions::new().with_prefix().with_start_revision(from + 1);
        let mut client = self.client()?.watch_client().max_decoding_message_size(64 << 20);
        let stream = call(client.watch(self.settings.prefix.clone(), Some(options))).await?;
        Ok(Some(Watching { stream, after, vacant: !counters.has_leader() }))
    }

    /// All events of one transaction have one revision and come in one message.
    fn read(&self, watching: &mut Watching, message: &WatchResponse) -> Result<Vec<(u64, Batch)>, CallError> {
        let mut batches = Vec::new();
        let mut batch = Batch::new();
        let mut events = message.events().iter().peekable();
        while let Some(event) = events.next() {
            let revision = revision(event);
            let mut sequence = None;
            let mut next = Some(event);
            while let Some(event) = next {
                self.sort(event, &mut batch, &mut sequence, watching)?;
                next = events.next_if(|event| self::revision(event) == revision);
            }
            match sequence {
                Some(sequence) if sequence == watching.after + 1 => {
                    watching.after = sequence;
                    batches.push((sequence, std::mem::take(&mut batch)));
                }
                // A marker, or a restore, which has written everything anew.
                Some(sequence) if sequence != watching.after => {
                    return Err(CallError::Strange { what: format!("sequence {sequence} in a watch") });
                }
                _ => {}
            }
        }
        Ok(batches)
    }

    fn sort(
        &self,
        event: &Event,
        batch: &mut Batch,
        sequence: &mut Option<u64>,
        watching: &mut Watching,
    ) -> Result<(), CallError> {
        let Some(kv) = event.kv() else { return Ok(()) };
        let put = event.event_type() == EventType::Put;
        let key = kv.key().strip_prefix(self.settings.prefix.as_bytes()).unwrap_or_default();
        let key = String::from_utf8_lossy(key);
        match key.as_ref() {
            "leader" => watching.vacant = !put,
            "sequence" if put => *sequence = Some(number(kv.value())?),
            _ => {
                if let Some(record) = key.strip_prefix("r/") {
                    batch.insert(record.to_owned(), put.then(|| kv.value().to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn revision(event: &Event) -> i64 {
    event.kv().map_or(0, |kv| kv.mod_revision())
}
