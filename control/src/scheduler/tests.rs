//! Every decision equals that of a slow and obvious reference, which asks records and tasks one by one, over random
//! clusters; explanations too.

mod pass;

use super::choose::{Ask, choose, feasible};
use super::explain::{Unable, explain, lack};
use super::placement::Reserve;
use super::strategy::lot;
use crate::core::mutation::Mutation;
use crate::core::query::QueriedInstance;
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::state::State;
use lighter_model::attribute::is_capability;
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::placement::{ConstraintText, Placement, PlacementText, StrategyText};
use lighter_model::query::Expression;
use lighter_model::resources::{HostPort, Resources};
use lighter_model::status::{ContainerInstanceStatus, DesiredStatus, TaskStatus};
use lighter_model::task_definition::TransportProtocol;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const EXPRESSIONS: [&str; 9] = [
    "attribute:zone == a",
    "attribute:zone exists and not (attribute:zone =~ '[bc]')",
    "attribute:zone !in [a, b] or attribute:disk == ssd",
    "task:group == service:web",
    "not (task:group == database)",
    "task:group !~ 'ser.*' || attribute:zone == a",
    "runningTasksCount < 2",
    "agentVersion >= 1.2 and registeredAt < 1970-01-01T00:00:03",
    "attribute:none != x",
];
/// With what each comes to, given what is left of CPU, tasks of the group on the instance and in its zone.
type Arithmetic = fn(i64, i64, i64) -> Option<i64>;
const SCORES: [(&str, Arithmetic); 4] = [
    ("remaining:cpu - 2 * group:tasks", |cpu, tasks, _| Some((cpu - 2 * tasks) * 1_000_000)),
    ("60 / (remaining:cpu - 2)", |cpu, _, _| (cpu != 2).then(|| 60 * 1_000_000 / (cpu - 2))),
    ("-group:zoneTasks", |_, _, zone| Some(-zone * 1_000_000)),
    ("max(remaining:cpu, 3) * 0.5", |cpu, _, _| Some(cpu.max(3) * 500_000)),
];

fn cluster() -> ClusterName {
    "default".parse().unwrap()
}

fn instance_id(number: u64) -> ContainerInstanceId {
    ContainerInstanceId::from_parts(number, 0)
}

fn port(number: u16) -> HostPort {
    HostPort { protocol: TransportProtocol::Tcp, port: number }
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let devices = proptest::collection::btree_map(Just("GPU".to_owned()), 1u32..3, 0..2);
    let ports = proptest::collection::btree_set((1u16..4).prop_map(port), 0..2);
    (0u32..6, 0u64..6, ports, devices).prop_map(|(cpu_units, memory_mib, host_ports, devices)| Resources {
        cpu_units,
        memory_mib,
        host_ports,
        devices,
    })
}

fn any_instance() -> impl Strategy<Value = InstanceRecord> {
    let zone = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
    (0u64..7, 0u8..8, 0u8..8, zone, any::<[bool; 3]>(), any_resources(), 0u64..5).prop_map(
        |(number, status, connected, zone, [disk, capable, leases], mut offered, registered)| {
            offered.cpu_units *= 3;
            offered.memory_mib *= 3;
            let mut attributes: BTreeMap<&str, &str> = zone.map(|zone| ("zone", zone)).into_iter().collect();
            attributes.extend(zone.map(|zone| ("ecs.availability-zone", zone)));
            attributes.extend(disk.then_some(("disk", "ssd")));
            attributes.extend(capable.then_some(("ecs.capability.one", "")));
            let status = if status == 0 { "DRAINING" } else { "ACTIVE" };
            serde_json::from_value(json!({
                "id": instance_id(number), "cluster": "default", "name": format!("n{number}"), "status": status,
                "connected": connected > 0, "agent_version": if disk { "1.10.0" } else { "1.1" }, "boot_id": "",
                "address": null, "offered": offered, "token_attributes": {}, "node_attributes": attributes,
                "registered_at_unix_ms": registered * 1_000, "orphans": [], "leases": leases,
            }))
            .unwrap()
        },
    )
}

fn any_group() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("service:web"), Just("database"), Just("family:f")]
}

