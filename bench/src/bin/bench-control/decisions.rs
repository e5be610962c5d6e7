//! How long one decision of the scheduler takes, in this process: constraints that were asked before, a full scan.
//! Out: for 5,000 and 20,000 nodes the median of the worst case, with its 99th percentile and where it was.
//! Never: starts a control plane; a state is made of records, as one is loaded.

use anyhow::{Context, Result};
use lighter_control::core::mutation::Mutation;
use lighter_control::core::record::{InstanceRecord, TaskRecord};
use lighter_control::core::state::State;
use lighter_control::scheduler::choose::{Ask, choose};
use lighter_control::scheduler::placement::Reserve;
use lighter_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use lighter_model::placement::{ConstraintText, Placement, PlacementText, StrategyText};
use lighter_model::resources::{HostPort, Resources};
use lighter_model::task_definition::TransportProtocol;
use serde_json::json;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const DECISIONS: usize = 1_000;
const GROUP: &str = "family:web";
/// CPU units and MiB of the three sizes of nodes, a thousandth of which each task takes.
const SIZES: [(u32, u64); 3] = [(8_192, 16_384), (16_384, 32_768), (32_768, 65_536)];

/// What makes a decision hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Empty,
    MostlyFull,
    /// Nodes with memory have no CPU and the other way round, but for a few.
    Fragmented,
    NothingFits,
    PortsTaken,
    Pattern,
    Affinity,
}

const CASES: [Case; 7] = [
    Case::Empty,
    Case::MostlyFull,
    Case::Fragmented,
    Case::NothingFits,
    Case::PortsTaken,
    Case::Pattern,
    Case::Affinity,
];

/// Prints the median of the worst case for each number of nodes.
pub(crate) fn measure() -> Result<()> {
    for nodes in [5_000, 20_000] {
        let mut worst = (0.0, 0.0, String::new());
        for case in CASES {
            let mut state = state(nodes, case)?;
            for (name, fields) in strategies() {
                let placement = placement(case, &fields)?;
                let (median, p99) = decide(&mut state, case, &placement)?;
                println!("  {nodes} nodes, {case:?}, {name}: {median:.1} us, p99 {p99:.1} us");
                if median > worst.0 {
                    worst = (median, p99, format!("{case:?}, {name}"));
                }
            }
        }
        let (median, p99, case) = worst;
        println!("decision_us_{nodes}: {median:.1} us (p99 {p99:.1} us, worst case {case})");
    }
    Ok(())
}

