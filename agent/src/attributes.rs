//! What a node says of itself to placement: ECS's built-in attributes and its file's own.
//! In: the agent's file, /sys, EC2's metadata service. Out: attributes by name.
//! Never: lets what was found win over the file.
//! Source: Amazon ECS Developer Guide, "Container instance attributes"; on EC2 the product name of
//! the firmware is the instance type.

mod instance;

pub(crate) use instance::{Machine, of_instance};

use crate::config::AgentConfig;
use lighter_model::attribute;
use std::collections::BTreeMap;
use std::path::Path;

/// The attributes that a session begins with; `instance`: what the metadata service said.
pub(crate) fn reported(
    config: &AgentConfig,
    machine: &Machine,
    instance: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let capabilities = attribute::capabilities(config.allow_privileged);
    let mut all: BTreeMap<String, String> =
        capabilities.into_iter().map(|name| (name, String::new())).collect();
    let architecture = attribute::architecture(std::env::consts::ARCH);
    all.insert(attribute::OS_TYPE.to_owned(), "linux".to_owned());
    all.insert(attribute::CPU_ARCHITECTURE.to_owned(), architecture.to_owned());
    if let Some(instance_type) = instance_type(&machine.firmware) {
        all.insert(attribute::INSTANCE_TYPE.to_owned(), instance_type);
    }
    all.extend(instance);
    // As ECS's agent does; here only when containers get a profile without asking.
    let profiles = lighter_runtime::apparmor::loaded().unwrap_or_default();
    if profiles.iter().any(|name| name == lighter_runtime::apparmor::DEFAULT_PROFILE) {
        all.insert(attribute::APPARMOR.to_owned(), String::new());
    }
    all.extend(config.attributes.clone());
    all
}

/// EC2's instance type; other makers' product names are none.
fn instance_type(firmware: &Path) -> Option<String> {
    let read = |name| std::fs::read_to_string(firmware.join(name)).ok();
    let of_ec2 = read("sys_vendor").is_some_and(|vendor| vendor.trim() == "Amazon EC2");
    let name = read("product_name").filter(|_| of_ec2)?.trim().to_owned();
    attribute::check(attribute::INSTANCE_TYPE, &name).is_ok().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(config: &AgentConfig, firmware: &Path) -> BTreeMap<String, String> {
        reported(config, &Machine { firmware: firmware.to_owned(), ..Machine::default() }, BTreeMap::new())
    }

    fn firmware(vendor: &str, product: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sys_vendor"), vendor).unwrap();
        std::fs::write(dir.path().join("product_name"), product).unwrap();
        dir
    }

    #[test]
    fn what_the_machine_says_is_reported_and_the_file_wins() {
        let dir = firmware("Amazon EC2\n", "m5.large\n");
        let mut config = AgentConfig::default();
        let all = all_of(&config, dir.path());
        assert_eq!((all["ecs.os-type"].as_str(), all["ecs.instance-type"].as_str()), ("linux", "m5.large"));
        assert!(["x86_64", "arm64"].contains(&all["ecs.cpu-architecture"].as_str()));
        assert!(all.contains_key("ecs.capability.container-health-check"));
        assert!(!all.contains_key("com.amazonaws.ecs.capability.privileged-container"));
        config.allow_privileged = true;
        config.attributes.insert("ecs.instance-type".to_owned(), "own".to_owned());
        config.attributes.insert("lighter.capacity-type".to_owned(), "spot".to_owned());
        let all = all_of(&config, dir.path());
        assert_eq!(
            (all["ecs.instance-type"].as_str(), all["lighter.capacity-type"].as_str()),
            ("own", "spot")
        );
        assert!(all.contains_key("com.amazonaws.ecs.capability.privileged-container"));
        assert!(all.iter().all(|(name, value)| attribute::check(name, value).is_ok()));
    }

    #[test]
    fn other_machines_have_no_instance_type() {
        let all = |dir: &tempfile::TempDir| all_of(&AgentConfig::default(), dir.path());
        assert!(!all(&firmware("QEMU", "Standard PC")).contains_key("ecs.instance-type"));
        assert!(!all(&firmware("Amazon EC2", "ä")).contains_key("ecs.instance-type"));
        assert!(!all(&tempfile::tempdir().unwrap()).contains_key("ecs.instance-type"));
    }
}
