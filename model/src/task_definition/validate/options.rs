//! The rules of `task_definition::options`: name resolution, files of variables, user limits, kernel
//! parameters, groups, links. In: a definition. Out: problems. Owns nothing.
//! Never: judges what only the node can know, such as whether a capability is allowed there.

use super::{Found, is_hostname, is_user, reaches};
use crate::ids::ContainerName;
use crate::task_definition::options::{
    ControlNamespace, HOST_GATEWAY, Link, SecurityOption, SystemControl, Ulimit,
};
use crate::task_definition::{
    ContainerDefinition, IpcMode, NetworkMode, PidMode, PortMapping, TaskDefinition, UsernsMode,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// ECS's bound on files of variables of a container.
const ENVIRONMENT_FILES_MAX: usize = 10;
/// More than any machine has of one kind.
const DEVICES_MAX: u32 = 64;
/// See `port_ranges`.
const RANGE_PORTS_MAX: usize = 500;
/// What the C library takes of a resolv.conf (resolv.conf(5), MAXNS).
const DNS_SERVERS_MAX: usize = 3;

impl Found {
    /// All but `links`, which take a look at the other containers.
    pub(super) fn options(&mut self, at: &str, definition: &TaskDefinition, container: &ContainerDefinition) {
        self.environment_files(at, container);
        self.name_resolution(at, definition, container);
        self.ulimits(at, &container.ulimits);
        for (index, control) in container.system_controls.iter().enumerate() {
            self.system_control(&format!("{at}.systemControls[{index}]"), definition, container, control);
        }
        for (index, text) in container.docker_security_options.iter().enumerate() {
            if let Err(message) = SecurityOption::parse(text) {
                self.add(format!("{at}.dockerSecurityOptions[{index}]"), message);
            }
        }
        for (index, group) in container.groups.iter().enumerate() {
            if group.contains(':') || !is_user(group) {
                self.add(format!("{at}.groups[{index}]"), "must be the name or number of a group");
            }
        }
        self.resource_requirements(at, container);
        let swap = container.linux_parameters.as_ref().and_then(|linux| linux.max_swap_mib).unwrap_or(0);
        if swap > 0 && container.memory_mib.is_none() {
            let field = format!("{at}.linuxParameters.maxSwap");
            self.add(field, "is swap beyond the container's memory, which must be given too");
        }
    }

    pub(super) fn port_range(&mut self, at: &str, mapping: &PortMapping) {
        let given = mapping.container_port != 0;
        match &mapping.container_port_range {
            None if !given => self.add(format!("{at}.containerPort"), "is required, or containerPortRange"),
            Some(_) if given => {
                self.add(format!("{at}.containerPortRange"), "must not be given together with containerPort");
            }
            Some(_) if mapping.host_port != 0 => {
                self.add(
                    format!("{at}.hostPort"),
                    "must not be given with containerPortRange; the node picks",
                );
            }
            _ => {}
        }
    }

    /// A user namespace takes away what these give.
    pub(super) fn user_namespace(&mut self, definition: &TaskDefinition) {
        if definition.userns_mode == UsernsMode::Host {
            return;
        }
        let host = [
            ("networkMode", definition.network_mode == NetworkMode::Host),
            ("pidMode", definition.pid_mode == PidMode::Host),
            ("ipcMode", definition.ipc_mode == IpcMode::Host),
        ];
        for (field, _) in host.into_iter().filter(|(_, host)| *host) {
            self.add(field, "must not be host with usernsMode auto");
        }
        for (index, container) in definition.container_definitions.iter().enumerate() {
            if container.privileged {
                let field = format!("containerDefinitions[{index}].privileged");
                self.add(field, "must not be given with usernsMode auto");
            }
        }
    }

    /// Every port is a socket of the task's monitor and an entry of the node's port map.
    pub(super) fn port_ranges(&mut self, definition: &TaskDefinition) {
        let containers = definition.container_definitions.iter();
        let ranges = containers.flat_map(|c| &c.port_mappings).filter(|m| m.container_port_range.is_some());
        let count: usize = ranges.map(|mapping| mapping.container_ports().len()).sum();
        if count > RANGE_PORTS_MAX {
            let message =
                format!("hold {count} ports together in their ranges, and may hold {RANGE_PORTS_MAX}");
            self.add("containerDefinitions", message);
        }
    }

    fn resource_requirements(&mut self, at: &str, container: &ContainerDefinition) {
        let mut kinds = BTreeSet::new();
        for (index, requirement) in container.resource_requirements.iter().enumerate() {
            let at = format!("{at}.resourceRequirements[{index}]");
            let kind = &requirement.kind;
            if kind == "InferenceAccelerator" {
                self.add(format!("{at}.type"), "is refused: Elastic Inference is not supported");
            } else if !kinds.insert(kind) {
                self.add(format!("{at}.type"), format!("{kind:?} is given twice"));
            } else if !(1..=DEVICES_MAX).contains(&requirement.count()) {
                self.add(
                    format!("{at}.value"),
                    format!("must be a number of devices from 1 to {DEVICES_MAX}"),
                );
            }
        }
    }

    fn environment_files(&mut self, at: &str, container: &ContainerDefinition) {
        let files = &container.environment_files;
        if files.len() > ENVIRONMENT_FILES_MAX {
            let message = format!("must have at most {ENVIRONMENT_FILES_MAX} files, not {}", files.len());
            self.add(format!("{at}.environmentFiles"), message);
        }
        for (index, file) in files.iter().enumerate() {
            let field = format!("{at}.environmentFiles[{index}].value");
            if file.value.starts_with("arn:") {
                self.add(field, "is an object of S3, which is not supported; give a path of the node");
            } else if !file.value.ends_with(".env") {
                self.add(field, "must end in .env");
            } else {
                self.absolute_path(field, &file.value);
            }
        }
    }

    fn name_resolution(&mut self, at: &str, definition: &TaskDefinition, container: &ContainerDefinition) {
        if container.dns_servers.len() > DNS_SERVERS_MAX {
            let message = format!("must have at most {DNS_SERVERS_MAX} servers; C libraries ignore the rest");
            self.add(format!("{at}.dnsServers"), message);
        }
        for (index, server) in container.dns_servers.iter().enumerate() {
            if server.parse::<IpAddr>().is_err() {
                self.add(format!("{at}.dnsServers[{index}]"), "must be an IP address");
            }
        }
        for (index, domain) in container.dns_search_domains.iter().enumerate() {
            if domain != "." && !is_domain(domain.trim_end_matches('.')) {
                self.add(format!("{at}.dnsSearchDomains[{index}]"), "must be a domain name");
            }
        }
        for (index, entry) in container.extra_hosts.iter().enumerate() {
            let at = format!("{at}.extraHosts[{index}]");
            if !is_domain(&entry.hostname) {
                self.add(format!("{at}.hostname"), "must be a host name");
            }
            let gateway = entry.ip_address == HOST_GATEWAY;
            if gateway && (definition.network_mode != NetworkMode::Bridge || container.disable_networking) {
                self.add(format!("{at}.ipAddress"), "can be host-gateway with network mode bridge only");
            } else if !gateway && entry.ip_address.parse::<IpAddr>().is_err() {
                self.add(format!("{at}.ipAddress"), "must be an IP address or host-gateway");
            }
        }
    }

    fn ulimits(&mut self, at: &str, ulimits: &[Ulimit]) {
        // -1 is no limit, so the largest.
        let amount = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
        let mut names = BTreeSet::new();
        for (index, ulimit) in ulimits.iter().enumerate() {
            let at = format!("{at}.ulimits[{index}]");
            if !names.insert(&ulimit.name) {
                self.add(format!("{at}.name"), format!("{:?} is given twice", ulimit.name));
            } else if amount(ulimit.soft_limit) > amount(ulimit.hard_limit) {
                self.add(format!("{at}.softLimit"), "must not be above hardLimit");
            }
        }
    }

    fn system_control(
        &mut self,
        at: &str,
        definition: &TaskDefinition,
        container: &ContainerDefinition,
        control: &SystemControl,
    ) {
        let host_network = definition.network_mode == NetworkMode::Host && !container.disable_networking;
        match control.belongs_to() {
            None => self.add(
                format!("{at}.namespace"),
                format!(
                    "{:?} is no kernel parameter of a container's own; supported are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*",
                    control.namespace
                ),
            ),
            Some(ControlNamespace::Network) if host_network => {
                self.add(format!("{at}.namespace"), "would change the node's network with network mode host");
            }
            Some(ControlNamespace::Ipc) if definition.ipc_mode == IpcMode::Host => {
                self.add(format!("{at}.namespace"), "would change the node with ipcMode host");
            }
            Some(_) => {}
        }
        if control.value.contains('\n') {
            self.add(format!("{at}.value"), "must be one line");
        }
    }

    pub(super) fn links(&mut self, definition: &TaskDefinition) {
        let containers = &definition.container_definitions;
        let find = |name: &str| containers.iter().find(|container| container.name.as_str() == name);
        let edges: BTreeMap<&ContainerName, Vec<&ContainerName>> = containers
            .iter()
            .map(|container| {
                let to = container.links.iter().filter_map(|text| find(Link::parse(text).container));
                (&container.name, to.map(|to| &to.name).collect())
            })
            .collect();
        for (index, container) in containers.iter().enumerate() {
            let at = format!("containerDefinitions[{index}].links");
            if container.links.is_empty() {
                continue;
            }
            if definition.network_mode != NetworkMode::Bridge || container.disable_networking {
                self.add(at, "need network mode bridge and networking that is not disabled");
                continue;
            }
            for (link_index, text) in container.links.iter().enumerate() {
                let link = Link::parse(text);
                let problem = match find(link.container) {
                    _ if !is_domain(link.alias) => "must be name or name:alias".to_owned(),
                    None => format!("no container of the task definition is named {:?}", link.container),
                    Some(to) if to.name == container.name => "must name another container".to_owned(),
                    Some(to) if to.disable_networking => {
                        format!("{:?} has its networking disabled", link.container)
                    }
                    Some(to) if reaches(&edges, &to.name, &container.name) => {
                        format!("goes in a circle: {:?} links to this container", link.container)
                    }
                    Some(_) => continue,
                };
                self.add(format!("{at}[{link_index}]"), problem);
            }
        }
    }
}

/// A host name, or one with underscores: names of containers have them.
fn is_domain(name: &str) -> bool {
    const DOMAIN_BYTES_MAX: usize = 253;
    name.len() <= DOMAIN_BYTES_MAX
        && name.split('.').all(|label| {
            // The rule for the characters; the length of a whole host name does not bound a label.
            is_hostname(&label.replace('_', "x"))
        })
}
