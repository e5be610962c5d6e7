//! Which device of a kind a container gets. In: the ids of the node's own file, what tasks have
//! recorded. Out: ids. Owns who has which; pure. Never: gives one id to two tasks, or opens a device.

use crate::config::DeviceConfig;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::resources::GrantedDevice;
use lighter_model::task_definition::TaskDefinition;
use std::collections::BTreeMap;

/// What each container of a task gets.
pub(crate) type Granted = BTreeMap<ContainerName, Vec<GrantedDevice>>;

/// A kind of which not enough devices are free. Admission has counted them: only a change of the
/// node's own file leads here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("RESOURCE:{}: {wanted} of {kind} are wanted, {free} are free", kind.to_ascii_uppercase())]
pub(crate) struct NoDevice {
    pub kind: String,
    pub wanted: u32,
    pub free: usize,
}

/// The devices of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct DevicePool {
    holders: BTreeMap<GrantedDevice, Option<TaskId>>,
}

impl DevicePool {
    pub(crate) fn new(config: &BTreeMap<String, DeviceConfig>) -> Self {
        let of = |(kind, devices): (&String, &DeviceConfig)| {
            let kind = kind.clone();
            let ids: Vec<String> = devices.ids.keys().cloned().collect();
            ids.into_iter().map(move |id| (GrantedDevice { kind: kind.clone(), id }, None))
        };
        Self { holders: config.iter().flat_map(of).collect() }
    }

    /// Notes what an earlier agent gave, also of a device that the node's file no longer names.
    pub(crate) fn hold(&mut self, task: &TaskId, device: GrantedDevice) {
        self.holders.insert(device, Some(task.clone()));
    }

    /// All that the containers of a task ask for, or nothing.
    pub(crate) fn take(&mut self, task: &TaskId, definition: &TaskDefinition) -> Result<Granted, NoDevice> {
        let before = self.holders.clone();
        let mut granted = Granted::new();
        for container in &definition.container_definitions {
            for requirement in &container.resource_requirements {
                let (kind, wanted) = (requirement.kind.clone(), requirement.count());
                let free: Vec<GrantedDevice> = self
                    .holders
                    .iter()
                    .filter(|(device, holder)| device.kind == kind && holder.is_none())
                    .map(|(device, _)| device.clone())
                    .collect();
                if free.len() < wanted as usize {
                    self.holders = before;
                    return Err(NoDevice { kind, wanted, free: free.len() });
                }
                for device in free.into_iter().take(wanted as usize) {
                    self.hold(task, device.clone());
                    granted.entry(container.name.clone()).or_default().push(device);
                }
            }
        }
        Ok(granted)
    }

    /// Gives back what a task has; harmless to repeat.
    pub(crate) fn release(&mut self, task: &TaskId) {
        self.holders
            .values_mut()
            .filter(|holder| holder.as_ref() == Some(task))
            .for_each(|holder| *holder = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(count: usize) -> DevicePool {
        let ids = (0..count).map(|index| (format!("GPU-{index}"), Vec::new())).collect();
        DevicePool::new(&BTreeMap::from([(
            "GPU".to_owned(),
            DeviceConfig { ids, ..DeviceConfig::default() },
        )]))
    }

    fn definition(first: u32, second: u32) -> TaskDefinition {
        let json = format!(
            r#"{{"family":"f","containerDefinitions":[{{"name":"a","image":"i","resourceRequirements":[{{"type":"GPU","value":"{first}"}}]}},{{"name":"b","image":"i","resourceRequirements":[{{"type":"GPU","value":"{second}"}}]}}]}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn all_or_nothing_is_taken() {
        let mut pool = pool(3);
        let (first, second) = (TaskId::from_parts(1, 0), TaskId::from_parts(2, 0));
        assert!(pool.take(&first, &definition(2, 2)).unwrap_err().to_string().starts_with("RESOURCE:GPU"));
        let granted = pool.take(&first, &definition(1, 1)).unwrap();
        assert_eq!(granted.values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert!(pool.take(&second, &definition(1, 1)).is_err());
        pool.release(&first);
        pool.release(&first);
        assert!(pool.take(&second, &definition(2, 1)).is_ok());
    }

    proptest! {
        #[test]
        fn a_device_is_given_to_one_container_at_a_time(
            steps in proptest::collection::vec((0u64..6, 0u32..3, 0u32..3, any::<bool>()), 0..60),
        ) {
            let mut pool = pool(4);
            let mut model: BTreeMap<u64, Vec<GrantedDevice>> = BTreeMap::new();
            for (number, first, second, back) in steps {
                let task = TaskId::from_parts(number, 0);
                if back || model.contains_key(&number) {
                    pool.release(&task);
                    model.remove(&number);
                } else if let Ok(granted) = pool.take(&task, &definition(first, second)) {
                    model.insert(number, granted.into_values().flatten().collect());
                } else {
                    let held: usize = model.values().map(Vec::len).sum();
                    prop_assert!(held + (first + second) as usize > 4);
                }
                let all: Vec<&GrantedDevice> = model.values().flatten().collect();
                let distinct: std::collections::BTreeSet<_> = all.iter().collect();
                prop_assert_eq!(all.len(), distinct.len());
            }
        }
    }
}
