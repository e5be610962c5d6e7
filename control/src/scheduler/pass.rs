//! Whether a task may pass the one that waits at the head of the queue: only where the head's start cannot be delayed.
//! In: the head, a task that would take a row. Out: whether the head might start later for it. Pure.
//! Never: guesses how long a task runs: each may end next or never.
//!
//! "Not delayed": whichever of the running tasks end, and in whichever order, the head finds an instance then if it
//! had found one without the task that passed. The rule errs on the safe side. A task takes a row only if
//! - the head cannot start there whatever ends: it is too small or fails a requirement that no task changes; or
//! - of each thing that the head needs (CPU, memory, each kind of device, each port) the task takes none, or leaves
//!   now already as much as the head needs, so that what the head still waits for there is something else. The task
//!   must not be of the head's group where the head asks for distinctInstance, and nothing takes such a row where a
//!   memberOf of the head asks for tasks, or where a custom strategy, which may refuse rows by what runs there, chooses
//!   for it. Such a strategy may also ask for the group's tasks elsewhere: no task of the group passes it.

use crate::core::columns::Nodes;
use crate::core::columns::bits::Bits;
use crate::scheduler::choose::Ask;
use lighter_model::ids::TaskId;
use lighter_model::placement::{Constraint, Strategy};
use lighter_model::query::Sets;
use lighter_model::resources::Resources;

/// The first task of the queue that fits nowhere now, but somewhere once enough has ended.
#[derive(Debug)]
pub struct Head<'a> {
    task: &'a TaskId,
    ask: Ask<'a>,
    /// Rows where it can start once enough has ended, if they are large enough.
    possible: Bits,
    /// By kind of node, whether it has what is required.
    capable: Vec<bool>,
    /// Whatever runs on a row may change whether it can start there.
    asks_for_tasks: bool,
    /// A custom strategy may refuse rows, and there is one where it can start.
    is_scored: bool,
}

impl<'a> Head<'a> {
    /// As cheap as one decision: rows are looked at one by one only when somebody asks for them.
    pub fn new(nodes: &Nodes, task: &'a TaskId, ask: Ask<'a>) -> Self {
        let ask = Ask { head: None, ..ask };
        let constraints = ask.placement.constraints();
        let depends = |constraint: &Constraint| match constraint {
            Constraint::MemberOf(expression) => expression.depends_on_tasks(),
            Constraint::DistinctInstance => false,
        };
        let is_scored = ask.placement.strategies().iter().any(|one| matches!(one, Strategy::Custom(_)));
        let asks_for_tasks = is_scored || constraints.iter().any(depends);
        let mut possible = nodes.open().clone();
        if ask.leases {
            possible.intersect(nodes.leases());
        }
        for constraint in constraints.iter().filter(|constraint| !depends(constraint)) {
            if let Constraint::MemberOf(expression) = constraint {
                possible.intersect(&nodes.matching(expression));
            }
        }
        let capable = nodes.capable(ask.required);
        let mut head = Self { task, ask, possible, capable, asks_for_tasks, is_scored };
        head.is_scored &= head.is_possible(nodes);
        head
    }

    /// Which task it is.
    pub fn task(&self) -> &TaskId {
        self.task
    }

    /// Whether it finds room anywhere once enough has ended. What does not keeps nobody back, and is no head.
    pub fn is_possible(&self, nodes: &Nodes) -> bool {
        self.possible.iter().any(|row| self.can_start(nodes, row))
    }

    /// Whether it finds room there once enough has ended.
    fn can_start(&self, nodes: &Nodes, row: usize) -> bool {
        self.possible.get(row) && self.capable[nodes.kind(row)] && could_hold(nodes, &self.ask, row)
    }

    /// Whether it might start later if a task took this row.
    pub fn is_delayed(&self, nodes: &Nodes, by: &Ask<'_>, row: usize) -> bool {
        let is_same_group = self.ask.group == by.group;
        (self.is_scored && is_same_group)
            || (self.is_in_the_way(nodes, by, row, is_same_group) && self.can_start(nodes, row))
    }

    /// Whether the task takes of the row what the head may wait for.
    fn is_in_the_way(&self, nodes: &Nodes, by: &Ask<'_>, row: usize, is_same_group: bool) -> bool {
        if !self.possible.get(row) {
            return false;
        }
        if self.asks_for_tasks || (is_same_group && self.ask.placement.is_distinct()) {
            return true;
        }
        let (own, takes) = (self.ask.resources, by.resources);
        let short = |need: u64, takes: u64, spare: i64, reserve: u64| {
            let left = i128::from(spare) - i128::from(reserve) - i128::from(takes);
            need > 0 && takes > 0 && left < i128::from(need)
        };
        let (spare_cpu, spare_memory) = (nodes.spare_cpu_units()[row], nodes.spare_memory_mib()[row]);
        let reserve = self.ask.reserve;
        short(own.cpu_units.into(), takes.cpu_units.into(), spare_cpu, reserve.cpu_units.into())
            || short(own.memory_mib, takes.memory_mib, spare_memory, reserve.memory_mib)
            || !own.host_ports.is_disjoint(&takes.host_ports)
            || takes.devices.iter().any(|(kind, taken)| {
                let need = own.devices.get(kind).copied().unwrap_or(0);
                short(need.into(), (*taken).into(), nodes.free_devices(row, kind).into(), 0)
            })
    }
}

/// Whether the instance has room for it when nothing runs there.
fn could_hold(nodes: &Nodes, ask: &Ask<'_>, row: usize) -> bool {
    let (wanted, offered): (&Resources, &Resources) = (ask.resources, &nodes.record(row).offered);
    let fits = |need: u64, offered: u64, reserve: u64| need == 0 || need.saturating_add(reserve) <= offered;
    fits(wanted.cpu_units.into(), offered.cpu_units.into(), ask.reserve.cpu_units.into())
        && fits(wanted.memory_mib, offered.memory_mib, ask.reserve.memory_mib)
        && wanted.host_ports.is_disjoint(&offered.host_ports)
        && wanted.devices.iter().all(|(kind, need)| offered.devices.get(kind).copied().unwrap_or(0) >= *need)
}
