//! The commands and mutations that are committed together.
//! In: decided commands. Out: one batch, one answer each. Never: grows by waiting for time.

use super::Job;
use crate::core::mutation::{Mutation, key};
use crate::core::record::{EventRecord, EventSubject, MetaRecord, TaskRecord, encode_task_event};
use crate::error::ApiError;
use crate::store::Batch;
use std::sync::Arc;

/// The largest that one command makes (ten tasks with their events, or a sweep): room is kept for it.
const LARGEST_COMMAND: usize = 48;
/// Bytes of a group: etcd's request limit is 1.5 MiB.
const MAX_BYTES: usize = 1 << 20;

type Encoded = Result<(String, Option<Vec<u8>>), serde_json::Error>;

/// A group in the making or in flight.
#[derive(Default)]
pub(super) struct Group {
    jobs: Vec<Box<dyn Job>>,
    mutations: Vec<Mutation>,
    batch: Batch,
    meta: Option<MetaRecord>,
    bytes: usize,
    error: Option<serde_json::Error>,
}

impl Group {
    pub(super) fn push(&mut self, job: Box<dyn Job>, mutations: Vec<Mutation>) {
        self.jobs.push(job);
        let mut task = None;
        for mutation in &mutations {
            let encoded = match mutation {
                // Every change has one, and only the last of a group is written: see `take_batch`.
                Mutation::Meta(meta) => {
                    self.meta = Some(*meta);
                    continue;
                }
                Mutation::Event(event) => self.event(event, task),
                other => other.put_or_delete(),
            };
            if let Mutation::Task(record) = mutation {
                task = Some(record);
            }
            match encoded {
                Ok((key, value)) => {
                    self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    self.batch.insert(key, value);
                }
                Err(error) => self.error = Some(error),
            }
        }
        self.mutations.extend(mutations);
    }

    /// An event of the task that was written just before takes over its text.
    fn event(&self, event: &Arc<EventRecord>, before: Option<&Arc<TaskRecord>>) -> Encoded {
        if let EventSubject::Task(task) = &event.subject
            && before.is_some_and(|before| Arc::ptr_eq(before, task))
            && let Some(Some(value)) = self.batch.get(&key::task(&task.id))
        {
            return Ok((key::event(event.sequence), Some(encode_task_event(event, value)?)));
        }
        Mutation::Event(event.clone()).put_or_delete()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether another command may be too much for a batch of so many records.
    pub(super) fn is_full(&self, most_records: usize) -> bool {
        // And the one of the counters.
        self.batch.len() + 1 + LARGEST_COMMAND > most_records
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
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if let Some(meta) = self.meta.take() {
            let (key, value) = Mutation::Meta(meta).put_or_delete()?;
            self.batch.insert(key, value);
        }
        Ok(std::mem::take(&mut self.batch))
    }

    /// Answers everybody; who is answered is not answered again.
    pub(super) fn answer(&mut self, failed: Option<ApiError>) {
        for job in std::mem::take(&mut self.jobs) {
            job.answer(failed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::record::encode;
    use crate::core::{Moment, Settings, mutation::Changes, run_task::pending, state::State};
    use lighter_model::ids::{ContainerInstanceId, TaskId};

    struct Asked;
    impl Job for Asked {
        fn is_new_work(&self, _: &State) -> bool {
            false
        }
        fn decide(&mut self, _: &mut Changes<'_>) {}
        fn answer(self: Box<Self>, _: Option<ApiError>) {}
    }

    #[test]
    fn a_batch_is_what_its_mutations_say_one_by_one() {
        let (mut state, settings) = (State::default(), Settings { events_kept: 3, ..Settings::default() });
        let definition = serde_json::from_value(serde_json::json!({
            "id": "web:1", "registered_by": "", "registered_at_unix_ms": 0, "deregistered_at_unix_ms": null,
            "definition": {"family": "web", "containerDefinitions": [{"name": "a", "image": "b"}]},
        }));
        let definition = definition.unwrap();
        let (mut group, mut expected) = (Group::default(), Batch::new());
        for number in 0..4 {
            let moment = Moment { wall_unix_ms: 7 + number, random: 3 };
            let mut changes = Changes::new(&mut state, &settings, moment);
            let place = ("default".parse().unwrap(), ContainerInstanceId::from_parts(1, 1));
            let task = pending(TaskId::from_parts(number / 2, 5), &definition, place, 9);
            let task = changes.put_task(task);
            changes.put_task(TaskRecord { paused: true, ..TaskRecord::clone(&task) });
            let mutations = changes.finish();
            expected.extend(mutations.iter().map(|mutation| mutation.put_or_delete().unwrap()));
            group.push(Box::new(Asked), mutations);
        }
        let meta = encode(&state.meta).unwrap();
        assert_eq!(expected.get(key::META), Some(&Some(meta)));
        assert_eq!(group.take_batch().unwrap(), expected);
    }
}
