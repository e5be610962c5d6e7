//! The commands and mutations that are committed together.
//! In: decided commands. Out: one batch, one answer each. Never: grows by waiting for time.

use super::Job;
use crate::core::mutation::Mutation;
use crate::error::ApiError;
use crate::store::Batch;

/// The largest that one command makes (ten tasks with their events, or a sweep): room is kept for it.
const LARGEST_COMMAND: usize = 48;
/// Bytes of a group: etcd's request limit is 1.5 MiB.
const MAX_BYTES: usize = 1 << 20;

/// A group in the making or in flight.
#[derive(Default)]
pub(super) struct Group {
    jobs: Vec<Box<dyn Job>>,
    mutations: Vec<Mutation>,
    batch: Batch,
    bytes: usize,
    error: Option<serde_json::Error>,
}

impl Group {
    pub(super) fn push(&mut self, job: Box<dyn Job>, mutations: Vec<Mutation>) {
        self.jobs.push(job);
        for mutation in &mutations {
            match mutation.put_or_delete() {
                Ok((key, value)) => {
                    self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    self.batch.insert(key, value);
                }
                Err(error) => self.error = Some(error),
            }
        }
        self.mutations.extend(mutations);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether another command may be too much for a batch of so many records.
    pub(super) fn is_full(&self, most_records: usize) -> bool {
        self.batch.len() + LARGEST_COMMAND > most_records
            || self.bytes >= MAX_BYTES
            || self.jobs.len() >= most_records * 4
    }

    pub(super) fn has_no_changes(&self) -> bool {
        self.mutations.is_empty() && self.error.is_none()
    }

    pub(super) fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }

    pub(super) fn take_batch(&mut self) -> Result<Batch, serde_json::Error> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.batch)),
        }
    }

    /// Answers everybody; who is answered is not answered again.
    pub(super) fn answer(&mut self, failed: Option<ApiError>) {
        for job in std::mem::take(&mut self.jobs) {
            job.answer(failed.clone());
        }
    }
}
