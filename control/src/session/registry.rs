//! The live sessions, by container instance, and when each instance was last heard of.
//! In: sessions beginning, speaking, ending. Out: who lives, who is silent. In memory only.
//! Never: lets two agents speak for one identity: the second is refused while the first lives.

use super::logs::LogRequest;
use crate::error::{ApiError, SocketAddrText};
use lighter_model::ids::ContainerInstanceId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Log streams asked of one node and not yet passed on; more than these at once are refused.
const LOG_REQUESTS: usize = 64;

/// Heartbeats that may be missed before a node counts as away.
pub const MISSED_HEARTBEATS: u32 = 3;

struct Live {
    serial: u64,
    run_id: String,
    address: SocketAddrText,
    cancel: CancellationToken,
    logs: mpsc::Sender<LogRequest>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<ContainerInstanceId, Live>,
    heard: BTreeMap<ContainerInstanceId, Instant>,
    serial: u64,
}

/// All sessions.
pub struct Sessions {
    inner: Mutex<Inner>,
    started: Instant,
    silence_limit: Duration,
}

/// A session's own end.
pub struct Place {
    serial: u64,
    /// Cancelled when another session of the same agent takes over.
    pub cancel: CancellationToken,
    pub logs: mpsc::Receiver<LogRequest>,
}

impl Sessions {
    /// After a start every node counts as just seen.
    pub fn new(heartbeat_interval: Duration) -> Self {
        let silence_limit = heartbeat_interval * MISSED_HEARTBEATS;
        Self { inner: Mutex::default(), started: Instant::now(), silence_limit }
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
        run_id: &str,
        address: SocketAddrText,
    ) -> Result<Place, ApiError> {
        let mut inner = self.inner();
        let heard = inner.heard.get(instance).copied();
        if let Some(live) = inner.live.get(instance) {
            let silent = heard.is_none_or(|heard| heard.elapsed() >= self.silence_limit);
            if live.run_id != run_id && !silent {
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
        let (sender, logs) = mpsc::channel(LOG_REQUESTS);
        let cancel = CancellationToken::new();
        inner.live.insert(
            instance.clone(),
            Live { serial, run_id: run_id.to_owned(), address, cancel: cancel.clone(), logs: sender },
        );
        inner.heard.insert(instance.clone(), Instant::now());
        Ok(Place { serial, cancel, logs })
    }

    /// The node said something.
    pub fn heard(&self, instance: &ContainerInstanceId) {
        self.inner().heard.insert(instance.clone(), Instant::now());
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
        let heard = self.inner().heard.get(instance).copied().unwrap_or(self.started);
        heard.elapsed() >= self.silence_limit
    }

    /// Passes a log request to the node's session; `false` when it has none.
    pub fn ask_for_logs(&self, instance: &ContainerInstanceId, request: LogRequest) -> bool {
        self.inner().live.get(instance).is_some_and(|live| live.logs.try_send(request).is_ok())
    }
}
