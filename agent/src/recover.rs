//! Takes up what an earlier agent left (row "agent dies here" of every step): joins the store's
//! records, the shims on disk, the network's objects and the snapshots, and says of each task where
//! it goes on. In: `Loaded`, the facilities. Out: `Recovered`, without which no session is opened.
//! Adopts first, and clears away only what no task of ours has. Owns nothing.
//! Never: starts a container; kills one whose shim lives.

mod classify;

use crate::assignment::Book;
use crate::errors::chain;
use crate::facilities::{ContainerPhase, Found, ShimLink, ShimStatus};
use crate::reconcile::plan::Known;
use crate::reconcile::{Definitions, RecoveredTask};
use crate::self_test::is_self_test;
use crate::store::records::{AssignmentRecord, FORMAT_VERSION, Step, TaskRecord};
use crate::store::{Loaded, StoreOp};
use crate::task::adjust::adjusted;
use crate::task::journal::{Clock, new_record};
use crate::task::watch::monitor_gone;
use crate::task::{Begun, Bundles, Held, TaskContext, TaskPhase, copy};
use crate::time::{BootInstant, sleep};
use classify::{Situation, Verdict, classify};
use futures_util::future::join_all;
use lighter_model::ids::{AttachmentKey, Generation, TaskDefinitionId, TaskId};
use lighter_model::resources::required_resources;
use lighter_model::status::{DesiredStatus, StopCode};
use lighter_model::task_definition::TaskDefinition;
use lighter_net::AttachmentRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const REBOOTED: &str = "The container instance was rebooted while the task was on it";
/// Between questions to a shim whose helper is at work.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// A helper takes a hundredth of this; a shim answers at once.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);

/// Everything is adopted; the only way to a reconciler.
pub(crate) struct Recovered {
    pub book: Book,
    pub definitions: Definitions,
    pub tasks: Vec<RecoveredTask>,
}

/// What is known of one task before anybody is asked.
struct Candidate {
    task: TaskId,
    assignment: Option<AssignmentRecord>,
    record: Option<TaskRecord>,
    definition: Option<Arc<TaskDefinition>>,
}

pub(crate) async fn recover(context: &TaskContext, loaded: Loaded) -> Recovered {
    let definitions: Definitions = loaded
        .definitions
        .iter()
        .map(|(id, json)| (id.clone(), crate::reconcile::parse_definition(json)))
        .collect();
    let on_disk = match context.facilities.runtime.list_tasks().await {
        Ok(tasks) => tasks,
        Err(error) => {
            tracing::error!(cause = %chain(error.as_ref()), "the tasks on disk cannot be listed");
            Vec::new()
        }
    };
    let (self_tests, on_disk): (Vec<TaskId>, Vec<TaskId>) = on_disk.into_iter().partition(is_self_test);
    for task in self_tests {
        clear(context, &task, None, None).await;
    }
    let mut book = Book { session: loaded.session.clone(), ..Book::default() };
    let candidates = candidates(context, loaded, &definitions, on_disk);
    let found = join_all(candidates.into_iter().map(|candidate| take_up(context, candidate))).await;
    let mut tasks = Vec::new();
    for (assignment, recovered) in found.into_iter().flatten() {
        book.assignments.insert(assignment.task.clone(), assignment);
        tasks.extend(recovered);
    }
    restore_network(context, &tasks).await;
    remove_stray_snapshots(context, &book).await;
    Recovered { book, definitions, tasks }
}

fn candidates(
    context: &TaskContext,
    loaded: Loaded,
    definitions: &Definitions,
    on_disk: Vec<TaskId>,
) -> Vec<Candidate> {
    let mut assignments: BTreeMap<TaskId, AssignmentRecord> =
        loaded.assignments.into_iter().map(|record| (record.task.clone(), record)).collect();
    let mut records: BTreeMap<TaskId, TaskRecord> =
        loaded.tasks.into_iter().map(|record| (record.task.clone(), record)).collect();
    let all: BTreeSet<TaskId> = assignments.keys().chain(records.keys()).chain(&on_disk).cloned().collect();
    let each = all.into_iter().map(|task| {
        let assignment = assignments.remove(&task);
        let mut record = records.remove(&task);
        let named = assignment.as_ref().and_then(|assignment| {
            let definition = definitions.get(&assignment.definition)?.as_ref().ok()?;
            Some(adjusted(definition, &assignment.overrides, &assignment.resources))
        });
        let mut definition = named;
        if record.is_none() && assignment.is_none() {
            // The store was lost: the copy in /run says what the record said.
            if let Some(copy) = copy::read(&context.config.run_dir, &task) {
                definition = Some(Arc::new(copy.definition));
                record = Some(copy.record);
            }
        }
        if definition.is_none() {
            definition = record
                .as_ref()
                .filter(|record| !record.containers.is_empty())
                .map(|record| Arc::new(stand_in(record)));
        }
        Candidate { task, assignment, record, definition }
    });
    each.collect()
}

