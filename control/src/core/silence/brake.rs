//! The brake of a cluster: when many nodes fall silent at once, the fault is more likely here or in
//! the network than in so many machines, and nothing is replaced.
//!
//! ```text
//!             more than 20 %, at least 3, fell silent within the period
//!   released ───────────────────────────────────────────────────────────> on
//!      ^  ^       so many of those are back that it is 20 % or fewer        │ │
//!      │  └────────────────────────────────────────────────────────────────┘ │
//!      └──────────── an operator: what is silent now counts no more ──────────┘
//! ```
//! In: which nodes are silent and since when. Out: what becomes of the brake. Pure.

use crate::core::silence::policy::SETTLED_BEATS;
use serde::{Deserialize, Serialize};

/// Nodes that fall silent within so long are one incident.
pub const PERIOD_MS: u64 = 300_000;
const LEAST_NODES: usize = 3;
/// A fifth.
const ONE_IN: usize = 5;

/// The brake is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeRecord {
    pub since_unix_ms: u64,
    /// Nodes that fell silent then or later belong to it.
    pub counted_from_unix_ms: u64,
    /// How many those were, of how many nodes.
    pub silent: u32,
    pub nodes: u32,
}

/// A node that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentNode {
    /// For how long, by the clock of who listens.
    pub silent_ms: u64,
    /// When it was taken for silent, in cluster time.
    pub fell_at_unix_ms: u64,
}

/// What is known of a cluster's nodes.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    pub silent: &'a [SilentNode],
    /// Of all nodes.
    pub nodes: usize,
    /// Since when somebody listens without a gap.
    pub watched_ms: u64,
    /// When that began, in cluster time as it was then: the present one may have been set ahead since.
    pub watched_from_unix_ms: u64,
    pub heartbeat_ms: u64,
    /// Those that fell silent before do not count: an operator said so.
    pub released_at_unix_ms: Option<u64>,
}

/// What becomes of the brake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Keep,
    On(BrakeRecord),
    Off,
}

fn too_many(silent: usize, nodes: usize) -> bool {
    silent >= LEAST_NODES && silent * ONE_IN > nodes
}

/// Decides; `now` is the brake as it is.
pub fn step(now: Option<&BrakeRecord>, sight: &Sight<'_>, now_unix_ms: u64) -> Step {
    match now {
        None => {
            let recent = PERIOD_MS + SETTLED_BEATS * sight.heartbeat_ms;
            // Who has just begun to listen heard of nobody before, nor of those dead for days.
            let of_before = sight.watched_from_unix_ms.saturating_sub(recent);
            let counts = |node: &&SilentNode| {
                node.silent_ms <= recent
                    && node.fell_at_unix_ms >= of_before
                    && sight.released_at_unix_ms.is_none_or(|released| node.fell_at_unix_ms > released)
            };
            let counted = sight.silent.iter().filter(counts);
            let (mut silent, mut from) = (0, now_unix_ms);
            for node in counted {
                (silent, from) = (silent + 1, from.min(node.fell_at_unix_ms));
            }
            if !too_many(silent, sight.nodes) {
                return Step::Keep;
            }
            let small = |count| u32::try_from(count).unwrap_or(u32::MAX);
            Step::On(BrakeRecord {
                since_unix_ms: now_unix_ms,
                counted_from_unix_ms: from,
                silent: small(silent),
                nodes: small(sight.nodes),
            })
        }
        // Who has listened for too short a time cannot know who is silent.
        Some(_) if sight.watched_ms < SETTLED_BEATS * sight.heartbeat_ms => Step::Keep,
        Some(brake) => {
            let still = sight.silent.iter().filter(|n| n.fell_at_unix_ms >= brake.counted_from_unix_ms);
            if too_many(still.count(), sight.nodes) { Step::Keep } else { Step::Off }
        }
    }
}