fn task_record(number: u64, last: &str, group: &str) -> TaskRecord {
    serde_json::from_value(json!({
        "id": TaskId::from_parts(number, 0), "cluster": "default", "definition": "f:1",
        "instance": instance_id(0), "desired": "RUNNING",
        "last": last, "stop_code": null, "stopped_reason": null,
        "waiting_reason": null, "group": group, "started_by": null, "containers": [], "version": 1,
        "generation": 1, "report_sequence": 0, "resources": Resources::default(),
        "times": {"created_at": 0, "pull_started_at": null, "pull_stopped_at": null, "started_at": null,
                  "stopping_at": null, "execution_stopped_at": null, "stopped_at": null, "settled_at": null},
    }))
    .unwrap()
}

fn any_task() -> impl Strategy<Value = TaskRecord> {
    (0u64..12, 0u64..7, any_group(), any::<bool>(), 0usize..3, any_resources()).prop_map(
        |(number, instance, group, stopping, status, resources)| {
            let mut task = task_record(number, ["PENDING", "RUNNING", "STOPPED"][status], group);
            task.instance = instance_id(instance);
            task.desired = if stopping { DesiredStatus::Stopped } else { DesiredStatus::Running };
            task.resources = resources;
            task
        },
    )
}

#[derive(Debug, Clone)]
enum Change {
    Instance(Box<InstanceRecord>),
    Task(Box<TaskRecord>),
    TaskGone(u64),
    InstanceGone(u64),
    Warm(PlacementText),
}

fn any_strategy() -> impl Strategy<Value = StrategyText> {
    let text = |kind: &str, field: &str, expression: &str| StrategyText {
        kind: kind.to_owned(),
        field: field.to_owned(),
        expression: expression.to_owned(),
    };
    prop_oneof![
        1 => Just(text("random", "", "")),
        2 => Just(text("spread", "instanceId", "")),
        3 => Just(text("spread", "attribute:zone", "")),
        2 => Just(text("binpack", "cpu", "")),
        2 => Just(text("binpack", "memory", "")),
        2 => (0..SCORES.len()).prop_map(move |which| text("custom", "", SCORES[which].0)),
    ]
}

fn any_placement() -> impl Strategy<Value = PlacementText> {
    let member_of = (0..EXPRESSIONS.len()).prop_map(|which| ConstraintText {
        kind: "memberOf".to_owned(),
        expression: EXPRESSIONS[which].to_owned(),
    });
    let distinct = ConstraintText { kind: "distinctInstance".to_owned(), expression: String::new() };
    let constraint = prop_oneof![2 => member_of, 1 => Just(distinct)];
    let constraints = proptest::collection::vec(constraint, 0..3);
    (constraints, proptest::collection::vec(any_strategy(), 0..3))
        .prop_map(|(constraints, strategies)| PlacementText { constraints, strategies })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => any_instance().prop_map(|record| Change::Instance(Box::new(record))),
        8 => any_task().prop_map(|task| Change::Task(Box::new(task))),
        1 => (0u64..12).prop_map(Change::TaskGone),
        1 => (0u64..7).prop_map(Change::InstanceGone),
        1 => any_placement().prop_map(Change::Warm),
    ]
}

/// A state as changes leave it; ports are not given twice, and instances do not go while they have tasks.
fn state(changes: Vec<Change>) -> State {
    let mut state = State::default();
    for change in changes {
        match change {
            Change::Instance(record) => state.apply(&Mutation::Instance(Arc::from(record))),
            Change::Task(mut task) => {
                if !state.instances.contains_key(&task.instance) {
                    continue;
                }
                let held = |other: &&Arc<TaskRecord>| {
                    other.id != task.id
                        && other.instance == task.instance
                        && other.last != TaskStatus::Stopped
                };
                let held = state.tasks.values().filter(held);
                let held: BTreeSet<HostPort> =
                    held.flat_map(|other| other.resources.host_ports.clone()).collect();
                task.resources.host_ports.retain(|port| !held.contains(port));
                state.apply(&Mutation::Task(Arc::from(task)));
            }
            Change::TaskGone(number) => state.apply(&Mutation::TaskGone(TaskId::from_parts(number, 0))),
            Change::InstanceGone(number) => {
                let id = instance_id(number);
                let is_used =
                    state.tasks.values().any(|task| task.instance == id && task.last != TaskStatus::Stopped);
                if !is_used {
                    state.apply(&Mutation::InstanceGone(id));
                }
            }
            Change::Warm(text) => state.warm(&cluster(), &Placement::read(text).unwrap()),
        }
    }
    state
}

