//! Arguments of the commands about a node's life. In: arguments. Out: values. Never: acts.

use super::{AgentSocket, duration};
use clap::{Args, ValueEnum};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Name, id, or the beginning of one
    pub node: String,
    /// By when it shall be empty, like 10m
    #[arg(long, value_parser = duration::parse)]
    pub deadline: Option<Duration>,
    /// Stop what still runs at the deadline, at once without one; daemon tasks last
    #[arg(long)]
    pub stop_tasks: bool,
    /// Wait until no task is left on it; without --stop-tasks no longer than the deadline
    #[arg(long)]
    pub wait: bool,
    /// Why; shown with the node
    #[arg(long)]
    pub reason: Option<String>,
    #[arg(long)]
    pub cluster: Option<String>,
}

/// What kind of notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NoticeKind {
    Maintenance,
    SpotInterruption,
}

#[derive(Debug, Args)]
pub struct NoticeArgs {
    #[command(flatten)]
    pub socket: AgentSocket,
    /// What will happen
    #[arg(required_unless_present = "clear")]
    pub detail: Option<String>,
    /// In how long this machine goes, like 2h
    #[arg(long = "in", value_name = "TIME", value_parser = duration::parse)]
    pub after: Option<Duration>,
    #[arg(long, value_enum, default_value_t = NoticeKind::Maintenance)]
    pub kind: NoticeKind,
    /// Take the notice back
    #[arg(long, conflicts_with_all = ["detail", "after", "kind"])]
    pub clear: bool,
}

#[derive(Debug, Args)]
pub struct StopAgentArgs {
    #[command(flatten)]
    pub socket: AgentSocket,
    /// Stop every task of this node first, daemon tasks last
    #[arg(long, required = true)]
    pub tasks: bool,
    /// The agent goes on and takes no tasks until it is started again; for a machine's shutdown
    #[arg(long)]
    pub keep_agent: bool,
    /// Give up after this long; then the agent goes on
    #[arg(long, value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Why; kept with the tasks
    #[arg(long, default_value = "")]
    pub reason: String,
}
