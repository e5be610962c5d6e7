//! The rules that take more than one member of a task definition to judge, or a look inside a text.
//! In: a definition whose members are each of the right shape. Out: everything that is wrong with it.
//! Owns nothing. Never: changes the definition, or knows what a node allows.
//! Source: Amazon ECS API reference; Linux for paths, host names and users.

mod lifecycle;
mod options;

use super::input::Problem;
use super::members::{CPU_UNITS_MAX, TMPFS_OPTIONS, TMPFS_OPTIONS_WITH_VALUE};
use super::{ContainerDefinition, LinuxParameters, NetworkMode, TaskDefinition, Volume};
use crate::ids::ContainerName;
use crate::resources::HostPort;
use std::collections::{BTreeMap, BTreeSet};

/// What a node can be asked to hold; ECS's 10 is a quota of the control plane.
const CONTAINERS_MAX: usize = 100;
/// Linux's HOST_NAME_MAX, in bytes.
const HOSTNAME_BYTES_MAX: usize = 64;
/// Linux's PATH_MAX, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// Everything that is wrong, in the order of the definition.
pub(super) fn problems(definition: &TaskDefinition) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    found.container_list(definition);
    found.volumes(&definition.volumes);
    let volumes: BTreeSet<&str> = definition.volumes.iter().map(|volume| volume.name.as_str()).collect();
    for (index, container) in definition.container_definitions.iter().enumerate() {
        let at = format!("containerDefinitions[{index}]");
        found.memory(&at, definition, container);
        found.process(&at, container);
        found.mounts(&at, container, &volumes);
        found.options(&at, definition, container);
        found.log_configuration(&at, container);
        if let Some(parameters) = &container.linux_parameters {
            found.linux_parameters(&format!("{at}.linuxParameters"), parameters);
        }
    }
    found.ports(definition);
    found.volumes_from(&definition.container_definitions);
    found.lifecycle(definition);
    found.port_ranges(definition);
    found.links(definition);
    found.task_level(definition);
    found.user_namespace(definition);
    found.tags(definition);
    found.0
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into() });
    }

    fn tags(&mut self, definition: &TaskDefinition) {
        let pairs = definition.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone()));
        if let Err(error) = crate::tags::checked(pairs) {
            self.add("tags", error.to_string());
        }
    }

    fn container_list(&mut self, definition: &TaskDefinition) {
        let containers = &definition.container_definitions;
        if containers.is_empty() || containers.len() > CONTAINERS_MAX {
            let count = containers.len();
            self.add(
                "containerDefinitions",
                format!("must have 1 to {CONTAINERS_MAX} containers, not {count}"),
            );
        } else if !containers.iter().any(|container| container.essential) {
            self.add("containerDefinitions", "at least one container must be essential");
        }
        let mut names = BTreeSet::new();
        for (index, container) in containers.iter().enumerate() {
            if !names.insert(&container.name) {
                let message = format!("another container is named {:?} too", container.name.as_str());
                self.add(format!("containerDefinitions[{index}].name"), message);
            }
        }
    }

    fn memory(&mut self, at: &str, definition: &TaskDefinition, container: &ContainerDefinition) {
        match (container.memory_mib, container.memory_reservation_mib) {
            (None, None) if definition.memory_mib.is_none() => self.add(
                format!("{at}.memory"),
                "is required: give the container memory or memoryReservation, or the task memory",
            ),
            (Some(memory), Some(reservation)) if reservation > memory => self.add(
                format!("{at}.memoryReservation"),
                format!("must not be above memory ({reservation} MiB > {memory} MiB)"),
            ),
            _ => {}
        }
    }

    fn process(&mut self, at: &str, container: &ContainerDefinition) {
        let image = &container.image;
        if image.chars().any(|c| c.is_whitespace() || c.is_control()) || image.contains("://") {
            self.add(
                format!("{at}.image"),
                "must be a reference like registry/repository:tag, without a scheme or spaces",
            );
        }
        if container.hostname.as_deref().is_some_and(|name| !is_hostname(name)) {
            let message = format!(
                "must be a host name of at most {HOSTNAME_BYTES_MAX} letters, digits, hyphens and dots"
            );
            self.add(format!("{at}.hostname"), message);
        }
        if container.user.as_deref().is_some_and(|user| !is_user(user)) {
            self.add(format!("{at}.user"), "must be user, uid, user:group or uid:gid");
        }
        if let Some(directory) = &container.working_directory {
            self.absolute_path(format!("{at}.workingDirectory"), directory);
        }
        for (index, pair) in container.environment.iter().enumerate() {
            if pair.name.contains('=') {
                self.add(format!("{at}.environment[{index}].name"), "must not contain `=`");
            }
        }
    }

    fn log_configuration(&mut self, at: &str, container: &ContainerDefinition) {
        let settings = container.log_configuration.as_ref().map(|configuration| configuration.settings());
        for problem in settings.into_iter().filter_map(Result::err).flatten() {
            self.add(format!("{at}.logConfiguration.{}", problem.field), problem.message);
        }
    }

    fn mounts(&mut self, at: &str, container: &ContainerDefinition, volumes: &BTreeSet<&str>) {
        let mut paths = BTreeSet::new();
        for (index, mount) in container.mount_points.iter().enumerate() {
            let at = format!("{at}.mountPoints[{index}]");
            if !volumes.contains(mount.source_volume.as_str()) {
                let message =
                    format!("no volume of the task definition is named {:?}", mount.source_volume.as_str());
                self.add(format!("{at}.sourceVolume"), message);
            }
            self.mount_path(format!("{at}.containerPath"), &mount.container_path, &mut paths);
        }
        let tmpfs = container.linux_parameters.iter().flat_map(|parameters| &parameters.tmpfs);
        for (index, tmpfs) in tmpfs.enumerate() {
            let field = format!("{at}.linuxParameters.tmpfs[{index}].containerPath");
            self.mount_path(field, &tmpfs.container_path, &mut paths);
        }
    }

    fn mount_path(&mut self, field: String, path: &str, taken: &mut BTreeSet<String>) {
        let plain = path.trim_end_matches('/');
        if plain.is_empty() && path.starts_with('/') {
            self.add(field, "must not be the container's root directory");
        } else if !taken.insert(plain.to_owned()) {
            self.add(field, format!("something else of the container is mounted at {path:?} too"));
        } else {
            self.absolute_path(field, path);
        }
    }

    fn absolute_path(&mut self, field: String, path: &str) {
        let message = if !path.starts_with('/') {
            "must be an absolute path"
        } else if path.split('/').any(|part| part == "..") {
            "must not contain `..`"
        } else if path.len() > PATH_BYTES_MAX {
            "is longer than Linux takes (4096 bytes)"
        } else {
            return;
        };
        self.add(field, message);
    }

    fn linux_parameters(&mut self, at: &str, parameters: &LinuxParameters) {
        for (index, device) in parameters.devices.iter().enumerate() {
            self.absolute_path(format!("{at}.devices[{index}].hostPath"), &device.host_path);
            if let Some(path) = &device.container_path {
                self.absolute_path(format!("{at}.devices[{index}].containerPath"), path);
            }
        }
        for (index, tmpfs) in parameters.tmpfs.iter().enumerate() {
            for (option_index, option) in tmpfs.mount_options.iter().enumerate() {
                if !is_tmpfs_option(option) {
                    let field = format!("{at}.tmpfs[{index}].mountOptions[{option_index}]");
                    let known = TMPFS_OPTIONS.join(", ");
                    let with_value = TMPFS_OPTIONS_WITH_VALUE.join("=…, ");
                    self.add(field, format!("{option:?} is not supported; one of {known}, {with_value}=…"));
                }
            }
        }
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        let mut names = BTreeSet::new();
        for (index, volume) in volumes.iter().enumerate() {
            let at = format!("volumes[{index}]");
            if !names.insert(&volume.name) {
                self.add(
                    format!("{at}.name"),
                    format!("another volume is named {:?} too", volume.name.as_str()),
                );
            }
            let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref());
            if let Some(path) = path {
                self.absolute_path(format!("{at}.host.sourcePath"), path);
            }
            if path.is_some() && volume.docker_volume_configuration.is_some() {
                self.add(
                    format!("{at}.dockerVolumeConfiguration"),
                    "must not be given together with host.sourcePath",
                );
            }
        }
    }

    fn ports(&mut self, definition: &TaskDefinition) {
        let mut taken: BTreeMap<HostPort, &ContainerName> = BTreeMap::new();
        for (index, container) in definition.container_definitions.iter().enumerate() {
            let at = format!("containerDefinitions[{index}].portMappings");
            if definition.network_mode == NetworkMode::None && !container.port_mappings.is_empty() {
                self.add(at, "must be empty with network mode none");
                continue;
            }
            if container.disable_networking && !container.port_mappings.is_empty() {
                self.add(at, "must be empty with disableNetworking");
                continue;
            }
            for (index, mapping) in container.port_mappings.iter().enumerate() {
                self.port_range(&format!("{at}[{index}]"), mapping);
                let field = format!("{at}[{index}].hostPort");
                let (port, protocol) = (mapping.host_port, mapping.protocol);
                if definition.network_mode == NetworkMode::Host
                    && mapping.container_port_range.is_none()
                    && port != mapping.container_port
                {
                    self.add(
                        &field,
                        format!("must be absent, 0 or {} with network mode host", mapping.container_port),
                    );
                }
                let (field, ports) = match &mapping.container_port_range {
                    // The range is what the container takes of the host.
                    Some(_) if definition.network_mode == NetworkMode::Host => {
                        (format!("{at}[{index}].containerPortRange"), mapping.container_ports())
                    }
                    _ => (field, port..=port),
                };
                let clash = |port| {
                    taken.insert(HostPort { protocol, port }, &container.name).map(|other| (port, other))
                };
                // All are noted, the first is told.
                let clashes: Vec<_> = ports.filter(|port| *port != 0).filter_map(clash).collect();
                if let Some((port, other)) = clashes.first() {
                    let message = format!(
                        "container {:?} takes host port {port}/{} too",
                        other.as_str(),
                        protocol.as_str()
                    );
                    self.add(field, message);
                }
            }
        }
    }

    fn volumes_from(&mut self, containers: &[ContainerDefinition]) {
        let sources: BTreeMap<&ContainerName, Vec<&ContainerName>> = containers
            .iter()
            .map(|container| {
                (&container.name, container.volumes_from.iter().map(|from| &from.source_container).collect())
            })
            .collect();
        for (index, container) in containers.iter().enumerate() {
            for (from_index, from) in container.volumes_from.iter().enumerate() {
                let field =
                    format!("containerDefinitions[{index}].volumesFrom[{from_index}].sourceContainer");
                let source = &from.source_container;
                if !sources.contains_key(source) {
                    self.add(
                        field,
                        format!("no container of the task definition is named {:?}", source.as_str()),
                    );
                } else if source == &container.name {
                    self.add(field, "must be another container");
                } else if reaches(&sources, source, &container.name) {
                    self.add(
                        field,
                        format!("goes in a circle: {:?} takes volumes from this container", source.as_str()),
                    );
                }
            }
        }
    }

    fn task_level(&mut self, definition: &TaskDefinition) {
        let containers = &definition.container_definitions;
        if let Some(cpu) = definition.cpu_units {
            let wanted: u64 = containers.iter().map(|container| u64::from(container.cpu_units)).sum();
            if cpu == 0 || u64::from(cpu) > CPU_UNITS_MAX {
                self.add("cpu", format!("must be from 1 to {CPU_UNITS_MAX} units"));
            } else if wanted > u64::from(cpu) {
                self.add(
                    "cpu",
                    format!("must hold what the containers ask for together ({wanted} > {cpu} units)"),
                );
            }
        }
        let Some(memory) = definition.memory_mib else { return };
        if !(super::members::MEMORY_MIB_MIN..=1 << 30).contains(&memory) {
            self.add("memory", format!("must be at least {} MiB", super::members::MEMORY_MIB_MIN));
            return;
        }
        let wanted: u64 = containers
            .iter()
            .filter_map(|container| container.memory_reservation_mib.or(container.memory_mib))
            .sum();
        if wanted > memory {
            self.add(
                "memory",
                format!("must hold what the containers reserve together ({wanted} MiB > {memory} MiB)"),
            );
        }
        for (index, container) in containers.iter().enumerate() {
            if let Some(limit) = container.memory_mib.filter(|limit| *limit > memory) {
                let field = format!("containerDefinitions[{index}].memory");
                self.add(field, format!("must not be above the task's memory ({limit} MiB > {memory} MiB)"));
            }
        }
    }
}