/// Enough of a definition to end a task whose own is lost.
fn stand_in(record: &TaskRecord) -> TaskDefinition {
    let containers = record.containers.iter();
    let containers: Vec<_> = containers
        .map(|c| serde_json::json!({ "name": c.name, "image": c.image, "essential": c.essential }))
        .collect();
    let json = serde_json::json!({ "family": "unknown", "containerDefinitions": containers });
    // Made of valid names only.
    serde_json::from_value(json).unwrap_or_else(|_| unreachable!("a definition of valid names is valid"))
}

/// What is known of a task none of whose records is left, from its shim.
fn record_of_shim(context: &TaskContext, task: &TaskId, status: &ShimStatus) -> TaskRecord {
    let mut record = new_record(task.clone(), &context.boot_id, 0);
    let names: Vec<_> = status
        .containers
        .iter()
        .map(|(name, _)| serde_json::json!({ "name": name, "image": "unknown" }))
        .collect();
    let json = serde_json::json!({ "family": "unknown", "containerDefinitions": names });
    if let Ok(definition) = serde_json::from_value::<TaskDefinition>(json) {
        record.containers = crate::task::journal::new_containers(&definition);
    }
    record
}

/// A task without an assignment is the control plane's until that says otherwise.
fn orphan(task: &TaskId) -> Option<AssignmentRecord> {
    let definition: TaskDefinitionId = "unknown:1".parse().ok()?;
    Some(AssignmentRecord {
        version: FORMAT_VERSION,
        task: task.clone(),
        generation: Generation(0),
        desired: DesiredStatus::Running,
        definition,
        stop_code: None,
        stop_reason: String::new(),
        stop_force: false,
        forget: false,
        group: String::new(),
        image_digests: BTreeMap::new(),
        listed_by: String::new(),
        disowned: false,
        paused: false,
        resources: Vec::new(),
        trace_parent: None,
        lease_s: 0,
        overrides: Default::default(),
        unreadable: None,
    })
}

/// `None`: nothing of it is worth keeping, and nothing is left of it.
async fn take_up(
    context: &TaskContext,
    candidate: Candidate,
) -> Option<(AssignmentRecord, Option<RecoveredTask>)> {
    let (link, status, exits) = match ask_shim(context, &candidate.task).await {
        Found::Alive { link, status } => (Some(link), status, Vec::new()),
        Found::Ended { exits } => (None, ShimStatus::default(), exits),
        Found::Nothing => (None, ShimStatus::default(), Vec::new()),
        Found::Silent => return silent(candidate).map(|(assignment, task)| (assignment, Some(task))),
    };
    let mut record = candidate.record.clone();
    if record.is_none() && !status.containers.is_empty() {
        record = Some(record_of_shim(context, &candidate.task, &status));
    }
    let situation = Situation {
        step: candidate.record.as_ref().map(|record| record.step),
        same_boot: record.as_ref().is_none_or(|record| record.boot_id == context.boot_id),
        shim_alive: link.is_some(),
        begun: status.containers.len(),
        containers: record.as_ref().map_or(0, |record| record.containers.len()),
    };
    let mut verdict = classify(&situation);
    if !situation.same_boot && verdict == Verdict::TearDown && resumes_after_reboot(&candidate) {
        verdict = begin_again(context, &candidate).await;
    }
    tracing::info!(task = %candidate.task, ?situation, ?verdict, "taken up");
    if let Some(record) = &mut record {
        exits.into_iter().for_each(|(name, exit)| record.exited(&name, exit));
        record.take_status(&status, &Clock::now(context.pace));
    }
    let assignment = match candidate.assignment.clone() {
        Some(assignment) => assignment,
        None if matches!(verdict, Verdict::Fresh) => {
            clear(context, &candidate.task, record.as_ref(), link).await;
            return None;
        }
        None => adopt_orphan(context, &candidate.task).await?,
    };
    Some((assignment, Some(go_on(context, candidate, record, verdict, link).await)))
}

