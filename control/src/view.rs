//! What readers are shown: the committed state and nothing ahead of it.
//! In: committed mutations from the writer. Out: short looks at the state, and what changed.
//! Owns: the shown state, the sessions' and watchers' subscriptions.
//! Never: shows what is not durable, and never waits for a reader: who falls behind is cut off.

use crate::core::mutation::Mutation;
use crate::core::record::{EventRecord, InstanceRecord, TaskRecord};
use crate::core::service::record::ServiceKey;
use crate::core::state::State;
use crate::wrong_edit::{self, WrongEdit};
use lighter_model::ids::{ClusterName, ContainerInstanceId};
use lighter_model::status::{DesiredStatus, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{broadcast, mpsc, watch};

/// Events a watcher may be behind before it is cut off: some seconds of a busy cluster; each is a
/// pointer to a record that the state holds anyway.
const WATCHER_DEPTH: usize = 1_024;
/// Changes a session may have unsent before it is cut off; a node that does not read 1,024 changes
/// is resynchronised from the manifest more cheaply than waited for.
const SESSION_DEPTH: usize = 1_024;

/// What services depend on and that has changed.
#[derive(Debug, Default)]
pub struct Touched {
    /// The state was loaded anew.
    pub all: bool,
    pub services: BTreeSet<ServiceKey>,
    /// An instance of it: every service there.
    pub clusters: BTreeSet<ClusterName>,
}

impl Touched {
    /// Whether the service is to be looked at.
    pub fn is(&self, service: &ServiceKey) -> bool {
        self.all || self.services.contains(service) || self.clusters.contains(&service.0)
    }

    fn note(&mut self, state: &State, mutation: &Mutation) {
        let of_task =
            |task: &TaskRecord| task.service.as_ref().map(|of| (task.cluster.clone(), of.name.clone()));
        match mutation {
            Mutation::Task(task) => self.services.extend(of_task(task)),
            Mutation::TaskGone(id) => {
                self.services.extend(state.tasks.get(id).and_then(|task| of_task(task)))
            }
            Mutation::Service(service) => drop(self.services.insert(service.key())),
            Mutation::Instance(instance) => drop(self.clusters.insert(instance.cluster.clone())),
            _ => {}
        }
    }

    fn is_nothing(&self) -> bool {
        !self.all && self.services.is_empty() && self.clusters.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.all |= other.all;
        self.services.extend(other.services);
        self.clusters.extend(other.clusters);
    }
}

/// The committed state with its place in the store's history.
#[derive(Debug, Default)]
pub struct Shown {
    pub state: State,
    pub incarnation: String,
    pub term: u64,
    /// The last batch committed: the revision that nodes are told.
    pub sequence: u64,
    /// Grows with every reload; sessions of an earlier one begin anew.
    pub epoch: u64,
}

/// An assignment that changed, in the batch of this revision.
#[derive(Debug, Clone)]
pub struct AssignmentChange {
    pub revision: u64,
    pub task: Arc<TaskRecord>,
}

/// What a node's session is told of.
#[derive(Debug, Clone)]
pub enum NodeChange {
    Task(AssignmentChange),
    /// Its own record.
    Instance(Arc<InstanceRecord>),
}

impl NodeChange {
    fn instance(&self) -> &ContainerInstanceId {
        match self {
            Self::Task(change) => &change.task.instance,
            Self::Instance(instance) => &instance.id,
        }
    }
}

/// Shared by all readers; written by the writer only.
#[derive(Debug)]
pub struct View {
    shown: RwLock<Shown>,
    events: Mutex<broadcast::Sender<Arc<EventRecord>>>,
    sessions: Mutex<BTreeMap<ContainerInstanceId, mpsc::Sender<NodeChange>>>,
    /// Grows with what services depend on.
    services: watch::Sender<u64>,
    /// What that was, until it is taken.
    touched: Mutex<Touched>,
    /// Grows when a task may fit that did not, and when one begins to wait.
    room: watch::Sender<u64>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            shown: RwLock::default(),
            events: Mutex::new(broadcast::channel(WATCHER_DEPTH).0),
            sessions: Mutex::default(),
            services: watch::channel(0).0,
            touched: Mutex::default(),
            room: watch::channel(0).0,
        }
    }
}

