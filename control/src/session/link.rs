//! The way out to one node: numbers messages, sends each definition once before its first use.
//! In: records. Out: numbered messages on the stream. Owns: the session's sequence.
//! Never: waits longer than ten seconds for a node that does not read.

use super::convert::{self, Outgoing, Sent};
use crate::core::record::{DefinitionRecord, TaskRecord};
use crate::error::ApiError;
use crate::time::timeout;
use crate::view::View;
use lighter_model::ids::TaskDefinitionId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};

/// A node that takes nothing for so long is cut off.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Messages between the session and the transport, which has its own window; a manifest's chunks
/// are made one batch at a time anyway.
pub const OUTGOING_DEPTH: usize = 16;

/// The sending half of a session.
pub struct Link {
    out: mpsc::Sender<Sent>,
    sequence: u64,
    /// The definitions that the node has got in this session.
    sent: BTreeSet<TaskDefinitionId>,
}

impl Link {
    pub fn new(out: mpsc::Sender<Sent>) -> Self {
        Self { out, sequence: 0, sent: BTreeSet::new() }
    }

    /// The last sequence sent; a node cannot acknowledge more.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sends a message outside the sequence: hello and heartbeat answers.
    pub async fn send_unnumbered(&self, message: Outgoing) -> Result<(), ApiError> {
        // Most often there is room: no timer then.
        let message = match self.out.try_send(Ok(Box::new(message))) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(ApiError::SessionTooSlow),
            Err(TrySendError::Full(message)) => message,
        };
        match timeout(SEND_LIMIT, self.out.send(message)).await {
            Some(Ok(())) => Ok(()),
            _ => Err(ApiError::SessionTooSlow),
        }
    }

    /// Sends a message with the next sequence.
    pub async fn send(&mut self, message: Outgoing) -> Result<(), ApiError> {
        self.sequence += 1;
        self.send_unnumbered(convert::numbered(message, self.sequence)).await
    }

    async fn send_all(&mut self, messages: Vec<Outgoing>) -> Result<(), ApiError> {
        for message in messages {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Sends the whole list of what the node should hold.
    pub async fn manifest(
        &mut self,
        view: &View,
        revision: u64,
        tasks: &[Arc<TaskRecord>],
    ) -> Result<(), ApiError> {
        self.definitions(view, tasks).await?;
        self.send_all(convert::manifest(revision, tasks.iter().map(AsRef::as_ref))).await
    }

    /// Sends what has changed.
    pub async fn assignments(
        &mut self,
        view: &View,
        revision: u64,
        tasks: &[Arc<TaskRecord>],
    ) -> Result<(), ApiError> {
        self.definitions(view, tasks).await?;
        self.send_all(convert::assignments(revision, tasks.iter().map(AsRef::as_ref))).await
    }

    async fn definitions(&mut self, view: &View, tasks: &[Arc<TaskRecord>]) -> Result<(), ApiError> {
        // Most often there is none: nothing is looked at then.
        if tasks.iter().all(|task| self.sent.contains(&task.definition)) {
            return Ok(());
        }
        let missing: Vec<Arc<DefinitionRecord>> = view.read(|shown| {
            let definitions = tasks.iter().filter(|task| self.sent.insert(task.definition.clone()));
            definitions.filter_map(|task| shown.state.definitions.get(&task.definition)).cloned().collect()
        });
        self.send_all(convert::definitions(missing.iter().map(AsRef::as_ref))).await
    }
}
