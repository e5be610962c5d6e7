//! What placement looks at, as columns of numbers: one row for each instance, by cluster, in the order of ids.
//! In: instances, tasks, and what they take. Out: rows; thousands are looked at for each task placed.
//! Owns nothing: all of it follows from the records and the ledger, and none of it is stored.
//! Never: decides.

pub mod bits;
mod cache;
mod groups;

use crate::core::query::AloneInstance;
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::state::Reserved;
use crate::wrong_edit::{self, WrongEdit};
use bits::Bits;
use cache::Cache;
pub use cache::Values;
pub use groups::{GroupRow, Groups};
use lighter_model::attribute::{EC2_INSTANCE_ID, is_capability};
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::placement::{Constraint, Placement, SpreadField, Strategy};
use lighter_model::query::{Expression, Queried, Sets};
use lighter_model::resources::{HostPort, Resources};
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// The rows of all clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<ClusterName, Nodes>);

/// The rows of one cluster.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    ids: Vec<ContainerInstanceId>,
    records: Vec<Arc<InstanceRecord>>,
    /// Tasks that are not STOPPED.
    tasks: Vec<usize>,
    running: Vec<u32>,
    /// ACTIVE and connected.
    open: Bits,
    /// Their agents end exclusive tasks whose lease has run out.
    leases: Bits,
    /// In `kinds`.
    kind: Vec<usize>,
    /// What is offered less what tasks take; may be negative.
    spare_cpu_units: Vec<i64>,
    spare_memory_mib: Vec<i64>,
    /// The rows where a host port is taken, by tasks or by the node itself.
    ports: BTreeMap<HostPort, Bits>,
    /// The ports of each row, in order.
    ports_of_row: Vec<Vec<HostPort>>,
    /// Devices of each kind that no task has; rows behind the end have none.
    devices: BTreeMap<String, Vec<u32>>,
    groups: Groups,
    /// Sets of attributes that instances have; most have the same.
    kinds: Vec<NodeKind>,
    cache: Cache,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeKind {
    attributes: BTreeSet<String>,
    /// It names capabilities; an instance that names none is asked for none.
    names_capabilities: bool,
    /// Of this kind; a kind without any is used again for another.
    instances: usize,
}

impl Columns {
    /// The rows of a cluster.
    pub fn of(&self, cluster: &ClusterName) -> &Nodes {
        static NONE: LazyLock<Nodes> = LazyLock::new(Nodes::default);
        self.0.get(cluster).unwrap_or(&NONE)
    }

    /// Prepares the answers that a placement asks for, so that it is decided fast.
    pub(super) fn warm(&mut self, cluster: &ClusterName, placement: &Placement) {
        if let Some(nodes) = self.0.get_mut(cluster) {
            nodes.warm(placement);
        }
    }

    /// Writes the row of an instance; `tasks` are those of it that are not STOPPED.
    pub(super) fn put<'a>(
        &mut self,
        instance: &Arc<InstanceRecord>,
        reserved: &Reserved,
        tasks: impl Iterator<Item = &'a Arc<TaskRecord>>,
    ) {
        self.0.entry(instance.cluster.clone()).or_default().put(instance, reserved, tasks);
    }

    /// Removes the row of an instance.
    pub(super) fn remove(&mut self, instance: &InstanceRecord) {
        let Some(nodes) = self.0.get_mut(&instance.cluster) else { return };
        nodes.remove(&instance.id);
        if nodes.ids.is_empty() {
            self.0.remove(&instance.cluster);
        }
    }

    /// Writes what the tasks of an instance take, if there is such an instance.
    pub(super) fn reserve(&mut self, cluster: &ClusterName, id: &ContainerInstanceId, reserved: &Reserved) {
        if let Some(nodes) = self.0.get_mut(cluster)
            && let Ok(at) = nodes.ids.binary_search(id)
        {
            nodes.reserve(at, reserved);
        }
    }

    /// Counts a task that was there before in another state, or not at all, to its group.
    pub(super) fn count(&mut self, old: Option<&TaskRecord>, new: Option<&TaskRecord>) {
        fn facts(task: &TaskRecord) -> (&ClusterName, &ContainerInstanceId, &str, bool) {
            (&task.cluster, &task.instance, &task.group, task.desired == DesiredStatus::Running)
        }
        let counted = |task: &&TaskRecord| task.last != TaskStatus::Stopped;
        let (old, new) = (old.filter(counted).map(facts), new.filter(counted).map(facts));
        if old == new {
            return;
        }
        for (is_new, facts) in [(false, old), (true, new)] {
            let Some((cluster, instance, group, wanted)) = facts else { continue };
            let Some(nodes) = self.0.get_mut(cluster) else { continue };
            let Ok(row) = nodes.ids.binary_search(instance) else { continue };
            match is_new {
                true => nodes.groups.add(group, row, wanted),
                false => nodes.groups.take(group, row, wanted),
            }
        }
    }
}