/// Whether following `volumesFrom` from `start` comes to `target`.
fn reaches(
    sources: &BTreeMap<&ContainerName, Vec<&ContainerName>>,
    start: &ContainerName,
    target: &ContainerName,
) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(name) = open.pop() {
        if name == target {
            return true;
        }
        if seen.insert(name) {
            open.extend(sources.get(name).into_iter().flatten().copied());
        }
    }
    false
}

fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= HOSTNAME_BYTES_MAX && name.split('.').all(label)
}

fn is_tmpfs_option(option: &str) -> bool {
    match option.split_once('=') {
        None => TMPFS_OPTIONS.contains(&option),
        // A comma would begin another option.
        Some((name, value)) => {
            TMPFS_OPTIONS_WITH_VALUE.contains(&name) && !value.is_empty() && !value.contains([',', ' '])
        }
    }
}

/// `user`, `uid`, `user:group`, `uid:gid` and mixtures.
fn is_user(text: &str) -> bool {
    let part = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
        // The highest value means "leave it" to chown(2).
        true => part.parse::<u32>().is_ok_and(|id| id != u32::MAX),
        false => {
            !part.starts_with('-') && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.$@".contains(&b))
        }
    };
    let mut parts = text.split(':');
    let known = parts.by_ref().take(2).all(|name| !name.is_empty() && part(name));
    known && parts.next().is_none()
}
