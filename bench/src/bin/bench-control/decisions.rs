//! How long one decision of the scheduler takes, in this process: constraints that were asked before, a full scan.
//! Out: for each number of nodes the worst median and the worst 99th percentile of the seven cases and three
//! strategies, by the clock and by the processor time of this thread, which others on the machine do not lengthen.
//! Never: starts a control plane; a state is made of records, as one is loaded.

use super::plan::{Figure, Plan};
use super::report::{Machine, Report, Run};
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
use std::path::Path;
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

/// Microseconds of one decision.
#[derive(Debug, Clone, Copy)]
struct Times {
    median: f64,
    p99: f64,
}

/// Of one case and strategy.
struct Measured {
    name: String,
    clock: Times,
    processor: Times,
}

/// Prints every case, and the worst for each number of nodes.
pub(crate) fn print() -> Result<()> {
    for nodes in [5_000, 20_000] {
        let all = all(nodes)?;
        for Measured { name, clock, processor } in &all {
            println!(
                "  {nodes} nodes, {name}: {:.1} us, p99 {:.1} us; processor time {:.1}, p99 {:.1}",
                clock.median, clock.p99, processor.median, processor.p99
            );
        }
        for (name, (value, words)) in
            [("decision_us", worst_median(&all)?), ("decision_p99_us", worst_p99(&all)?)]
        {
            println!("{name}_{nodes}: {value:.1} us ({words})");
        }
    }
    Ok(())
}

/// Adds both figures of each number of nodes to the report.
pub(crate) async fn measure(plan: &Plan, scratch: &Path, report: &mut Report) {
    for nodes in plan.decision_nodes.iter().copied() {
        for done in 0..plan.runs_of(Figure::Decision) {
            if !report.goes_on(Figure::Decision, nodes, done) {
                break;
            }
            if let Err(error) = once(nodes, scratch, report).await {
                report.failed(Figure::Decision, nodes, format!("{error:#}"));
                report.failed(Figure::DecisionTail, nodes, format!("{error:#}"));
                break;
            }
        }
    }
}

async fn once(nodes: usize, scratch: &Path, report: &mut Report) -> Result<()> {
    let machine = Machine::now(scratch)?;
    let all = tokio::task::spawn_blocking(move || all(nodes)).await??;
    let figures = [(Figure::Decision, worst_median(&all)?), (Figure::DecisionTail, worst_p99(&all)?)];
    for (figure, (value, words)) in figures {
        report.run(Run { figure, agents: nodes, value, words, machine: machine.clone() });
    }
    Ok(())
}

fn all(nodes: usize) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for case in CASES {
        let mut state = state(nodes, case)?;
        for (strategy, fields) in strategies() {
            let placement = placement(case, &fields)?;
            let (clock, processor) = decide(&mut state, case, &placement)?;
            all.push(Measured { name: format!("{case:?}, {strategy}"), clock, processor });
        }
    }
    Ok(all)
}

/// The value by the clock, and in words where it was and what else belongs to it.
fn worst_median(all: &[Measured]) -> Result<(f64, String)> {
    let worst = all.iter().max_by(|a, b| a.clock.median.total_cmp(&b.clock.median)).context("no case")?;
    let by_processor = all.iter().map(|one| one.processor.median).fold(0.0, f64::max);
    let words = format!(
        "{}, its p99 {:.1}; the worst by processor time {by_processor:.1}",
        worst.name, worst.clock.p99
    );
    Ok((worst.clock.median, words))
}

fn worst_p99(all: &[Measured]) -> Result<(f64, String)> {
    let worst = all.iter().max_by(|a, b| a.clock.p99.total_cmp(&b.clock.p99)).context("no case")?;
    let by_processor = all.iter().map(|one| one.processor.p99).fold(0.0, f64::max);
    let words = format!(
        "{}, its median {:.1}; the worst by processor time {by_processor:.1}",
        worst.name, worst.clock.median
    );
    Ok((worst.clock.p99, words))
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

/// Many decisions: by the clock and by processor time.
fn decide(state: &mut State, case: Case, placement: &Placement) -> Result<(Times, Times)> {
    let cluster: ClusterName = "default".parse()?;
    let required = BTreeSet::new();
    let memory_mib = if case == Case::NothingFits { 1 << 30 } else { 64 };
    let host_ports = (case == Case::PortsTaken).then(port).into_iter().collect();
    let resources = Resources { cpu_units: 32, memory_mib, host_ports, ..Resources::default() };
    let (mut clock, mut processor) = (Vec::with_capacity(DECISIONS), Vec::with_capacity(DECISIONS));
    for luck in 0..DECISIONS as u128 {
        let begun_ns = thread_ns();
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
        clock.push(begun.elapsed().as_secs_f64() * 1e6);
        processor.push(thread_ns().saturating_sub(begun_ns) as f64 / 1e3);
    }
    Ok((times(clock)?, times(processor)?))
}

fn times(mut micros: Vec<f64>) -> Result<Times> {
    micros.sort_by(f64::total_cmp);
    let at = |percent: usize| micros.get(micros.len() * percent / 100).copied().context("no decisions");
    Ok(Times { median: at(50)?, p99: at(99)? })
}

/// Processor time of this thread; asking is a system call, whose time is in it.
fn thread_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000
        + u64::try_from(now.tv_nsec).unwrap_or_default()
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
