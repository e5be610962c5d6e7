//! Leases of exclusive tasks on a simulated machine, as its monitors keep them without their agent, and
//! what must hold of tasks that stand in for others (invariant 7).
//! In: assignments with a lease, answered heartbeats, new tasks, starts. Out: ends of tasks; broken promises.
//! Never: asks the control plane how long a lease is good for.

use crate::disk::{Disk, Step};
use crate::world::World;
use lighter_control::core::record::{InstanceRecord, TaskRecord};
use lighter_control::core::silence::policy::{SETTLED_BEATS, SilencePolicy};
use lighter_model::ids::{ContainerInstanceId, TaskId};
use lighter_model::status::{ContainerInstanceStatus, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};

/// Of every task here.
pub(crate) const STOP_TIMEOUT_S: u32 = 2;
/// What is on its way when a node is cut off still arrives.
const ON_THE_WAY_MS: u64 = 3_000;

/// The clock of a machine: ticks of its own in a thousand of the cluster's; up to 1 % wrong.
pub(crate) fn rate(node: usize) -> u64 {
    990 + (node as u64 * 7) % 21
}

/// What a caller asks for, by its token: nothing is drawn.
pub(crate) fn policy(world: &World, token: &str) -> SilencePolicy {
    let beats = |count: u64| u32::try_from((count * world.shape.heartbeat_ms).div_ceil(1_000)).unwrap();
    let lost_after_s = beats(SETTLED_BEATS);
    let lease_s = beats(6) + STOP_TIMEOUT_S;
    match crate::world::hash(0xcbf2_9ce4_8422_2325, token.as_bytes()) >> 20 & 7 {
        0..3 => SilencePolicy::default(),
        3..5 => SilencePolicy { lost_after_s, replace: true, ..SilencePolicy::default() },
        5..7 => SilencePolicy { lost_after_s, replace: true, exclusive: true, lease_s },
        _ => SilencePolicy { exclusive: true, ..SilencePolicy::default() },
    }
}

/// What a machine keeps of one lease.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lease {
    /// In the cluster's time; 0: none.
    length_ms: u64,
    /// Before the end.
    signal_ms: u64,
    /// The stop signal was sent: nothing puts the end off any more.
    over_at_ms: Option<u64>,
}

impl Lease {
    pub(crate) fn new(lease_s: u32, rate: u64) -> Self {
        let ours = |seconds: u32| u64::from(seconds) * 1_000 * 1_000 / rate;
        match lease_s {
            0 => Self::default(),
            _ => Self { length_ms: ours(lease_s), signal_ms: ours(STOP_TIMEOUT_S), over_at_ms: None },
        }
    }

    /// When the stop signal and SIGKILL come, renewed then.
    pub(crate) fn ends(&self, renewed_ms: u64) -> Option<(u64, u64)> {
        let kill = self.over_at_ms.unwrap_or(renewed_ms + self.length_ms);
        (self.length_ms > 0).then_some((kill - self.signal_ms, kill))
    }
}

impl Disk {
    /// What the monitors have done by now: stop signals, and SIGKILL.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let renewed = self.renewed_ms;
        for task in self.tasks.values_mut().filter(|task| task.status < TaskStatus::Stopped) {
            let Some((signal, kill)) = task.lease.ends(renewed) else { continue };
            if now_ms >= kill {
                if !task.ended_by_lease {
                    (task.ended_by_lease, task.ending, task.process) = (true, true, false);
                    task.next = Some((now_ms, Step::Stopped));
                }
            } else if now_ms >= signal && !task.ending {
                // Some ignore it.
                (task.ending, task.lease.over_at_ms) = (true, Some(kill));
                let heeds = task.sequence.is_multiple_of(2);
                task.next = heeds.then_some((now_ms, Step::Stopping));
            }
        }
    }

    /// The next time that a monitor does something.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        let tasks = self.tasks.values().filter(|t| t.status < TaskStatus::Stopped && !t.ended_by_lease);
        let ends = tasks.filter_map(|task| Some((task.ending, task.lease.ends(self.renewed_ms)?)));
        ends.map(|(ending, (signal, kill))| if ending { kill } else { signal }).min()
    }

    /// A hello or heartbeat sent then was answered; what had run out before has ended.
    pub(crate) fn renew(&mut self, sent_ms: u64, now_ms: u64) {
        self.expire(now_ms);
        self.renewed_ms = self.renewed_ms.max(sent_ms);
    }

    /// Whether a process of the task runs at this moment, agent or not.
    pub(crate) fn runs(&self, id: &TaskId, now_ms: u64) -> bool {
        self.tasks.get(id).is_some_and(|task| {
            let expired = task.lease.ends(self.renewed_ms).is_some_and(|(_, kill)| now_ms >= kill);
            task.process && !expired
        })
    }
}

