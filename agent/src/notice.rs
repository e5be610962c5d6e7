//! What the machine is told of its own end (spot interruptions, maintenance), from pluggable
//! sources, asked again and again. In: `NoticeSource`s. Out: the notices there are, on a watch
//! channel; the session passes them on, and the control plane drains the node.
//! Owns: one tokio task. A source that fails keeps what it said last.
//! Never: stops a task; the control plane does, when the node's policy asks for it.

mod file;
mod imds;
mod moment;

pub(crate) use file::{FileSource, remove, write};
pub(crate) use imds::ImdsSource;

use crate::config::NoticeConfig;
use crate::errors::{Cause, chain};
use crate::time::sleep;
use futures_util::future::BoxFuture;
use lighter_model::node::Notice;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// EC2 gives two minutes' notice of a spot interruption and advises to look every five seconds.
const INTERVAL: Duration = Duration::from_secs(2);

/// Where notices come from.
pub(crate) trait NoticeSource: Send + 'static {
    fn name(&self) -> &'static str;
    /// Every notice that stands now; may be dropped at any time.
    fn check(&mut self) -> BoxFuture<'_, Result<Vec<Notice>, Cause>>;
}

/// The sources that the configuration asks for.
pub(crate) fn sources(config: &NoticeConfig, run_dir: &Path) -> Vec<Box<dyn NoticeSource>> {
    let mut sources: Vec<Box<dyn NoticeSource>> = vec![Box::new(FileSource::new(run_dir))];
    if !config.imds_endpoint.is_empty() {
        sources.push(Box::new(ImdsSource::new(&config.imds_endpoint)));
    }
    sources
}

/// When tasks are to be stopped for a notice, by the node's policy. Pure.
fn with_policy(mut notice: Notice, config: &NoticeConfig) -> Notice {
    let before = config.stop_tasks_before_s.filter(|_| notice.at_unix_ms > 0);
    notice.stop_tasks_at_unix_ms =
        before.map(|seconds| notice.at_unix_ms.saturating_sub(seconds.saturating_mul(1000)).max(1));
    notice
}

/// Asks all sources until the agent leaves; `asked` is cancelled when each was asked once.
pub(crate) async fn run(
    mut sources: Vec<Box<dyn NoticeSource>>,
    config: NoticeConfig,
    notices: watch::Sender<Vec<Notice>>,
    asked: CancellationToken,
    leaving: CancellationToken,
) {
    let mut known: Vec<Vec<Notice>> = vec![Vec::new(); sources.len()];
    let mut failing = vec![false; sources.len()];
    loop {
        for (index, source) in sources.iter_mut().enumerate() {
            let checked = tokio::select! {
                () = leaving.cancelled() => return,
                checked = source.check() => checked,
            };
            if let Err(error) = &checked
                && !failing[index]
            {
                // Once for each row of failures: a machine without the service would fill the log.
                tracing::warn!(source = source.name(), cause = %chain(error.as_ref()), "no word on this machine's future");
            }
            failing[index] = checked.is_err();
            if let Ok(found) = checked {
                known[index] = found.into_iter().map(|notice| with_policy(notice, &config)).collect();
            }
        }
        let mut all: Vec<Notice> = known.iter().flatten().cloned().collect();
        all.sort();
        notices.send_if_modified(|current| {
            let news = *current != all;
            if news {
                tracing::warn!(notices = ?all, "what this machine is told of its end has changed");
                *current = std::mem::take(&mut all);
            }
            news
        });
        asked.cancel();
        tokio::select! {
            () = leaving.cancelled() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests;