/// Whether a task that waits may fit now, or this one begins to wait.
fn gives_room(old: Option<&Arc<TaskRecord>>, new: &TaskRecord) -> bool {
    let takes = |task: &TaskRecord| (task.desired, task.last == TaskStatus::Stopped, task.queue);
    match old {
        None => new.queue.is_some(),
        Some(old) => takes(old) != takes(new) || old.resources != new.resources,
    }
}

impl View {
    /// Looks at the committed state; keep it short, the writer waits for it.
    pub fn read<T>(&self, look: impl FnOnce(&Shown) -> T) -> T {
        look(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every event from now on, until the state is reloaded. Subscribe first, then read what was
    /// before.
    pub fn watch(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).subscribe()
    }

    /// Changes with every service, every task of one, every instance, and when the state is reloaded.
    pub fn service_changes(&self) -> watch::Receiver<u64> {
        self.services.subscribe()
    }

    /// What services depend on and that has changed since the last call; for the one who tends them.
    pub fn take_touched(&self) -> Touched {
        std::mem::take(&mut self.touched())
    }

    fn touched(&self) -> MutexGuard<'_, Touched> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when a task ends, is to end, takes less or begins to wait, with every instance, and when the state is
    /// reloaded.
    pub fn room_changes(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// The instance's own record and every assignment of it that changes from now on; ends when the session is too slow,
    /// replaced, or the state was reloaded. Subscribe first, then read the manifest.
    pub fn follow(&self, instance: &ContainerInstanceId) -> mpsc::Receiver<NodeChange> {
        let (sender, receiver) = mpsc::channel(SESSION_DEPTH);
        self.sessions().insert(instance.clone(), sender);
        receiver
    }

    /// Shows a loaded state; every session and watcher has to begin anew: a batch whose outcome was
    /// unknown may be in it without ever having been published.
    pub(crate) fn replace(&self, mut shown: Shown) {
        let mut current = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.epoch = current.epoch + 1;
        *current = shown;
        drop(current);
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = broadcast::channel(WATCHER_DEPTH).0;
        self.sessions().clear();
        self.touched().all = true;
        self.services.send_modify(|number| *number += 1);
        self.room.send_modify(|number| *number += 1);
    }

    /// Shows a committed batch, then tells sessions and watchers.
    pub(crate) fn publish(&self, sequence: u64, mutations: &[Mutation]) {
        let mut changed = Vec::new();
        let mut events = Vec::new();
        let mut touched = Touched::default();
        let mut room = false;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        for mutation in mutations {
            touched.note(&shown.state, mutation);
            match mutation {
                Mutation::Task(task) => {
                    let old = shown.state.tasks.get(&task.id);
                    room |= gives_room(old, task);
                    let before = old.map(|old| old.generation);
                    let lost = wrong_edit::is(WrongEdit::LostIntent)
                        && before.is_some()
                        && task.desired == DesiredStatus::Stopped;
                    if before != Some(task.generation) && !lost {
                        let change = AssignmentChange { revision: sequence, task: task.clone() };
                        changed.push(NodeChange::Task(change));
                    }
                }
                Mutation::Instance(instance) => {
                    room = true;
                    changed.push(NodeChange::Instance(instance.clone()));
                }
                Mutation::Event(event) => events.push(event.clone()),
                _ => {}
            }
            shown.state.apply(mutation);
        }
        shown.sequence = sequence;
        drop(shown);
        self.tell_sessions(changed);
        if !touched.is_nothing() {
            self.touched().add(touched);
            self.services.send_modify(|number| *number += 1);
        }
        if room {
            self.room.send_modify(|number| *number += 1);
        }
        let watchers = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.into_iter().skip(usize::from(wrong_edit::is(WrongEdit::EventNotPublished))) {
            // Nobody watching is no error.
            let _ = watchers.send(event);
        }
    }

    fn tell_sessions(&self, changed: Vec<NodeChange>) {
        if changed.is_empty() {
            return;
        }
        let mut sessions = self.sessions();
        for change in changed {
            let instance = change.instance().clone();
            if let Some(session) = sessions.get(&instance)
                && session.try_send(change).is_err()
            {
                sessions.remove(&instance);
            }
        }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<ContainerInstanceId, mpsc::Sender<NodeChange>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