impl Nodes {
    fn put<'a>(
        &mut self,
        instance: &Arc<InstanceRecord>,
        reserved: &Reserved,
        tasks: impl Iterator<Item = &'a Arc<TaskRecord>>,
    ) {
        let at = match self.ids.binary_search(&instance.id) {
            Ok(at) => at,
            Err(at) => {
                self.insert(at, instance);
                tasks.for_each(|task| {
                    self.groups.add(&task.group, at, task.desired == DesiredStatus::Running);
                });
                at
            }
        };
        let active = instance.status == ContainerInstanceStatus::Active;
        let open = instance.connected && (active || wrong_edit::is(WrongEdit::DrainingIgnored));
        self.open.set(at, open);
        self.leases.set(at, instance.leases);
        self.kinds[self.kind[at]].instances -= 1;
        self.kind[at] = self.kind_of(instance.node_attributes.keys());
        self.cache.written(at, instance);
        self.records[at] = instance.clone();
        self.reserve(at, reserved);
    }

    /// A row with nothing in it but its id.
    fn insert(&mut self, at: usize, instance: &Arc<InstanceRecord>) {
        self.ids.insert(at, instance.id.clone());
        self.records.insert(at, instance.clone());
        self.tasks.insert(at, 0);
        self.running.insert(at, 0);
        self.open.insert(at, false);
        self.leases.insert(at, false);
        let kind = self.kind_of(std::iter::empty());
        self.kind.insert(at, kind);
        self.spare_cpu_units.insert(at, 0);
        self.spare_memory_mib.insert(at, 0);
        self.ports.values_mut().for_each(|rows| rows.insert(at, false));
        self.ports_of_row.insert(at, Vec::new());
        self.devices.values_mut().filter(|free| free.len() > at).for_each(|free| free.insert(at, 0));
        self.groups.row_inserted(at);
        self.cache.inserted(at);
    }

    fn remove(&mut self, id: &ContainerInstanceId) {
        let Ok(at) = self.ids.binary_search(id) else { return };
        self.write_ports(at, Vec::new());
        self.ids.remove(at);
        self.records.remove(at);
        self.tasks.remove(at);
        self.running.remove(at);
        self.open.remove(at);
        self.leases.remove(at);
        let kind = self.kind.remove(at);
        self.kinds[kind].instances -= 1;
        self.spare_cpu_units.remove(at);
        self.spare_memory_mib.remove(at);
        self.ports.values_mut().for_each(|rows| rows.remove(at));
        self.ports_of_row.remove(at);
        for free in self.devices.values_mut().filter(|free| free.len() > at) {
            free.remove(at);
        }
        self.devices.retain(|_, free| free.iter().any(|count| *count > 0));
        self.groups.row_removed(at);
        self.cache.removed(at);
    }

    fn reserve(&mut self, at: usize, reserved: &Reserved) {
        let record = self.records[at].clone();
        let offered = &record.offered;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.tasks[at] = reserved.tasks.len();
        self.running[at] = reserved.running;
        self.spare_cpu_units[at] = i64::from(offered.cpu_units).saturating_sub(signed(reserved.cpu_units));
        self.spare_memory_mib[at] = signed(offered.memory_mib).saturating_sub(signed(reserved.memory_mib));
        let taken = || offered.host_ports.union(&reserved.host_ports);
        if !taken().eq(&self.ports_of_row[at]) {
            self.write_ports(at, taken().copied().collect());
        }
        self.write_devices(at, &offered.devices, &reserved.devices);
    }

    fn write_ports(&mut self, at: usize, now: Vec<HostPort>) {
        for port in &self.ports_of_row[at] {
            if let Some(rows) = self.ports.get_mut(port) {
                rows.set(at, false);
                if rows.is_empty() {
                    self.ports.remove(port);
                }
            }
        }
        let rows = self.ids.len();
        for port in &now {
            self.ports.entry(*port).or_insert_with(|| Bits::upto(rows, false)).set(at, true);
        }
        self.ports_of_row[at] = now;
    }

    fn write_devices(&mut self, at: usize, offered: &BTreeMap<String, u32>, held: &BTreeMap<String, u32>) {
        for (_, free) in self.devices.iter_mut().filter(|(kind, _)| !offered.contains_key(*kind)) {
            free.get_mut(at).into_iter().for_each(|count| *count = 0);
        }
        for (kind, count) in offered {
            let left = count.saturating_sub(held.get(kind).copied().unwrap_or(0));
            let free = self.devices.entry(kind.clone()).or_default();
            free.resize(free.len().max(at + 1), 0);
            free[at] = left;
        }
    }

    /// The kind of an instance with these attributes, one more of it.
    fn kind_of<'a>(&mut self, attributes: impl Iterator<Item = &'a String> + Clone) -> usize {
        let same = |kind: &NodeKind| kind.attributes.iter().eq(attributes.clone());
        if let Some(at) = self.kinds.iter().position(same) {
            self.kinds[at].instances += 1;
            return at;
        }
        let attributes: BTreeSet<String> = attributes.cloned().collect();
        let names_capabilities = attributes.iter().any(|name| is_capability(name));
        let kind = NodeKind { attributes, names_capabilities, instances: 1 };
        match self.kinds.iter().position(|kind| kind.instances == 0) {
            Some(free) => {
                self.kinds[free] = kind;
                free
            }
            None => {
                self.kinds.push(kind);
                self.kinds.len() - 1
            }
        }
    }

    fn warm(&mut self, placement: &Placement) {
        for constraint in placement.constraints() {
            if let Constraint::MemberOf(expression) = constraint {
                expression.sets(&mut |leaf| {
                    if !leaf.depends_on_tasks() {
                        self.cache.warm_leaf(&self.records, leaf);
                    }
                    Bits::default()
                });
            }
        }
        for strategy in placement.strategies() {
            if let Strategy::Spread(SpreadField::Attribute(name)) = strategy {
                self.cache.warm_values(&self.records, name);
            }
        }
    }

    /// Writes as if a task of a group had been placed: for explanations, on a copy.
    pub fn pretend(&mut self, at: usize, group: &str, takes: &Resources) {
        self.tasks[at] += 1;
        self.spare_cpu_units[at] -= i64::from(takes.cpu_units);
        self.spare_memory_mib[at] -= i64::try_from(takes.memory_mib).unwrap_or(i64::MAX);
        let ports = self.ports_of_row[at].iter().chain(&takes.host_ports).copied().collect::<BTreeSet<_>>();
        self.write_ports(at, ports.into_iter().collect());
        for (kind, count) in &takes.devices {
            let free = self.devices.get_mut(kind).and_then(|free| free.get_mut(at));
            free.into_iter().for_each(|free| *free = free.saturating_sub(*count));
        }
        self.groups.add(group, at, true);
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Tasks of each instance that are not STOPPED.
    pub fn tasks(&self) -> &[usize] {
        &self.tasks
    }

    /// The instance of a row.
    pub fn id(&self, row: usize) -> &ContainerInstanceId {
        &self.ids[row]
    }

    /// Its record.
    pub fn record(&self, row: usize) -> &InstanceRecord {
        &self.records[row]
    }

    /// The row of an instance.
    pub fn row(&self, id: &ContainerInstanceId) -> Option<usize> {
        self.ids.binary_search(id).ok()
    }

    /// RUNNING tasks of a row.
    pub fn running(&self, row: usize) -> u32 {
        self.running[row]
    }

    /// Rows that take tasks.
    pub fn open(&self) -> &Bits {
        &self.open
    }

    /// Rows whose agents end exclusive tasks.
    pub fn leases(&self) -> &Bits {
        &self.leases
    }

    /// Rows where a host port is taken.
    pub fn port(&self, port: &HostPort) -> Option<&Bits> {
        self.ports.get(port)
    }

    /// Devices of a kind that no task has.
    pub fn free_devices(&self, row: usize, kind: &str) -> u32 {
        self.devices.get(kind).and_then(|free| free.get(row)).copied().unwrap_or(0)
    }

    /// CPU units offered less those that tasks take.
    pub fn spare_cpu_units(&self) -> &[i64] {
        &self.spare_cpu_units
    }

    /// MiB offered less those that tasks take.
    pub fn spare_memory_mib(&self) -> &[i64] {
        &self.spare_memory_mib
    }

    /// Tasks by group.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// For each kind of instance whether it can do all of this; see `InstanceRecord::is_capable`.
    pub fn capable(&self, required: &BTreeSet<String>) -> Vec<bool> {
        self.kinds
            .iter()
            .map(|kind| !kind.names_capabilities || required.is_subset(&kind.attributes))
            .collect()
    }

    /// The kind of a row, for `capable`.
    pub fn kind(&self, row: usize) -> usize {
        self.kind[row]
    }

    /// The rows that an expression holds for.
    pub fn matching(&self, expression: &Expression) -> Bits {
        let rows = self.ids.len();
        expression.sets(&mut |leaf| {
            if leaf.asks_groups() {
                let mut found = self.groups.rows_of(|group| leaf.group(group), rows);
                if leaf.is_negated() {
                    found.invert();
                }
                return found;
            }
            if leaf.depends_on_tasks() {
                let mut found = Bits::upto(rows, false);
                (0..rows).for_each(|row| found.set(row, leaf.matches(&RowInstance { nodes: self, row })));
                return found;
            }
            self.cache.leaf(leaf).cloned().unwrap_or_else(|| cache::rows_of(&self.records, leaf))
        })
    }

    /// Which value of an attribute each row has.
    pub fn values(&self, attribute: &str) -> Cow<'_, Values> {
        match self.cache.values(attribute) {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(Values::of(&self.records, attribute)),
        }
    }
}