/// Whether a task that a reboot ended runs again instead of being reported STOPPED: it is still
/// wanted, was not on its way out, and each of its essential containers has a restart policy. So
/// Docker does it; ECS, which knows no more than that its instance is back, reports STOPPED.
fn resumes_after_reboot(candidate: &Candidate) -> bool {
    let wanted = candidate.assignment.as_ref().is_some_and(|assignment| {
        // One under a lease may run elsewhere by now.
        let leased = assignment.lease_s > 0;
        assignment.desired == DesiredStatus::Running && !assignment.disowned && !assignment.forget && !leased
    });
    let ran = candidate
        .record
        .as_ref()
        .is_some_and(|record| matches!(record.step, Step::Launching | Step::Running));
    let restarts = |definition: &Arc<TaskDefinition>| {
        let mut essential = definition.container_definitions.iter().filter(|c| c.essential);
        essential.all(|c| c.restart_policy.as_ref().is_some_and(|policy| policy.enabled))
    };
    wanted && ran && candidate.definition.as_ref().is_some_and(restarts)
}

/// Root file systems of the boot before are no longer whole; volumes stay.
async fn begin_again(context: &TaskContext, candidate: &Candidate) -> Verdict {
    let containers = candidate.record.iter().flat_map(|record| &record.containers);
    for container in containers {
        let key = AttachmentKey { task: candidate.task.clone(), container: container.name.clone() };
        if let Err(error) = context.facilities.image.remove_rootfs(&key).await {
            tracing::warn!(%key, cause = %chain(error.as_ref()), "a root file system of the boot before cannot be removed; the task ends");
            return Verdict::TearDown;
        }
    }
    tracing::info!(task = %candidate.task, "was ended by a reboot and runs again, by its restart policy");
    Verdict::Fresh
}

/// A task whose shim lives and says nothing: followed as running if it may have been launched. What
/// was not launched waits for the shim like that too, for it cannot be told from what was.
fn silent(candidate: Candidate) -> Option<(AssignmentRecord, RecoveredTask)> {
    let (assignment, record) = (candidate.assignment?, candidate.record?);
    let definition = candidate.definition.unwrap_or_else(|| Arc::new(stand_in(&record)));
    let needs = Some(required_resources(&definition));
    if record.step == Step::Stopped {
        return Some((
            assignment,
            RecoveredTask { record, known: Known::Stopped, phase: TaskPhase::Stopped, needs: None },
        ));
    }
    // Its first event is that the connection is lost; from there the actor asks again.
    let held = Held { definition, link: Some(ShimLink::lost()) };
    let phase = if record.step < Step::TearingDown {
        TaskPhase::Running { held, bundles: Bundles::new() }
    } else {
        TaskPhase::TearingDown { left: held }
    };
    Some((assignment, RecoveredTask { record, known: Known::Active, phase, needs }))
}

async fn adopt_orphan(context: &TaskContext, task: &TaskId) -> Option<AssignmentRecord> {
    let assignment = orphan(task)?;
    if let Err(error) = context.store.commit(vec![StoreOp::PutAssignment(Box::new(assignment.clone()))]).await
    {
        tracing::error!(%task, cause = %chain(&error), "an adopted task is not recorded");
    }
    Some(assignment)
}

