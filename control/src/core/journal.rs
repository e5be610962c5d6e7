//! What the control plane itself knows of a task's life: its lines of the journal, and what it waits
//! for that no node can say. In: committed state. Out: lines, waits. Pure.
//! The lines are the differences between the snapshots that the event log keeps anyway, so they go
//! when the log is trimmed. Never: a record of its own.

use crate::core::Settings;
use crate::core::queue;
use crate::core::record::{EventRecord, EventSubject, TaskRecord};
use crate::core::state::State;
use lighter_model::status::{ContainerStatus, DesiredStatus, TaskStatus};
use lighter_model::task_event::{TaskEvent, TaskEventKind};
use lighter_model::wait::{Wait, WaitKind};

/// The control plane's lines of a task, oldest first.
pub fn events(state: &State, task: &TaskRecord) -> Vec<TaskEvent> {
    let mut lines = Vec::new();
    let mut before: Option<&TaskRecord> = None;
    for event in state.events.values() {
        let EventSubject::Task(after) = &event.subject else { continue };
        if after.id != task.id {
            continue;
        }
        differences(state, before, after, event.time_unix_ms, &mut lines);
        before = Some(after);
    }
    lines
}

fn differences(
    state: &State,
    before: Option<&TaskRecord>,
    after: &TaskRecord,
    time_unix_ms: u64,
    lines: &mut Vec<TaskEvent>,
) {
    let mut line = |kind, text: String| {
        lines.push(TaskEvent { time_unix_ms, kind, container: None, text, took_ms: None });
    };
    let Some(before) = before else {
        if after.version <= 1 {
            let place = place(state, after);
            line(TaskEventKind::Created, format!("created of {}, {place}", after.definition));
        } else {
            line(TaskEventKind::Status, format!("{} (what was before is no longer kept)", after.last));
        }
        return;
    };
    if before.desired != after.desired {
        let reason = after.stopped_reason.clone().unwrap_or_default();
        line(TaskEventKind::Stopping, format!("desired status {}: {reason}", after.desired));
    }
    if before.queue.is_some() && after.queue.is_none() {
        line(TaskEventKind::Status, format!("{}, {}", after.last, place(state, after)));
    } else if before.last != after.last {
        line(TaskEventKind::Status, format!("the node reported {}", after.last));
    }
    for (old, new) in before.containers.iter().zip(&after.containers) {
        if old.status != new.status && new.status != ContainerStatus::Pending {
            let container = Some(new.name.clone());
            let text = format!("the node reported {}", new.status);
            let kind = TaskEventKind::Status;
            lines.push(TaskEvent { time_unix_ms, kind, container, text, took_ms: None });
        }
    }
}

/// Where a task is, in words.
fn place(state: &State, task: &TaskRecord) -> String {
    if task.queue.is_some() {
        return "waits in the queue".to_owned();
    }
    if task.instance == queue::nowhere() {
        return "left the queue".to_owned();
    }
    let node = state.instances.get(&task.instance).map(|instance| instance.name.clone());
    format!("placed on {}", node.unwrap_or_else(|| task.instance.to_string()))
}

/// What a task waits for, as the control plane sees it: what its node said last, and what only shows
/// from here.
pub fn waits(state: &State, settings: &Settings, task: &TaskRecord) -> Vec<Wait> {
    if task.last == TaskStatus::Stopped {
        return Vec::new();
    }
    if task.queue.is_some() {
        return queue::wait(state, settings, task).into_iter().collect();
    }
    let instance = state.instances.get(&task.instance);
    let name = instance.map_or_else(|| task.instance.to_string(), |instance| instance.name.clone());
    let mut waits = Vec::new();
    if !instance.is_some_and(|instance| instance.connected) {
        let since = disconnected_since(state.events.values().map(AsRef::as_ref), task);
        waits.push(absent_node(state, task, &name, since));
    } else if task.report_sequence == 0 {
        let what = format!("node {name} to take the task over");
        waits.push(wait(
            WaitKind::Node,
            what,
            task.times.created_at,
            "the node's agent records the assignment",
        ));
    } else if task.desired == DesiredStatus::Stopped && task.last < TaskStatus::Deactivating {
        let what = format!("node {name} to begin the stop");
        let since = task.times.stopping_at.unwrap_or(task.times.created_at);
        waits.push(wait(WaitKind::Stop, what, since, "the node's agent begins to stop the containers"));
    }
    waits.extend(task.waits.iter().cloned());
    waits
}

fn wait(kind: WaitKind, what: String, since_unix_ms: u64, ends_by: &str) -> Wait {
    Wait { kind, container: None, what, since_unix_ms, until_unix_ms: None, ends_by: ends_by.to_owned() }
}

/// A task whose node is away: what its policy makes of that, and when.
fn absent_node(state: &State, task: &TaskRecord, name: &str, since: u64) -> Wait {
    let mut what = format!("node {name}, which is not connected; what it said before may be out of date");
    let lease_s = task.silence.map_or(0, |policy| policy.lease_s);
    if lease_s > 0 {
        what += &format!("; its lease ends it there {lease_s} s after the last heartbeat that was answered");
    }
    let returns = "the node's agent connects again, or the node is deregistered";
    let brake = state.clusters.get(&task.cluster).and_then(|cluster| cluster.brake);
    match (task.lost_after_ms(0), brake) {
        (None, _) => wait(WaitKind::Node, what, since, returns),
        (Some(_), Some(brake)) => {
            let ends_by = format!(
                "the node's agent connects again; nothing is replaced while the brake of the cluster is set \
                 ({} of {} nodes fell silent)",
                brake.silent, brake.nodes
            );
            wait(WaitKind::Node, what, since, &ends_by)
        }
        (Some(lost_after_ms), None) => {
            let until_unix_ms = (since > 0).then(|| since + lost_after_ms);
            let ends_by = "the node's agent connects again, or another task takes this one's place";
            Wait { until_unix_ms, ..wait(WaitKind::Node, what, since, ends_by) }
        }
    }
}

/// When the node was last seen to leave; 0 when the log no longer says.
fn disconnected_since<'a>(
    events: impl DoubleEndedIterator<Item = &'a EventRecord>,
    task: &TaskRecord,
) -> u64 {
    let mut since = 0;
    for event in events.rev() {
        let EventSubject::Instance(snapshot) = &event.subject else { continue };
        if snapshot.instance.id != task.instance {
            continue;
        }
        if snapshot.instance.connected {
            break;
        }
        since = event.time_unix_ms;
    }
    since
}