/// A row as the cluster query language asks it.
#[derive(Debug, Clone, Copy)]
pub struct RowInstance<'a> {
    pub nodes: &'a Nodes,
    pub row: usize,
}

impl Queried for RowInstance<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.nodes.records[self.row].attribute(name)
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        let here = |rows: &[GroupRow]| rows.binary_search_by_key(&self.row, |entry| entry.row).is_ok();
        self.nodes.groups.iter().any(|(group, rows)| here(rows) && is(group))
    }
    fn agent_connected(&self) -> bool {
        self.nodes.records[self.row].connected
    }
    fn agent_version(&self) -> &str {
        &self.nodes.records[self.row].agent_version
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.attribute(EC2_INSTANCE_ID)
    }
    fn registered_at_s(&self) -> i64 {
        AloneInstance(&self.nodes.records[self.row]).registered_at_s()
    }
    fn running_tasks_count(&self) -> u64 {
        self.nodes.running[self.row].into()
    }
}

/// Where a kind stands in the list depends on what was before, and means nothing; no more does what is cached.
impl PartialEq for Nodes {
    fn eq(&self, other: &Self) -> bool {
        let attributes = |nodes: &Self, row: usize| nodes.kinds[nodes.kind[row]].attributes.clone();
        let devices = |nodes: &Self| {
            let rows = 0..nodes.len();
            let of =
                |kind: &String| rows.clone().map(|row| nodes.free_devices(row, kind)).collect::<Vec<_>>();
            let all = nodes.devices.keys().map(|kind| (kind.clone(), of(kind)));
            all.filter(|(_, free)| free.iter().any(|count| *count > 0)).collect::<Vec<_>>()
        };
        self.ids == other.ids
            && self.records == other.records
            && self.tasks == other.tasks
            && self.running == other.running
            && (self.open == other.open && self.leases == other.leases)
            && (self.spare_cpu_units == other.spare_cpu_units)
            && (self.spare_memory_mib == other.spare_memory_mib)
            && self.ports_of_row == other.ports_of_row
            && self.ports == other.ports
            && self.groups == other.groups
            && devices(self) == devices(other)
            && (0..self.len()).all(|row| attributes(self, row) == attributes(other, row))
    }
}