/// Tasks that stand in for others.
#[derive(Default)]
pub(crate) struct Account {
    /// By task, the first of its line.
    first: BTreeMap<TaskId, TaskId>,
    lines: BTreeMap<TaskId, Vec<TaskId>>,
    exclusive: BTreeSet<TaskId>,
    replaced: BTreeSet<TaskId>,
}

impl Account {
    /// The store was set back: it may replace again what it has forgotten.
    pub(crate) fn set_back(&mut self) {
        self.replaced.clear();
    }

    /// A task is durable; `lost` is what it stands in for.
    pub(crate) fn made(&mut self, new: &TaskRecord, lost: Option<&TaskRecord>, broken: &dyn Fn(&str)) {
        let first = lost.and_then(|lost| self.first.get(&lost.id)).unwrap_or(&new.id).clone();
        self.first.insert(new.id.clone(), first.clone());
        self.lines.entry(first.clone()).or_default().push(new.id.clone());
        if new.silence.is_some_and(|policy| policy.exclusive) {
            self.exclusive.insert(first);
        }
        let Some(lost) = lost else { return };
        if !self.replaced.insert(lost.id.clone()) {
            broken("stands in for a task that another stands in for");
        }
        if !lost.silence.is_some_and(|policy| policy.replace) {
            broken("stands in for a task that is not to be replaced");
        }
    }

    /// A node starts a task: no other of its line may run.
    pub(crate) fn starts(&self, world: &World, id: &TaskId, started: &BTreeMap<TaskId, (usize, u64)>) {
        let Some(first) = self.first.get(id).filter(|first| self.exclusive.contains(*first)) else { return };
        for other in self.lines[first].iter().filter(|other| *other != id) {
            let Some((node, _)) = started.get(other) else { continue };
            let runs = world.nodes.borrow()[*node].disk.borrow().runs(other, world.now_ms());
            world.check(!runs, || format!("exclusive task {id} starts while {other} runs on node {node}"));
        }
    }
}

/// A task was replaced: no more than a fifth of the nodes, or two, are cut off for so long that the
/// control plane must have seen it.
pub(crate) fn braked(world: &World, instances: &BTreeMap<ContainerInstanceId, InstanceRecord>) {
    let counts = |instance: &&InstanceRecord| {
        matches!(instance.status, ContainerInstanceStatus::Active | ContainerInstanceStatus::Draining)
    };
    let seen = world.now_ms().saturating_sub(SETTLED_BEATS * world.shape.heartbeat_ms + ON_THE_WAY_MS);
    let nodes = instances.values().filter(counts).count();
    let all = world.nodes.borrow();
    let silent = all.iter().filter(|node| {
        let instance = instances.get(&*node.id.borrow());
        node.cut_since.get().is_some_and(|since| since <= seen) && instance.as_ref().is_some_and(counts)
    });
    let silent = silent.count();
    world.check(silent < 3 || silent * 5 <= nodes, || {
        format!("a task is replaced while {silent} of {nodes} nodes are silent")
    });
}
