//! From the call that asks for a task to the first instruction of its program.
//! The program sends its own monotonic clock through a bind-mounted socket, so the figure does not
//! contain the time the benchmark takes to look.

use crate::Plan;
use crate::ours::Cluster;
use crate::statistics::Series;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};

/// How long one start may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The socket the program connects to.
pub(crate) struct FirstInstruction {
    listener: UnixListener,
}

impl FirstInstruction {
    pub(crate) fn listen(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("first.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener })
    }
    /// Waits for one program; the stream keeps it running until it is dropped.
    pub(crate) async fn next(&self) -> Result<(u64, UnixStream)> {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept())
            .await
            .context("no start within 30 s")??;
        let ns = stream.read_u64_le().await?;
        Ok((ns, stream))
    }
}

/// The monotonic clock in nanoseconds, as the program reads it.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Milliseconds of each run, warm-up left out.
pub(crate) async fn ours(cluster: &Cluster, plan: &Plan) -> Result<Series> {
    let first = FirstInstruction::listen(&cluster.socket_dir())?;
    let mut samples = Vec::new();
    for run in 0..plan.warm_up + plan.runs {
        let called = monotonic_ns();
        let task = cluster.run_one().await?;
        let (began, stream) = first.next().await?;
        if run >= plan.warm_up {
            samples.push((began.saturating_sub(called)) as f64 / 1e6);
        }
        drop(stream);
        cluster.wait_stopped(&task).await?;
    }
    Ok(Series::new(samples))
}
