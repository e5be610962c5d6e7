//! The session with the control plane: one bidirectional stream, kept open for ever (decision 7).
//! In: what the control plane sends. Out: acknowledgements, reports, heartbeats, logs on request.
//! Owns: one tokio task that connects and reconnects, one for each open log or data stream.
//! On connect: hello, the manifest in chunks, then deltas. Never: applies an assignment itself; keeps
//! a message for a later session (the reconciler's outbox does).

pub(crate) mod connect;
pub(crate) mod convert;
mod link;
mod logs;
mod streams;

pub(crate) use connect::ControlEndpoint;

use crate::errors::chain;
use crate::reconcile::CoreInput;
use crate::task::TaskContext;
use crate::time::sleep;
use connect::Backoff;
use lighter_model::node::Notice;
use link::{Link, LinkError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the node says of itself in every hello.
#[derive(Debug, Clone)]
pub(crate) struct NodeFacts {
    pub name: String,
    pub boot_id: String,
    /// Random for each start of the agent.
    pub run_id: String,
    pub attributes: Vec<(String, String)>,
}

/// How the session stands, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SessionStatus {
    pub connected: bool,
    /// Why not, since when it is not.
    pub error: String,
}

/// How long the first session waits for the sources of notices: leases are not renewed meanwhile.
const NOTICES_LIMIT: Duration = Duration::from_secs(3);

/// What the machine is told of its own end, as it is now.
pub(crate) type Notices = watch::Receiver<Vec<Notice>>;

/// What a session works with.
pub(crate) struct Session {
    pub endpoint: ControlEndpoint,
    pub node: NodeFacts,
    pub reconciler: mpsc::Sender<CoreInput>,
    pub context: Arc<TaskContext>,
    pub status: watch::Sender<SessionStatus>,
    /// What the machine is told of its own end.
    pub notices: Notices,
    /// Cancelled when every source of notices was asked once.
    pub notices_asked: CancellationToken,
    pub leaving: CancellationToken,
}

impl Session {
    /// Runs until the agent leaves; every failure leads to another try.
    pub(crate) async fn run(self) {
        // A hello without the notice that stands would give the node new tasks for a moment.
        tokio::select! {
            () = self.leaving.cancelled() => return,
            () = self.notices_asked.cancelled() => {}
            () = sleep(NOTICES_LIMIT) => tracing::warn!("a source of notices does not answer; going on without it"),
        }
        let mut backoff = Backoff::SESSION.start();
        for number in 1.. {
            let ended = tokio::select! {
                () = self.leaving.cancelled() => return,
                ended = self.one(number, &mut backoff) => ended,
            };
            match &ended {
                LinkError::Status(status) => self.endpoint.refused(status),
                LinkError::HelloLate => self.endpoint.unanswered(),
                _ => {}
            }
            let error = chain(&ended);
            tracing::warn!(cause = %error, "no session with the control plane; trying again");
            self.status.send_replace(SessionStatus { connected: false, error });
            tokio::select! {
                () = self.leaving.cancelled() => return,
                () = sleep(backoff.next_pause()) => {}
            }
        }
    }

    /// One session; returns why it ended.
    async fn one(&self, number: u64, backoff: &mut connect::Pauses) -> LinkError {
        let renewed = self.endpoint.renewed();
        let ended = match Link::open(self, number).await {
            Ok(link) => {
                backoff.reset();
                self.status.send_replace(SessionStatus { connected: true, error: String::new() });
                tokio::select! {
                    ended = link.run() => ended,
                    // What was not acknowledged comes again.
                    () = renewed => LinkError::Renewed,
                }
            }
            Err(error) => error,
        };
        let _ = self.reconciler.send(CoreInput::SessionClosed { session: number }).await;
        ended
    }
}
