//! Which volume is mounted where in which container. Pure.
//! In: the definition, the images' VOLUMEs. Out: mounts in the definition's order; for each, whose
//! image fills it when it is new. tmpfs is the runtime's: it needs nothing of the node.
//! Owns nothing. Never: asks whether a directory exists.
//! Source: Amazon ECS API reference, Volume, MountPoint, VolumeFrom; Docker, "Populate a volume".

use crate::facilities::Mount;
use lighter_model::ids::ContainerName;
use lighter_model::image_config::ImageConfig;
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition, Volume, VolumeScope};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What one container sees.
pub(crate) type Mounts = Vec<Mount>;

/// Where a mounted directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Host {
        volume: String,
        path: String,
    },
    /// Managed, as long as the task; the name is one path component.
    Task {
        name: String,
    },
    /// Managed, until somebody prunes it.
    Shared {
        name: String,
        autoprovision: bool,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { volume, .. } => write!(f, "volume {volume}"),
            Self::Task { name } | Self::Shared { name, .. } => write!(f, "volume {name}"),
        }
    }
}

/// One mount to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedMount {
    pub container: ContainerName,
    pub source: Source,
    pub destination: String,
    pub read_only: bool,
    /// Container whose root file system fills a new volume, and from which path.
    pub seed_from: ContainerName,
    pub seed_path: String,
}

pub(super) fn plan(
    definition: &TaskDefinition,
    images: &BTreeMap<ContainerName, &ImageConfig>,
) -> Vec<PlannedMount> {
    let containers = &definition.container_definitions;
    let own: Vec<(ContainerName, Vec<PlannedMount>)> = containers
        .iter()
        .map(|container| (container.name.clone(), own_mounts(definition, container, images)))
        .collect();
    let own = without_shadowed(definition, own);
    let mut all: Vec<PlannedMount> = own.iter().flat_map(|(_, mounts)| mounts.clone()).collect();
    for container in containers {
        let mut taken: BTreeSet<String> =
            all.iter().filter(|m| m.container == container.name).map(|m| m.destination.clone()).collect();
        for (from, read_only) in inherited(definition, container) {
            let mounts = own.iter().filter(|(name, _)| *name == from).flat_map(|(_, mounts)| mounts);
            for mount in mounts {
                // The container's own mount of a path goes before another's.
                if taken.insert(mount.destination.clone()) {
                    let read_only = mount.read_only || read_only;
                    all.push(PlannedMount { container: container.name.clone(), read_only, ..mount.clone() });
                }
            }
        }
    }
    all
}

/// An image's VOLUME gives way to what volumesFrom brings to the same path, as with Docker.
fn without_shadowed(
    definition: &TaskDefinition,
    own: Vec<(ContainerName, Vec<PlannedMount>)>,
) -> Vec<(ContainerName, Vec<PlannedMount>)> {
    let givers = |name: &ContainerName| -> BTreeSet<ContainerName> {
        let container = definition.container_definitions.iter().find(|container| container.name == *name);
        container
            .into_iter()
            .flat_map(|container| inherited(definition, container))
            .map(|(from, _)| from)
            .collect()
    };
    let shadowed = |mount: &PlannedMount| {
        let givers_of_it = givers(&mount.container);
        own.iter().filter(|(from, _)| givers_of_it.contains(from)).any(|(from, mounts)| {
            // In a circle an image's VOLUME of one would shadow the other's, and the other's the one's.
            let circle = givers(from).contains(&mount.container);
            mounts
                .iter()
                .any(|m| trimmed(&m.destination) == trimmed(&mount.destination) && !(circle && of_image(m)))
        })
    };
    own.iter()
        .map(|(name, mounts)| {
            let kept = mounts.iter().filter(|mount| !(of_image(mount) && shadowed(mount))).cloned();
            (name.clone(), kept.collect())
        })
        .collect()
}

/// Whether an image's VOLUME asked for it; the name of a volume of the task definition has no dot.
fn of_image(mount: &PlannedMount) -> bool {
    matches!(&mount.source, Source::Task { name } if name.contains('.'))
}

fn own_mounts(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    images: &BTreeMap<ContainerName, &ImageConfig>,
) -> Vec<PlannedMount> {
    let mut mounts: Vec<PlannedMount> = Vec::new();
    for point in &container.mount_points {
        let Some(volume) = definition.volumes.iter().find(|volume| volume.name == point.source_volume) else {
            continue;
        };
        mounts.push(PlannedMount {
            container: container.name.clone(),
            source: source(volume),
            destination: point.container_path.clone(),
            read_only: point.read_only,
            seed_from: container.name.clone(),
            seed_path: point.container_path.clone(),
        });
    }
    let tmpfs = container.linux_parameters.iter().flat_map(|linux| &linux.tmpfs);
    let mut taken: BTreeSet<String> = mounts.iter().map(|mount| trimmed(&mount.destination)).collect();
    taken.extend(tmpfs.map(|tmpfs| trimmed(&tmpfs.container_path)));
    let image = images.get(&container.name);
    for (number, path) in image.iter().flat_map(|image| &image.volumes).enumerate() {
        if taken.contains(&trimmed(path)) {
            continue;
        }
        mounts.push(PlannedMount {
            container: container.name.clone(),
            // A volume's name has no dot, so this is nobody's.
            source: Source::Task { name: format!("image.{}.{number}", container.name) },
            destination: path.clone(),
            read_only: false,
            seed_from: container.name.clone(),
            seed_path: path.clone(),
        });
    }
    mounts
}

fn trimmed(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}

