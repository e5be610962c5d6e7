//! The table and control.json: median and range of each figure, beside what the machine did meanwhile.
//! In: runs. Out: lines while it goes on, then both. Never: drops a run.

use super::account::{Calibration, calibrate};
use super::plan::{Figure, Plan};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// One run of one figure.
pub(crate) struct Run {
    pub figure: Figure,
    pub agents: usize,
    pub value: f64,
    pub words: String,
    pub machine: Machine,
}

/// What the machine did beside a run.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    calibration: Calibration,
    load: String,
}

impl Machine {
    /// Looks at it now, on the disk of this directory.
    pub(crate) fn now(dir: &Path) -> Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { calibration: calibrate(dir)?, load })
    }
}

pub(crate) struct Report {
    begun: Instant,
    limit: Duration,
    runs: Vec<Run>,
    /// What has no run, or not all, and why.
    missing: Vec<(Figure, usize, String)>,
    failed: bool,
    most: usize,
}

/// Name, unit and aim; the aim is about the largest number of nodes. Of decisions the number of nodes is part of
/// the name, and the aim is another for each.
fn described(figure: Figure) -> (&'static str, &'static str, &'static str) {
    match figure {
        Figure::Count10 => ("placements_count10", "1/s", ">= 10000"),
        Figure::Count1 => ("placements_count1", "1/s", ">= 6000"),
        Figure::Binpack => ("placements_binpack_5000", "1/s", ">= 10000"),
        Figure::Spread => ("placements_spread_5000", "1/s", ">= 10000"),
        Figure::Distinct => ("placements_distinct_instance_5000", "1/s", ">= 10000"),
        Figure::MemberOf => ("placements_member_of_5000", "1/s", ">= 10000"),
        Figure::Etcd => ("placements_etcd", "1/s", ">= 2500"),
        Figure::Latency => ("assign_p99_ms", "ms", "<= 100"),
        Figure::Memory => ("control_rss_mib_5000", "MiB", "<= 400"),
        Figure::Reconnect => ("reconnect_5000_seconds", "s", "<= 10"),
        Figure::Takeover => ("takeover_seconds", "s", "<= 10"),
        Figure::Rolling => ("rolling_update_1000_seconds", "s", "-"),
        Figure::Drain => ("drain_tenth_seconds", "s", "-"),
        Figure::Decision => ("decision_us", "us", "-"),
        Figure::DecisionTail => ("decision_p99_us", "us", "-"),
    }
}

fn is_decision(figure: Figure) -> bool {
    matches!(figure, Figure::Decision | Figure::DecisionTail)
}

/// The 99th percentile may be three times the median.
fn aim(figure: Figure, nodes: usize) -> &'static str {
    match (figure, nodes) {
        (Figure::Decision, 5_000) => "<= 20",
        (Figure::Decision, 20_000) => "<= 80",
        (Figure::DecisionTail, 5_000) => "<= 60",
        (Figure::DecisionTail, 20_000) => "<= 240",
        (other, _) => described(other).2,
    }
}

const FIGURES: [Figure; 15] = [
    Figure::Decision,
    Figure::DecisionTail,
    Figure::Count10,
    Figure::Count1,
    Figure::Binpack,
    Figure::Spread,
    Figure::Distinct,
    Figure::MemberOf,
    Figure::Etcd,
    Figure::Latency,
    Figure::Memory,
    Figure::Reconnect,
    Figure::Takeover,
    Figure::Rolling,
    Figure::Drain,
];

impl Report {
    pub(crate) fn new(plan: &Plan) -> Self {
        println!(
            "{} tasks a run, {} runs, nodes of three sizes in three zones; no run begins after {} minutes",
            plan.tasks, plan.runs, plan.minutes
        );
        Self {
            begun: Instant::now(),
            limit: Duration::from_secs(60 * plan.minutes),
            runs: Vec::new(),
            missing: Vec::new(),
            failed: false,
            most: plan.most_agents(),
        }
    }

    /// A line of progress.
    pub(crate) fn says(&self, words: &str) {
        let seconds = self.begun.elapsed().as_secs();
        println!("{:3}:{:02}  {words}", seconds / 60, seconds % 60);
    }

    /// Why no further run begins.
    pub(crate) fn no_time(&self) -> Option<String> {
        let late = self.begun.elapsed() >= self.limit;
        late.then(|| format!("the {} minutes were over, see --minutes", self.limit.as_secs() / 60))
    }

    /// Whether another run of a figure may begin; the first does, and says so where none does.
    pub(crate) fn goes_on(&mut self, figure: Figure, agents: usize, done: usize) -> bool {
        let Some(why) = self.no_time().filter(|_| done > 0) else { return true };
        self.left_out(figure, agents, format!("{done} runs: {why}"));
        false
    }

