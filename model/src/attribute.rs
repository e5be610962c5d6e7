//! Attributes of container instances: the rules of their names and values, the built-in names, and
//! what a task definition requires of an instance.
//! In: names, values, definitions. Out: verdicts and names. Never: decides who may set which.
//! Source: Amazon ECS API reference, Attribute; Developer Guide, "Container instance attributes";
//! the capability names are those of the ECS agent.

use crate::task_definition::log::LOG_DRIVERS;
use crate::task_definition::{ContainerDefinition, IpcMode, PidMode, TaskDefinition};
use std::collections::BTreeSet;

/// Characters of a name and of a value.
pub const CHARS_MAX: usize = 128;
/// Where a node is and what it is, as ECS names it.
pub const REGION: &str = "ecs.region";
pub const AVAILABILITY_ZONE: &str = "ecs.availability-zone";
pub const INSTANCE_TYPE: &str = "ecs.instance-type";
pub const OS_TYPE: &str = "ecs.os-type";
pub const OS_FAMILY: &str = "ecs.os-family";
pub const CPU_ARCHITECTURE: &str = "ecs.cpu-architecture";
pub const VPC_ID: &str = "ecs.vpc-id";
pub const SUBNET_ID: &str = "ecs.subnet-id";
pub const AMI_ID: &str = "ecs.ami-id";
/// The machine's id at its provider, which the cluster query language calls `ec2InstanceId`.
pub const EC2_INSTANCE_ID: &str = "ecs.ec2-instance-id";
/// How the machine is paid for: `on-demand`, `spot`, `reserved`.
pub const CAPACITY_TYPE: &str = "lighter.capacity-type";
/// The words of `CAPACITY_TYPE`.
pub const CAPACITY_TYPES: [&str; 3] = ["on-demand", "spot", "reserved"];

const PRIVILEGED: &str = "com.amazonaws.ecs.capability.privileged-container";
/// Containers are confined by an AppArmor profile.
pub const APPARMOR: &str = "com.amazonaws.ecs.capability.apparmor";
const LOGGING: &str = "com.amazonaws.ecs.capability.logging-driver.";
const HEALTH_CHECK: &str = "ecs.capability.container-health-check";
const ORDERING: &str = "ecs.capability.container-ordering";
const RESTART_POLICY: &str = "ecs.capability.container-restart-policy";
const NAMESPACE_SHARING: &str = "ecs.capability.pid-ipc-namespace-sharing";
const TASK_LIMITS: &str = "ecs.capability.task-cpu-mem-limit";
const PORT_RANGE: &str = "ecs.capability.container-port-range";
/// Tasks may differ from their definition by overrides; a name of our own, for agents that do not know them.
pub const OVERRIDES: &str = "ecs.capability.lighter-overrides";
/// What every agent can do: the drivers and features that need no setting of the node.
const EVERY_AGENT: [&str; 7] =
    [HEALTH_CHECK, ORDERING, RESTART_POLICY, NAMESPACE_SHARING, TASK_LIMITS, PORT_RANGE, OVERRIDES];

