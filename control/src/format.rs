//! Formats of the store's records, and the way from an older one to ours.
//! In: everything that is stored, as a new leader has loaded it. Out: the same in our format, durable.
//! The first byte of every value is its format. A newer program brings older records up in steps, each
//! a pure function from one format to the next, after a snapshot of everything as it was; the leader
//! does it, under its fence, before anybody is served. The record `meta` goes first: an older program
//! looks at it before it asks for the lead, and stands aside with words.
//! Never: guesses a newer format, or writes before the snapshot was read back. Steps may be cut off
//! anywhere: each record says which format it has, and the next leader goes on.

use crate::core::mutation::key;
use crate::core::record::FORMAT_VERSION;
use crate::environment::Environment;
use crate::identity::files::make_private_dir;
use crate::snapshot::{self, SnapshotError};
use crate::store::{Batch, CommitOutcome, Loaded, Store, StoreError};
use std::path::PathBuf;

/// One record on its way: its key and its JSON.
pub type Record = (String, serde_json::Value);

/// From one format to the next; records may be made, changed or left out.
pub type Step = fn(Record) -> Result<Vec<Record>, serde_json::Error>;

/// Bytes and records of one batch: within what one transaction of etcd takes.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_RECORDS: usize = 100;

/// What a program knows.
#[derive(Debug, Clone, Copy)]
pub struct Formats {
    /// The format it writes.
    pub ours: u8,
    /// `steps[n]` goes from format n + 1 to n + 2; as many as `ours` less one.
    pub steps: &'static [Step],
}

impl Formats {
    /// Of this program. There is one format yet, so there is no step.
    pub const THIS_PROGRAM: Self = Self { ours: FORMAT_VERSION, steps: &[] };
}

/// How records are brought up.
#[derive(Debug, Clone)]
pub struct Upgrade {
    pub formats: Formats,
    /// Where the snapshot before goes.
    pub directory: PathBuf,
    pub environment: Environment,
}

/// Why records are not in our format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(
        "the store has format {found} and this program knows up to {ours}: it was written by a newer \
         program; run that one, or restore the snapshot that was taken before the upgrade"
    )]
    Newer { found: u8, ours: u8 },
    #[error("record {key:?} cannot be brought from format {from} to {}", from + 1)]
    Step {
        key: String,
        from: u8,
        #[source]
        source: serde_json::Error,
    },
    #[error("record {key:?} has no format")]
    Empty { key: String },
    #[error("there is no snapshot of the store as it was, so it stays as it is")]
    Snapshot {
        #[source]
        source: SnapshotError,
    },
    #[error("the snapshot read back is not what was stored, so the store stays as it is")]
    SnapshotDiffers,
    #[error("a batch of the upgrade was not taken ({outcome:?}); the next leader goes on with it")]
    NotTaken { outcome: CommitOutcome },
}

impl From<FormatError> for StoreError {
    fn from(source: FormatError) -> Self {
        Self::Format { source: Box::new(source) }
    }
}

/// Refuses what a newer program has written.
pub fn check<'a>(
    formats: Formats,
    records: impl IntoIterator<Item = &'a (String, Vec<u8>)>,
) -> Result<(), FormatError> {
    let newest = records.into_iter().filter_map(|(_, value)| value.first().copied()).max();
    match newest {
        Some(found) if found > formats.ours => Err(FormatError::Newer { found, ours: formats.ours }),
        _ => Ok(()),
    }
}

/// Whether an older program has written something.
fn is_older(formats: Formats, value: &[u8]) -> bool {
    value.first().is_some_and(|format| *format < formats.ours)
}

/// One record in our format, with all that the steps made of it.
pub fn bring_up(formats: Formats, key: &str, value: &[u8]) -> Result<Vec<(String, Vec<u8>)>, FormatError> {
    let Some((&from, json)) = value.split_first() else {
        return Err(FormatError::Empty { key: key.to_owned() });
    };
    let failed = |from| move |source| FormatError::Step { key: key.to_owned(), from, source };
    let json = serde_json::from_slice(json).map_err(failed(from))?;
    let mut records = vec![(key.to_owned(), json)];
    for (format, step) in (1..).zip(formats.steps).skip_while(|(format, _)| *format < from) {
        let mut next = Vec::with_capacity(records.len());
        for record in records {
            next.extend(step(record).map_err(failed(format))?);
        }
        records = next;
    }
    let bytes = |(key, json): Record| {
        let mut value = vec![formats.ours];
        serde_json::to_writer(&mut value, &json).map_err(failed(formats.ours))?;
        Ok((key, value))
    };
    records.into_iter().map(bytes).collect()
}

/// Everything in our format, in memory.
pub fn all(formats: Formats, records: &[(String, Vec<u8>)]) -> Result<Vec<(String, Vec<u8>)>, FormatError> {
    check(formats, records)?;
    let mut all = Vec::with_capacity(records.len());
    for (key, value) in records {
        if is_older(formats, value) {
            all.extend(bring_up(formats, key, value)?);
        } else {
            all.push((key.clone(), value.clone()));
        }
    }
    Ok(all)
}

/// What has to be written, `meta` first, in batches that any store takes.
fn batches(formats: Formats, records: &[(String, Vec<u8>)]) -> Result<Vec<Batch>, FormatError> {
    let mut older: Vec<_> = records.iter().filter(|(_, value)| is_older(formats, value)).collect();
    older.sort_by_key(|(key, _)| key != key::META);
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Batch::new(), 0);
    for (key, value) in older {
        batch.insert(key.clone(), None);
        for (key, value) in bring_up(formats, key, value)? {
            bytes += key.len() + value.len();
            batch.insert(key, Some(value));
        }
        if batch.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    Ok(batches)
}

impl Upgrade {
    /// Brings up what a leader has loaded in its term; what it then has.
    pub fn run(&self, store: &mut dyn Store, loaded: Loaded) -> Result<Loaded, StoreError> {
        check(self.formats, &loaded.records)?;
        let batches = batches(self.formats, &loaded.records)?;
        if batches.is_empty() {
            return Ok(loaded);
        }
        let path = self.snapshot(&loaded)?;
        let (records, ours) = (loaded.records.len(), self.formats.ours);
        tracing::warn!(records, format = ours, snapshot = %path.display(), "the store is brought to this program's format");
        let Loaded { incarnation, term, mut sequence, records } = loaded;
        let mut records: std::collections::BTreeMap<_, _> = records.into_iter().collect();
        for batch in batches {
            match store.commit(term, sequence + 1, &batch) {
                CommitOutcome::Committed => sequence += 1,
                outcome => return Err(FormatError::NotTaken { outcome }.into()),
            }
            for (key, value) in batch {
                match value {
                    Some(value) => records.insert(key, value),
                    None => records.remove(&key),
                };
            }
        }
        Ok(Loaded { incarnation, term, sequence, records: records.into_iter().collect() })
    }

    fn snapshot(&self, loaded: &Loaded) -> Result<PathBuf, FormatError> {
        let snapshot = |source| FormatError::Snapshot { source };
        let now = self.environment.wall_unix_ms();
        let path = self.directory.join(format!("before-format-{}-{now:015}.snapshot", self.formats.ours));
        make_private_dir(&self.directory)
            .map_err(|source| snapshot(SnapshotError::Write { path: self.directory.clone(), source }))?;
        snapshot::write(&path, loaded, now).map_err(snapshot)?;
        let (_, back) = snapshot::read_any(&path).map_err(snapshot)?;
        if back != *loaded {
            return Err(FormatError::SnapshotDiffers);
        }
        Ok(path)
    }
}
