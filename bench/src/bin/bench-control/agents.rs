//! The process of the nodes: each a client of its own with a connection of its own.
//! In: identities; commands on stdin: `status`, `dump FILE`, `quit`. Out: one JSON line for each.
//! Owns: the nodes' counters. It ends when stdin does, so that none is left behind.

use super::agent::{Agent, Counters};
use super::plan::AgentSettings;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncBufReadExt, BufReader};

pub(crate) async fn run(settings: AgentSettings) -> Result<()> {
    let counters = Arc::new(Counters::default());
    let ca = std::fs::read_to_string(&settings.ca)?;
    let identities = std::fs::read_to_string(&settings.identities)?;
    for (number, line) in identities.lines().enumerate() {
        let identity: Value = serde_json::from_str(line)?;
        let agent = Agent::new(number, &identity, &ca, &settings.endpoints, counters.clone())?;
        tokio::spawn(agent.run());
    }
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        let answer = match command.split_once(' ') {
            Some(("dump", path)) => dump(&counters, path)?,
            _ if command == "status" => status(&counters),
            _ => break,
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn status(counters: &Counters) -> Value {
    json!({
        "connected": counters.connected.load(Ordering::Relaxed),
        "in_sync": counters.in_sync.load(Ordering::Relaxed),
        "held": counters.held.load(Ordering::Relaxed),
        "applied": counters.applied.load(Ordering::Relaxed),
        "ended": counters.ended.load(Ordering::Relaxed),
        "why": *counters.why.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
    })
}

/// Writes when each assignment came, one a line: task, nanoseconds of the monotonic clock.
fn dump(counters: &Counters, path: &str) -> Result<Value> {
    let came = std::mem::take(&mut *counters.came.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let mut text = String::new();
    for (task, at_ns) in &came {
        writeln!(text, "{task} {at_ns}")?;
    }
    std::fs::write(path, text).context("write the times")?;
    Ok(json!({ "dumped": came.len() }))
}
