//! How a task leaves the queue, against the account. In: a record before and after. Out: the first broken promise.
//! Never: asks the scheduler.

use super::Model;
use crate::world::World;
use lighter_control::core::record::TaskRecord;
use lighter_control::store::mark;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::status::{ContainerInstanceStatus, StopCode, TaskStatus};

impl Model {
    /// Placed in its turn and where there is room, or ended by its time or a person; in a store that was set back, taken
    /// back from the node that has it, or ended.
    pub(super) fn left_the_queue(&mut self, old: &TaskRecord, new: &TaskRecord, broken: &dyn Fn(&str)) {
        let Some(entry) = old.queue else { return };
        let is_own = entry.store == mark(&self.incarnation);
        if new.last == TaskStatus::Stopped {
            let late = entry.until_unix_ms <= self.meta.cluster_time_ms;
            if new.stop_code == Some(StopCode::TaskFailedToStart) && is_own && !late {
                broken("left the queue before its time");
            }
            return;
        }
        let before = self.placed.insert(new.id.clone(), new.instance.clone());
        match before {
            // What ends in the same batch may come behind it here.
            None if is_own => self.placed_now.push(new.clone()),
            Some(place) if place == new.instance && !is_own => return,
            _ => broken("was taken from the queue twice, or by a node that never had it"),
        }
        let passed = self.tasks.values().filter(|other| {
            let asks = |of: &TaskRecord| (of.definition.clone(), of.group.clone(), of.silence);
            let same = asks(other) == asks(new);
            same && other.id < new.id && other.queue.is_some_and(|other| other.priority == entry.priority)
        });
        if let Some(other) = passed.min_by_key(|other| &other.id) {
            broken(&format!("passed {}, which asks for the same", other.id));
        }
    }

    /// After a batch: where a task came from the queue there was room.
    pub(super) fn had_room(&mut self, world: &World) {
        for task in std::mem::take(&mut self.placed_now) {
            let taken = self.taken.get(&task.instance).cloned().unwrap_or_default();
            let fits = self.instances.get(&task.instance).is_some_and(|instance| {
                let before = self.before.get(&task.instance).copied().unwrap_or(instance.status);
                [instance.status, before].contains(&ContainerInstanceStatus::Active)
                    && taken.cpu_units <= u64::from(instance.offered.cpu_units)
                    && taken.memory_mib <= instance.offered.memory_mib
            });
            world.check(fits, || {
                format!("task {}: taken from the queue and put where it does not fit", task.id)
            });
        }
    }

    /// Whether an instance that takes tasks has room for it.
    pub(crate) fn fits(&self, task: &TaskRecord, id: &ContainerInstanceId) -> bool {
        let Some(instance) = self.instances.get(id) else { return false };
        let nothing = super::Taken::default();
        let (taken, offered) = (self.taken.get(id).unwrap_or(&nothing), &instance.offered);
        instance.connected
            && instance.status == ContainerInstanceStatus::Active
            && (instance.leases || !task.silence.is_some_and(|policy| policy.exclusive))
            && taken.cpu_units + u64::from(task.resources.cpu_units) <= u64::from(offered.cpu_units)
            && taken.memory_mib + task.resources.memory_mib <= offered.memory_mib
            && task.resources.host_ports.iter().all(|port| !taken.ports.contains_key(port))
    }
}
