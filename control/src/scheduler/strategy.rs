//! What a strategy thinks of each row: the lower the better. In: rows, a group, a strategy. Out: keys of rows.
//! Never: filters, but for rows to which a custom strategy gives no score.
//!
//! - spread counts tasks of the group that are wanted RUNNING, on the instance or on all instances with the same value
//!   of the attribute, whether these take tasks or not; those without the attribute are one value more.
//! - binpack looks at what is left now, before the task.
//! - custom takes the highest score.

use crate::core::columns::bits::Bits;
use crate::core::columns::{GroupRow, Nodes, RowInstance, Values};
use lighter_model::attribute::AVAILABILITY_ZONE;
use lighter_model::placement::{PackField, SpreadField, Strategy};
use lighter_model::query::{Queried, Sets};
use lighter_model::resources::GPU;
use lighter_model::score::{Refused, Score, Scored};
use std::borrow::Cow;

/// A strategy made ready for the rows of a cluster.
pub enum Scores<'a> {
    /// Nothing to choose by.
    Equal,
    OnInstance(&'a [GroupRow]),
    ByValue {
        values: Cow<'a, Values>,
        tasks: Vec<u64>,
    },
    Left(&'a [i64]),
    Custom {
        nodes: &'a Nodes,
        group: &'a str,
        score: &'a Score,
        zones: Cow<'a, Values>,
        tasks: Vec<u64>,
    },
}

impl<'a> Scores<'a> {
    pub fn new(nodes: &'a Nodes, group: &'a str, strategy: &'a Strategy) -> Self {
        match strategy {
            Strategy::Random => Self::Equal,
            Strategy::Spread(SpreadField::Instance) => Self::OnInstance(nodes.groups().of(group)),
            Strategy::Spread(SpreadField::Attribute(name)) => {
                let (values, tasks) = by_value(nodes, group, name);
                Self::ByValue { values, tasks }
            }
            Strategy::Binpack(PackField::Cpu) => Self::Left(nodes.spare_cpu_units()),
            Strategy::Binpack(PackField::Memory) => Self::Left(nodes.spare_memory_mib()),
            Strategy::Custom(score) => {
                let (zones, tasks) = by_value(nodes, group, AVAILABILITY_ZONE);
                Self::Custom { nodes, group, score, zones, tasks }
            }
        }
    }

    /// Keeps those of the rows that are best; none to which a custom strategy gives no score.
    pub fn keep_best(&self, rows: &mut Bits) {
        match self {
            Self::Equal => {}
            Self::OnInstance(entries) => keep_fewest(rows, entries),
            Self::ByValue { values, tasks } => match values.rows() {
                Some(sets) => keep_fewest_of(rows, sets, tasks),
                None => rows.keep_lowest(|row| Some(signed(tasks[values.of_row(row)]))),
            },
            Self::Left(left) => rows.keep_lowest_in(left),
            Self::Custom { .. } => rows.keep_lowest(|row| self.key(row).ok()),
        }
    }

    /// The key of one row; the lower the better.
    pub fn key(&self, row: usize) -> Result<i64, Refused> {
        match self {
            Self::Equal => Ok(0),
            Self::OnInstance(entries) => {
                let found = entries.binary_search_by_key(&row, |entry| entry.row);
                Ok(found.map_or(0, |at| i64::from(entries[at].wanted)))
            }
            Self::ByValue { values, tasks } => Ok(signed(tasks[values.of_row(row)])),
            Self::Left(left) => Ok(left[row]),
            // `!` instead of `-`, which has no opposite of the least number.
            Self::Custom { .. } => self.score(row).map(|score| !score),
        }
    }

    /// The score of a custom strategy in millionths; 0 of any other.
    pub fn score(&self, row: usize) -> Result<i64, Refused> {
        let Self::Custom { nodes, group, score, zones, tasks } = self else { return Ok(0) };
        let zone_tasks = signed(tasks[zones.of_row(row)]);
        score.of(&ScoredRow { row: RowInstance { nodes, row }, group, zone_tasks })
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The values of an attribute, and how many tasks of the group there are for each.
fn by_value<'a>(nodes: &'a Nodes, group: &str, attribute: &str) -> (Cow<'a, Values>, Vec<u64>) {
    let values = nodes.values(attribute);
    let mut tasks = vec![0; values.count()];
    for entry in nodes.groups().of(group) {
        tasks[values.of_row(entry.row)] += u64::from(entry.wanted);
    }
    (values, tasks)
}

/// Keeps the rows with the fewest tasks of a group; rows without an entry have none.
fn keep_fewest(rows: &mut Bits, entries: &[GroupRow]) {
    if entries.len() < rows.count() {
        // Some row has none, so that those with tasks go.
        let some = entries.iter().filter(|entry| entry.wanted > 0);
        return some.for_each(|entry| rows.take(entry.row));
    }
    let mut entries = entries.iter().peekable();
    rows.keep_lowest(|row| {
        while entries.next_if(|entry| entry.row < row).is_some() {}
        Some(entries.peek().filter(|entry| entry.row == row).map_or(0, |entry| i64::from(entry.wanted)))
    });
}

/// Keeps the rows of those sets that have the fewest tasks and a row at all; the sets have no row in common.
fn keep_fewest_of(rows: &mut Bits, sets: &[Bits], tasks: &[u64]) {
    let mut fewest: Option<(u64, Bits)> = None;
    for (set, tasks) in sets.iter().zip(tasks) {
        if fewest.as_ref().is_some_and(|(fewest, _)| fewest < tasks) {
            continue;
        }
        let mut here = rows.clone();
        here.intersect(set);
        match &mut fewest {
            _ if here.is_empty() => {}
            Some((fewest, found)) if *fewest == *tasks => found.unite(&here),
            other => *other = Some((*tasks, here)),
        }
    }
    if let Some((_, found)) = fewest {
        *rows = found;
    }
}

/// One of so many, all alike; `None` of none. The bits are mixed (splitmix64), for numbers that lie close together.
pub fn lot(luck: u128, among: usize) -> Option<usize> {
    let mut mixed = (luck as u64) ^ ((luck >> 64) as u64).rotate_left(32);
    mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (among > 0).then(|| ((u128::from(mixed) * among as u128) >> 64) as usize)
}

/// A row as a score asks it.
struct ScoredRow<'a> {
    row: RowInstance<'a>,
    group: &'a str,
    zone_tasks: i64,
}

impl Queried for ScoredRow<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.row.attribute(name)
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        self.row.any_task_group(is)
    }
    fn agent_connected(&self) -> bool {
        self.row.agent_connected()
    }
    fn agent_version(&self) -> &str {
        self.row.agent_version()
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.row.ec2_instance_id()
    }
    fn registered_at_s(&self) -> i64 {
        self.row.registered_at_s()
    }
    fn running_tasks_count(&self) -> u64 {
        self.row.running_tasks_count()
    }
}

impl Scored for ScoredRow<'_> {
    fn remaining_cpu(&self) -> i64 {
        self.row.nodes.spare_cpu_units()[self.row.row]
    }
    fn remaining_memory(&self) -> i64 {
        self.row.nodes.spare_memory_mib()[self.row.row]
    }
    fn remaining_gpus(&self) -> i64 {
        self.row.nodes.free_devices(self.row.row, GPU).into()
    }
    fn total_cpu(&self) -> i64 {
        self.row.nodes.record(self.row.row).offered.cpu_units.into()
    }
    fn total_memory(&self) -> i64 {
        signed(self.row.nodes.record(self.row.row).offered.memory_mib)
    }
    fn total_gpus(&self) -> i64 {
        self.row.nodes.record(self.row.row).offered.devices.get(GPU).copied().unwrap_or(0).into()
    }
    fn group_tasks(&self) -> i64 {
        self.row.nodes.groups().on(self.group, self.row.row).wanted.into()
    }
    fn group_zone_tasks(&self) -> i64 {
        self.zone_tasks
    }
}
