//! Gathers the figures and prints them: a table for people, results.json for machines.
//! A figure whose peer is not on the machine has peer null. Never: rounds what it stores.

use crate::Plan;
use crate::memory::Loaded;
use crate::peers::Figures;
use crate::probes;
use crate::statistics::Series;
use crate::unpack::Unpack;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One figure and its peers, the first of which goes into results.json.
struct Figure {
    name: &'static str,
    unit: &'static str,
    ours: f64,
    runs: usize,
    peers: Vec<(String, f64)>,
}

pub(crate) struct Report {
    figures: Vec<Figure>,
    conditions: Vec<String>,
    starts: usize,
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self { figures: Vec::new(), conditions: Vec::new(), starts: plan.starts }
    }

    /// Storage driver, cgroup version, fsync settings: what a reader needs to compare.
    pub(crate) fn describe(&mut self, condition: String) {
        self.conditions.push(condition);
    }

    pub(crate) fn ours_memory(&mut self, name: &'static str, mib: f64) {
        self.add(name, "MiB", mib, 1);
    }

    pub(crate) fn ours_latency(&mut self, series: Series) {
        for (name, percent) in
            [("start_latency_p50", 50.0), ("start_latency_p90", 90.0), ("start_latency_p99", 99.0)]
        {
            self.add(name, "ms", series.percentile(percent), series.len());
        }
    }

    pub(crate) fn ours_rate(&mut self, per_second: f64) {
        let starts = self.starts;
        self.add("starts_per_second", "1/s", per_second, starts);
    }

    pub(crate) fn ours_memory_loaded(&mut self, loaded: Loaded) {
        // The name is the one of the full plan; `runs` says how many tasks there were.
        self.add("pss_100_tasks", "MiB", loaded.pss, loaded.tasks);
        self.add("shim_private", "MiB", loaded.shim_private, loaded.tasks);
        self.add("kernel_memory_100_tasks", "MiB", loaded.kernel, loaded.tasks);
    }

    pub(crate) fn ours_unprobed(&mut self, ours: &probes::Ours, plan: &Plan) {
        // The names are those of the full plan; `runs` says how many containers there were.
        self.add("no_probes_percent_100", "%", ours.total, plan.tasks);
        self.describe(format!("without checks: {}", ours.parts()));
    }

    pub(crate) fn ours_probes(&mut self, shell: &probes::Shell, ours: &probes::Ours, plan: &Plan) {
        self.add(shell.figure, "%", ours.total, plan.tasks);
        self.describe(format!("checks with {}: {}", shell.on_host, ours.parts()));
    }

    pub(crate) fn unpack(&mut self, unpack: Unpack) {
        self.add("unpack_seconds", "s", unpack.ours_s, unpack.runs);
        self.add_peer("unpack_seconds", "tar", unpack.tar_s);
    }

    pub(crate) fn peer(&mut self, figures: Figures) {
        self.conditions.push(figures.condition);
        let values: BTreeMap<&'static str, f64> = figures.values;
        for (name, value) in values {
            self.add_peer(name, &figures.name, value);
        }
    }

    fn add(&mut self, name: &'static str, unit: &'static str, ours: f64, runs: usize) {
        self.figures.push(Figure { name, unit, ours, runs, peers: Vec::new() });
    }

    fn add_peer(&mut self, name: &str, peer: &str, value: f64) {
        if let Some(figure) = self.figures.iter_mut().find(|figure| figure.name == name) {
            figure.peers.push((peer.to_owned(), value));
        }
    }

    pub(crate) fn finish(self) -> Result<()> {
        println!();
        for condition in &self.conditions {
            println!("{condition}");
        }
        println!(
            "\n{:<26} {:>6} {:>10}   {:<18} {:>10} {:>8} {:>6}",
            "figure", "unit", "ours", "peer", "peer's", "ratio", "runs"
        );
        for figure in &self.figures {
            let row = |peer: &str, value: String, ratio: String| {
                println!(
                    "{:<26} {:>6} {:>10.2}   {:<18} {:>10} {:>8} {:>6}",
                    figure.name, figure.unit, figure.ours, peer, value, ratio, figure.runs
                );
            };
            if figure.peers.is_empty() {
                row("-", "-".into(), "-".into());
            }
            for (peer, value) in &figure.peers {
                row(peer, format!("{value:.2}"), format!("{:.2}", figure.ours / value));
            }
        }
        let path = results_dir().join("results.json");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, serde_json::to_vec_pretty(&self.json())?)?;
        println!("\nwritten: {}", path.display());
        Ok(())
    }

    fn json(&self) -> Value {
        let rows = self.figures.iter().map(|figure| {
            let (peer_name, peer) = match figure.peers.first() {
                Some((name, value)) => (json!(name), json!(value)),
                None => (Value::Null, Value::Null),
            };
            let ratio = figure.peers.first().map_or(Value::Null, |(_, value)| json!(figure.ours / value));
            json!({"name": figure.name, "unit": figure.unit, "ours": figure.ours, "peer": peer,
                   "peer_name": peer_name, "ratio": ratio, "runs": figure.runs})
        });
        Value::Array(rows.collect())
    }
}

/// Where results belong: LIGHTER_BENCH_DIR, or bench/ in the target directory of this workspace.
fn results_dir() -> std::path::PathBuf {
    std::env::var_os("LIGHTER_BENCH_DIR").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        std::path::PathBuf::from,
    )
}
