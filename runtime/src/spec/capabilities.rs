//! Which capabilities a container is bounded by. In: a definition, what the node allows. Out: names
//! with `CAP_`, sorted as capabilities(7) lists them. Source: Docker's rules for --cap-add and
//! --cap-drop. Never: grants one beyond Docker's default set that the node's file does not name.

use super::{SpecError, SpecRequest};
use lighter_model::task_definition::options::DEFAULT_CAPABILITIES;

const ALL: &str = "ALL";

/// Every capability up to CAP_CHECKPOINT_RESTORE (Linux 5.9).
const EVERY: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
];

/// Docker's default set.
pub(crate) fn default_set() -> Vec<&'static str> {
    every(|name| DEFAULT_CAPABILITIES.contains(&name))
}

/// The bounding set of a container.
///
/// # Errors
/// It asks for one that the node does not allow.
pub(crate) fn of(request: &SpecRequest<'_>) -> Result<Vec<&'static str>, SpecError> {
    if request.container.privileged {
        return Ok(every(|_| true));
    }
    let changes = request.container.linux_parameters.as_ref().and_then(|linux| linux.capabilities.as_ref());
    let Some(changes) = changes else { return Ok(default_set()) };
    let named = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
    let (add_all, drop_all) = (named(&changes.add, ALL), named(&changes.drop, ALL));
    let held = every(|name| {
        if add_all {
            return !named(&changes.drop, name);
        }
        let kept = DEFAULT_CAPABILITIES.contains(&name) && !drop_all && !named(&changes.drop, name);
        kept || named(&changes.add, name)
    });
    let allowed = &request.privileges.capabilities;
    let refused = held
        .iter()
        .map(|name| plain(name))
        .find(|name| !DEFAULT_CAPABILITIES.contains(name) && !named(allowed, ALL) && !named(allowed, name));
    match refused {
        None => Ok(held),
        Some(name) => Err(SpecError::CapabilityNotAllowed {
            container: request.container.name.to_string(),
            capability: if add_all { ALL } else { name }.to_owned(),
        }),
    }
}

fn every(wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    EVERY.iter().copied().filter(|name| wanted(plain(name))).collect()
}

fn plain(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}
