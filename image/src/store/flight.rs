//! One of a kind at a time: who wants what another is fetching already waits, and takes what came of it.
//! In: keys. Out: a lock with the newest result in it, shared by all who want the same at the moment.
//! Owns: one entry for each key somebody wants; the last one takes it along.
//! Never: keeps a result longer than somebody waits for it, or an error at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Held while fetching; what was fetched, for those who waited.
pub(crate) type Flight<V> = Arc<tokio::sync::Mutex<V>>;

pub(crate) struct Flights<K, V> {
    all: Mutex<HashMap<K, Weak<tokio::sync::Mutex<V>>>>,
}

impl<K: Eq + Hash + Clone, V: Default> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { all: Mutex::new(HashMap::new()) }
    }

    pub(crate) fn join(&self, key: &K) -> Flight<V> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = all.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Flight::default();
        all.insert(key.clone(), Arc::downgrade(&flight));
        flight
    }
}
