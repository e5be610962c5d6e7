//! Chooses the instance of one task on columns: filters, then strategies in their order, then the lowest id.
//! In: the rows of a cluster and what is asked. Out: the rows that would do; the one that is taken.
//! Never: looks at a clock or draws lots of its own; the same input gives the same place.
//!
//! Filters are sets of rows and two comparisons of numbers; a strategy keeps those of the rows that are best by
//! it. Without a strategy the instance with the fewest tasks wins.

use crate::core::columns::Nodes;
use crate::core::columns::bits::Bits;
use crate::scheduler::pass::Head;
use crate::scheduler::placement::{Reserve, place};
use crate::scheduler::strategy::{Scores, lot};
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::placement::{Constraint, Placement, Strategy};
use lighter_model::query::Sets;
use lighter_model::resources::Resources;
use std::collections::BTreeSet;

/// What one task asks of its place.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub resources: &'a Resources,
    /// Attributes that the node must report, by name.
    pub required: &'a BTreeSet<String>,
    /// It needs an agent that ends it when its lease has run out.
    pub leases: bool,
    /// Whose tasks are counted by spread and distinctInstance: `family:NAME`, `service:NAME` or the caller's.
    pub group: &'a str,
    pub placement: &'a Placement,
    pub reserve: Reserve,
    /// For `random`.
    pub luck: u128,
    /// The task at the head of the queue, which must not be delayed; `None`: nobody waits, or it does not count.
    pub head: Option<&'a Head<'a>>,
}

/// The row for a task, or `None` when it fits nowhere.
pub fn choose(nodes: &Nodes, ask: &Ask<'_>) -> Option<usize> {
    let fits = Fits::new(nodes, ask);
    if ask.placement.strategies().is_empty() {
        return place(nodes.tasks(), |row| fits.bits.get(row) && fits.numbers(row));
    }
    best(nodes, ask, fits.rows())
}

/// The rows that take tasks and have all that is asked.
pub fn feasible(nodes: &Nodes, ask: &Ask<'_>) -> Bits {
    Fits::new(nodes, ask).rows()
}

/// The best of some rows by the strategies; ties go to the lowest id.
pub fn best(nodes: &Nodes, ask: &Ask<'_>, mut rows: Bits) -> Option<usize> {
    for strategy in ask.placement.strategies() {
        if rows.count() < 2 && !matches!(strategy, Strategy::Custom(_)) {
            break;
        }
        match strategy {
            Strategy::Random => return lot(ask.luck, rows.count()).and_then(|before| rows.nth(before)),
            other => Scores::new(nodes, ask.group, other).keep_best(&mut rows),
        }
    }
    rows.nth(0)
}

/// What is asked, made ready to be asked of each row.
struct Fits<'a> {
    nodes: &'a Nodes,
    ask: &'a Ask<'a>,
    /// Rows that fall out by nothing but numbers.
    bits: Bits,
    /// By kind; empty when all are.
    capable: Vec<bool>,
    least_cpu_units: i64,
    least_memory_mib: i64,
}

impl<'a> Fits<'a> {
    fn new(nodes: &'a Nodes, ask: &'a Ask<'a>) -> Self {
        let wanted = ask.resources;
        // Nothing is there also where the reserve is not.
        let least = |need: u64, reserve: u64| match need {
            0 => i64::MIN,
            need => i64::try_from(need.saturating_add(reserve)).unwrap_or(i64::MAX),
        };
        let mut capable = nodes.capable(ask.required);
        if capable.iter().all(|capable| *capable) {
            capable.clear();
        }
        Self {
            nodes,
            ask,
            bits: bits(nodes, ask),
            capable,
            least_cpu_units: least(wanted.cpu_units.into(), ask.reserve.cpu_units.into()),
            least_memory_mib: least(wanted.memory_mib, ask.reserve.memory_mib),
        }
    }

    fn numbers(&self, row: usize) -> bool {
        let nodes = self.nodes;
        nodes.spare_cpu_units()[row] >= self.least_cpu_units
            && nodes.spare_memory_mib()[row] >= self.least_memory_mib
            && self.others(row)
    }

    /// All but CPU and memory.
    fn others(&self, row: usize) -> bool {
        (self.capable.is_empty() || self.capable[self.nodes.kind(row)])
            && (self.ask.resources.devices.is_empty() || self.devices(row))
            && self.ask.head.is_none_or(|head| !head.is_delayed(self.nodes, self.ask, row))
    }

    fn devices(&self, row: usize) -> bool {
        let mut wanted = self.ask.resources.devices.iter();
        wanted.all(|(kind, count)| self.nodes.free_devices(row, kind) >= *count)
    }

    fn rows(&self) -> Bits {
        let mut rows = self.bits.clone();
        rows.keep_at_least(self.nodes.spare_cpu_units(), self.least_cpu_units);
        rows.keep_at_least(self.nodes.spare_memory_mib(), self.least_memory_mib);
        let is_more_asked =
            !self.capable.is_empty() || !self.ask.resources.devices.is_empty() || self.ask.head.is_some();
        if is_more_asked {
            rows.retain(|row| self.others(row));
        }
        rows
    }
}

/// The rows that are open and that no constraint, port or lease excludes.
fn bits(nodes: &Nodes, ask: &Ask<'_>) -> Bits {
    let mut rows = nodes.open().clone();
    if ask.leases {
        rows.intersect(nodes.leases());
    }
    if !wrong_edit::is(WrongEdit::PortGivenTwice) {
        let taken = ask.resources.host_ports.iter().filter_map(|port| nodes.port(port));
        taken.for_each(|taken| rows.subtract(taken));
    }
    for constraint in ask.placement.constraints() {
        match constraint {
            Constraint::DistinctInstance => rows.subtract(&with_group(nodes, ask.group)),
            Constraint::MemberOf(expression) => rows.intersect(&nodes.matching(expression)),
        }
    }
    rows
}

/// The rows that have a task of the group that is wanted RUNNING; one that is being stopped does not count (Amazon
/// ECS Developer Guide, "distinctInstance": the desired status is looked at).
pub fn with_group(nodes: &Nodes, group: &str) -> Bits {
    let mut rows = Bits::upto(nodes.len(), false);
    let entries = nodes.groups().of(group).iter().filter(|entry| entry.wanted > 0);
    entries.for_each(|entry| rows.set(entry.row, true));
    rows
}
