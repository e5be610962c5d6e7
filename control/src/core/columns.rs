//! What placement looks at, as columns of numbers: one row for each instance, by cluster, in the order of ids.
//! In: instances, and what tasks take of them. Out: rows; thousands are looked at for each task placed.
//! Owns nothing: all of it follows from the records and the ledger, and none of it is stored.
//! Never: decides; static ports and devices are looked up in the ledger by tasks that need some.

use crate::core::record::InstanceRecord;
use crate::core::state::Reserved;
use crate::scheduler::placement::Reserve;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::attribute::is_capability;
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::ContainerInstanceStatus;
use std::collections::{BTreeMap, BTreeSet};

/// The rows of all clusters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<ClusterName, Nodes>);

/// The rows of one cluster.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    ids: Vec<ContainerInstanceId>,
    /// Tasks that are not STOPPED; apart from the rest, because it is all that most rows are asked for.
    tasks: Vec<usize>,
    rows: Vec<Row>,
    /// Sets of attributes that instances have; most have the same.
    kinds: Vec<NodeKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// ACTIVE and connected.
    open: bool,
    /// In `kinds`.
    kind: usize,
    offered_cpu_units: u32,
    offered_memory_mib: u64,
    used_cpu_units: u64,
    used_memory_mib: u64,
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
    const NONE: &'static Nodes =
        &Nodes { ids: Vec::new(), tasks: Vec::new(), rows: Vec::new(), kinds: Vec::new() };

    /// The rows of a cluster.
    pub fn of(&self, cluster: &ClusterName) -> &Nodes {
        self.0.get(cluster).unwrap_or(Self::NONE)
    }

    /// Writes the row of an instance.
    pub(super) fn put(&mut self, instance: &InstanceRecord, reserved: &Reserved) {
        self.0.entry(instance.cluster.clone()).or_default().put(instance, reserved);
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
}

impl Nodes {
    fn put(&mut self, instance: &InstanceRecord, reserved: &Reserved) {
        self.remove(&instance.id);
        let Err(at) = self.ids.binary_search(&instance.id) else { return };
        let active = instance.status == ContainerInstanceStatus::Active;
        let row = Row {
            open: instance.connected && (active || wrong_edit::is(WrongEdit::DrainingIgnored)),
            kind: self.kind(instance.node_attributes.keys()),
            offered_cpu_units: instance.offered.cpu_units,
            offered_memory_mib: instance.offered.memory_mib,
            used_cpu_units: 0,
            used_memory_mib: 0,
        };
        self.ids.insert(at, instance.id.clone());
        self.tasks.insert(at, 0);
        self.rows.insert(at, row);
        self.reserve(at, reserved);
    }

    fn remove(&mut self, id: &ContainerInstanceId) {
        let Ok(at) = self.ids.binary_search(id) else { return };
        self.ids.remove(at);
        self.tasks.remove(at);
        let row = self.rows.remove(at);
        self.kinds[row.kind].instances -= 1;
    }

    fn reserve(&mut self, at: usize, reserved: &Reserved) {
        self.tasks[at] = reserved.tasks.len();
        self.rows[at].used_cpu_units = reserved.cpu_units;
        self.rows[at].used_memory_mib = reserved.memory_mib;
    }

    /// The kind of an instance with these attributes, one more of it.
    fn kind<'a>(&mut self, attributes: impl Iterator<Item = &'a String> + Clone) -> usize {
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

    /// Tasks of each instance that are not STOPPED.
    pub fn tasks(&self) -> &[usize] {
        &self.tasks
    }

    /// The instance of a row.
    pub fn id(&self, row: usize) -> &ContainerInstanceId {
        &self.ids[row]
    }

    /// For each kind of instance whether it can do all of this; see `InstanceRecord::is_capable`.
    pub fn capable(&self, required: &BTreeSet<String>) -> Vec<bool> {
        self.kinds
            .iter()
            .map(|kind| !kind.names_capabilities || required.is_subset(&kind.attributes))
            .collect()
    }

    /// Whether the instance takes tasks, is of a capable kind, and has so much left.
    pub fn has_room(
        &self,
        row: usize,
        capable: &[bool],
        cpu_units: u32,
        memory_mib: u64,
        reserve: Reserve,
    ) -> bool {
        let row = &self.rows[row];
        let offered = (row.offered_cpu_units, row.offered_memory_mib);
        let (cpu_free, memory_free) = reserve.left(offered, (row.used_cpu_units, row.used_memory_mib));
        row.open && capable[row.kind] && u64::from(cpu_units) <= cpu_free && memory_mib <= memory_free
    }
}

/// Where a kind stands in the list depends on what was before, and means nothing.
impl PartialEq for Nodes {
    fn eq(&self, other: &Self) -> bool {
        let same = |(mine, theirs): (&Row, &Row)| {
            self.kinds[mine.kind].attributes == other.kinds[theirs.kind].attributes
                && Row { kind: 0, ..*mine } == Row { kind: 0, ..*theirs }
        };
        self.ids == other.ids && self.tasks == other.tasks && self.rows.iter().zip(&other.rows).all(same)
    }
}

impl Eq for Nodes {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mutation::Mutation;
    use crate::core::state::State;
    use crate::scheduler::placement::{Candidate, misfit};
    use lighter_model::resources::Resources;
    use proptest::prelude::*;
    use std::sync::Arc;

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
            let capable = nodes.capable(&required);
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
                prop_assert_eq!(nodes.has_room(row, &capable, cpu, memory_mib, reserve), fits);
            }
        }
    }
}