impl Eq for Nodes {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mutation::Mutation;
    use crate::core::state::State;
    use crate::scheduler::choose::{Ask, feasible};
    use crate::scheduler::placement::{Candidate, Reserve, misfit};
    use proptest::prelude::*;
    use proptest::strategy::Strategy;

    /// An instance as its record is stored; members that are left out have their default.
    fn instance(number: u64, active: bool, connected: bool, cpu: u32, attribute: u8) -> InstanceRecord {
        let id = ContainerInstanceId::from_parts(number, 0);
        let status = if active { "ACTIVE" } else { "DRAINING" };
        let attributes = match attribute {
            0 => serde_json::json!({}),
            1 => serde_json::json!({"zone": "a"}),
            _ => serde_json::json!({"ecs.capability.one": "", "zone": "b"}),
        };
        serde_json::from_value(serde_json::json!({
            "id": id, "cluster": "default", "name": "n", "status": status, "connected": connected,
            "agent_version": "", "boot_id": "", "address": null,
            "offered": Resources { cpu_units: cpu, memory_mib: 4, ..Resources::default() },
            "token_attributes": {}, "node_attributes": attributes, "registered_at_unix_ms": 0, "orphans": [],
        }))
        .unwrap()
    }

    fn any_instance() -> impl Strategy<Value = InstanceRecord> {
        (0u64..6, any::<bool>(), any::<bool>(), 0u32..6, 0u8..3).prop_map(
            |(number, active, connected, cpu, attribute)| instance(number, active, connected, cpu, attribute),
        )
    }

