//! A start that waits for its store: an etcd that starts later, or has no leader at the moment.
//! In: a store, and who may end the wait. Out: the store with its first answer. Owns: how often it is
//! asked, and what is said meanwhile. Never: waits for what only a person can mend.

use crate::core::mutation::key;
use crate::start::StartError;
use crate::store::{Loaded, Store, StoreError};
use crate::writer::Chain;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between the first two tries; twice as long each time after.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// At most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two words in the log about the same wait.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How a start behaves while its store does not answer.
#[derive(Debug, Clone)]
pub struct Patience {
    waits: fn(),
    give_up: CancellationToken,
}

impl Patience {
    /// `waits` is called once, when the start begins to wait.
    pub fn telling(waits: fn()) -> Self {
        Self { waits, give_up: CancellationToken::new() }
    }

    /// Ends the wait, and nothing else, with `StartError::GivenUp`.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let give_up = self.give_up.clone();
        move || give_up.cancel()
    }
}

impl Default for Patience {
    /// Waits until the store answers, and tells the log alone.
    fn default() -> Self {
        Self::telling(|| {})
    }
}

/// Why it is not ready yet, for who asks.
#[derive(Debug, Default)]
pub(crate) struct Reason(Mutex<String>);

impl Reason {
    fn set(&self, reason: &str) {
        reason.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn text(&self) -> String {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if reason.is_empty() { "the control plane starts".to_owned() } else { reason }
    }
}

/// The record `meta` of a store as soon as it answers, with the counters beside it.
///
/// # Errors
/// `GivenUp`; `Store` at once for what another try does not mend.
pub(crate) async fn first_answer(
    mut store: Box<dyn Store>,
    reason: &Reason,
    patience: &Patience,
) -> Result<(Loaded, Box<dyn Store>), StartError> {
    let (mut pause, mut told) = (FIRST_PAUSE, None);
    loop {
        // The store's calls block.
        let asked = tokio::task::spawn_blocking(move || (store.load(key::META), store));
        let asked = tokio::select! {
            () = patience.give_up.cancelled() => return Err(StartError::GivenUp),
            asked = asked => asked,
        };
        let failed = |source| StartError::Store { source };
        let (loaded, returned) = asked.map_err(|ended| failed(StoreError::Read { source: ended.into() }))?;
        store = returned;
        match loaded {
            Ok(loaded) => {
                if told.is_some() {
                    tracing::info!("the store answers; the start goes on");
                }
                return Ok((loaded, store));
            }
            Err(error @ StoreError::Unreachable { .. }) => tell(&error, reason, patience, &mut told),
            Err(source) => return Err(failed(source)),
        }
        tokio::select! {
            () = patience.give_up.cancelled() => return Err(StartError::GivenUp),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn tell(error: &StoreError, reason: &Reason, patience: &Patience, told: &mut Option<Instant>) {
    let cause = Chain(error).to_string();
    reason.set(&cause);
    if told.is_none() {
        (patience.waits)();
    }
    if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
        tracing::warn!(cause, "the start waits for the store");
        *told = Some(Instant::now());
    }
}
