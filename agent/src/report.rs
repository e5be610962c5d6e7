//! The outbox: what the control plane has not yet acknowledged of each task (decision 3, "sent").
//! In: reports, acknowledgements, new sessions. Out: batches to send. Pure.
//! Only the newest report of a task is kept: each says everything. What was sent and not
//! acknowledged is sent again on the next session; the control plane drops repeats by sequence.
//! Never: durable by itself; the task record is, and fills the outbox again after a restart.

use lighter_model::ids::TaskId;
use lighter_model::report::TaskReport;
use std::collections::BTreeMap;

/// Reports in one message; at a few kilobytes each this stays far below gRPC's 4 MiB.
const BATCH_MAX: usize = 128;

#[derive(Debug)]
struct Entry {
    report: TaskReport,
    sent: bool,
}

/// Reports that wait for their acknowledgement.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<TaskId, Entry>,
}

impl Outbox {
    /// Replaces an older report of the same task; an older one than what is here is dropped.
    pub(crate) fn put(&mut self, report: TaskReport) {
        let newer =
            self.entries.get(&report.task).is_none_or(|entry| entry.report.sequence < report.sequence);
        if newer {
            self.entries.insert(report.task.clone(), Entry { report, sent: false });
        }
    }

    /// A session has begun: nothing counts as sent.
    pub(crate) fn session_began(&mut self) {
        for entry in self.entries.values_mut() {
            entry.sent = false;
        }
    }

    /// The next reports to send, oldest task first; empty when all are sent. They count as sent.
    pub(crate) fn next_batch(&mut self) -> Vec<TaskReport> {
        let unsent = self.entries.values_mut().filter(|entry| !entry.sent).take(BATCH_MAX);
        unsent
            .map(|entry| {
                entry.sent = true;
                entry.report.clone()
            })
            .collect()
    }

    /// The control plane has applied this report and all before it.
    pub(crate) fn applied(&mut self, task: &TaskId, sequence: u64) {
        if self.entries.get(task).is_some_and(|entry| entry.report.sequence <= sequence) {
            self.entries.remove(task);
        }
    }

    /// Nothing of this task is to be sent any more.
    pub(crate) fn forget(&mut self, task: &TaskId) {
        self.entries.remove(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::TaskRecord;

    fn report(number: u64, sequence: u64) -> TaskReport {
        let record: TaskRecord =
            serde_json::from_str(include_str!("store/golden/task-record-1.json")).unwrap();
        TaskReport { task: TaskId::from_parts(number, 0), sequence, ..record.report() }
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_and_only_the_newest() {
        let mut outbox = Outbox::default();
        outbox.put(report(1, 1));
        outbox.put(report(1, 3));
        outbox.put(report(1, 2));
        assert_eq!(outbox.next_batch(), [report(1, 3)]);
        assert!(outbox.next_batch().is_empty());
        outbox.session_began();
        assert_eq!(outbox.next_batch(), [report(1, 3)]);
        outbox.applied(&TaskId::from_parts(1, 0), 2);
        outbox.session_began();
        assert_eq!(outbox.next_batch().len(), 1);
        outbox.applied(&TaskId::from_parts(1, 0), 3);
        outbox.session_began();
        assert!(outbox.next_batch().is_empty());
    }

    #[test]
    fn batches_are_bounded_and_complete() {
        let mut outbox = Outbox::default();
        (0..300).for_each(|number| outbox.put(report(number, 1)));
        let sizes: Vec<usize> = (0..4).map(|_| outbox.next_batch().len()).collect();
        assert_eq!(sizes, [128, 128, 44, 0]);
    }
}
