//! What a standby keeps while another leads: a copy of the records, so that taking over is quick.
//! In: a store. Out: all records as of a term won, or who leads. Owns: the copy.
//! Never: trusts its copy further than its sequence; what is missing is followed up or loaded.

use crate::format::{Upgrade, check};
use crate::store::{Campaign, Followed, Loaded, Store, StoreError};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one look for changes waits; a resignation ends it at once.
const LOOK: Duration = Duration::from_millis(500);

/// A copy of the store as of a sequence.
#[derive(Debug)]
struct Copy {
    incarnation: String,
    sequence: u64,
    records: BTreeMap<String, Vec<u8>>,
}

impl Copy {
    fn load(store: &mut dyn Store) -> Result<Self, StoreError> {
        let Loaded { incarnation, sequence, records, .. } = store.load("")?;
        Ok(Self { incarnation, sequence, records: records.into_iter().collect() })
    }

    /// Whether the copy can still be used.
    fn follow(&mut self, store: &mut dyn Store, limit: Duration) -> Result<bool, StoreError> {
        let batches = match store.follow(self.sequence, limit)? {
            Followed::Batches(batches) => batches,
            Followed::Vacant => return Ok(true),
            Followed::TooOld => return Ok(false),
        };
        for (sequence, batch) in batches {
            for (key, value) in batch {
                match value {
                    Some(value) => self.records.insert(key, value),
                    None => self.records.remove(&key),
                };
            }
            self.sequence = sequence;
        }
        Ok(true)
    }

    /// Everything, if the copy is as new as the store, which nobody else writes any more.
    fn finish(mut self, store: &mut dyn Store) -> Result<Loaded, StoreError> {
        loop {
            // One small record: what counts is the sequence beside it.
            let now = store.load(crate::core::mutation::key::META)?;
            if now.incarnation == self.incarnation && now.sequence == self.sequence {
                return Ok(Loaded { records: self.records.into_iter().collect(), ..now });
            }
            let before = self.sequence;
            if !self.follow(store, LOOK)? || self.sequence == before {
                return store.load("");
            }
        }
    }
}

/// Takes the lead and reads everything, as of the new term. A standby first waits for changes: the
/// lead that is given up, or what is committed meanwhile.
#[derive(Debug, Default)]
pub(super) struct Standby {
    copy: Option<Copy>,
    /// `None`: records are taken as they are.
    upgrade: Option<Upgrade>,
}

impl Standby {
    pub(super) fn new(upgrade: Option<Upgrade>) -> Self {
        Self { copy: None, upgrade }
    }

    pub(super) fn lead(&mut self, store: &mut dyn Store, term_floor: u64) -> Result<Loaded, StoreError> {
        if let Some(mut copy) = self.copy.take()
            && copy.follow(store, LOOK)?
        {
            self.copy = Some(copy);
        }
        if let Some(upgrade) = &self.upgrade {
            // What a newer program has written is not led by an older one.
            check(upgrade.formats, &store.load(crate::core::mutation::key::META)?.records)?;
        }
        match store.campaign(term_floor)? {
            Campaign::Standby(leader) => {
                if self.copy.is_none() {
                    self.copy = Some(Copy::load(store)?);
                }
                Err(StoreError::Led { leader })
            }
            Campaign::Elected { term } => {
                let loaded = match self.copy.take() {
                    Some(copy) => copy.finish(store)?,
                    None => store.load("")?,
                };
                let loaded = Loaded { term, ..loaded };
                let Some(upgrade) = &self.upgrade else { return Ok(loaded) };
                // Who cannot use the records makes way for somebody who can.
                upgrade.run(store, loaded).inspect_err(|_| store.resign())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, CommitOutcome};

    #[test]
    fn a_standby_takes_over_with_all_that_was_committed() {
        let mut one = MemoryStore::with_elections("one");
        let mut two = one.clone();
        let (mut first, mut second) = (Standby::default(), Standby::default());
        let term = first.lead(&mut one, 0).unwrap().term;
        let put = |sequence: u64| Batch::from([(format!("k/{sequence}"), Some(vec![b'x']))]);
        for sequence in 1..=5 {
            assert_eq!(one.commit(term, sequence, &put(sequence)), CommitOutcome::Committed);
            assert!(matches!(second.lead(&mut two, 0), Err(StoreError::Led { .. })));
        }
        assert_eq!(second.copy.as_ref().unwrap().sequence, 5);
        // Committed, and not seen before the lead was lost.
        assert_eq!(one.commit(term, 6, &put(6)), CommitOutcome::Committed);
        one.resign();
        let mut copy = second.copy.take().unwrap();
        copy.records.insert("mark".to_owned(), Vec::new());
        second.copy = Some(copy);
        let loaded = second.lead(&mut two, 0).unwrap();
        assert_eq!((loaded.sequence, loaded.records.len()), (6, 7), "its own copy, with the mark");
        assert!(loaded.term > term);
    }
}
