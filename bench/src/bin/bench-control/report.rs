//! The table and control.json: median and range of each figure, beside what the machine did meanwhile.
//! In: runs. Out: lines while it goes on, then both. Never: drops a run.

use super::account::Calibration;
use super::plan::{Figure, Plan};
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One run of one figure.
pub(crate) struct Run {
    pub figure: Figure,
    pub agents: usize,
    pub value: f64,
    pub words: String,
}

pub(crate) struct Report {
    runs: Vec<Run>,
    most: usize,
}

/// Name, unit and aim; the aim is about the largest number of nodes.
fn described(figure: Figure) -> (&'static str, &'static str, &'static str) {
    match figure {
        Figure::Count10 => ("placements_count10", "1/s", ">= 10000"),
        Figure::Count1 => ("placements_count1", "1/s", ">= 6000"),
        Figure::Etcd => ("placements_etcd", "1/s", ">= 2500"),
        Figure::Latency => ("assign_p99_ms", "ms", "<= 100"),
        Figure::Memory => ("control_rss_mib_5000", "MiB", "<= 400"),
        Figure::Reconnect => ("reconnect_5000_seconds", "s", "<= 10"),
        Figure::Takeover => ("takeover_seconds", "s", "<= 10"),
    }
}

const FIGURES: [Figure; 7] = [
    Figure::Count10,
    Figure::Count1,
    Figure::Etcd,
    Figure::Latency,
    Figure::Memory,
    Figure::Reconnect,
    Figure::Takeover,
];

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        println!("{} tasks a run, {} runs, nodes of three sizes in three zones", plan.tasks, plan.runs);
        Self { runs: Vec::new(), most: plan.most_agents() }
    }

    pub(crate) fn machine(&self, calibration: &Calibration) -> String {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        format!(
            "fdatasync {:.0} us, loop {:.0} ms, load {}",
            calibration.fdatasync_us,
            calibration.cpu_loop_ms,
            load.split(' ').next().unwrap_or_default()
        )
    }

    pub(crate) fn run(&mut self, run: Run) {
        let (name, unit, _) = described(run.figure);
        println!("  {name} with {} nodes: {:.1} {unit}  ({})", run.agents, run.value, run.words);
        self.runs.push(run);
    }

    /// Sorted values of a figure.
    fn values(&self, figure: Figure, agents: usize) -> Vec<f64> {
        let runs = self.runs.iter().filter(|run| run.figure == figure && run.agents == agents);
        let mut values: Vec<f64> = runs.map(|run| run.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Prints the table and writes control.json.
    pub(crate) fn finish(self, plan: &Plan) -> Result<()> {
        let mut figures = Vec::new();
        println!("\n{:24} {:>6} {:>10} {:>22} {:>9}  unit", "figure", "nodes", "median", "range", "aim");
        for figure in FIGURES {
            for agents in plan.agents.iter().copied() {
                let values = self.values(figure, agents);
                let (Some(lowest), Some(highest)) = (values.first(), values.last()) else { continue };
                let (name, unit, aim) = described(figure);
                // Of outages the worst counts: each of them has to end in time.
                let value = if figure == Figure::Reconnect { *highest } else { values[values.len() / 2] };
                let range = format!("{lowest:.1} to {highest:.1}");
                println!("{name:24} {agents:>6} {value:>10.1} {range:>22} {aim:>9}  {unit}");
                figures.push(self.json(figure, agents, value));
            }
        }
        std::fs::create_dir_all(&plan.out)?;
        let file = plan.out.join("control.json");
        std::fs::write(&file, serde_json::to_string_pretty(&figures)?).context("write control.json")?;
        println!("{}", file.display());
        Ok(())
    }

    fn json(&self, figure: Figure, agents: usize, value: f64) -> Value {
        let (name, unit, aim) = described(figure);
        let of = self.runs.iter().filter(|run| run.figure == figure && run.agents == agents);
        let runs: Vec<Value> = of.map(|run| json!({"value": run.value, "words": run.words})).collect();
        let name = if agents == self.most { name.to_owned() } else { format!("{name}_{agents}_nodes") };
        json!({"name": name, "unit": unit, "value": value, "aim": aim, "nodes": agents, "runs": runs})
    }
}
