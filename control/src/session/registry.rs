//! The live sessions, by container instance, and when each instance was last heard of.
//! In: sessions beginning, speaking, ending. Out: who lives, who is silent. In memory only.
//! Never: lets two agents speak for one identity: the second is refused while the first lives.

use super::logs::LogRequest;
use super::questions::Question;
use super::streams::StreamRequest;
use crate::error::{ApiError, SocketAddrText};
use crate::time::{Instant, now};
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::ContainerInstanceId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Requests of one node not yet passed on; more than these at once are refused.
const REQUESTS: usize = 64;

/// The word in a node's hello that says it can answer an OpenStream.
pub const STREAMS_FEATURE: &str = "streams";

/// The feature of agents that say when a log has ended.
const LOG_END_FEATURE: &str = "log-end";
/// The word that says it answers an AskTaskEvents.
pub const JOURNALS_FEATURE: &str = "journals";

/// What a node is asked for on its session, to be answered on another connection.
#[derive(Debug)]
pub enum NodeRequest {
    Logs(LogRequest),
    Stream(StreamRequest),
    Journal(Question),
}

/// What a node says of itself that its session is known by.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub run_id: String,
    pub agent_version: String,
    pub features: Vec<String>,
}

/// After which one node may have the term raised again; each time starts anew when it is refused.
const RAISE_AGAIN: Duration = Duration::from_secs(120);

/// Heartbeats that may be missed before a node counts as away.
pub const MISSED_HEARTBEATS: u32 = 3;

struct Live {
    serial: u64,
    about: About,
    address: SocketAddrText,
    cancel: CancellationToken,
    requests: mpsc::Sender<Box<NodeRequest>>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<ContainerInstanceId, Live>,
    heard: BTreeMap<ContainerInstanceId, Instant>,
    serial: u64,
    /// Since when every node counts as seen at least.
    all_seen: Option<Instant>,
    /// The same in cluster time, as it was then.
    all_seen_unix_ms: Option<u64>,
    /// The load of the state that it was said for.
    epoch: u64,
    /// Nodes that had the term raised, and when.
    raised: BTreeMap<ContainerInstanceId, Instant>,
}

/// All sessions.
pub struct Sessions {
    inner: Mutex<Inner>,
    silence_limit: Duration,
}

/// A session's own end.
pub struct Place {
    serial: u64,
    /// Cancelled when another session of the same agent takes over.
    pub cancel: CancellationToken,
    /// Boxed: few nodes are ever asked, and a channel has room for 32 at once.
    pub requests: mpsc::Receiver<Box<NodeRequest>>,
}