    proptest! {
        #[test]
        fn rows_say_what_the_records_say(
            changes in proptest::collection::vec((any_instance(), any::<bool>()), 0..12),
            cpu in 0u32..6, memory_mib in 0u64..6, reserved in 0u32..3, capability in any::<bool>(),
        ) {
            let mut state = State::default();
            for (instance, gone) in changes {
                let id = instance.id.clone();
                state.apply(&Mutation::Instance(Arc::new(instance)));
                if gone {
                    state.apply(&Mutation::InstanceGone(id));
                }
            }
            let required: BTreeSet<String> =
                capability.then(|| "ecs.capability.one".to_owned()).into_iter().collect();
            let reserve = Reserve { cpu_units: reserved, memory_mib: 0 };
            let need = Resources { cpu_units: cpu, memory_mib, ..Resources::default() };
            let cluster: ClusterName = "default".parse().unwrap();
            let nodes = state.columns().of(&cluster);
            let placement = Placement::default();
            let ask = Ask { resources: &need, required: &required, leases: false, group: "g", placement: &placement,
                reserve, luck: 0, head: None };
            let found = feasible(nodes, &ask);
            prop_assert_eq!(nodes.ids.iter().collect::<Vec<_>>(), state.instances.keys().collect::<Vec<_>>());
            for (row, instance) in state.instances.values().enumerate() {
                let used = state.reserved(&instance.id);
                let candidate = Candidate {
                    id: &instance.id,
                    connected: instance.connected,
                    capable: instance.is_capable(&required),
                    offered: &instance.offered,
                    used_cpu_units: used.cpu_units,
                    used_memory_mib: used.memory_mib,
                    used_ports: &used.host_ports,
                    used_devices: &used.devices,
                };
                let fits = instance.status == ContainerInstanceStatus::Active
                    && misfit(&candidate, &need, reserve).is_none();
                prop_assert_eq!(found.get(row), fits);
            }
        }
    }
}