/// By name, with type and field of each.
fn strategies() -> [(&'static str, Vec<(&'static str, &'static str)>); 3] {
    [
        ("without a strategy", vec![]),
        ("binpack", vec![("binpack", "memory")]),
        ("spread", vec![("spread", "attribute:ecs.availability-zone"), ("spread", "instanceId")]),
    ]
}

fn placement(case: Case, strategies: &[(&str, &str)]) -> Result<Placement> {
    let expression = match case {
        Case::Pattern => "attribute:ecs.instance-type =~ 'c[0-9]+\\.(large|xlarge)'",
        Case::Affinity => "task:group == service:cache",
        _ => "",
    };
    let member_of = ConstraintText { kind: "memberOf".to_owned(), expression: expression.to_owned() };
    let distinct = ConstraintText { kind: "distinctInstance".to_owned(), expression: String::new() };
    let strategies = strategies.iter().map(|(kind, field)| StrategyText {
        kind: (*kind).to_owned(),
        field: (*field).to_owned(),
        expression: String::new(),
    });
    let constraints = match case {
        Case::Pattern | Case::Affinity => vec![member_of, distinct],
        _ => Vec::new(),
    };
    Ok(Placement::read(PlacementText { constraints, strategies: strategies.collect() })?)
}

/// Microseconds of a decision: the median and the 99th percentile.
fn decide(state: &mut State, case: Case, placement: &Placement) -> Result<(f64, f64)> {
    let cluster: ClusterName = "default".parse()?;
    let required = BTreeSet::new();
    let memory_mib = if case == Case::NothingFits { 1 << 30 } else { 64 };
    let host_ports = (case == Case::PortsTaken).then(port).into_iter().collect();
    let resources = Resources { cpu_units: 32, memory_mib, host_ports, ..Resources::default() };
    let mut times = Vec::with_capacity(DECISIONS);
    for luck in 0..DECISIONS as u128 {
        let begun = Instant::now();
        state.warm(&cluster, placement);
        let ask = Ask {
            resources: &resources,
            required: &required,
            leases: false,
            group: GROUP,
            placement,
            reserve: Reserve::default(),
            luck,
            head: None,
        };
        black_box(choose(state.columns().of(&cluster), black_box(&ask)));
        times.push(begun.elapsed());
    }
    times.sort();
    let micros = |at: usize| times.get(at).map(|time| time.as_secs_f64() * 1e6).context("no decisions");
    Ok((micros(DECISIONS / 2)?, micros(DECISIONS * 99 / 100)?))
}

fn port() -> HostPort {
    HostPort { protocol: TransportProtocol::Tcp, port: 8_080 }
}

/// Nodes of three sizes in three zones with what the case has on them.
fn state(nodes: usize, case: Case) -> Result<State> {
    let mut state = State::default();
    for number in 0..nodes {
        let size = SIZES[number % 3];
        state.apply(&Mutation::Instance(Arc::new(instance(number, size)?)));
        if case == Case::Empty {
            continue;
        }
        let share = |part: u32| (size.0 * part / 100, size.1 * u64::from(part) / 100);
        let (cpu_units, memory_mib) = match case {
            Case::Fragmented if number % 97 == 0 => share(10),
            Case::Fragmented if number % 2 == 0 => (size.0, share(10).1),
            Case::Fragmented => (share(10).0, size.1),
            _ => share(80),
        };
        let group = if number % 3 == 0 { "service:cache" } else { GROUP };
        let host_ports = (case == Case::PortsTaken).then(port).into_iter().collect();
        let resources = Resources { cpu_units, memory_mib, host_ports, ..Resources::default() };
        state.apply(&Mutation::Task(Arc::new(task(number, group, &resources)?)));
    }
    Ok(state)
}

fn id(number: usize) -> ContainerInstanceId {
    ContainerInstanceId::from_parts(number as u64, 0)
}

fn instance(number: usize, (cpu_units, memory_mib): (u32, u64)) -> Result<InstanceRecord> {
    let zone = ["a", "b", "c"][number / 3 % 3];
    let kind = ["c7.large", "m7.large", "c7.metal", "c6.xlarge"][number % 4];
    Ok(serde_json::from_value(json!({
        "id": id(number), "cluster": "default", "name": format!("n{number}"), "status": "ACTIVE", "connected": true,
        "agent_version": "1.0.0", "boot_id": "", "address": null, "token_attributes": {}, "orphans": [],
        "offered": Resources { cpu_units, memory_mib, ..Resources::default() }, "registered_at_unix_ms": 0,
        "node_attributes": {"ecs.availability-zone": zone, "ecs.instance-type": kind},
    }))?)
}

fn task(number: usize, group: &str, resources: &Resources) -> Result<TaskRecord> {
    Ok(serde_json::from_value(json!({
        "id": TaskId::from_parts(number as u64, 0), "cluster": "default", "definition": "web:1",
        "instance": id(number), "desired": "RUNNING", "last": "RUNNING", "stop_code": null, "stopped_reason": null,
        "waiting_reason": null, "group": group, "started_by": null, "containers": [], "version": 1, "generation": 1,
        "report_sequence": 0, "resources": resources,
        "times": {"created_at": 0, "pull_started_at": null, "pull_stopped_at": null, "started_at": null,
                  "stopping_at": null, "execution_stopped_at": null, "stopped_at": null, "settled_at": null},
    }))?)
}
