//! `make bench`: the figures of ARCHITECTURE.md's table, ours beside Docker and podman in one run.
//! In: release binaries (LIGHTER_BIN_DIR), cc, skopeo, docker-registry; dockerd and podman if installed.
//! Out: a table on stdout and target/bench/results.json, [{name, unit, ours, peer, peer_name, ratio, runs}].
//! Owns: everything under one temporary directory, started inside network, mount and process
//! namespaces of its own. Never: asserts a time; a benchmark that judged would be a timed test.

mod account;
mod images;
mod latency;
mod memory;
mod ours;
mod peers;
mod probes;
mod processes;
mod report;
mod statistics;
mod throughput;
mod unpack;

use anyhow::{Context, Result};
use report::Report;
use std::path::Path;

/// How often each figure is measured; LIGHTER_BENCH_QUICK=1 makes a smoke run of it. LIGHTER_BENCH_ONLY names the parts
/// that are run (ours, probes, docker, podman, unpack; separated by commas); without it all are.
struct Plan {
    only: Option<String>,
    warm_up: usize,
    runs: usize,
    clients: usize,
    starts: usize,
    tasks: usize,
    probe_window_s: u64,
}

impl Plan {
    fn from_environment() -> Self {
        let only = std::env::var("LIGHTER_BENCH_ONLY").ok();
        if std::env::var_os("LIGHTER_BENCH_QUICK").is_some() {
            Self { only, warm_up: 2, runs: 10, clients: 8, starts: 16, tasks: 10, probe_window_s: 20 }
        } else {
            Self { only, warm_up: 20, runs: 200, clients: 8, starts: 160, tasks: 100, probe_window_s: 60 }
        }
    }

    fn has(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|named| named == part))
    }
}

fn main() -> Result<()> {
    if let Some(ended) = processes::in_own_namespaces()? {
        std::process::exit(ended.code().unwrap_or(1));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<()> {
    let plan = Plan::from_environment();
    let scratch = tempfile::Builder::new().prefix("lighter-bench").tempdir()?;
    let mut report = Report::new(&plan);

    println!("images: a static program of one layer, in an OCI layout");
    let image = images::build(scratch.path()).context("make the benchmark image")?;
    if plan.has("ours") || plan.has("probes") {
        let registry = images::Registry::start(scratch.path()).await?;
        registry.push(&image)?;
        measure_ours(&plan, scratch.path(), &registry, &mut report).await?;
    }
    for peer in peers::installed(&plan, scratch.path(), &image).await {
        let name = peer.name();
        println!("peer: {name}");
        // A peer that does not work on this machine is no reason to lose our own figures.
        match peers::measure(peer, &plan).await {
            Ok(figures) => report.peer(figures),
            Err(error) => report.describe(format!("{name}: NOT MEASURED: {error:#}")),
        }
    }
    if plan.has("unpack") {
        report.unpack(unpack::measure(scratch.path())?);
    }
    report.finish()
}

async fn measure_ours(
    plan: &Plan,
    scratch: &Path,
    registry: &images::Registry,
    report: &mut Report,
) -> Result<()> {
    let ours = ours::Cluster::start(scratch, registry).await.context("start Lighter")?;
    report.describe(ours.describe()?);
    if plan.has("ours") {
        report.ours_memory("pss_idle", memory::idle(&ours)?);
        report.ours_latency(latency::ours(&ours, plan).await?);
        report.ours_rate(throughput::ours(&ours, plan).await?);
        report.ours_memory_loaded(memory::loaded(&ours, plan).await?);
    }
    if plan.has("probes") {
        report.ours_unprobed(&probes::ours(&ours, plan, None).await?, plan);
        for shell in probes::shells() {
            report.ours_probes(shell, &probes::ours(&ours, plan, Some(shell)).await?, plan);
        }
    }
    ours.stop().await
}
