//! User namespaces of tasks: which ids of the host each has, and what is made for it before anything
//! else: the namespace itself and the image layers as its ids see them, both mounts that last as
//! long as the task's directory.
//! In: the node's range, a task. Out: `<task directory>/ids/{range,user,layers}`; network namespaces
//! that belong to it. Owns which part of the range a task has: the files say so, not memory.
//! Source: user_namespaces(7), mount_setattr(2).
//! Never: gives one id to two tasks; makes a namespace itself: `lighter-shim namespaces` does.

use crate::config::RuntimeConfig;
use crate::runtime::Runtime;
use crate::runtime::namespaces::{ShareError, run_helper};
use lighter_model::ids::TaskId;
use lighter_model::resources::IdRange;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Ids of one task: what images use, `nobody` and `nogroup` included.
pub const IDS_PER_TASK: u32 = 1 << 16;

/// Choosing looks at all tasks and must not overlap with another choice.
static CHOICE: Mutex<()> = Mutex::new(());

/// The ids of a task, and what is shown through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedIds {
    pub ids: IdRange,
    /// The image store, read-only, with owners as the task's user namespace has them.
    pub layers: PathBuf,
}

/// Why a task has no ids of its own.
#[derive(Debug, thiserror::Error)]
pub enum MapIdsError {
    #[error("all {offered} ranges of user_namespaces are in use; stop a task, or raise tasks_max")]
    NoneFree { offered: u32 },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("its user namespace cannot be made")]
    Namespace(#[source] ShareError),
}

impl RuntimeConfig {
    fn ids_dir(&self, task: &TaskId) -> PathBuf {
        self.task_dir(task).join("ids")
    }

    /// The ids of a task that has a user namespace.
    pub fn ids_of(&self, task: &TaskId) -> Option<IdRange> {
        read(&self.ids_dir(task))
    }

    /// Where its user namespace is mounted.
    pub(crate) fn user_namespace(&self, task: &TaskId) -> PathBuf {
        self.ids_dir(task).join("user")
    }
}

fn read(directory: &Path) -> Option<IdRange> {
    let text = fs::read_to_string(directory.join("range")).ok()?;
    let (first, count) = text.trim().split_once(':')?;
    Some(IdRange { first: first.parse().ok()?, count: count.parse().ok()? })
}

/// The first part of the node's range that nobody has.
fn choose(offered: IdRange, taken: &BTreeSet<u32>) -> Option<IdRange> {
    let parts = (0..offered.count / IDS_PER_TASK).map(|part| offered.first + part * IDS_PER_TASK);
    let mut free = parts.filter(|first| !taken.contains(first));
    free.next().map(|first| IdRange { first, count: IDS_PER_TASK })
}

impl Runtime {
    /// Gives a task ids of its own and makes its user namespace; again gives the same. `layers` is the
    /// directory of the image store. To be called before anything else of the task is made.
    pub async fn map_ids(&self, task: &TaskId, layers: &Path) -> Result<MappedIds, MapIdsError> {
        let directory = self.config().ids_dir(task);
        if let Some(ids) = read(&directory) {
            return Ok(MappedIds { ids, layers: directory.join("layers") });
        }
        // Under another name until all is there: a half-made one is never taken for whole.
        let unfinished = directory.with_extension("new");
        clear(&unfinished);
        let ids = self.reserve(&unfinished)?;
        let (range, text) =
            (format!("{}:{}", ids.first, ids.count), |path: &Path| path.to_string_lossy().into_owned());
        let arguments = [
            "--dir".to_owned(),
            text(&unfinished),
            "--user".to_owned(),
            range,
            "--layers".to_owned(),
            text(layers),
        ];
        run_helper(self.config(), &arguments).await.map_err(MapIdsError::Namespace)?;
        // A mount moves with the directory it is in.
        fs::rename(&unfinished, &directory)
            .map_err(|source| MapIdsError::Write { path: directory.clone(), source })?;
        Ok(MappedIds { ids, layers: directory.join("layers") })
    }

    /// Writes down a free part of the node's range.
    fn reserve(&self, directory: &Path) -> Result<IdRange, MapIdsError> {
        let offered = self.config().user_ids;
        let _guard = CHOICE.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = fs::read_dir(self.config().tasks_dir()).into_iter().flatten().flatten();
        let both = tasks.flat_map(|task| ["ids", "ids.new"].map(|name| task.path().join(name)));
        let taken: BTreeSet<u32> = both.filter_map(|ids| read(&ids)).map(|ids| ids.first).collect();
        let none = MapIdsError::NoneFree { offered: offered.count / IDS_PER_TASK };
        let ids = choose(offered, &taken).ok_or(none)?;
        let path = directory.join("range");
        let write = || {
            // The task's directory is root's alone.
            crate::runtime::private_directory(directory.parent().unwrap_or(directory))?;
            fs::create_dir_all(directory)?;
            fs::write(&path, format!("{}:{}", ids.first, ids.count))
        };
        write().map_err(|source| MapIdsError::Write { path: path.clone(), source })?;
        Ok(ids)
    }

    /// Makes a network namespace at `path` that belongs to the task's user namespace, so that the
    /// task's root is root there; leaves one that is mounted there already.
    pub async fn make_netns(&self, task: &TaskId, path: &Path) -> Result<(), ShareError> {
        if is_namespace(path) {
            return Ok(());
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (directory, user) = (self.config().ids_dir(task), self.config().user_namespace(task));
        let arguments = ["--dir", &text(&directory), "--join-user", &text(&user), "--net", &text(path)];
        run_helper(self.config(), &arguments.map(str::to_owned)).await
    }

    /// Takes away what `map_ids` made; what is not there is no error.
    pub(crate) fn unmap_ids(&self, task: &TaskId) {
        clear(&self.config().ids_dir(task));
        clear(&self.config().ids_dir(task).with_extension("new"));
    }
}

fn is_namespace(path: &Path) -> bool {
    /// From linux/magic.h.
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
}

/// `layers` is read-only: nothing of the store could be removed through it.
fn clear(directory: &Path) {
    for name in ["user", "layers"] {
        let path = directory.join(name);
        if path.exists() {
            // EINVAL: it is no mount.
            let _ = unmount(&path, UnmountFlags::DETACH);
        }
    }
    let _ = fs::remove_dir_all(directory);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_tasks_have_an_id_in_common(parts in 1u32..6, gone in proptest::collection::vec(0usize..6, 0..12)) {
            let offered = IdRange { first: 0x7000_0000, count: parts * IDS_PER_TASK };
            let mut taken = BTreeSet::new();
            for leaves in gone {
                if let Some(ids) = choose(offered, &taken) {
                    prop_assert!(ids.first >= offered.first && ids.first - offered.first + ids.count <= offered.count);
                    prop_assert!(taken.insert(ids.first));
                } else {
                    prop_assert_eq!(taken.len(), parts as usize);
                }
                if let Some(first) = taken.iter().nth(leaves).copied() {
                    taken.remove(&first);
                }
            }
        }
    }
}
