//! How many tasks of each group are on each row; only rows that have some are kept.
//! In: tasks that come and go, rows that move. Out: the rows of a group, in order.
//! Never: keeps a group without tasks.

use super::bits::Bits;
use std::collections::BTreeMap;

/// Tasks of one group on one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRow {
    pub row: usize,
    /// Not STOPPED.
    pub all: u32,
    /// Of these, wanted RUNNING.
    pub wanted: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups(BTreeMap<String, Vec<GroupRow>>);

impl Groups {
    /// The rows that have tasks of a group.
    pub fn of(&self, group: &str) -> &[GroupRow] {
        self.0.get(group).map_or(&[], Vec::as_slice)
    }

    /// What one row has of a group.
    pub fn on(&self, group: &str, row: usize) -> GroupRow {
        let rows = self.of(group);
        let found = rows.binary_search_by_key(&row, |entry| entry.row).ok().map(|at| rows[at]);
        found.unwrap_or(GroupRow { row, all: 0, wanted: 0 })
    }

    /// Every group with its rows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[GroupRow])> {
        self.0.iter().map(|(group, rows)| (group.as_str(), rows.as_slice()))
    }

    /// The rows that have a task of a group that is as asked.
    pub fn rows_of(&self, is: impl Fn(&str) -> bool, rows: usize) -> Bits {
        let mut found = Bits::upto(rows, false);
        for (group, entries) in &self.0 {
            if is(group) {
                entries.iter().for_each(|entry| found.set(entry.row, true));
            }
        }
        found
    }

    pub(super) fn add(&mut self, group: &str, row: usize, wanted: bool) {
        if !self.0.contains_key(group) {
            self.0.insert(group.to_owned(), Vec::new());
        }
        let Some(rows) = self.0.get_mut(group) else { return };
        let at = match rows.binary_search_by_key(&row, |entry| entry.row) {
            Ok(at) => at,
            Err(at) => {
                rows.insert(at, GroupRow { row, all: 0, wanted: 0 });
                at
            }
        };
        rows[at].all += 1;
        rows[at].wanted += u32::from(wanted);
    }

    pub(super) fn take(&mut self, group: &str, row: usize, wanted: bool) {
        let Some(rows) = self.0.get_mut(group) else { return };
        let Ok(at) = rows.binary_search_by_key(&row, |entry| entry.row) else { return };
        rows[at].all = rows[at].all.saturating_sub(1);
        rows[at].wanted = rows[at].wanted.saturating_sub(u32::from(wanted));
        if rows[at].all == 0 {
            rows.remove(at);
        }
        if rows.is_empty() {
            self.0.remove(group);
        }
    }

    /// A row comes in between.
    pub(super) fn row_inserted(&mut self, at: usize) {
        let moved = self.0.values_mut().flatten().filter(|entry| entry.row >= at);
        moved.for_each(|entry| entry.row += 1);
    }

    /// A row goes, with its tasks.
    pub(super) fn row_removed(&mut self, at: usize) {
        self.0.retain(|_, rows| {
            rows.retain(|entry| entry.row != at);
            rows.iter_mut().filter(|entry| entry.row > at).for_each(|entry| entry.row -= 1);
            !rows.is_empty()
        });
    }
}