    /// Not measured, for want of time.
    pub(crate) fn left_out(&mut self, figure: Figure, agents: usize, why: String) {
        self.says(&format!("{} with {agents} nodes: {why}", self.name(figure, agents)));
        self.missing.push((figure, agents, why));
    }

    /// Not measured, because something broke.
    pub(crate) fn failed(&mut self, figure: Figure, agents: usize, why: String) {
        self.failed = true;
        self.left_out(figure, agents, format!("FAILED: {why}"));
    }

    pub(crate) fn run(&mut self, run: Run) {
        let (name, unit) = (self.name(run.figure, run.agents), described(run.figure).1);
        let Machine { calibration: Calibration { fdatasync_us, cpu_loop_ms }, load } = &run.machine;
        self.says(&format!(
            "{name} with {} nodes: {:.1} {unit}  ({}; fdatasync {fdatasync_us:.0} us, loop {cpu_loop_ms:.0} ms, load {load})",
            run.agents, run.value, run.words
        ));
        self.runs.push(run);
    }

    fn name(&self, figure: Figure, agents: usize) -> String {
        let (name, ..) = described(figure);
        match is_decision(figure) {
            true => format!("{name}_{agents}"),
            false if agents == self.most => name.to_owned(),
            false => format!("{name}_{agents}_nodes"),
        }
    }

    /// Sorted values of a figure.
    fn values(&self, figure: Figure, agents: usize) -> Vec<f64> {
        let runs = self.runs.iter().filter(|run| run.figure == figure && run.agents == agents);
        let mut values: Vec<f64> = runs.map(|run| run.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// Prints the table and writes control.json; an error when a figure failed.
    pub(crate) fn finish(self, plan: &Plan) -> Result<()> {
        let mut figures = Vec::new();
        println!("\n{:33} {:>6} {:>10} {:>22} {:>9}  unit", "figure", "nodes", "median", "range", "aim");
        for figure in FIGURES {
            for agents in self.nodes_of(figure, plan) {
                let values = self.values(figure, agents);
                self.row(figure, agents, &values);
                figures.push(self.json(figure, agents, &values));
            }
        }
        std::fs::create_dir_all(&plan.out)?;
        let file = plan.out.join("control.json");
        std::fs::write(&file, serde_json::to_string_pretty(&figures)?).context("write control.json")?;
        println!("{}", file.display());
        anyhow::ensure!(!self.failed, "not all figures could be measured");
        Ok(())
    }

    /// The numbers of nodes with which a figure is measured.
    fn nodes_of(&self, figure: Figure, plan: &Plan) -> Vec<usize> {
        match figure {
            Figure::Decision | Figure::DecisionTail => plan.decision_nodes.clone(),
            Figure::Count10 | Figure::Count1 => plan.agents.clone(),
            _ => vec![self.most],
        }
    }

    fn row(&self, figure: Figure, agents: usize, values: &[f64]) {
        let (name, unit, aim) = (self.name(figure, agents), described(figure).1, aim(figure, agents));
        match (values.first(), values.last()) {
            (Some(lowest), Some(highest)) => {
                let (median, range) = (median(values), format!("{lowest:.1} to {highest:.1}"));
                println!("{name:33} {agents:>6} {median:>10.1} {range:>22} {aim:>9}  {unit}");
            }
            _ => println!("{name:33} {agents:>6} {:>10} {:>22} {aim:>9}  {unit}", "-", "-"),
        }
    }

    fn json(&self, figure: Figure, agents: usize, values: &[f64]) -> Value {
        let (name, unit, aim) = (self.name(figure, agents), described(figure).1, aim(figure, agents));
        let of = self.runs.iter().filter(|run| run.figure == figure && run.agents == agents);
        let run = |run: &Run| {
            json!({
                "value": run.value,
                "words": run.words,
                "calibration": {
                    "fdatasync_us": run.machine.calibration.fdatasync_us,
                    "cpu_loop_ms": run.machine.calibration.cpu_loop_ms,
                    "load": run.machine.load,
                },
            })
        };
        let runs: Vec<Value> = of.map(run).collect();
        // Of outages the worst counts: each of them has to end in time.
        let value = match figure {
            Figure::Reconnect => values.last().copied(),
            _ => (!values.is_empty()).then(|| median(values)),
        };
        let missing = self.missing.iter().find(|(of, with, _)| *of == figure && *with == agents);
        let why = missing.map(|(_, _, why)| why.clone());
        let why = why.or_else(|| values.is_empty().then(|| "not asked for, see --only".to_owned()));
        json!({
            "name": name,
            "unit": unit,
            "value": value,
            "median": (!values.is_empty()).then(|| median(values)),
            "range": values.first().zip(values.last()).map(|(lowest, highest)| [*lowest, *highest]),
            "aim": aim,
            "nodes": agents,
            "runs": runs,
            "missing": why,
        })
    }
}

/// Of sorted values, at least one.
fn median(values: &[f64]) -> f64 {
    values[values.len() / 2]
}
