//! What a container is shown of the devices it was given. In: the grants, the node's own file. Out:
//! device files, and the variables that name the ids. Owns nothing; pure.
//! Source: Amazon ECS developer guide, "Task definitions for GPU workloads".
//! Never: a device that was not given.

use crate::config::DeviceConfig;
use lighter_model::resources::{GPU, GrantedDevice};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What NVIDIA's container tools and ECS's images look at.
const GPU_VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// The device files of all grants, each once, and a variable for each kind that has one.
pub(super) fn shown(
    granted: &[GrantedDevice],
    config: &BTreeMap<String, DeviceConfig>,
) -> (Vec<PathBuf>, Vec<String>) {
    let kinds: BTreeSet<&str> = granted.iter().map(|device| device.kind.as_str()).collect();
    let mut files = BTreeSet::new();
    let mut variables = Vec::new();
    for kind in kinds {
        let ids: Vec<&str> =
            granted.iter().filter(|device| device.kind == kind).map(|device| device.id.as_str()).collect();
        let Some(config) = config.get(kind) else { continue };
        files.extend(ids.iter().filter_map(|id| config.ids.get(*id)).flatten().cloned());
        files.extend(config.common.iter().cloned());
        let variable = config.variable.as_deref().or((kind == GPU).then_some(GPU_VARIABLE));
        variables.extend(variable.map(|variable| format!("{variable}={}", ids.join(","))));
    }
    (files.into_iter().collect(), variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_variables_are_those_of_the_granted_ids() {
        let config = BTreeMap::from([(
            GPU.to_owned(),
            DeviceConfig {
                ids: BTreeMap::from([
                    ("GPU-1".to_owned(), vec!["/dev/nvidia0".into()]),
                    ("GPU-2".to_owned(), vec!["/dev/nvidia1".into()]),
                    ("GPU-3".to_owned(), vec!["/dev/nvidia2".into()]),
                ]),
                common: vec!["/dev/nvidiactl".into()],
                variable: None,
            },
        )]);
        let grant = |id: &str| GrantedDevice { kind: GPU.to_owned(), id: id.to_owned() };
        let (files, variables) = shown(&[grant("GPU-1"), grant("GPU-3")], &config);
        let expected: Vec<PathBuf> =
            ["/dev/nvidia0", "/dev/nvidia2", "/dev/nvidiactl"].iter().map(PathBuf::from).collect();
        assert_eq!((files, variables), (expected, vec!["NVIDIA_VISIBLE_DEVICES=GPU-1,GPU-3".to_owned()]));
        assert_eq!(shown(&[], &config), (Vec::new(), Vec::new()));
    }
}