/// Whether a name is one that nodes report of themselves and nobody else sets.
pub fn is_built_in(name: &str) -> bool {
    ["ecs.", "com.amazonaws.", "lighter."].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a name says what a node can do.
pub fn is_capability(name: &str) -> bool {
    name.starts_with("ecs.capability.") || name.starts_with("com.amazonaws.ecs.capability.")
}

/// Why an attribute is refused, in words; `Ok` when name and value keep ECS's rules.
pub fn check(name: &str, value: &str) -> Result<(), String> {
    let name_char = |c: char| c.is_ascii_alphanumeric() || "-_/\\.".contains(c);
    if name.is_empty() || name.len() > CHARS_MAX || !name.chars().all(name_char) {
        let shown: String = name.chars().take(CHARS_MAX).collect();
        return Err(format!("the name {shown:?} must be 1 to {CHARS_MAX} letters, digits, and - _ / \\ ."));
    }
    let value_char = |c: char| c.is_ascii_alphanumeric() || "-_.@/\\: ".contains(c);
    if value.len() > CHARS_MAX || !value.chars().all(value_char) || value.trim() != value {
        return Err(format!(
            "the value of {name:?} must be at most {CHARS_MAX} letters, digits, and - _ . @ / \\ :, \
             with no space at its ends"
        ));
    }
    if name == CAPACITY_TYPE && !CAPACITY_TYPES.contains(&value) {
        return Err(format!("{CAPACITY_TYPE} must be one of {}", CAPACITY_TYPES.join(", ")));
    }
    Ok(())
}

/// ECS's word for a processor, from Rust's.
pub fn architecture(rust_arch: &str) -> &str {
    if rust_arch == "aarch64" { "arm64" } else { rust_arch }
}

/// The capabilities that an agent reports; `privileged`: its own file allows privileged containers.
pub fn capabilities(privileged: bool) -> BTreeSet<String> {
    let drivers = LOG_DRIVERS.iter().map(|driver| format!("{LOGGING}{driver}"));
    let features = EVERY_AGENT.iter().copied().chain(privileged.then_some(PRIVILEGED));
    drivers.chain(features.map(str::to_owned)).collect()
}

/// What an instance must have to run tasks of this definition.
pub fn required(definition: &TaskDefinition) -> BTreeSet<String> {
    let containers = &definition.container_definitions;
    let any = |has: fn(&ContainerDefinition) -> bool| containers.iter().any(has);
    let features = [
        (any(|c| c.privileged), PRIVILEGED),
        (any(|c| c.health_check.is_some()), HEALTH_CHECK),
        (any(|c| !c.depends_on.is_empty()), ORDERING),
        (any(|c| c.restart_policy.is_some()), RESTART_POLICY),
        (any(|c| c.port_mappings.iter().any(|p| p.container_port_range.is_some())), PORT_RANGE),
        (
            definition.pid_mode != PidMode::default() || definition.ipc_mode != IpcMode::default(),
            NAMESPACE_SHARING,
        ),
        (definition.cpu_units.is_some() || definition.memory_mib.is_some(), TASK_LIMITS),
    ];
    let features = features.iter().filter(|(needed, _)| *needed).map(|(_, name)| (*name).to_owned());
    let drivers = containers.iter().filter_map(|c| c.log_configuration.as_ref());
    features.chain(drivers.map(|log| format!("{LOGGING}{}", log.log_driver))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_definition::input;

    fn needs(members: &str, container: &str) -> BTreeSet<String> {
        let json = format!(
            r#"{{"family":"f",{members}"containerDefinitions":[{{"name":"c","image":"i","memory":64{container}}}]}}"#
        );
        required(&input::parse(&json).unwrap())
    }

    #[test]
    fn a_plain_definition_requires_nothing_and_each_feature_its_own() {
        assert!(needs("", "").is_empty());
        for (members, container, name) in [
            ("", r#","privileged":true"#, PRIVILEGED),
            ("", r#","healthCheck":{"command":["CMD","true"]}"#, HEALTH_CHECK),
            ("", r#","restartPolicy":{"enabled":true}"#, RESTART_POLICY),
            ("", r#","portMappings":[{"containerPortRange":"80-82"}]"#, PORT_RANGE),
            (r#""pidMode":"task","#, "", NAMESPACE_SHARING),
            (r#""memory":"128","#, "", TASK_LIMITS),
            (
                "",
                r#","logConfiguration":{"logDriver":"journald"}"#,
                "com.amazonaws.ecs.capability.logging-driver.journald",
            ),
        ] {
            assert_eq!(needs(members, container), BTreeSet::from([name.to_owned()]), "{container}");
        }
    }

    #[test]
    fn an_agent_reports_whatever_may_be_required() {
        let all = capabilities(true);
        let most = needs(
            r#""pidMode":"host","cpu":"256","#,
            r#","privileged":true,"logConfiguration":{"logDriver":"json-file"},"portMappings":[{"containerPortRange":"80-82"}]"#,
        );
        assert!(most.is_subset(&all), "{most:?}");
        assert!(all.iter().all(|name| is_capability(name) && check(name, "").is_ok()));
        assert!(!capabilities(false).contains(PRIVILEGED));
    }

    #[test]
    fn names_and_values_keep_ecs_s_rules() {
        assert!(check("a/b\\c.d-e_f", "x@y: z").is_ok());
        assert!(check(&"n".repeat(128), &"v".repeat(128)).is_ok());
        for (name, value) in [("", "v"), ("a b", "v"), ("ä", "v"), ("n", " v"), ("n", "v "), ("n", "ä")] {
            assert!(check(name, value).is_err(), "{name:?}={value:?}");
        }
        assert!(check(&"n".repeat(129), "").is_err() && check("n", &"v".repeat(129)).is_err());
        assert!(check(CAPACITY_TYPE, "spot").is_ok() && check(CAPACITY_TYPE, "cheap").is_err());
    }
}
