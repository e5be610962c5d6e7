//! Docker's default seccomp profile, from our data file `seccomp.json`, for a set of capabilities.
//! In: capability names. Out: OCI `linux.seccomp`. What is not allowed fails with EPERM; clone3
//! with ENOSYS, so that C libraries fall back to clone, whose flags a filter can see.
//! Source: moby's documented default profile (docs "Seccomp security profiles for Docker").
//! Never: allows a system call that creates a namespace without CAP_SYS_ADMIN.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

#[derive(Debug, Deserialize)]
struct Profile {
    allow: Vec<String>,
    allow_with_capability: BTreeMap<String, Vec<String>>,
    allow_when: Vec<Condition>,
    clone_flags_denied: u64,
    errno_without_sys_admin: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    name: String,
    argument: u32,
    operator: String,
    value: u64,
}

/// The file is part of the program and a test reads it: a failure would be a build that no test saw.
/// It would deny everything then.
static PROFILE: LazyLock<Profile> = LazyLock::new(|| {
    serde_json::from_str(include_str!("seccomp.json")).unwrap_or(Profile {
        allow: Vec::new(),
        allow_with_capability: BTreeMap::new(),
        allow_when: Vec::new(),
        clone_flags_denied: 0,
        errno_without_sys_admin: BTreeMap::new(),
    })
});

/// The profile for a process that holds `capabilities`.
pub fn default_profile(capabilities: &[&str]) -> Value {
    let profile = &*PROFILE;
    let holds = |name: &str| capabilities.contains(&name);
    let mut names: Vec<&str> = profile.allow.iter().map(String::as_str).collect();
    for (_, more) in profile.allow_with_capability.iter().filter(|(name, _)| holds(name)) {
        names.extend(more.iter().map(String::as_str));
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    for condition in &profile.allow_when {
        rules.push(json!({
            "names": [condition.name],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": condition.argument, "value": condition.value, "op": condition.operator }],
        }));
    }
    if !holds("CAP_SYS_ADMIN") {
        // As runc and Docker write it: the mask in `value`, what to compare with in `valueTwo`.
        // libcontainer 0.7 reads them the other way round; lighter-oci compiles this itself.
        rules.push(json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": profile.clone_flags_denied, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        }));
        for (name, errno) in &profile.errno_without_sys_admin {
            rules.push(json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno }));
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &["SCMP_ARCH_NATIVE"],
    }
}

#[cfg(test)]
mod tests {
    use super::{PROFILE, default_profile};
    use std::collections::BTreeSet;

    fn allowed(capabilities: &[&str]) -> BTreeSet<String> {
        let names = default_profile(capabilities)["syscalls"][0]["names"].clone();
        serde_json::from_value(names).unwrap()
    }

    #[test]
    fn dangerous_calls_need_their_capability() {
        let plain = allowed(&[]);
        assert!(plain.len() > 300, "the data file was not read: {} names", PROFILE.allow.len());
        let cases = [
            ("CAP_SYS_ADMIN", "mount"),
            ("CAP_SYS_ADMIN", "unshare"),
            ("CAP_SYS_ADMIN", "clone"),
            ("CAP_SYS_BOOT", "reboot"),
            ("CAP_SYS_MODULE", "init_module"),
            ("CAP_SYS_TIME", "clock_settime"),
            ("CAP_BPF", "bpf"),
            ("CAP_SYS_CHROOT", "chroot"),
        ];
        for (capability, name) in cases {
            assert!(!plain.contains(name), "{name}");
            assert!(allowed(&[capability]).contains(name), "{capability} {name}");
        }
        for name in [
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "io_uring_setup",
            "userfaultfd",
            "swapon",
            "nfsservctl",
            "pivot_root",
        ] {
            assert!(!plain.contains(name), "{name}");
        }
    }
}