/// Slow and obvious.
struct Reference<'a> {
    state: &'a State,
    ask: Ask<'a>,
}

impl Reference<'_> {
    fn tasks_on<'a>(&'a self, id: &'a ContainerInstanceId) -> impl Iterator<Item = &'a TaskRecord> {
        let all = self.state.tasks.values().map(Arc::as_ref);
        all.filter(move |task| task.instance == *id && task.last != TaskStatus::Stopped)
    }

    fn of_group(&self, id: &ContainerInstanceId) -> i64 {
        let wanted =
            |task: &&TaskRecord| task.group == self.ask.group && task.desired == DesiredStatus::Running;
        self.tasks_on(id).filter(wanted).count() as i64
    }

    fn of_group_where(&self, same: impl Fn(&InstanceRecord) -> bool) -> i64 {
        let all = self.state.instances.values().filter(|instance| same(instance));
        all.map(|instance| self.of_group(&instance.id)).sum()
    }

    fn left(&self, instance: &InstanceRecord) -> (i64, i64) {
        let cpu: i64 = self.tasks_on(&instance.id).map(|task| i64::from(task.resources.cpu_units)).sum();
        let memory: i64 = self.tasks_on(&instance.id).map(|task| task.resources.memory_mib as i64).sum();
        (i64::from(instance.offered.cpu_units) - cpu, instance.offered.memory_mib as i64 - memory)
    }

    fn fits(&self, instance: &InstanceRecord) -> bool {
        let (cpu, memory) = self.left(instance);
        let need = self.ask.resources;
        let enough = |wanted: i64, left: i64, reserve: i64| wanted == 0 || wanted + reserve <= left;
        let own = &instance.node_attributes;
        let knows_capabilities = own.keys().any(|name| is_capability(name));
        let mut taken = instance.offered.host_ports.clone();
        self.tasks_on(&instance.id).for_each(|task| taken.extend(task.resources.host_ports.iter().copied()));
        let gpus_held: u32 =
            self.tasks_on(&instance.id).filter_map(|task| task.resources.devices.get("GPU")).sum();
        let gpus = instance.offered.devices.get("GPU").copied().unwrap_or(0).saturating_sub(gpus_held);
        let constraints = &self.ask.placement.text().constraints;
        instance.status == ContainerInstanceStatus::Active
            && instance.connected
            && (instance.leases || !self.ask.leases)
            && (!knows_capabilities || self.ask.required.iter().all(|name| own.contains_key(name)))
            && enough(need.cpu_units.into(), cpu, self.ask.reserve.cpu_units.into())
            && enough(need.memory_mib as i64, memory, self.ask.reserve.memory_mib as i64)
            && taken.is_disjoint(&need.host_ports)
            && need.devices.get("GPU").is_none_or(|wanted| *wanted <= gpus)
            && constraints.iter().all(|constraint| match constraint.kind.as_str() {
                "distinctInstance" => self.of_group(&instance.id) == 0,
                _ => {
                    let expression = Expression::parse(&constraint.expression).unwrap();
                    expression.matches(&QueriedInstance::new(self.state, instance))
                }
            })
    }

    /// The lower the better; `None`: refused.
    fn key(&self, strategy: &StrategyText, instance: &InstanceRecord) -> Option<i64> {
        let (cpu, memory) = self.left(instance);
        let same = |name: &'static str| {
            let own = instance.attribute(name).map(str::to_owned);
            move |other: &InstanceRecord| other.attribute(name) == own.as_deref()
        };
        match (strategy.kind.as_str(), strategy.field.as_str()) {
            ("spread", "instanceId") => Some(self.of_group(&instance.id)),
            ("spread", _) => Some(self.of_group_where(same("zone"))),
            ("binpack", "cpu") => Some(cpu),
            ("binpack", _) => Some(memory),
            _ => {
                let arithmetic = SCORES.iter().find(|(text, _)| *text == strategy.expression).unwrap().1;
                let in_zone = self.of_group_where(same("ecs.availability-zone"));
                arithmetic(cpu, self.of_group(&instance.id), in_zone).map(|score| -score)
            }
        }
    }

    fn choose(&self) -> Option<ContainerInstanceId> {
        let instances = self.state.instances.values();
        let mut left: Vec<&InstanceRecord> = instances.map(Arc::as_ref).filter(|i| self.fits(i)).collect();
        let strategies = &self.ask.placement.text().strategies;
        if strategies.is_empty() {
            left.sort_by_key(|instance| (self.tasks_on(&instance.id).count(), instance.id.clone()));
        }
        for strategy in strategies {
            if strategy.kind == "random" {
                return lot(self.ask.luck, left.len()).map(|index| left[index].id.clone());
            }
            left.retain(|instance| self.key(strategy, instance).is_some());
            let best = left.iter().filter_map(|instance| self.key(strategy, instance)).min();
            left.retain(|instance| self.key(strategy, instance) == best);
        }
        left.first().map(|instance| instance.id.clone())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 1_500 } else { 20_000 }))]

    #[test]
    fn every_decision_is_that_of_the_reference(
        changes in proptest::collection::vec(any_change(), 0..40), text in any_placement(), need in any_resources(),
        group in any_group(), flags in any::<[bool; 3]>(), reserve in (0u32..2, 0u64..2), luck in any::<u128>(),
    ) {
        let [capability, leases, warm] = flags;
        let mut state = state(changes);
        let placement = Placement::read(text).unwrap();
        if warm {
            state.warm(&cluster(), &placement);
        }
        let required: BTreeSet<String> = capability.then(|| "ecs.capability.one".to_owned()).into_iter().collect();
        let reserve = Reserve { cpu_units: reserve.0, memory_mib: reserve.1 };
        let ask = Ask {
            resources: &need, required: &required, leases, group, placement: &placement, reserve, luck, head: None,
        };
        let reference = Reference { state: &state, ask };
        let nodes = state.columns().of(&cluster());
        let found = choose(nodes, &ask).map(|row| nodes.id(row).clone());
        prop_assert_eq!(&found, &reference.choose());
        let fitting = feasible(nodes, &ask);
        for row in 0..nodes.len() {
            let fits = reference.fits(nodes.record(row));
            prop_assert_eq!(fitting.get(row), fits, "{:?}", nodes.record(row));
            prop_assert_eq!(lack(nodes, &ask, row).is_none(), fits, "{:?}", lack(nodes, &ask, row));
        }
        let explained = explain(nodes.clone(), &ask, 1);
        prop_assert_eq!(explained.choices.first().map(|choice| choice.instance.clone()), found);
        let fell_out: usize = explained.filters.iter().map(|(_, count)| count).sum();
        prop_assert_eq!(fell_out + fitting.count(), explained.container_instances);
        prop_assert_eq!(explained.closest.is_some(), fitting.is_empty() && !nodes.is_empty());
        let is_active = |id: &ContainerInstanceId| {
            nodes.row(id).is_some_and(|row| nodes.record(row).status == ContainerInstanceStatus::Active)
        };
        match Unable::of(nodes, &ask, usize::MAX) {
            Unable::Room => prop_assert!(!fitting.is_empty()),
            Unable::NoInstances => prop_assert!(!state.instances.keys().any(is_active)),
            Unable::Closest(id, told) => {
                prop_assert!(fitting.is_empty() && is_active(&id));
                prop_assert_eq!(lack(nodes, &ask, nodes.row(&id).unwrap()), Some(told.clone()));
                let (closest, _, words) = explained.closest.unwrap();
                prop_assert!(!is_active(&closest) || (closest, words) == (id, told.words()));
            }
        }
    }

    /// Memory that changes step by step is what the records give at once.
    #[test]
    fn columns_are_what_the_records_give(changes in proptest::collection::vec(any_change(), 0..40)) {
        let state = state(changes);
        let mut again = State::default();
        state.instances.values().for_each(|instance| again.apply(&Mutation::Instance(instance.clone())));
        state.tasks.values().for_each(|task| again.apply(&Mutation::Task(task.clone())));
        prop_assert_eq!(state.columns(), again.columns());
    }
}
