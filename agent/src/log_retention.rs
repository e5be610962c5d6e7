//! Keeps the logs and journals of stopped tasks for a while, so that `lighter logs` and `lighter task
//! events` work after the stop: `<log_dir>/<task>` and `<data_dir>/events/<task>.jsonl`, for `logs.keep_stopped_hours` hours and the newest `logs.keep_stopped_tasks`.
//! In: directories with their last change, the tasks this node still holds. Out: removed directories.
//! Owns: one tokio task that looks every ten minutes. Never: removes the log of a task it holds.

use crate::config::LogConfig;
use crate::reconcile::CoreInput;
use crate::time::{sleep, unix_ms};
use lighter_model::ids::TaskId;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(600);

/// What is kept of stopped tasks.
#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    /// `<task>/`: container output.
    pub logs: PathBuf,
    /// `<task>.jsonl`: the journal.
    pub events: PathBuf,
}

/// Removes what is over, now and then, until the agent leaves.
pub(crate) async fn run(
    dirs: Dirs,
    config: LogConfig,
    reconciler: mpsc::Sender<CoreInput>,
    leaving: CancellationToken,
) {
    loop {
        let (answer, got) = oneshot::channel();
        let _ = reconciler.send(CoreInput::LocalTasks { answer }).await;
        let Ok(tasks) = got.await else { return };
        let held = tasks.into_iter().map(|task| task.assignment.task).collect();
        let (dirs, keep) = (dirs.clone(), config.clone());
        let _ = tokio::task::spawn_blocking(move || remove_all_old(&dirs, &keep, &held)).await;
        tokio::select! {
            () = leaving.cancelled() => return,
            () = sleep(EVERY) => {}
        }
    }
}

fn remove_all_old(dirs: &Dirs, config: &LogConfig, held: &BTreeSet<TaskId>) {
    remove_old(&dirs.logs, config, held);
    for task in over(journals_on_disk(&dirs.events), config, held, unix_ms()) {
        if let Err(error) = std::fs::remove_file(dirs.events.join(format!("{task}.jsonl"))) {
            tracing::warn!(%task, cause = %error, "its old journal is not removed");
        }
    }
}

/// As `logs_on_disk`, of journals.
fn journals_on_disk(dir: &Path) -> Vec<(TaskId, u64)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = entries.filter_map(|entry| {
        let task = entry.file_name().to_str()?.strip_suffix(".jsonl")?.parse().ok()?;
        Some((task, unix_ms_of(entry.metadata().ok()?.modified().ok()?)))
    });
    each.collect()
}

fn unix_ms_of(time: std::time::SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn remove_old(log_dir: &Path, config: &LogConfig, held: &BTreeSet<TaskId>) {
    let found = logs_on_disk(log_dir);
    for task in over(found, config, held, unix_ms()) {
        if let Err(error) = std::fs::remove_dir_all(log_dir.join(task.as_str())) {
            tracing::warn!(%task, cause = %error, "its old logs are not removed");
        }
    }
}

/// Removes logs of tasks that are gone, oldest first, until so many bytes are free: the disk is fuller
/// than images alone can mend.
pub(crate) async fn make_room(log_dir: PathBuf, held: BTreeSet<TaskId>, to_free: u64) {
    let work = move || {
        let sized = logs_on_disk(&log_dir).into_iter();
        let sized = sized.map(|(task, changed)| {
            let files = std::fs::read_dir(log_dir.join(task.as_str())).into_iter().flatten().flatten();
            let bytes = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            (task, changed, bytes)
        });
        for task in oldest(sized.collect(), &held, to_free) {
            match std::fs::remove_dir_all(log_dir.join(task.as_str())) {
                Ok(()) => tracing::info!(%task, "its logs are removed: the disk is full"),
                Err(error) => tracing::warn!(%task, cause = %error, "its old logs are not removed"),
            }
        }
    };
    // A panic there has been printed; the next look tries again.
    let _ = tokio::task::spawn_blocking(work).await;
}

/// The oldest logs that together have so many bytes. Pure.
fn oldest(mut found: Vec<(TaskId, u64, u64)>, held: &BTreeSet<TaskId>, to_free: u64) -> Vec<TaskId> {
    found.retain(|(task, _, bytes)| !held.contains(task) && *bytes > 0);
    found.sort_by_key(|(_, changed, _)| *changed);
    let mut freed = 0;
    let enough = |(_, _, bytes): &(TaskId, u64, u64)| {
        let before = freed;
        freed += bytes;
        before < to_free
    };
    found.into_iter().take_while(enough).map(|(task, _, _)| task).collect()
}

/// Tasks with logs and when those were last changed, in milliseconds since the Unix epoch.
fn logs_on_disk(log_dir: &Path) -> Vec<(TaskId, u64)> {
    let entries = std::fs::read_dir(log_dir).into_iter().flatten().flatten();
    let each = entries.filter_map(|entry| {
        let task = entry.file_name().to_str()?.parse().ok()?;
        let files = std::fs::read_dir(entry.path()).ok()?.flatten();
        let times = files.filter_map(|file| file.metadata().ok()?.modified().ok());
        let last = times.chain(entry.metadata().ok()?.modified().ok()).max()?;
        Some((task, unix_ms_of(last)))
    });
    each.collect()
}

/// Whose logs are to go: too old, or beyond the newest so many. Pure.
fn over(
    mut found: Vec<(TaskId, u64)>,
    config: &LogConfig,
    held: &BTreeSet<TaskId>,
    now_unix_ms: u64,
) -> Vec<TaskId> {
    found.retain(|(task, _)| !held.contains(task));
    found.sort_by_key(|(_, changed)| std::cmp::Reverse(*changed));
    let oldest = now_unix_ms.saturating_sub(config.keep_stopped_hours.saturating_mul(3_600_000));
    let too_many = config.keep_stopped_tasks;
    let each = found.into_iter().enumerate();
    each.filter(|(place, (_, changed))| *place >= too_many || *changed < oldest)
        .map(|(_, (task, _))| task)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_surplus_logs_go_and_those_of_held_tasks_stay() {
        let hour = 3_600_000;
        let task = |number| TaskId::from_parts(number, 0);
        let found = (1..=5).map(|number| (task(number), number * hour)).collect();
        let config = LogConfig { keep_stopped_hours: 3, keep_stopped_tasks: 2, ..LogConfig::default() };
        let held = [task(1)].into();
        // Held: 1. Kept: 5 and 4 by number. 3 is surplus, 2 is too old and surplus.
        assert_eq!(over(found, &config, &held, 6 * hour), [task(3), task(2)]);
    }

    #[test]
    fn a_full_disk_takes_the_oldest_logs_and_no_more_than_needed() {
        let task = |number| TaskId::from_parts(number, 0);
        let found = [(3, 30, 10), (1, 10, 10), (2, 20, 10), (4, 5, 0)];
        let found: Vec<_> =
            found.into_iter().map(|(number, changed, bytes)| (task(number), changed, bytes)).collect();
        assert_eq!(oldest(found.clone(), &[task(1)].into(), 11), [task(2), task(3)]);
        assert_eq!(oldest(found.clone(), &BTreeSet::new(), 10), [task(1)]);
        assert!(oldest(found, &BTreeSet::new(), 0).is_empty());
    }
}