async fn go_on(
    context: &TaskContext,
    candidate: Candidate,
    record: Option<TaskRecord>,
    verdict: Verdict,
    link: Option<ShimLink>,
) -> RecoveredTask {
    let Candidate { task, definition, .. } = candidate;
    let mut record = match (record, verdict) {
        (Some(record), Verdict::Fresh) => {
            clear(context, &task, Some(&record), link).await;
            let mut fresh = new_record(task, &context.boot_id, record.sequence);
            // After a reboot it is not RUNNING before it is; the control plane keeps the higher.
            if record.boot_id == context.boot_id {
                fresh.status = record.status;
            }
            return RecoveredTask {
                record: fresh,
                known: Known::Waiting,
                phase: TaskPhase::Waiting,
                needs: None,
            };
        }
        (None, _) => {
            clear(context, &task, None, link).await;
            let record = new_record(task, &context.boot_id, 0);
            return RecoveredTask { record, known: Known::Waiting, phase: TaskPhase::Waiting, needs: None };
        }
        (Some(record), _) => record,
    };
    let definition = definition.unwrap_or_else(|| Arc::new(stand_in(&record)));
    let needs = Some(required_resources(&definition));
    let mut known = Known::Active;
    let phase = match (verdict, link) {
        (Verdict::Resume, Some(link)) => TaskPhase::Admitted { definition, begun: Some(Begun { link }) },
        (Verdict::Running, link) => {
            TaskPhase::Running { held: Held { definition, link }, bundles: Bundles::new() }
        }
        (Verdict::Stopping, link) => TaskPhase::Stopping { held: Held { definition, link } },
        (Verdict::Stopped, _) => {
            known = Known::Stopped;
            return RecoveredTask { record, known, phase: TaskPhase::Stopped, needs: None };
        }
        (Verdict::TearDown | Verdict::Resume | Verdict::Fresh, link) => {
            known = Known::Ending;
            if situation_is_reboot(context, &record) {
                record.stopping(Some(StopCode::InfrastructureHealth), REBOOTED);
            } else {
                monitor_gone(&mut record);
            }
            TaskPhase::TearingDown { left: Held { definition, link } }
        }
    };
    RecoveredTask { record, known, phase, needs }
}

fn situation_is_reboot(context: &TaskContext, record: &TaskRecord) -> bool {
    record.boot_id != context.boot_id
}

/// The shim's answer; a helper that is at work is waited for, because what it starts must be known.
/// One that lives and does not answer must not keep the others waiting: the task goes on without
/// it, and its actor asks again.
async fn ask_shim(context: &TaskContext, task: &TaskId) -> Found {
    let deadline = BootInstant::now().after(ANSWER_DEADLINE);
    loop {
        match context.facilities.runtime.adopt(task).await {
            Ok(Found::Alive { status, .. })
                if status.containers.iter().any(|(_, phase)| *phase == ContainerPhase::Starting)
                    && !deadline.until().is_zero() => {}
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%task, cause = %chain(error.as_ref()), "the task's monitor does not answer; asking again");
                if deadline.until().is_zero() {
                    return Found::Silent;
                }
            }
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Undoes what was begun of a task that never started a container. Errors are left to the teardown
/// of the task's own end, which does all this again.
async fn clear(context: &TaskContext, task: &TaskId, record: Option<&TaskRecord>, link: Option<ShimLink>) {
    let warn = |what: &str, result: Result<(), crate::errors::Cause>| {
        if let Err(error) = result {
            tracing::warn!(%task, what, cause = %chain(error.as_ref()), "what an earlier agent had begun is not cleared");
        }
    };
    let attachments: Vec<AttachmentRecord> =
        record.into_iter().flat_map(TaskRecord::attachments).cloned().collect();
    for attachment in &attachments {
        warn("network", context.facilities.network.del(attachment).await);
    }
    drop(link);
    warn("monitor", context.facilities.runtime.remove_task(task).await);
    context.leases.release_devices(task).await;
    context.leases.release(attachments).await;
}

/// Port maps exactly of the tasks that live; then everything no record knows is removed.
async fn restore_network(context: &TaskContext, tasks: &[RecoveredTask]) {
    let living = |task: &&RecoveredTask| {
        task.record.boot_id == context.boot_id && !matches!(task.phase, TaskPhase::Stopped)
    };
    let records: Vec<AttachmentRecord> =
        tasks.iter().filter(living).flat_map(|task| task.record.attachments()).cloned().collect();
    if let Err(error) = context.facilities.network.restore(&records).await {
        tracing::error!(cause = %chain(error.as_ref()), "the network of this node cannot be made; tasks that need it will fail");
    }
    match context.facilities.network.remove_leftovers(&records).await {
        Ok(removed) => {
            removed.iter().for_each(|what| tracing::warn!(%what, "removed; no task of this node has it"))
        }
        Err(error) => {
            tracing::warn!(cause = %chain(error.as_ref()), "what no task has is not removed from the network")
        }
    }
}

async fn remove_stray_snapshots(context: &TaskContext, book: &Book) {
    let snapshots: Vec<AttachmentKey> = context.facilities.image.list_snapshots().await.unwrap_or_default();
    for key in snapshots.into_iter().filter(|key| !book.assignments.contains_key(&key.task)) {
        tracing::warn!(%key, "removing a root file system that no task has");
        if let Err(error) = context.facilities.image.remove_rootfs(&key).await {
            tracing::warn!(%key, cause = %chain(error.as_ref()), "it is not removed");
        }
    }
}
