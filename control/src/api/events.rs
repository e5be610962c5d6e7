//! WatchEvents: every change after a sequence, in order, without gaps.
//! In: where to begin. Out: a stream. Never: waits for a slow watcher: it is cut off with the number
//! to go on from.

use super::{Context, existing_cluster};
use crate::core::record::EventRecord;
use crate::error::ApiError;
use crate::wrong_edit::{self, WrongEdit};
use futures_util::Stream;
use lighter_model::ids::ClusterName;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Where a watch begins.
#[derive(Debug, Clone, Default)]
pub struct WatchRequest {
    pub cluster: String,
    /// 0: from now on, or from the oldest.
    pub after_sequence: u64,
    pub from_oldest: bool,
    /// Of the store that `after_sequence` is of; empty: not said.
    pub incarnation: String,
}

/// A watch that has begun: the store it is of, and what happens in it. It ends when another is loaded.
pub struct Watched<S> {
    pub incarnation: String,
    pub events: S,
}

struct Watch {
    cluster: ClusterName,
    backlog: VecDeque<Arc<EventRecord>>,
    live: Receiver<Arc<EventRecord>>,
    last: u64,
    stop: CancellationToken,
    ended: bool,
}

/// Begins a watch.
pub fn watch(
    context: &Context,
    request: &WatchRequest,
) -> Result<Watched<impl Stream<Item = Result<Arc<EventRecord>, ApiError>> + use<>>, ApiError> {
    // First subscribe, then look back: what falls in between is seen twice and dropped by number.
    let live = context.view.watch();
    let (incarnation, cluster, backlog, last) = context.view.read(|shown| {
        let cluster = existing_cluster(shown, &request.cluster)?;
        let incarnation = shown.incarnation.clone();
        if !request.incarnation.is_empty() && request.incarnation != incarnation {
            return Err(ApiError::EventsOfAnotherStore { asked: request.incarnation.clone(), incarnation });
        }
        let events = &shown.state.events;
        let newest = shown.state.meta.event_sequence;
        let oldest = events.first_key_value().map_or(newest + 1, |(sequence, _)| *sequence);
        let after = match (request.after_sequence, request.from_oldest) {
            (0, true) => oldest - 1,
            (0, false) => newest,
            (after, _) if after + 1 < oldest => return Err(ApiError::EventsTooOld { after, oldest }),
            // A number not yet given out: from another store, or from before a restored backup.
            (after, _) if after > newest => {
                return Err(ApiError::invalid("afterSequence", format!("the newest event is {newest}")));
            }
            (after, _) => after,
        };
        let skipped = u64::from(wrong_edit::is(WrongEdit::ResumedOneLater));
        let backlog = events.range(after + 1 + skipped..).map(|(_, event)| event.clone()).collect();
        Ok((incarnation, cluster, backlog, after))
    })?;
    let watch = Watch { cluster, backlog, live, last, stop: context.stop.clone(), ended: false };
    let events = futures_util::stream::unfold(watch, |mut watch| async move {
        let next = watch.next().await?;
        watch.ended = next.is_err();
        Some((next, watch))
    });
    Ok(Watched { incarnation, events })
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Arc<EventRecord>, ApiError>> {
        if self.ended {
            return None;
        }
        loop {
            let event = match self.backlog.pop_front() {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Some(Err(ApiError::ShuttingDown)),
                    event = self.live.recv() => match event {
                        Ok(event) => event,
                        Err(RecvError::Closed) => return Some(Err(ApiError::StateReloaded)),
                        Err(RecvError::Lagged(_)) => {
                            return Some(Err(ApiError::WatcherTooSlow { last: self.last }));
                        }
                    },
                },
            };
            if event.sequence <= self.last {
                continue;
            }
            self.last = event.sequence;
            if event.cluster.is_empty() || event.cluster == self.cluster.as_str() {
                return Some(Ok(event));
            }
        }
    }
}
