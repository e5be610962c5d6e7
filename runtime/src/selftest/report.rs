//! What the self-test found, and what of it is a reason to refuse to work.
//! In: the lines lighter-shim printed inside the container. Out: facts; problems in words with
//! what mends them. Never: runs anything.

use crate::apparmor::{self, Confinement, DEFAULT_PROFILE};
use std::collections::BTreeMap;
use std::fs;

/// Whether a container can open a device of the host that it was not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRules {
    Enforced,
    NotEnforced,
    /// This machine has no block device to try.
    Untried,
}

/// What a default container can do on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTestReport {
    /// A seccomp filter is active (`Seccomp: 2`) and what the profile denies fails.
    pub seccomp_in_force: bool,
    pub device_rules: DeviceRules,
    /// /dev/null can be written: the rules do not forbid too much.
    pub default_devices_work: bool,
    pub no_new_privileges: bool,
    /// The bounding set is Docker's default.
    pub capabilities_limited: bool,
    pub masked_paths_in_force: bool,
    /// The default AppArmor profile.
    pub apparmor: Confinement,
    /// cgroup controllers in force for tasks.
    pub controllers: Vec<String>,
    /// What this machine's cgroups cannot enforce; empty on cgroup v2.
    pub cannot_enforce: Vec<String>,
    /// What the program printed, for the log.
    pub facts: BTreeMap<String, String>,
}

/// Docker's default capabilities as a bit mask (capability.h).
const DEFAULT_CAPABILITY_MASK: u64 = 0xa804_25fb;

impl SelfTestReport {
    pub(super) fn new(lines: &[String], controllers: &[String], cannot_enforce: Vec<&'static str>) -> Self {
        let facts: BTreeMap<String, String> = lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let is = |name: &str, value: &str| facts.get(name).is_some_and(|found| found == value);
        let bounding = facts.get("CapBnd").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        let apparmor = facts.get("apparmor").map(String::as_str).unwrap_or_default();
        Self {
            apparmor: apparmor::judge(apparmor::loaded().as_deref(), apparmor),
            seccomp_in_force: is("Seccomp", "2")
                && is("keyctl_denied", "true")
                && is("clone_newuser_denied", "true"),
            device_rules: match facts.get("block_device_open").map(String::as_str) {
                Some("untried") => DeviceRules::Untried,
                Some(text) if text.starts_with("no") => DeviceRules::Enforced,
                _ => DeviceRules::NotEnforced,
            },
            default_devices_work: is("null_writable", "true"),
            no_new_privileges: is("NoNewPrivs", "1"),
            capabilities_limited: bounding == Some(DEFAULT_CAPABILITY_MASK),
            masked_paths_in_force: is("kcore_hidden", "true") && is("sysrq_writable", "false"),
            controllers: controllers.to_vec(),
            cannot_enforce: cannot_enforce.into_iter().map(str::to_owned).collect(),
            facts,
        }
    }

    /// Reasons to refuse to run containers here; empty on a sound machine.
    pub fn problems(&self) -> Vec<String> {
        let rebuild = "lighter-oci must be built with libcontainer's features libseccomp and cgroupsv2_devices, on a kernel with CONFIG_SECCOMP_FILTER and CONFIG_CGROUP_BPF";
        let checks = [
            (self.seccomp_in_force, format!("the seccomp profile is not in force: {rebuild}")),
            (
                self.device_rules != DeviceRules::NotEnforced,
                format!("a container can open a block device of the host: {rebuild}"),
            ),
            (
                self.default_devices_work,
                "a container cannot write /dev/null: the device rules forbid too much".to_owned(),
            ),
            (self.no_new_privileges, "no-new-privileges is not in force".to_owned()),
            (
                self.capabilities_limited,
                "a container holds other capabilities than the default set".to_owned(),
            ),
            (
                !matches!(self.apparmor, Confinement::Escaped { .. }),
                format!(
                    "AppArmor has profile {DEFAULT_PROFILE} and a container ran without it: {:?}",
                    self.apparmor
                ),
            ),
            (self.masked_paths_in_force, "masked or read-only paths of /proc are not in force".to_owned()),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, problem)| problem).collect()
    }
}

/// Numbers of a block device of this machine: the first of /proc/partitions.
pub(super) fn block_device() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/proc/partitions").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}
