//! Row 2: what the control plane wants of this node, as recorded. Pure: each function says which
//! records would change; the reconciler writes them, then they count, then they are acknowledged.
//! In: assignments, manifests. Out: changed records; tasks whose fate has to be asked.
//! Owns: `Book`, a value inside the reconciler.
//! Never: lets a desired status go back from STOPPED, lets an older generation replace a newer one,
//! or takes the silence of a store that was set back for an order to stop.

use crate::store::records::{AssignmentRecord, FORMAT_VERSION, SessionRecord};
use lighter_model::adjust::ContainerResources;
use lighter_model::ids::{ContainerName, Generation, TaskDefinitionId, TaskId};
use lighter_model::overrides::TaskOverride;
use lighter_model::status::{DesiredStatus, StopCode};
use lighter_model::trace_context::TraceParent;
use std::collections::{BTreeMap, BTreeSet};

/// Words for a task that the control plane, asked twice, does not know.
const DISOWNED: &str = "The control plane does not know this task (it confirmed that)";

/// What the control plane says of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub task: TaskId,
    pub generation: Generation,
    pub desired: DesiredStatus,
    pub definition: TaskDefinitionId,
    pub stop_code: Option<StopCode>,
    pub stop_reason: String,
    pub stop_force: bool,
    pub forget: bool,
    pub group: String,
    /// No process of it shall run.
    pub paused: bool,
    /// Limits in place of the definition's.
    pub resources: Vec<ContainerResources>,
    /// What the tags of these containers mean for this task.
    pub image_digests: BTreeMap<ContainerName, String>,
    /// The span of the call that made it.
    pub trace_parent: Option<TraceParent>,
    /// Seconds; 0: no lease.
    pub lease_s: u32,
    /// What differs from the definition.
    pub overrides: TaskOverride,
    /// What of it this agent does not understand: a control plane may be newer than its nodes. The
    /// rest is as far as it could be read.
    pub unreadable: Option<String>,
}

/// Everything recorded of assignments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    pub assignments: BTreeMap<TaskId, AssignmentRecord>,
    pub session: SessionRecord,
}

/// What a whole manifest means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ManifestVerdict {
    /// Tasks it does not list and whose end has to be confirmed.
    pub ask: Vec<TaskId>,
    /// Records of tasks it does not list because its store was set back: its silence about them
    /// means nothing from now on.
    pub keep: Vec<AssignmentRecord>,
    /// The store is another or an older one: it may not know what it has acknowledged.
    pub set_back: bool,
}

impl Book {
    /// The record this assignment leads to; `None` when nothing changes.
    pub(crate) fn accept(&self, assignment: Assignment, incarnation: &str) -> Option<AssignmentRecord> {
        let Some(known) = self.assignments.get(&assignment.task) else {
            // Forgotten here as well: nothing to do, nothing to keep.
            return (!assignment.forget).then(|| record(assignment, incarnation));
        };
        let mut changed = known.clone();
        if assignment.unreadable.is_some() && known.unreadable.is_none() {
            // What runs goes on as it was last understood; only its end needs no more than that.
            changed.forget |= assignment.forget;
            if assignment.desired == DesiredStatus::Stopped && known.desired == DesiredStatus::Running {
                changed.desired = DesiredStatus::Stopped;
                changed.stop_code = assignment.stop_code;
                changed.stop_reason = assignment.stop_reason;
            }
            changed.stop_force |= assignment.stop_force;
        } else if assignment.generation > known.generation {
            changed = AssignmentRecord { disowned: known.disowned, ..record(assignment, incarnation) };
            if known.desired == DesiredStatus::Stopped {
                changed.desired = DesiredStatus::Stopped;
                changed.stop_code = known.stop_code.or(changed.stop_code);
                changed.stop_reason.clone_from(&known.stop_reason);
                changed.stop_force |= known.stop_force;
            }
        }
        incarnation.clone_into(&mut changed.listed_by);
        (changed != *known).then_some(changed)
    }

    /// Judges the tasks a whole manifest does not list.
    pub(crate) fn manifest(
        &self,
        listed: &BTreeSet<TaskId>,
        incarnation: &str,
        revision: u64,
    ) -> ManifestVerdict {
        let before = &self.session;
        let known_store = before.incarnation.is_empty() || before.incarnation == incarnation;
        let set_back = !known_store || revision < before.revision;
        let mut verdict = ManifestVerdict { set_back, ..ManifestVerdict::default() };
        for (task, record) in
            self.assignments.iter().filter(|(task, record)| !listed.contains(task) && !record.disowned)
        {
            if set_back {
                if !record.listed_by.is_empty() {
                    verdict.keep.push(AssignmentRecord { listed_by: String::new(), ..record.clone() });
                }
            } else if record.listed_by == incarnation {
                verdict.ask.push(task.clone());
            }
        }
        verdict
    }

    /// The control plane has confirmed, for a task it was asked about, that it is none of its own.
    pub(crate) fn disown(&self, task: &TaskId) -> Option<AssignmentRecord> {
        let known = self.assignments.get(task).filter(|record| !record.disowned)?;
        let mut changed =
            AssignmentRecord { disowned: true, desired: DesiredStatus::Stopped, ..known.clone() };
        if known.desired == DesiredStatus::Running {
            changed.stop_code = Some(StopCode::UserInitiated);
            DISOWNED.clone_into(&mut changed.stop_reason);
        }
        Some(changed)
    }
}

