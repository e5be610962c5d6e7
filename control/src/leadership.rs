//! Whether this control plane leads, and who does when it does not.
//! In: word from the writer, and the store's lease. Out: leave to answer, or a refusal that names the leader.
//! A leader answers, reads included, only while its lease is surely valid: another may have
//! committed what it does not know. Never: says yes on the word of the past; the clock is asked.

use crate::error::ApiError;
use crate::store::Lease;
use crate::wrong_edit::{self, WrongEdit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Shared by the writer, which sets it, and everyone who answers.
#[derive(Debug)]
pub struct Leadership {
    lease: Lease,
    /// The state of the present term is loaded and shown.
    loaded: AtomicBool,
    /// Where the leader serves, when that is somebody else; empty when nobody knows.
    leader: Mutex<String>,
    changes: watch::Sender<bool>,
}

impl Leadership {
    /// Nothing is loaded yet.
    pub(crate) fn new(lease: Lease) -> Self {
        let (loaded, leader) = (AtomicBool::new(false), Mutex::default());
        Self { lease, loaded, leader, changes: watch::Sender::new(false) }
    }

    /// Leave to answer, at this very moment.
    pub fn check(&self) -> Result<(), ApiError> {
        let sure = self.lease.is_valid() || wrong_edit::is(WrongEdit::LeaseNotLookedAt);
        if self.loaded.load(Ordering::Acquire) && sure {
            return Ok(());
        }
        Err(self.refusal())
    }

    /// What a call answers, when this control plane surely leads before and after it.
    ///
    /// # Errors
    /// `NotLeader` before, then nothing was done; `OutcomeUnknown` after.
    /// Cancel safety: that of the call.
    pub async fn answering<T>(&self, call: impl Future<Output = T>) -> Result<T, ApiError> {
        self.check()?;
        let answer = call.await;
        // What was read was true only if the lead was still held after reading it.
        self.check().map_err(|_| ApiError::OutcomeUnknown)?;
        Ok(answer)
    }

    /// What everyone is told who asks a standby.
    pub(crate) fn refusal(&self) -> ApiError {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ApiError::NotLeader { leader }
    }

    /// Tells when leading begins and ends.
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(crate) fn is_standby(&self) -> bool {
        !self.loaded.load(Ordering::Acquire)
    }

    pub(crate) fn leads(&self) {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.loaded.store(true, Ordering::Release);
        self.changes.send_replace(true);
    }

    /// Whether that is news.
    pub(crate) fn follows(&self, leader: &str) -> bool {
        let mut known = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *known != leader || self.loaded.load(Ordering::Acquire);
        leader.clone_into(&mut known);
        self.loaded.store(false, Ordering::Release);
        self.changes.send_replace(false);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lease::now_ms;
    use std::time::Duration;

    #[test]
    fn an_answer_needs_a_loaded_state_and_a_valid_lease() {
        let lease = Lease::none();
        let leadership = Leadership::new(lease.clone());
        lease.extend(now_ms(), Duration::from_secs(60));
        assert!(leadership.check().is_err(), "nothing is loaded");
        leadership.leads();
        assert!(leadership.check().is_ok());
        lease.end();
        assert_eq!(leadership.check(), Err(ApiError::NotLeader { leader: String::new() }));
        leadership.follows("https://b:7443");
        assert_eq!(leadership.check(), Err(ApiError::NotLeader { leader: "https://b:7443".to_owned() }));
    }
}
