//! `make bench-control`: how much one control plane takes, with thousands of nodes on it.
//! In: release binaries (LIGHTER_BIN_DIR), etcd of Debian's etcd-server; flags, see `plan.rs`.
//! Out: a table on stdout and target/bench/control.json, see `report.rs`.
//! Owns: everything under one temporary directory; `lighter control`, etcd and the nodes' process, each
//! a process of its own, so that the kernel counts their CPU time apart. The callers are this process.
//! Never: judges a time; what it does judge is that every task counted was placed, recorded and runs.

mod account;
mod agent;
mod agents;
mod bed;
mod callers;
mod clock;
mod decisions;
mod etcd;
mod fleet;
mod join;
mod latency;
mod memory;
mod placements;
mod plan;
mod plane;
mod quality;
mod reconnect;
mod report;
mod service;
mod takeover;
mod tls;
mod workload;

use anyhow::Result;
use bed::{Bed, Kind};
use clap::Parser;
use plan::{Figure, Mode, Plan};
use report::Report;
use std::path::Path;
use workload::{Kind as Placing, Workload};

fn main() -> Result<()> {
    account::raise_file_limit()?;
    let mode = Mode::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match mode {
            Mode::Measure(plan) => measure(plan).await,
            Mode::Decisions => decisions::print(),
            Mode::Agents(settings) => agents::run(settings).await,
        }
    })
}

async fn measure(plan: Plan) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("lighter-bench-control").tempdir_in(plan.scratch())?;
    let mut report = Report::new(&plan);
    let most = plan.most_agents();
    if plan.wants(Figure::Decision) {
        decisions::measure(&plan, scratch.path(), &mut report).await;
    }
    // What has an aim comes first; services need no more than seconds and save another cluster.
    let with_most = [
        Figure::Count10,
        Figure::Count1,
        Figure::Binpack,
        Figure::Spread,
        Figure::Distinct,
        Figure::MemberOf,
        Figure::Latency,
        Figure::Memory,
        Figure::Rolling,
        Figure::Drain,
        Figure::Reconnect,
    ];
    part(scratch.path(), &plan, Kind::Redb, most, &with_most, &mut report).await;
    part(scratch.path(), &plan, Kind::Etcd, most, &[Figure::Etcd, Figure::Takeover], &mut report).await;
    for agents in plan.agents.iter().copied().filter(|agents| *agents != most) {
        let figures = [Figure::Count10, Figure::Count1];
        part(scratch.path(), &plan, Kind::Redb, agents, &figures, &mut report).await;
    }
    report.finish(&plan)
}

/// The figures of one kind of cluster; one that fails is told of and keeps no other from being measured.
async fn part(
    scratch: &Path,
    plan: &Plan,
    kind: Kind,
    agents: usize,
    figures: &[Figure],
    report: &mut Report,
) {
    let figures: Vec<Figure> = figures.iter().copied().filter(|figure| plan.wants(*figure)).collect();
    if figures.is_empty() {
        return;
    }
    if let Some(why) = report.no_time() {
        figures.iter().for_each(|figure| report.left_out(*figure, agents, why.clone()));
        return;
    }
    report.says(&format!("{agents} nodes join a cluster on {kind:?}"));
    let bed = match Bed::prepare(scratch, plan, kind, agents).await {
        Ok(bed) => bed,
        Err(error) => {
            let why = format!("no cluster of {agents} nodes on {kind:?}: {error:#}");
            figures.iter().for_each(|figure| report.failed(*figure, agents, why.clone()));
            return;
        }
    };
    for figure in figures {
        if let Some(why) = report.no_time() {
            report.left_out(figure, agents, why);
            continue;
        }
        if let Err(error) = measured(&bed, plan, figure, report).await {
            report.failed(figure, agents, format!("{error:#}"));
        }
    }
}

async fn measured(bed: &Bed, plan: &Plan, figure: Figure, report: &mut Report) -> Result<()> {
    let (count, kind) = match figure {
        Figure::Count10 | Figure::Etcd => (10, Placing::Plain),
        Figure::Count1 => (1, Placing::Plain),
        Figure::Binpack => (10, Placing::Binpack),
        Figure::Spread => (10, Placing::Spread),
        Figure::Distinct => (10, Placing::Distinct { group: bed.agents / 2 }),
        Figure::MemberOf => (10, Placing::MemberOf),
        Figure::Latency => return latency::measure(bed, plan, report).await,
        Figure::Memory => return memory::measure(bed, plan, report).await,
        Figure::Reconnect => return reconnect::measure(bed, plan, report).await,
        Figure::Takeover => return takeover::measure(bed, plan, report).await,
        Figure::Rolling => return service::rolling::measure(bed, plan, report).await,
        Figure::Drain => return service::drain::measure(bed, plan, report).await,
        Figure::Decision | Figure::DecisionTail => return Ok(()),
    };
    placements::measure(bed, plan, figure, &Workload::of("bench", count, kind), report).await
}
