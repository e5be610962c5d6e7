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
/// So many values of an attribute have a set of rows each: zones have, names of instances have not.
const FEW: usize = 16;

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
    numbers: BTreeMap<Option<String>, u32>,
    of_row: Vec<u32>,
    /// By number, the rows that have it; `None` when there are too many numbers.
    rows: Option<Vec<Bits>>,
}

impl Values {
    pub(super) fn of(records: &[Arc<InstanceRecord>], attribute: &str) -> Self {
        let mut values = Self::default();
        for record in records {
            let number = values.number(record.attribute(attribute));
            values.of_row.push(number);
        }
        if values.count() <= FEW {
            let mut rows = vec![Bits::upto(records.len(), false); values.count()];
            for (row, number) in values.of_row.iter().enumerate() {
                rows[*number as usize].set(row, true);
            }
            values.rows = Some(rows);
        }
        values
    }

    fn number(&mut self, value: Option<&str>) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(value.map(str::to_owned)).or_insert(next)
    }

    /// A row has another value.
    fn written(&mut self, row: usize, value: Option<&str>) {
        let number = self.number(value);
        let before = std::mem::replace(&mut self.of_row[row], number);
        self.rows = self.rows.take().filter(|_| self.count() <= FEW);
        let count = self.count();
        let Some(rows) = &mut self.rows else { return };
        if rows.len() < count {
            rows.resize(count, Bits::upto(self.of_row.len(), false));
        }
        rows[before as usize].set(row, false);
        rows[number as usize].set(row, true);
    }

    /// A row comes in between, with the first value.
    fn inserted(&mut self, row: usize) {
        self.of_row.insert(row, 0);
        let sets = self.rows.iter_mut().flatten().enumerate();
        sets.for_each(|(number, rows)| rows.insert(row, number == 0));
    }

    fn removed(&mut self, row: usize) {
        self.of_row.remove(row);
        self.rows.iter_mut().flatten().for_each(|rows| rows.remove(row));
    }

    /// The number of a row's value, below `count`.
    pub fn of_row(&self, row: usize) -> usize {
        self.of_row[row] as usize
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// For each value the rows that have it, if there are few values.
    pub fn rows(&self) -> Option<&[Bits]> {
        self.rows.as_deref()
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
            values.written(row, record.attribute(attribute));
        }
    }

    /// A row comes in between; `written` follows.
    pub(super) fn inserted(&mut self, row: usize) {
        self.leaves.values_mut().for_each(|leaf| leaf.rows.insert(row, false));
        self.values.values_mut().for_each(|(_, values)| values.inserted(row));
    }

    pub(super) fn removed(&mut self, row: usize) {
        self.leaves.values_mut().for_each(|leaf| leaf.rows.remove(row));
        self.values.values_mut().for_each(|(_, values)| values.removed(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is done to a row: another value, a row that comes, one that goes.
    type Step = (u8, usize, Option<u8>);

    proptest! {
        #[test]
        fn sets_of_values_follow_the_rows(
            steps in proptest::collection::vec((0u8..3, any::<usize>(), proptest::option::of(0u8..20)), 1..80),
        ) {
            let steps: Vec<Step> = steps;
            let (mut values, mut list) = (Values::of(&[], "zone"), Vec::<Option<String>>::new());
            for (what, at, value) in steps {
                let value = value.map(|value| value.to_string());
                match what {
                    0 if !list.is_empty() => {
                        let row = at % list.len();
                        list.remove(row);
                        values.removed(row);
                    }
                    1 if !list.is_empty() => {
                        let row = at % list.len();
                        values.written(row, value.as_deref());
                        list[row] = value;
                    }
                    _ => {
                        let row = at % (list.len() + 1);
                        values.inserted(row);
                        values.written(row, value.as_deref());
                        list.insert(row, value);
                    }
                }
                for (row, value) in list.iter().enumerate() {
                    let number = values.of_row(row);
                    prop_assert_eq!(values.numbers.get(value).copied(), u32::try_from(number).ok());
                    for (of, rows) in values.rows().unwrap_or_default().iter().enumerate() {
                        prop_assert_eq!(rows.get(row), of == number);
                    }
                }
                let of_no_row = |rows: &Bits| rows.iter().all(|row| row < list.len());
                prop_assert!(values.rows().unwrap_or_default().iter().all(of_no_row));
                prop_assert!(values.rows().is_none() || values.count() <= FEW);
            }
        }
    }
}
