//! How often one caller may ask: a token bucket for each caller and each kind of method.
//! In: `[rate_limits]` of control.toml, method, caller. Out: leave, or a refusal that says when.
//! Owns: the buckets, in memory; after a start all are full.
//! Never: counts a node's own calls, what its caller may not call, or anything without a setting.
//! Source: Amazon ECS API reference, "Request throttling".
//!
//! Without a setting there is no limit: until there are users beside the administrator, all people and
//! tools share one bucket, and a limit meant for one script would stop the others.

pub mod bucket;

pub use bucket::Rate;

use crate::error::ApiError;
use crate::identity::caller::Caller;
use crate::listen::Peer;
use crate::time::{Instant, now};
use crate::work::{self, Work};
use bucket::{Bucket, PER_SECOND_MAX};
use lighter_proto::Method;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Beyond so many callers, buckets that are full are forgotten; they are as good as new ones.
const BUCKETS_KEPT: usize = 1_024;

/// Methods that share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// RunTask, StopTask and what is done to one task.
    Tasks,
    /// Every other change.
    Changes,
    /// Describe and list.
    Reads,
    /// Opening a stream: watch, logs, exec, attach, copy, stats, images, state.
    Streams,
    /// Joining, by address.
    Joins,
}

impl Class {
    fn setting(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Changes => "changes",
            Self::Reads => "reads",
            Self::Streams => "streams",
            Self::Joins => "joins",
        }
    }

    /// `None`: what nodes do for themselves has its own limits (`session`).
    pub fn of(method: Method) -> Option<Self> {
        Some(match method {
            Method::LighterRunTask
            | Method::LighterStartTask
            | Method::LighterStopTask
            | Method::LighterPauseTask
            | Method::LighterUnpauseTask
            | Method::LighterUpdateTask => Self::Tasks,
            Method::LighterStreamTaskLogs
            | Method::LighterWatchEvents
            | Method::LighterExec
            | Method::LighterAttach
            | Method::LighterCopy
            | Method::LighterWatchStats
            | Method::LighterOrderImages
            | Method::LighterWatchEndpoints
            | Method::LighterStreamClusterState => Self::Streams,
            Method::NodeJoin => Self::Joins,
            other => {
                if !other.path().starts_with("/lighter.v1.Lighter/") {
                    return None;
                }
                if work::of(other) == Work::Reads { Self::Reads } else { Self::Changes }
            }
        })
    }
}

/// `[rate_limits]` of control.toml; what is left out has no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    pub tasks: Option<Rate>,
    pub changes: Option<Rate>,
    pub reads: Option<Rate>,
    pub streams: Option<Rate>,
    pub joins: Option<Rate>,
}

impl RateLimits {
    fn of(&self, class: Class) -> Option<Rate> {
        match class {
            Class::Tasks => self.tasks,
            Class::Changes => self.changes,
            Class::Reads => self.reads,
            Class::Streams => self.streams,
            Class::Joins => self.joins,
        }
    }

    /// The first rate that is out of range.
    pub(crate) fn out_of_range(&self) -> Option<u32> {
        let rates = [self.tasks, self.changes, self.reads, self.streams, self.joins];
        let numbers = rates.into_iter().flatten().flat_map(|rate| [rate.per_second, rate.burst]);
        numbers.into_iter().find(|number| !(1..=PER_SECOND_MAX).contains(number))
    }
}

/// Who shares a bucket: a user by name, strangers by address.
fn key(peer: &Peer) -> String {
    match (&peer.caller, peer.address) {
        (Caller::Anonymous, Some(address)) => address.ip().to_string(),
        (caller, _) => caller.to_string(),
    }
}

/// The buckets of all callers.
#[derive(Debug)]
pub struct Limiter {
    limits: RateLimits,
    begun: Instant,
    buckets: Mutex<HashMap<(Class, String), Bucket>>,
}

impl Limiter {
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, begun: now(), buckets: Mutex::default() }
    }

    /// Leave for one call, now.
    pub fn check(&self, method: Method, peer: Option<&Peer>) -> Result<(), ApiError> {
        let (Some(class), Some(peer)) = (Class::of(method), peer) else { return Ok(()) };
        let Some(rate) = self.limits.of(class) else { return Ok(()) };
        let elapsed = now().saturating_duration_since(self.begun);
        let now_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_KEPT {
            buckets.retain(|_, bucket| !bucket.is_full(now_ns));
        }
        let caller = key(peer);
        buckets.entry((class, caller.clone())).or_default().take(rate, now_ns).map_err(|retry_after| {
            let Rate { per_second, burst } = rate;
            ApiError::Throttled { setting: class.setting(), caller, per_second, burst, retry_after }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Peer {
        Peer { caller: Caller::User { name: name.to_owned() }, address: None }
    }

    #[test]
    fn each_method_has_its_class_and_nodes_have_none() {
        assert_eq!(Class::of(Method::LighterDescribeTasks), Some(Class::Reads));
        assert_eq!(Class::of(Method::LighterListAudit), Some(Class::Reads));
        assert_eq!(Class::of(Method::LighterCreateCluster), Some(Class::Changes));
        assert_eq!(Class::of(Method::LighterRunTask), Some(Class::Tasks));
        assert_eq!(Class::of(Method::LighterExec), Some(Class::Streams));
        assert_eq!(Class::of(Method::NodeJoin), Some(Class::Joins));
        assert_eq!(Class::of(Method::NodeSession), None);
        assert_eq!(Class::of(Method::AgentPrune), None);
    }

    #[test]
    fn callers_and_classes_do_not_share_and_without_a_setting_there_is_no_limit() {
        let reads = Some(Rate { per_second: 1, burst: 2 });
        let limiter = Limiter::new(RateLimits { reads, ..RateLimits::default() });
        let ask = |name: &str, method| limiter.check(method, Some(&peer(name)));
        for name in ["one", "two"] {
            assert!((0..2).all(|_| ask(name, Method::LighterListTasks).is_ok()));
            let refused = ask(name, Method::LighterDescribeTasks).unwrap_err();
            assert!(refused.to_string().contains("rate_limits.reads"), "{refused}");
            assert!((0..1_000).all(|_| ask(name, Method::LighterRunTask).is_ok()));
        }
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let reads = Some(Rate { per_second: PER_SECOND_MAX, burst: 1 });
        let limiter = Limiter::new(RateLimits { reads, ..RateLimits::default() });
        for number in 0..3 * BUCKETS_KEPT {
            let _ = limiter.check(Method::LighterListTasks, Some(&peer(&number.to_string())));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= BUCKETS_KEPT + 1);
    }
}
