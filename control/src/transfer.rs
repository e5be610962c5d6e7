//! A store's content taken out of it, put into it, or moved to another: with no control plane running.
//! In: configurations, a snapshot. Out: a store with a new incarnation, so that agents stop nothing
//! on its word alone: what it does not know they keep, and show as orphans.
//! Never: touches a store that a control plane leads, or overwrites one that is not empty unasked.

use crate::config::ControlConfig;
use crate::core::queue;
use crate::environment::Environment;
use crate::identity::files::make_private_dir;
use crate::snapshot::{self, Header, SnapshotError};
use crate::start::open_store;
use crate::store::{Campaign, Loaded, Store, StoreError, mark};
use std::path::{Path, PathBuf};

/// Why nothing was transferred.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("the data directory {path:?} cannot be made")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the {which} store cannot be used; is a control plane running on it?")]
    Store {
        which: &'static str,
        #[source]
        source: StoreError,
    },
    #[error("a control plane leads the {which} store: stop it first")]
    Led { which: &'static str },
    #[error("the snapshot cannot be used")]
    Snapshot {
        #[source]
        source: SnapshotError,
    },
    #[error("the store has {records} records already; give --force to replace them")]
    NotEmpty { records: usize },
}

fn open(config: &ControlConfig, which: &'static str) -> Result<Box<dyn Store>, TransferError> {
    let dir = &config.data_dir;
    make_private_dir(dir).map_err(|source| TransferError::DataDir { path: dir.clone(), source })?;
    let store_error = |source| TransferError::Store { which, source };
    let mut store = open_store(config, &Environment::default()).map_err(store_error)?;
    // Whoever leads keeps all others from committing meanwhile.
    match store.campaign(0).map_err(store_error)? {
        Campaign::Elected { .. } => Ok(store),
        Campaign::Standby(_) => Err(TransferError::Led { which }),
    }
}

/// `moved`: nothing happened since the content was taken.
fn put(config: &ControlConfig, mut content: Loaded, force: bool, moved: bool) -> Result<(), TransferError> {
    const WHICH: &str = "target";
    let store_error = |source| TransferError::Store { which: WHICH, source };
    let mut store = open(config, WHICH)?;
    let there = store.load("").map_err(store_error)?.records.len();
    if there > 0 && !force {
        store.resign();
        return Err(TransferError::NotEmpty { records: there });
    }
    let incarnation = Environment::default().random_hex();
    if moved {
        queue::moved(&mut content.records, mark(&content.incarnation), mark(&incarnation));
    }
    let done = store.restore(&Loaded { incarnation, ..content });
    store.resign();
    done.map_err(store_error)
}

/// Writes a snapshot of a store that no control plane leads.
pub fn save(config: &ControlConfig, path: &Path) -> Result<Header, TransferError> {
    const WHICH: &str = "source";
    let store_error = |source| TransferError::Store { which: WHICH, source };
    let mut store = open(config, WHICH)?;
    let content = store.load("").map_err(store_error);
    store.resign();
    let now = Environment::default().wall_unix_ms();
    snapshot::write(path, &content?, now).map_err(|source| TransferError::Snapshot { source })
}

/// Puts a snapshot's content into the store of a configuration.
pub fn restore(config: &ControlConfig, path: &Path, force: bool) -> Result<Header, TransferError> {
    let (header, content) = snapshot::read(path).map_err(|source| TransferError::Snapshot { source })?;
    put(config, content, force, false)?;
    Ok(header)
}

/// Copies everything from one configuration's store to another's; the first is left as it is.
pub fn migrate(from: &ControlConfig, to: &ControlConfig, force: bool) -> Result<usize, TransferError> {
    const WHICH: &str = "source";
    let store_error = |source| TransferError::Store { which: WHICH, source };
    // Held until the copy is whole.
    let mut source = open(from, WHICH)?;
    let content = source.load("").map_err(store_error)?;
    let records = content.records.len();
    let done = put(to, content, force, true);
    source.resign();
    done.map(|()| records)
}
