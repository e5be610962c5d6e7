//! The first messages: which protocol, which store, whether the node may trust this one.
//! In: the node's hello. Out: a protocol version, and whether unknown tasks may be stopped.
//! Never: trusts a store that is not the one the node knew, or that has gone back.

use crate::core::instance::NodeFacts;
use crate::core::record::OrphanFacts;
use crate::error::ApiError;
use crate::view::Shown;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{Family, Generation, TaskId};
use std::collections::BTreeMap;

/// Versions of the session protocol spoken here; N and N-1 once there are two.
pub const PROTOCOL_MIN: u32 = 1;
pub const PROTOCOL_MAX: u32 = 1;

/// What a node says first.
#[derive(Debug, Clone, Default)]
pub struct Hello {
    pub protocol_min: u32,
    pub protocol_max: u32,
    pub agent_version: String,
    pub boot_id: String,
    /// Random for each start of the agent.
    pub run_id: String,
    /// What the agent can do beyond the protocol's version.
    pub features: Vec<String>,
    /// The highest term, incarnation and revision the node has seen; 0 or empty at first.
    pub term: u64,
    pub incarnation: String,
    pub revision: u64,
    pub facts: NodeFacts,
    /// Every task the node holds, with the generation it has recorded.
    pub held: BTreeMap<TaskId, Generation>,
    /// What those tasks are, of agents that tell it.
    pub tasks: BTreeMap<TaskId, OrphanFacts>,
    /// The highest revision of each family that the node has or keeps.
    pub revisions: BTreeMap<Family, u32>,
}

/// Terms are of the order of the wall clock; one that is so far ahead of it was never a leader's.
const TERM_AHEAD_MAX_MS: u64 = 100 * 365 * 86_400_000;

impl Hello {
    /// The highest version that both speak.
    pub fn protocol(&self) -> Result<u32, ApiError> {
        let version = self.protocol_max.min(PROTOCOL_MAX);
        if version >= self.protocol_min.max(PROTOCOL_MIN) {
            return Ok(version);
        }
        Err(ApiError::ProtocolMismatch {
            min: self.protocol_min,
            max: self.protocol_max,
            our_min: PROTOCOL_MIN,
            our_max: PROTOCOL_MAX,
        })
    }

    /// The term that a leader must surpass for this node to listen to it, if it has not; refused when
    /// no leader can have had it.
    pub fn higher_term(&self, term: u64, wall_unix_ms: u64) -> Result<Option<u64>, ApiError> {
        if self.term > wall_unix_ms.saturating_add(TERM_AHEAD_MAX_MS) {
            let message = format!("term {} is a century ahead of the clock", self.term);
            return Err(ApiError::ProtocolViolation { message });
        }
        Ok((self.term > term).then_some(self.term))
    }

    /// Whether this is the store the node knew, and no older than it knew it.
    pub fn trusts(&self, shown: &Shown) -> bool {
        if wrong_edit::is(WrongEdit::OrphanStopped) {
            return true;
        }
        let same = self.incarnation.is_empty() || self.incarnation == shown.incarnation;
        same && self.revision <= shown.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_trusts_only_the_store_it_knew_and_not_an_older_copy_of_it() {
        let shown = Shown { incarnation: "one".to_owned(), sequence: 7, ..Shown::default() };
        let trusts = |incarnation: &str, revision| {
            Hello { incarnation: incarnation.to_owned(), revision, ..Hello::default() }.trusts(&shown)
        };
        assert!(trusts("", 0) && trusts("one", 7));
        assert!(!trusts("two", 3) && !trusts("one", 8));
    }

    #[test]
    fn a_term_is_surpassed_unless_no_leader_can_have_had_it() {
        let asks = |term, shown| Hello { term, ..Hello::default() }.higher_term(shown, 1_000);
        assert_eq!((asks(7, 8), asks(8, 8), asks(9, 8)), (Ok(None), Ok(None), Ok(Some(9))));
        assert!(asks(u64::MAX, 8).is_err());
    }

    #[test]
    fn the_protocol_is_the_highest_of_both_or_none() {
        let chosen = |min, max| Hello { protocol_min: min, protocol_max: max, ..Hello::default() }.protocol();
        assert_eq!(chosen(1, 1), Ok(1));
        assert_eq!(chosen(1, 9), Ok(1));
        assert!(matches!(chosen(2, 3), Err(ApiError::ProtocolMismatch { min: 2, max: 3, .. })));
        assert!(chosen(0, 0).is_err());
    }
}