fn record(assignment: Assignment, incarnation: &str) -> AssignmentRecord {
    AssignmentRecord {
        version: FORMAT_VERSION,
        task: assignment.task,
        generation: assignment.generation,
        desired: assignment.desired,
        definition: assignment.definition,
        stop_code: assignment.stop_code,
        stop_reason: assignment.stop_reason,
        stop_force: assignment.stop_force,
        forget: assignment.forget,
        group: assignment.group,
        image_digests: assignment.image_digests,
        listed_by: incarnation.to_owned(),
        disowned: false,
        paused: assignment.paused,
        resources: assignment.resources,
        trace_parent: assignment.trace_parent,
        lease_s: assignment.lease_s,
        overrides: assignment.overrides,
        unreadable: assignment.unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assignment(number: u64, generation: u64, desired: DesiredStatus) -> Assignment {
        Assignment {
            task: TaskId::from_parts(number, 0),
            generation: Generation(generation),
            desired,
            definition: "web:1".parse().unwrap(),
            stop_code: None,
            stop_reason: format!("reason {generation}"),
            stop_force: false,
            forget: false,
            group: String::new(),
            paused: false,
            resources: Vec::new(),
            image_digests: BTreeMap::new(),
            trace_parent: None,
            lease_s: 0,
            overrides: TaskOverride::default(),
            unreadable: None,
        }
    }

    fn book(tasks: &[u64]) -> Book {
        let session =
            SessionRecord { version: 1, term: 1, incarnation: "one".into(), revision: 10, instance: None };
        let mut book = Book { session, ..Book::default() };
        for number in tasks {
            let record = book.accept(assignment(*number, 1, DesiredStatus::Running), "one").unwrap();
            book.assignments.insert(record.task.clone(), record);
        }
        book
    }

    #[test]
    fn a_repeat_changes_nothing_and_stopped_stays_stopped() {
        let mut book = book(&[1]);
        assert_eq!(book.accept(assignment(1, 1, DesiredStatus::Stopped), "one"), None);
        let stopped = book.accept(assignment(1, 2, DesiredStatus::Stopped), "one").unwrap();
        book.assignments.insert(stopped.task.clone(), stopped);
        let again = book.accept(assignment(1, 3, DesiredStatus::Running), "one").unwrap();
        assert_eq!((again.desired, again.stop_reason.as_str()), (DesiredStatus::Stopped, "reason 2"));
        let forgotten = Assignment { forget: true, ..assignment(9, 5, DesiredStatus::Stopped) };
        assert_eq!(book.accept(forgotten, "one"), None);
    }

    #[test]
    fn what_cannot_be_read_is_kept_when_new_and_changes_only_the_end_of_what_is_known() {
        let mut book = book(&[1]);
        let unreadable = |number, generation, desired| Assignment {
            unreadable: Some("container \"?\"".into()),
            ..assignment(number, generation, desired)
        };
        let fresh = book.accept(unreadable(2, 1, DesiredStatus::Running), "one").unwrap();
        assert_eq!(fresh.unreadable.as_deref(), Some("container \"?\""));
        book.assignments.insert(fresh.task.clone(), fresh);
        let forget = Assignment { forget: true, ..unreadable(2, 2, DesiredStatus::Running) };
        assert!(book.accept(forget, "one").unwrap().forget, "it is still unreadable when it is over");
        assert_eq!(book.accept(unreadable(1, 2, DesiredStatus::Running), "one"), None, "it runs on");
        let ends = book.accept(unreadable(1, 3, DesiredStatus::Stopped), "one").unwrap();
        assert_eq!((ends.desired, ends.stop_reason.as_str()), (DesiredStatus::Stopped, "reason 3"));
        assert_eq!((ends.generation, ends.unreadable), (Generation(1), None));
    }

    #[test]
    fn an_unlisted_task_is_asked_about_first() {
        let book = book(&[1, 2]);
        let verdict = book.manifest(&[TaskId::from_parts(1, 0)].into(), "one", 11);
        assert_eq!(
            verdict,
            ManifestVerdict { ask: vec![TaskId::from_parts(2, 0)], ..ManifestVerdict::default() }
        );
        let disowned = book.disown(&TaskId::from_parts(2, 0)).unwrap();
        assert_eq!(disowned.desired, DesiredStatus::Stopped);
    }

    #[test]
    fn a_restored_backup_stops_nothing_now_or_later() {
        for (incarnation, revision) in [("two", 11), ("one", 9)] {
            let mut book = book(&[1, 2]);
            let verdict = book.manifest(&BTreeSet::new(), incarnation, revision);
            assert!(verdict.set_back);
            assert_eq!((verdict.ask.len(), verdict.keep.len()), (0, 2), "{incarnation} {revision}");
            for record in verdict.keep {
                book.assignments.insert(record.task.clone(), record);
            }
            book.session.incarnation = incarnation.into();
            book.session.revision = revision;
            assert!(book.manifest(&BTreeSet::new(), incarnation, revision + 50).ask.is_empty());
            // Listed again by the new store, it is like any other.
            let listed = book.accept(assignment(1, 1, DesiredStatus::Running), incarnation).unwrap();
            book.assignments.insert(listed.task.clone(), listed);
            assert_eq!(book.manifest(&BTreeSet::new(), incarnation, revision + 60).ask.len(), 1);
        }
    }

    proptest! {
        #[test]
        fn any_order_of_deliveries_ends_the_same(mut generations in proptest::collection::vec(1u64..9, 1..20)) {
            let mut book = Book::default();
            let desired = |generation| if generation >= 5 { DesiredStatus::Stopped } else { DesiredStatus::Running };
            for generation in &generations {
                if let Some(record) = book.accept(assignment(1, *generation, desired(*generation)), "one") {
                    book.assignments.insert(record.task.clone(), record);
                }
            }
            generations.sort_unstable();
            let last = *generations.last().unwrap();
            let record = &book.assignments[&TaskId::from_parts(1, 0)];
            prop_assert_eq!(record.generation, Generation(last));
            prop_assert_eq!(record.desired, desired(last));
        }
    }
}
