//! What is measured, and how often.
//! In: flags. Out: a `Plan`, or the settings of the nodes' process. Owns nothing.

use clap::{Args, Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The program measures, or is the process of the nodes.
#[derive(Debug, Parser)]
#[command(about = "Measures a control plane of Lighter")]
pub(crate) enum Mode {
    /// Measure
    Measure(Plan),
    /// Measure single decisions of the scheduler, in this process, and print every case
    Decisions,
    /// Be the nodes (started by `measure`)
    #[command(hide = true)]
    Agents(AgentSettings),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// Placements a second with 10 tasks a call, on redb
    Count10,
    /// The same with 1 task a call
    Count1,
    /// Count10 with binpack by memory
    Binpack,
    /// Count10 with spread over zones, then instances
    Spread,
    /// Count10 with distinctInstance
    Distinct,
    /// Count10 with memberOf
    MemberOf,
    /// With 10 tasks a call, on etcd of one member
    Etcd,
    /// From the call to the assignment on the node
    Latency,
    Memory,
    Reconnect,
    Takeover,
    /// Rolling update of a service
    Rolling,
    /// Drain of a tenth of the nodes
    Drain,
    /// One decision of the scheduler, in this process: median and 99th percentile
    Decision,
    /// The 99th percentile that is measured with `Decision`
    #[value(skip)]
    DecisionTail,
}

/// How often placements by strategy, services and decisions are measured at most unless `--only` names them: the whole has to end in time.
const RUNS_OF_THE_LATER: usize = 2;

#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// Nodes of the cluster, in this order; the largest number is what the aims are about
    #[arg(long, value_delimiter = ',', default_value = "5000,1000")]
    pub agents: Vec<usize>,
    /// Tasks of one run
    #[arg(long, default_value_t = 100_000)]
    pub tasks: usize,
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// RunTask calls at a time
    #[arg(long, default_value_t = 128)]
    pub callers: usize,
    /// Connections that the callers share
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Tasks of the service that is updated and drained
    #[arg(long, default_value_t = 1_000)]
    pub service_tasks: usize,
    /// Nodes among which single decisions are made
    #[arg(long, value_delimiter = ',', default_value = "5000,20000")]
    pub decision_nodes: Vec<usize>,
    /// Tasks a second while the latency is measured
    #[arg(long, default_value_t = 1_000)]
    pub rate: usize,
    /// Seconds without a control plane, of each kind of outage; the first as often as `runs`, others once
    #[arg(long, value_delimiter = ',', default_value = "10,300")]
    pub outages: Vec<u64>,
    /// After so long no further run begins; what is then left out is named, with null in control.json
    #[arg(long, default_value_t = 22)]
    pub minutes: u64,
    /// Figures to measure; all if none is named
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Figure>,
    /// The directory of `lighter`
    #[arg(long, env = "LIGHTER_BIN_DIR")]
    pub bin_dir: PathBuf,
    /// Where control.json goes
    #[arg(long, env = "LIGHTER_BENCH_DIR", default_value = "target/bench")]
    pub out: PathBuf,
    /// Where stores are kept meanwhile: on the disk that is to be measured
    #[arg(long)]
    pub scratch: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }
    /// How often a figure is measured.
    pub(crate) fn runs_of(&self, figure: Figure) -> usize {
        let later = [
            Figure::Binpack,
            Figure::Spread,
            Figure::Distinct,
            Figure::MemberOf,
            Figure::Rolling,
            Figure::Drain,
            Figure::Decision,
        ];
        match self.only.is_empty() && later.contains(&figure) {
            true => self.runs.min(RUNS_OF_THE_LATER),
            false => self.runs,
        }
    }
    pub(crate) fn most_agents(&self) -> usize {
        self.agents.iter().copied().max().unwrap_or(1)
    }
    pub(crate) fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
    /// The nodes are 80 % full at the end of a run: places of one node on average.
    pub(crate) fn places_per_node(&self, agents: usize) -> usize {
        (self.tasks * 5).div_ceil(agents * 4).max(4)
    }
}

/// Settings of the nodes' process.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentSettings {
    /// Control planes, tried in turn
    #[arg(long, value_delimiter = ',')]
    pub endpoints: Vec<SocketAddr>,
    /// One node a line, see `join.rs`
    #[arg(long)]
    pub identities: PathBuf,
    /// PEM file of the CA
    #[arg(long)]
    pub ca: PathBuf,
}
