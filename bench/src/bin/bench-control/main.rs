//! `make bench-control`: how much one control plane takes, with thousands of nodes on it.
//! In: release binaries (LIGHTER_BIN_DIR), etcd of Debian's etcd-server; flags, see `plan.rs`.
//! Out: a table on stdout and target/bench/control.json, [{name, unit, value, aim, runs}].
//! Owns: everything under one temporary directory; `lighter control`, etcd and the nodes' process, each
//! a process of its own, so that the kernel counts their CPU time apart. The callers are this process.
//! Never: judges a time; what it does judge is that every task counted was placed, recorded and runs.

mod account;
mod agent;
mod agents;
mod bed;
mod callers;
mod clock;
mod etcd;
mod fleet;
mod join;
mod latency;
mod memory;
mod placements;
mod plan;
mod plane;
mod reconnect;
mod report;
mod takeover;
mod tls;

use anyhow::{Context, Result};
use bed::{Bed, Kind};
use clap::Parser;
use plan::{Figure, Mode, Plan};
use report::Report;

fn main() -> Result<()> {
    account::raise_file_limit()?;
    let mode = Mode::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match mode {
            Mode::Measure(plan) => measure(plan).await,
            Mode::Agents(settings) => agents::run(settings).await,
        }
    })
}

async fn measure(plan: Plan) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("lighter-bench-control").tempdir_in(plan.scratch())?;
    let mut report = Report::new(&plan);
    let most = plan.most_agents();
    for agents in plan.agents.iter().copied() {
        let bed = Bed::prepare(scratch.path(), &plan, Kind::Redb, agents).await.context("prepare on redb")?;
        for (figure, count) in [(Figure::Count10, 10), (Figure::Count1, 1)] {
            if plan.wants(figure) {
                placements::measure(&bed, &plan, figure, count, &mut report).await?;
            }
        }
        if agents == most && plan.wants(Figure::Latency) {
            latency::measure(&bed, &plan, &mut report).await?;
        }
        if agents == most && plan.wants(Figure::Memory) {
            memory::measure(&bed, &plan, &mut report).await?;
        }
        if agents == most && plan.wants(Figure::Reconnect) {
            reconnect::measure(&bed, &plan, &mut report).await?;
        }
    }
    if plan.wants(Figure::Etcd) || plan.wants(Figure::Takeover) {
        let bed = Bed::prepare(scratch.path(), &plan, Kind::Etcd, most).await.context("prepare on etcd")?;
        if plan.wants(Figure::Etcd) {
            placements::measure(&bed, &plan, Figure::Etcd, 10, &mut report).await?;
        }
        if plan.wants(Figure::Takeover) {
            takeover::measure(&bed, &plan, &mut report).await?;
        }
    }
    report.finish(&plan)
}