fn source(volume: &Volume) -> Source {
    let name = volume.name.to_string();
    if let Some(docker) = &volume.docker_volume_configuration {
        return match docker.scope {
            VolumeScope::Task => Source::Task { name },
            VolumeScope::Shared => Source::Shared { name, autoprovision: docker.autoprovision },
        };
    }
    let path = volume.host.as_ref().and_then(|host| host.source_path.clone()).filter(|path| !path.is_empty());
    match path {
        Some(path) => Source::Host { volume: name, path },
        None => Source::Task { name },
    }
}

/// Containers whose mounts this one gets, through any number of others; read-only once, read-only
/// from there on. A circle ends where it began.
fn inherited(definition: &TaskDefinition, container: &ContainerDefinition) -> Vec<(ContainerName, bool)> {
    let mut seen: BTreeSet<ContainerName> = [container.name.clone()].into();
    let mut todo: Vec<(ContainerName, bool)> = container
        .volumes_from
        .iter()
        .rev()
        .map(|from| (from.source_container.clone(), from.read_only))
        .collect();
    let mut found = Vec::new();
    while let Some((name, read_only)) = todo.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let next = definition.container_definitions.iter().find(|container| container.name == name);
        found.push((name, read_only));
        let froms = next.iter().flat_map(|container| container.volumes_from.iter().rev());
        todo.extend(froms.map(|from| (from.source_container.clone(), read_only || from.read_only)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str, volumes: &[(&str, &[&str])]) -> Vec<(String, String, String, bool)> {
        let definition: TaskDefinition = serde_json::from_str(json).unwrap();
        let images: BTreeMap<ContainerName, ImageConfig> = volumes
            .iter()
            .map(|(name, paths)| {
                let volumes = paths.iter().map(|path| path.to_string()).collect();
                (name.parse().unwrap(), ImageConfig { volumes, ..ImageConfig::default() })
            })
            .collect();
        let images = images.iter().map(|(name, image)| (name.clone(), image)).collect();
        let plan = plan(&definition, &images);
        plan.into_iter()
            .map(|m| (m.container.to_string(), m.source.to_string(), m.destination, m.read_only))
            .collect()
    }

    #[test]
    fn volumes_from_goes_before_a_volume_of_the_image() {
        let json = r#"{"family":"f","volumes":[{"name":"v"}],"containerDefinitions":[
            {"name":"a","image":"i","memory":6,"mountPoints":[{"sourceVolume":"v","containerPath":"/data"}]},
            {"name":"b","image":"i","memory":6,"volumesFrom":[{"sourceContainer":"a","readOnly":true}]}]}"#;
        let planned = planned(json, &[("a", &["/data"]), ("b", &["/data/", "/other"])]);
        assert_eq!(
            planned,
            [
                line("a", "volume v", "/data", false),
                line("b", "volume image.b.1", "/other", false),
                line("b", "volume v", "/data", true),
            ]
        );
    }

    fn line(
        container: &str,
        source: &str,
        destination: &str,
        read_only: bool,
    ) -> (String, String, String, bool) {
        (container.into(), source.into(), destination.into(), read_only)
    }

    #[test]
    fn every_kind_of_volume_finds_its_place() {
        let json = r#"{"family":"f","volumes":[
            {"name":"host","host":{"sourcePath":"/srv"}},{"name":"empty","host":{}},
            {"name":"own","dockerVolumeConfiguration":{"scope":"task"}},
            {"name":"common","dockerVolumeConfiguration":{"scope":"shared","autoprovision":true}}],
          "containerDefinitions":[{"name":"a","image":"i",
            "mountPoints":[{"sourceVolume":"host","containerPath":"/h","readOnly":true},
              {"sourceVolume":"empty","containerPath":"/e"},{"sourceVolume":"own","containerPath":"/o"},
              {"sourceVolume":"common","containerPath":"/c"}]}]}"#;
        let expected = [
            line("a", "volume host", "/h", true),
            line("a", "volume empty", "/e", false),
            line("a", "volume own", "/o", false),
            line("a", "volume common", "/c", false),
        ];
        assert_eq!(planned(json, &[]), expected);
    }

    #[test]
    fn image_volumes_are_anonymous_unless_something_is_mounted_there() {
        let json = r#"{"family":"f","volumes":[{"name":"v","host":{}}],"containerDefinitions":[{"name":"a","image":"i",
            "mountPoints":[{"sourceVolume":"v","containerPath":"/data/"}],
            "linuxParameters":{"tmpfs":[{"containerPath":"/tmp","size":1}]}}]}"#;
        let found = planned(json, &[("a", &["/data", "/tmp", "/var/lib/x"])]);
        assert_eq!(
            found,
            [line("a", "volume v", "/data/", false), line("a", "volume image.a.2", "/var/lib/x", false)]
        );
    }

    #[test]
    fn volumes_from_goes_through_others_and_around_circles() {
        let json = r#"{"family":"f","volumes":[{"name":"v","host":{}}],"containerDefinitions":[
            {"name":"a","image":"i","mountPoints":[{"sourceVolume":"v","containerPath":"/v"}],"volumesFrom":[{"sourceContainer":"c"}]},
            {"name":"b","image":"i","volumesFrom":[{"sourceContainer":"a","readOnly":true}]},
            {"name":"c","image":"i","mountPoints":[{"sourceVolume":"v","containerPath":"/other"}],"volumesFrom":[{"sourceContainer":"b"}]}]}"#;
        let found = planned(json, &[]);
        assert!(found.contains(&line("b", "volume v", "/v", true)));
        assert!(found.contains(&line("b", "volume v", "/other", true)));
        assert!(found.contains(&line("a", "volume v", "/other", false)));
        assert!(found.contains(&line("c", "volume v", "/v", true)));
        assert_eq!(found.len(), 6);
    }
}
