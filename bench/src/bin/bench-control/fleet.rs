//! The nodes' process, seen from the one that measures. Owns: the process.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Fleet {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Of all nodes together.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub connected: usize,
    pub in_sync: usize,
    pub held: usize,
    pub applied: usize,
    pub ended: usize,
    pub why: String,
}

impl Fleet {
    pub(crate) fn start(endpoints: &[SocketAddr], identities: &Path, ca: &Path) -> Result<Self> {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["agents", "--endpoints", &endpoints.join(","), "--identities"])
            .arg(identities)
            .arg("--ca")
            .arg(ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the nodes")?;
        let commands = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, commands, answers })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.commands, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        anyhow::ensure!(!answer.is_empty(), "the nodes' process has ended");
        Ok(answer)
    }

    pub(crate) fn status(&mut self) -> Result<Status> {
        Ok(serde_json::from_str(&self.ask("status")?)?)
    }

    /// When each assignment came since the last dump.
    pub(crate) fn came(&mut self, scratch: &Path) -> Result<Vec<(String, u64)>> {
        let file = scratch.join("came");
        self.ask(&format!("dump {}", file.display()))?;
        let text = std::fs::read_to_string(&file)?;
        let line = |line: &str| -> Result<(String, u64)> {
            let (task, at_ns) = line.split_once(' ').context("a line without a time")?;
            Ok((task.to_owned(), at_ns.parse()?))
        };
        text.lines().map(line).collect()
    }

    /// Waits until the nodes say so; fails with what they say when it takes too long.
    pub(crate) async fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status()?;
            if done(&status) {
                return Ok(status);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{what} took longer than {limit:?}: {} connected, {} in sync, {} tasks held, {} reports applied; \
                 the last session of {} ended: {}",
                status.connected,
                status.in_sync,
                status.held,
                status.applied,
                status.ended,
                status.why
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