impl Sessions {
    /// After a start every node counts as just seen.
    pub fn new(heartbeat_interval: Duration) -> Self {
        let silence_limit = heartbeat_interval * MISSED_HEARTBEATS;
        let sessions = Self { inner: Mutex::default(), silence_limit };
        sessions.count_as_just_seen();
        sessions
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a node may say nothing.
    pub fn silence_limit(&self) -> Duration {
        self.silence_limit
    }

    /// Begins a session. One of the same run of the agent is replaced, and so is one that has been
    /// silent too long; any other keeps its place.
    pub fn begin(
        &self,
        instance: &ContainerInstanceId,
        about: About,
        address: SocketAddrText,
    ) -> Result<Place, ApiError> {
        let mut inner = self.inner();
        let heard = inner.heard.get(instance).copied();
        if let Some(live) = inner.live.get(instance) {
            let silent = heard.is_none_or(|heard| now() - heard >= self.silence_limit);
            let cloned = live.about.run_id != about.run_id && !silent;
            if cloned && !wrong_edit::is(WrongEdit::CloneAccepted) {
                return Err(ApiError::SessionExists {
                    instance: instance.to_string(),
                    holder: live.address,
                    refused: address,
                });
            }
            live.cancel.cancel();
        }
        inner.serial += 1;
        let serial = inner.serial;
        let (sender, requests) = mpsc::channel(REQUESTS);
        let cancel = CancellationToken::new();
        inner.live.insert(
            instance.clone(),
            Live { serial, about, address, cancel: cancel.clone(), requests: sender },
        );
        inner.heard.insert(instance.clone(), now());
        Ok(Place { serial, cancel, requests })
    }

    /// Whether the term may be raised on this node's word, which ends every session. A store that was
    /// restored needs it once.
    pub fn may_raise_term(&self, instance: &ContainerInstanceId) -> bool {
        let mut inner = self.inner();
        let before = inner.raised.insert(instance.clone(), now());
        before.is_none_or(|before| now() - before >= RAISE_AGAIN)
    }

    /// Everyone has as long to speak as if heard now: nobody was listening before.
    pub fn count_as_just_seen(&self) {
        let mut inner = self.inner();
        (inner.all_seen, inner.all_seen_unix_ms) = (Some(now()), None);
    }

    /// This load of the state is looked at: after a start or a takeover everyone counts as just seen.
    /// Since when, in cluster time.
    pub fn look(&self, epoch: u64, cluster_time_ms: u64) -> u64 {
        let mut inner = self.inner();
        if std::mem::replace(&mut inner.epoch, epoch) != epoch {
            (inner.all_seen, inner.all_seen_unix_ms) = (Some(now()), None);
        }
        *inner.all_seen_unix_ms.get_or_insert(cluster_time_ms)
    }

    /// Since when somebody listens to every node.
    pub fn watched_for(&self) -> Duration {
        self.inner().all_seen.map_or(Duration::ZERO, |all_seen| now() - all_seen)
    }

    /// For how long this node has said nothing, when that is too long.
    pub fn silent_for(&self, instance: &ContainerInstanceId) -> Option<Duration> {
        let inner = self.inner();
        let heard = inner.heard.get(instance).copied().max(inner.all_seen)?;
        Some(now() - heard).filter(|silent| *silent >= self.silence_limit)
    }

    /// The node said something.
    pub fn heard(&self, instance: &ContainerInstanceId) {
        let mut inner = self.inner();
        match inner.heard.get_mut(instance) {
            Some(heard) => *heard = now(),
            None => drop(inner.heard.insert(instance.clone(), now())),
        }
    }

    /// Ends a session, unless another has taken its place.
    pub fn end(&self, instance: &ContainerInstanceId, place: &Place) {
        let mut inner = self.inner();
        if inner.live.get(instance).is_some_and(|live| live.serial == place.serial) {
            inner.live.remove(instance);
        }
    }

    /// Whether the node has missed its heartbeats.
    pub fn is_silent(&self, instance: &ContainerInstanceId) -> bool {
        self.silent_for(instance).is_some()
    }

    /// Passes a log request to the node's session; `false` when it has none.
    pub fn ask_for_logs(&self, instance: &ContainerInstanceId, request: LogRequest) -> bool {
        let request = Box::new(NodeRequest::Logs(request));
        self.inner().live.get(instance).is_some_and(|live| live.requests.try_send(request).is_ok())
    }

    /// Whether the node's agent says when a log has ended.
    pub fn says_log_end(&self, instance: &ContainerInstanceId) -> bool {
        let inner = self.inner();
        let live = inner.live.get(instance);
        live.is_some_and(|live| live.about.features.iter().any(|feature| feature == LOG_END_FEATURE))
    }

    /// Passes a stream request to the node's session; says why it cannot.
    pub fn ask_for_stream(
        &self,
        instance: &ContainerInstanceId,
        request: StreamRequest,
    ) -> Result<(), ApiError> {
        let inner = self.inner();
        let away = || ApiError::NodeNotConnected { instance: instance.to_string() };
        let live = inner.live.get(instance).ok_or_else(away)?;
        if !live.about.features.iter().any(|feature| feature == STREAMS_FEATURE) {
            let version = live.about.agent_version.clone();
            return Err(ApiError::AgentTooOld { instance: instance.to_string(), version });
        }
        live.requests.try_send(Box::new(NodeRequest::Stream(request))).map_err(|_| away())
    }

    /// The nodes with a live session.
    pub fn connected(&self) -> Vec<ContainerInstanceId> {
        self.inner().live.keys().cloned().collect()
    }

    /// Passes a question for a journal to the node's session; `false` when it has none, or cannot answer.
    pub fn ask(&self, instance: &ContainerInstanceId, question: Question) -> bool {
        let inner = self.inner();
        let live = inner
            .live
            .get(instance)
            .filter(|live| live.about.features.iter().any(|feature| feature == JOURNALS_FEATURE));
        live.is_some_and(|live| live.requests.try_send(Box::new(NodeRequest::Journal(question))).is_ok())
    }
}
