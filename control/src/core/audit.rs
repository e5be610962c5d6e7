//! The record of who looked into a running task, written before the first byte flows and completed
//! when it is over, and of who changed what (`core/recorded.rs`). In: `AuditStarted`, `AuditEnded`, `AuditAbandoned`. Out: its number.
//! Owns: the newest `Settings::audit_kept` records; a record that was dropped is not completed.
//! Never: forgets that something was begun because nobody told its end.

use crate::core::Command;
use crate::core::mutation::{Changes, Mutation};
use crate::core::record::{AuditOutcome, AuditRecord};
use crate::error::ApiError;
use std::sync::Arc;

/// Texts of one record are cut to so many bytes in all, so that the records kept stay within some
/// megabytes; what was cut says so.
pub const TEXT_BYTES: usize = 1_024;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asker {
    pub user: String,
    pub address: String,
}

/// What somebody begins to do.
#[derive(Debug, Clone)]
pub struct AuditStarted {
    pub user: String,
    pub address: String,
    pub action: &'static str,
    pub cluster: String,
    /// Empty: every task.
    pub task: String,
    pub container: String,
    pub instance: String,
    pub command: Vec<String>,
    /// Set when it is over as soon as it is begun.
    pub outcome: Option<AuditOutcome>,
}

impl Command for AuditStarted {
    /// The record's number.
    type Answer = u64;

    fn decide(self, changes: &mut Changes<'_>) -> Result<u64, ApiError> {
        Ok(self.record(changes))
    }
}

impl AuditStarted {
    /// Writes the record as part of a command that changes more.
    pub fn record(self, changes: &mut Changes<'_>) -> u64 {
        let last = changes.state().audit.last_key_value().map_or(0, |(sequence, _)| *sequence);
        let record = AuditRecord {
            sequence: last + 1,
            user: self.user,
            address: self.address,
            action: self.action.to_owned(),
            cluster: self.cluster,
            task: self.task,
            container: self.container,
            instance: self.instance,
            command: cut(self.command),
            started_at_unix_ms: changes.now_ms(),
            outcome: self.outcome,
        };
        changes.record(Mutation::Audit(Arc::new(record)));
        while changes.state().audit.len() > changes.settings().audit_kept.max(1) {
            match changes.state().audit.first_key_value() {
                Some((&oldest, _)) => changes.record(Mutation::AuditGone(oldest)),
                None => break,
            }
        }
        last + 1
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct AuditEnded {
    pub sequence: u64,
    pub result: String,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Command for AuditEnded {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let Some(record) = changes.state().audit.get(&self.sequence) else { return Ok(()) };
        let result = cut(vec![self.result]).pop().unwrap_or_default();
        let outcome = AuditOutcome {
            ended_at_unix_ms: changes.now_ms(),
            result,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        };
        let record = AuditRecord { outcome: Some(outcome), ..AuditRecord::clone(record) };
        changes.record(Mutation::Audit(Arc::new(record)));
        Ok(())
    }
}

/// At a start: whatever an earlier run of the control plane had begun is over, and nobody saw how.
#[derive(Debug, Clone, Copy)]
pub struct AuditAbandoned;

impl Command for AuditAbandoned {
    type Answer = ();

    fn decide(self, changes: &mut Changes<'_>) -> Result<(), ApiError> {
        let open = changes.state().audit.values().filter(|record| record.outcome.is_none());
        let open: Vec<u64> = open.map(|record| record.sequence).collect();
        for sequence in open {
            let result = "cut off: the control plane ended".to_owned();
            AuditEnded { sequence, result, bytes_in: 0, bytes_out: 0 }.decide(changes)?;
        }
        Ok(())
    }
}

/// Cuts words to `TEXT_BYTES` in all.
fn cut(words: Vec<String>) -> Vec<String> {
    let mut room = TEXT_BYTES;
    let mut kept = Vec::new();
    for word in words {
        if word.len() <= room {
            room -= word.len();
            kept.push(word);
            continue;
        }
        let end = (0..=room).rev().find(|at| word.is_char_boundary(*at)).unwrap_or(0);
        kept.push(format!("{}…", &word[..end]));
        break;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::state::State;
    use crate::core::{Moment, Settings};

    fn started(user: &str) -> AuditStarted {
        AuditStarted {
            user: user.to_owned(),
            address: "a Unix socket".to_owned(),
            action: "exec",
            cluster: "default".to_owned(),
            task: "t".to_owned(),
            container: "c".to_owned(),
            instance: "i".to_owned(),
            command: vec!["sh".to_owned()],
            outcome: None,
        }
    }

    #[test]
    fn records_are_numbered_completed_once_and_the_oldest_go() {
        let (mut state, settings) = (State::default(), Settings { audit_kept: 3, ..Settings::default() });
        for at in 1..=5 {
            let moment = Moment { wall_unix_ms: at, random: 0 };
            let mut changes = Changes::new(&mut state, &settings, moment);
            assert_eq!(started("a").decide(&mut changes).unwrap(), at);
        }
        assert_eq!(state.audit.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
        let moment = Moment { wall_unix_ms: 9, random: 0 };
        let mut changes = Changes::new(&mut state, &settings, moment);
        for sequence in [1, 4] {
            let ended = AuditEnded { sequence, result: "exited 0".to_owned(), bytes_in: 1, bytes_out: 2 };
            ended.decide(&mut changes).unwrap();
        }
        AuditAbandoned.decide(&mut changes).unwrap();
        let results: Vec<String> =
            state.audit.values().map(|record| record.outcome.clone().unwrap().result).collect();
        let cut_off = "cut off: the control plane ended";
        assert_eq!(results, [cut_off, "exited 0", cut_off]);
    }

    #[test]
    fn long_commands_are_cut_between_characters() {
        let words = cut(vec!["sh".to_owned(), "ä".repeat(TEXT_BYTES)]);
        assert_eq!(words[0], "sh");
        assert!(words[1].ends_with('…') && words[1].len() < TEXT_BYTES + 4, "{}", words[1].len());
        assert_eq!(cut(vec!["a".to_owned()]), ["a"]);
    }
}
