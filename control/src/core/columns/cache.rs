//! Answers that hold for as long as an instance's record does: which rows a comparison holds for, which value of
//! an attribute each row has. In: records. Out: sets and columns. Owns: the answers, at most so many of each kind.
//! Never: an answer that changes with tasks; and nothing here decides: without it the same is found more slowly.

use super::bits::Bits;
use crate::core::query::AloneInstance;
use crate::core::record::InstanceRecord;
use lighter_model::query::Comparison;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of each kind; the one that was not used for longest goes.
const KEPT: usize = 64;

#[derive(Debug, Clone, Default)]
pub(super) struct Cache {
    leaves: BTreeMap<String, Leaf>,
    values: BTreeMap<String, (u64, Values)>,
    /// Grows with each use.
    uses: u64,
}

#[derive(Debug, Clone)]
struct Leaf {
    comparison: Comparison,
    rows: Bits,
    used: u64,
}

/// Which value of an attribute each row has.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// By text, with a number of its own; `None`: no such attribute.
    numbers: BTreeMap<Option<String>, usize>,
    of_row: Vec<usize>,
}

impl Values {
    pub(super) fn of(records: &[Arc<InstanceRecord>], attribute: &str) -> Self {
        let mut values = Self::default();
        for record in records {
            let number = values.number(record.attribute(attribute));
            values.of_row.push(number);
        }
        values
    }

    fn number(&mut self, value: Option<&str>) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(value.map(str::to_owned)).or_insert(next)
    }

    /// The number of a row's value, below `count`.
    pub fn of_row(&self, row: usize) -> usize {
        self.of_row[row]
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }
}

/// The rows that a comparison holds for, asking records alone.
pub(super) fn rows_of(records: &[Arc<InstanceRecord>], comparison: &Comparison) -> Bits {
    let mut rows = Bits::upto(records.len(), false);
    for (row, record) in records.iter().enumerate() {
        rows.set(row, comparison.matches(&AloneInstance(record)));
    }
    rows
}

impl Cache {
    pub(super) fn leaf(&self, comparison: &Comparison) -> Option<&Bits> {
        self.leaves.get(comparison.key()).map(|leaf| &leaf.rows)
    }

    pub(super) fn values(&self, attribute: &str) -> Option<&Values> {
        self.values.get(attribute).map(|(_, values)| values)
    }

    /// Makes the answers of a comparison, or marks them as used.
    pub(super) fn warm_leaf(&mut self, records: &[Arc<InstanceRecord>], comparison: &Comparison) {
        self.uses += 1;
        if let Some(leaf) = self.leaves.get_mut(comparison.key()) {
            leaf.used = self.uses;
            return;
        }
        if self.leaves.len() == KEPT {
            let oldest = self.leaves.iter().min_by_key(|(_, leaf)| leaf.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.leaves.remove(&key);
            }
        }
        let rows = rows_of(records, comparison);
        let leaf = Leaf { comparison: comparison.clone(), rows, used: self.uses };
        self.leaves.insert(comparison.key().to_owned(), leaf);
    }

    pub(super) fn warm_values(&mut self, records: &[Arc<InstanceRecord>], attribute: &str) {
        self.uses += 1;
        if let Some((used, _)) = self.values.get_mut(attribute) {
            *used = self.uses;
            return;
        }
        if self.values.len() == KEPT {
            let oldest = self.values.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.values.remove(&key);
            }
        }
        self.values.insert(attribute.to_owned(), (self.uses, Values::of(records, attribute)));
    }

    /// A row has another record.
    pub(super) fn written(&mut self, row: usize, record: &InstanceRecord) {
        for leaf in self.leaves.values_mut() {
            let holds = leaf.comparison.matches(&AloneInstance(record));
            leaf.rows.set(row, holds);
        }
        for (attribute, (_, values)) in &mut self.values {
            values.of_row[row] = values.number(record.attribute(attribute));
        }
    }

    /// A row comes in between; `written` follows.
    pub(super) fn inserted(&mut self, row: usize) {
        self.leaves.values_mut().for_each(|leaf| leaf.rows.insert(row, false));
        self.values.values_mut().for_each(|(_, values)| values.of_row.insert(row, 0));
    }

    pub(super) fn removed(&mut self, row: usize) {
        self.leaves.values_mut().for_each(|leaf| leaf.rows.remove(row));
        for (_, values) in self.values.values_mut() {
            values.of_row.remove(row);
        }
    }
}
