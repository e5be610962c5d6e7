//! The first messages: which protocol, which store, whether the node may trust this one.
//! In: the node's hello. Out: a protocol version, and whether unknown tasks may be stopped.
//! Never: trusts a store that is not the one the node knew, or that has gone back.

use crate::core::instance::NodeFacts;
use crate::error::ApiError;
use crate::view::Shown;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{Generation, TaskId};
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
}

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
    fn the_protocol_is_the_highest_of_both_or_none() {
        let chosen = |min, max| Hello { protocol_min: min, protocol_max: max, ..Hello::default() }.protocol();
        assert_eq!(chosen(1, 1), Ok(1));
        assert_eq!(chosen(1, 9), Ok(1));
        assert!(matches!(chosen(2, 3), Err(ApiError::ProtocolMismatch { min: 2, max: 3, .. })));
        assert!(chosen(0, 0).is_err());
    }
}
