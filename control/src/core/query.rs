//! An instance as the cluster query language asks it. In: the state, one of its instances. Out: answers.
//! Never: copies anything; a filter over thousands of instances allocates nothing here.

use super::record::InstanceRecord;
use super::state::{Reserved, State};
use lighter_model::attribute::EC2_INSTANCE_ID;
use lighter_model::query::Queried;

/// An instance with what the ledger says of it.
#[derive(Debug, Clone, Copy)]
pub struct QueriedInstance<'a> {
    state: &'a State,
    instance: &'a InstanceRecord,
    reserved: &'a Reserved,
}

impl<'a> QueriedInstance<'a> {
    pub fn new(state: &'a State, instance: &'a InstanceRecord) -> Self {
        Self { state, instance, reserved: state.reserved(&instance.id) }
    }
}

impl Queried for QueriedInstance<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.instance.attribute(name)
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        let tasks = self.reserved.tasks.iter().filter_map(|id| self.state.tasks.get(id));
        tasks.into_iter().any(|task| is(&task.group))
    }
    fn agent_connected(&self) -> bool {
        self.instance.connected
    }
    fn agent_version(&self) -> &str {
        &self.instance.agent_version
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.instance.attribute(EC2_INSTANCE_ID)
    }
    fn registered_at_s(&self) -> i64 {
        i64::try_from(self.instance.registered_at_unix_ms / 1_000).unwrap_or(i64::MAX)
    }
    fn running_tasks_count(&self) -> u64 {
        self.reserved.running.into()
    }
}

/// An instance without its tasks, for what does not ask for them.
#[derive(Debug, Clone, Copy)]
pub struct AloneInstance<'a>(pub &'a InstanceRecord);

impl Queried for AloneInstance<'_> {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.0.attribute(name)
    }
    fn any_task_group(&self, _is: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
    fn agent_connected(&self) -> bool {
        self.0.connected
    }
    fn agent_version(&self) -> &str {
        &self.0.agent_version
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.0.attribute(EC2_INSTANCE_ID)
    }
    fn registered_at_s(&self) -> i64 {
        i64::try_from(self.0.registered_at_unix_ms / 1_000).unwrap_or(i64::MAX)
    }
    fn running_tasks_count(&self) -> u64 {
        0
    }
}
