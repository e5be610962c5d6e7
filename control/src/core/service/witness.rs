//! Shows what each tending of a service did, to tests of the whole.
//! In: a service's tasks before and after. Out: both, to the witness that a test set for its own thread.
//! Never: in a release: without debug assertions nobody can watch and nothing is copied.

use super::record::{ServiceKey, ServiceRecord};
use crate::core::record::{InstanceRecord, TaskRecord};
use crate::core::state::State;
use std::sync::Arc;

/// One tending: the state it decided from, and what came of it.
#[derive(Debug)]
pub struct Tending {
    /// As it was.
    pub old: Option<Arc<ServiceRecord>>,
    pub service: ServiceRecord,
    pub now_ms: u64,
    /// Each with its instance.
    pub before: Vec<(Arc<TaskRecord>, Option<Arc<InstanceRecord>>)>,
    pub after: Vec<Arc<TaskRecord>>,
}

/// A service's tasks with their instances.
#[derive(Debug, Default)]
pub(super) struct Before(#[cfg(debug_assertions)] Vec<(Arc<TaskRecord>, Option<Arc<InstanceRecord>>)>);

#[cfg(debug_assertions)]
type Witness = Box<dyn Fn(&Tending)>;

#[cfg(debug_assertions)]
thread_local! {
    static WITNESS: std::cell::RefCell<Option<Witness>> = const { std::cell::RefCell::new(None) };
}

/// Sets the witness of this thread, or takes it away.
#[cfg(debug_assertions)]
pub fn watch(witness: Option<Witness>) {
    WITNESS.set(witness);
}

#[cfg(debug_assertions)]
pub(super) fn before(state: &State, key: &ServiceKey) -> Before {
    if WITNESS.with_borrow(Option::is_none) {
        return Before::default();
    }
    let with_instance = |task: &Arc<TaskRecord>| (task.clone(), state.instances.get(&task.instance).cloned());
    Before(state.tasks_of_service(key).map(with_instance).collect())
}

#[cfg(debug_assertions)]
pub(super) fn tell(before: Before, state: &State, service: &ServiceRecord, now_ms: u64) {
    WITNESS.with_borrow(|witness| {
        if let Some(witness) = witness {
            let after = state.tasks_of_service(&service.key()).cloned().collect();
            let old = state.services.get(&service.key()).cloned();
            witness(&Tending { old, service: service.clone(), now_ms, before: before.0, after });
        }
    });
}

#[cfg(not(debug_assertions))]
pub(super) fn before(_: &State, _: &ServiceKey) -> Before {
    Before::default()
}

#[cfg(not(debug_assertions))]
pub(super) fn tell(_: Before, _: &State, _: &ServiceRecord, _: u64) {}
