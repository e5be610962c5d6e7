//! Snapshots by the clock: the leader takes one, reads it back, and removes those that are too many.
//! In: a reader of the store, a directory. Out: files `<cluster time>.snapshot`, which sort by age.
//! Never: removes one because of one that could not be read back.

use super::{Owned, SnapshotError, Source, read, write};
use crate::api::Context;
use crate::config::SnapshotConfig;
use crate::identity::files::make_private_dir;
use crate::store::StoreError;
use crate::writer::Chain;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The end of a snapshot's name.
const EXTENSION: &str = "snapshot";

/// Why the schedule has missed one.
#[derive(Debug, thiserror::Error)]
enum MissedError {
    #[error("the store cannot be read")]
    Store {
        #[source]
        source: StoreError,
    },
    #[error("the control plane stops")]
    Stopping,
    #[error("the snapshot failed")]
    Snapshot {
        #[source]
        source: SnapshotError,
    },
    #[error("the snapshot read back is not what was stored")]
    Differs,
    #[error("the directory of the snapshots cannot be used")]
    Directory {
        #[source]
        source: std::io::Error,
    },
}

/// Takes snapshots while this control plane leads, until it stops.
pub(crate) async fn run(context: Context, config: SnapshotConfig, dir: PathBuf, reader: Owned) {
    if config.every_minutes == 0 {
        // Others may ask for one by hand.
        return context.stop.cancelled().await;
    }
    let every = Duration::from_secs(u64::from(config.every_minutes) * 60);
    let mut tick = interval_at(Instant::now() + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if context.writer.leadership().check().is_err() {
            continue;
        }
        let (dir, keep, now) = (dir.clone(), config.keep, context.environment.wall_unix_ms());
        let source = reader.source();
        let done = tokio::task::spawn_blocking(move || take(&source, &dir, keep, now)).await;
        let Ok(outcome) = done else { return };
        match outcome {
            Ok(path) => tracing::info!(path = %path.display(), "a snapshot was taken and read back"),
            Err(error) => tracing::error!(cause = %Chain(&error), "there is no new snapshot"),
        }
    }
}

fn take(source: &Source, dir: &Path, keep: usize, now: u64) -> Result<PathBuf, MissedError> {
    let snapshot = |source| MissedError::Snapshot { source };
    make_private_dir(dir).map_err(|source| MissedError::Directory { source })?;
    let content = source.load().ok_or(MissedError::Stopping)?;
    let content = content.map_err(|source| MissedError::Store { source })?;
    let path = dir.join(format!("{now:015}.{EXTENSION}"));
    write(&path, &content, now).map_err(snapshot)?;
    let (_, back) = read(&path).map_err(snapshot)?;
    if back != content {
        return Err(MissedError::Differs);
    }
    prune(dir, keep).map_err(|source| MissedError::Directory { source })?;
    Ok(path)
}

/// Removes the oldest beyond so many.
fn prune(dir: &Path, keep: usize) -> std::io::Result<()> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        // One from before an upgrade stays until somebody removes it.
        let by_the_clock =
            path.file_stem().is_some_and(|stem| stem.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if by_the_clock && path.extension().is_some_and(|extension| extension == EXTENSION) {
            all.push(path);
        }
    }
    all.sort();
    let surplus = all.len().saturating_sub(keep);
    all.iter().take(surplus).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::{Batch, CommitOutcome, Store};

    #[test]
    fn the_newest_are_kept_and_each_was_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = MemoryStore::new("one");
        store.campaign(0).unwrap();
        let dir = dir.path().join("snapshots");
        for now in 1..=5_u64 {
            assert_eq!(store.commit(1, now, &Batch::new()), CommitOutcome::Committed);
            take(&Owned::new(store.reader().unwrap()).source(), &dir, 3, now).unwrap();
        }
        let mut left: Vec<u64> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| read(&entry.unwrap().path()).unwrap().0.sequence)
            .collect();
        left.sort_unstable();
        assert_eq!(left, [3, 4, 5]);
    }
}
