//! The spec as a pure function: Docker's rules one by one, a golden file, and properties that hold
//! for any definition.

use super::{BindMount, HostDevice, Privileges, SpecError, SpecRequest, UserNamespace, oci_spec};
use crate::user::User;
use lighter_model::image_config::ImageConfig;
use lighter_model::resources::IdRange;
use lighter_model::task_definition::{ContainerDefinition, TaskDefinition};
use lighter_shim_wire::{CgroupVersion, Limits};
use oci_spec::runtime::Spec;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};
use std::path::Path;

struct Case {
    container: Value,
    image: ImageConfig,
    user: User,
    mounts: Vec<BindMount>,
    devices: Vec<HostDevice>,
    privileges: Privileges,
    version: CgroupVersion,
    task: Value,
    environment_files: Vec<Vec<String>>,
    cpu_quota: bool,
    user_namespace: Option<UserNamespace>,
    profiles: Option<Vec<String>>,
}

fn case(container: Value) -> Case {
    let user = User { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/root".to_owned() };
    let image = ImageConfig { cmd: vec!["serve".to_owned()], ..ImageConfig::default() };
    let (mounts, devices) = (Vec::new(), Vec::new());
    Case {
        container,
        image,
        user,
        mounts,
        devices,
        privileges: Privileges::default(),
        version: CgroupVersion::V2,
        task: json!({}),
        environment_files: Vec::new(),
        cpu_quota: true,
        user_namespace: None,
        profiles: None,
    }
}

impl Case {
    fn build(&self) -> Result<(Spec, Limits), SpecError> {
        let mut definition = json!({ "family": "f", "containerDefinitions": [self.container] });
        for (name, value) in self.task.as_object().unwrap() {
            definition[name] = value.clone();
        }
        let definition: TaskDefinition = serde_json::from_value(definition).unwrap();
        let container: &ContainerDefinition = &definition.container_definitions[0];
        oci_spec(&SpecRequest {
            container,
            definition: &definition,
            image: &self.image,
            rootfs: Path::new("/rootfs"),
            netns: Some(Path::new("/run/lighter/netns/x")),
            hostname: "host",
            mounts: &self.mounts,
            environment_files: &self.environment_files,
            env_extra: &["EXTRA=last".to_owned()],
            privileges: &self.privileges,
            user_namespace: self.user_namespace.as_ref(),
            namespaces: Path::new("/run/lighter/tasks/t/namespaces"),
            init: Path::new("/usr/lib/lighter/lighter-shim"),
            apparmor: self.profiles.as_deref(),
            user: &self.user,
            host_devices: &self.devices,
            cgroups_path: Path::new("/lighter/tasks/t/c"),
            cgroup_version: self.version,
            pids_max: 4096,
            nofile: (1024, 524_288),
            cpu_quota: self.cpu_quota,
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.build().unwrap().0).unwrap()
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn entrypoint_and_command_combine_as_docker_combines_them() {
    // image ENTRYPOINT, image CMD, entryPoint, command, what runs.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let rows: [Row<'_>; 6] = [
        (&["e"], &["c"], &[], &[], &["e", "c"]),
        (&["e"], &["c"], &[], &["x", "y"], &["e", "x", "y"]),
        (&["e"], &["c"], &["n"], &[], &["n"]),
        (&["e"], &["c"], &["n"], &["x"], &["n", "x"]),
        (&[], &["c", "d"], &[], &[], &["c", "d"]),
        (&[], &["c"], &[], &["x"], &["x"]),
    ];
    for (entrypoint, cmd, entry_point, command, expected) in rows {
        let mut case =
            case(json!({ "name": "c", "image": "i", "entryPoint": entry_point, "command": command }));
        case.image.entrypoint = words(entrypoint);
        case.image.cmd = words(cmd);
        assert_eq!(case.json()["process"]["args"], json!(expected));
    }
    let mut none = case(json!({ "name": "c", "image": "i" }));
    none.image.cmd.clear();
    assert!(matches!(none.build(), Err(SpecError::NoCommand { .. })));
}

#[test]
fn environment_is_layered_and_has_what_every_program_expects() {
    let mut case = case(
        json!({ "name": "c", "image": "i", "environment": [{ "name": "A", "value": "definition" }, { "name": "N", "value": "x=y" }] }),
    );
    case.image.env = words(&["PATH=/image", "A=image", "B=image", "EXTRA=image", "no value"]);
    let expected = json!([
        "PATH=/image",
        "HOSTNAME=host",
        "HOME=/root",
        "A=definition",
        "B=image",
        "EXTRA=last",
        "N=x=y"
    ]);
    assert_eq!(case.json()["process"]["env"], expected);
}

#[test]
fn files_of_variables_come_between_image_and_definition_and_the_first_wins() {
    let mut case =
        case(json!({ "name": "c", "image": "i", "environment": [{ "name": "A", "value": "own" }] }));
    case.image.env = words(&["A=image", "B=image", "C=image"]);
    case.environment_files = vec![words(&["A=1", "B=1"]), words(&["B=2", "D=2"])];
    let json = case.json();
    let all: Vec<&str> =
        json["process"]["env"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert_eq!(&all[3..7], ["A=own", "B=1", "C=image", "D=2"]);
}

#[test]
fn capabilities_are_added_and_dropped() {
    let bounding = |capabilities: Value, allowed: &[&str]| {
        let mut case =
            case(json!({ "name": "c", "image": "i", "linuxParameters": { "capabilities": capabilities } }));
        case.privileges.capabilities = words(allowed);
        let spec = case.build()?.0;
        let process = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let mut names: Vec<String> =
            process.bounding().as_ref().unwrap().iter().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(process.bounding(), process.effective());
        Ok::<Vec<String>, SpecError>(names)
    };
    assert_eq!(bounding(json!({}), &[]).unwrap().len(), 14);
    assert_eq!(bounding(json!({ "drop": ["ALL"], "add": ["CHOWN"] }), &[]).unwrap(), ["CHOWN"]);
    assert_eq!(bounding(json!({ "drop": ["CHOWN", "KILL"] }), &[]).unwrap().len(), 12);
    assert_eq!(bounding(json!({ "add": ["SYS_TIME"] }), &["SYS_TIME"]).unwrap().len(), 15);
    assert_eq!(bounding(json!({ "add": ["ALL"], "drop": ["SYS_ADMIN"] }), &["ALL"]).unwrap().len(), 40);
    for add in ["ALL", "SYS_ADMIN"] {
        let refused = bounding(json!({ "add": [add] }), &["SYS_TIME"]).unwrap_err();
        assert!(matches!(refused, SpecError::CapabilityNotAllowed { capability, .. } if capability == add));
    }
}

#[test]
fn namespaces_are_own_shared_or_the_node_s() {
    let kinds = |json: &Value| -> Vec<String> {
        let list = json["linux"]["namespaces"].as_array().unwrap();
        list.iter().map(|namespace| namespace["type"].as_str().unwrap().to_owned()).collect()
    };
    let shm = |json: &Value| {
        let mounts = json["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == "/dev/shm").map(|mount| mount["source"].clone())
    };
    let mut case = case(json!({ "name": "c", "image": "i" }));
    case.task = json!({ "pidMode": "task", "ipcMode": "task" });
    let json = case.json();
    let namespace = &json["linux"]["namespaces"][0];
    assert_eq!(*namespace, json!({ "type": "pid", "path": "/run/lighter/tasks/t/namespaces/pid" }));
    assert_eq!(shm(&json), Some(json!("/run/lighter/tasks/t/namespaces/shm")));
    case.task = json!({ "ipcMode": "none" });
    assert_eq!((kinds(&case.json()).len(), shm(&case.json())), (6, None));
    for member in ["pidMode", "ipcMode"] {
        case.privileges.host_namespaces = false;
        case.task = json!({ member: "host" });
        assert!(matches!(case.build(), Err(SpecError::HostNamespaceNotAllowed { .. })));
        case.privileges.host_namespaces = true;
        let kind = member.trim_end_matches("Mode");
        assert!(!kinds(&case.json()).iter().any(|name| name == kind), "{member}");
    }
}

#[test]
fn an_init_process_is_the_first_and_on_the_container_s_dev() {
    let json = case(json!({ "name": "c", "image": "i", "command": ["serve"], "linuxParameters": { "initProcessEnabled": true } })).json();
    assert_eq!(json["process"]["args"], json!(["/dev/lighter-init", "init", "--", "serve"]));
    let mounts = json["mounts"].as_array().unwrap();
    let init = mounts.iter().find(|mount| mount["destination"] == "/dev/lighter-init").unwrap();
    assert_eq!(init["source"], "/usr/lib/lighter/lighter-shim");
    assert!(init["options"].as_array().unwrap().contains(&json!("ro")));
}

#[test]
fn labels_are_annotations_of_the_spec() {
    let json = case(json!({ "name": "c", "image": "i", "dockerLabels": { "team": "web" } })).json();
    assert_eq!(json["annotations"], json!({ "team": "web" }));
}

#[test]
fn shared_memory_has_the_size_of_the_definition() {
    let options = |parameters: Value| {
        let json = case(json!({ "name": "c", "image": "i", "linuxParameters": parameters })).json();
        let mounts = json["mounts"].as_array().unwrap().clone();
        mounts.iter().find(|mount| mount["destination"] == "/dev/shm").unwrap()["options"].to_string()
    };
    assert!(options(json!({})).contains("size=65536k"));
    assert!(options(json!({ "sharedMemorySize": 0 })).contains("size=65536k"));
    assert!(options(json!({ "sharedMemorySize": 128 })).contains("size=131072k"));
}

#[test]
fn swap_is_none_unless_the_definition_says_how_much() {
    let mut case =
        case(json!({ "name": "c", "image": "i", "memory": 20, "linuxParameters": { "maxSwap": 5 } }));
    assert_eq!(case.build().unwrap().1.swap_max_bytes, Some(5 << 20));
    let resources = case.json()["linux"]["resources"].clone();
    assert_eq!(resources["unified"]["memory.swap.max"], (5 << 20).to_string());
    assert_eq!(resources["memory"], json!({ "limit": 20 << 20, "swap": 25 << 20 }));
    case.version = CgroupVersion::V1;
    let resources = case.json()["linux"]["resources"].clone();
    assert_eq!(resources["memory"], json!({ "limit": 20 << 20, "swap": 25 << 20 }));
}

#[test]
fn cpu_is_a_share_alone_where_the_node_says_so() {
    let mut case = case(json!({ "name": "c", "image": "i", "cpu": 512 }));
    case.cpu_quota = false;
    let (_, limits) = case.build().unwrap();
    assert_eq!((limits.cpu_quota_us, limits.cpu_weight), (None, Some(50)));
    assert_eq!(case.json()["linux"]["resources"]["cpu"], json!({}));
}

#[test]
fn a_profile_needs_a_host_that_has_profiles() {
    let with = |option: &str| case(json!({ "name": "c", "image": "i", "dockerSecurityOptions": [option] }));
    assert!(matches!(with("apparmor:web").build(), Err(SpecError::NoAppArmor { .. })));
    let mut named = with("apparmor:web");
    named.profiles = Some(vec!["docker-default".to_owned()]);
    assert!(matches!(named.build(), Err(SpecError::ProfileNotLoaded { .. })));
    named.profiles = Some(vec!["docker-default".to_owned(), "web".to_owned()]);
    assert_eq!(named.json()["process"]["apparmorProfile"], "web");
    let mut unconfined = with("apparmor:unconfined");
    assert!(matches!(unconfined.build(), Err(SpecError::UnconfinedNotAllowed { .. })));
    unconfined.privileges.unconfined = true;
    unconfined.profiles = Some(vec!["lighter-default".to_owned()]);
    assert_eq!(unconfined.json()["process"].get("apparmorProfile"), None);
}

#[test]
fn who_asks_for_no_profile_gets_the_default_where_it_is_loaded() {
    let profile = |case: &Case| case.json()["process"].get("apparmorProfile").cloned();
    let mut plain = case(json!({ "name": "c", "image": "i" }));
    assert_eq!(profile(&plain), None, "no AppArmor");
    plain.profiles = Some(vec!["docker-default".to_owned()]);
    assert_eq!(profile(&plain), None, "not loaded");
    plain.profiles = Some(vec!["docker-default".to_owned(), "lighter-default".to_owned()]);
    assert_eq!(profile(&plain), Some(json!("lighter-default")));
    let mut privileged = case(json!({ "name": "c", "image": "i", "privileged": true }));
    privileged.privileges.privileged = true;
    privileged.profiles = plain.profiles.clone();
    assert_eq!(profile(&privileged), None);
}

#[test]
fn a_user_other_than_root_holds_no_capability() {
    let mut case = case(json!({ "name": "c", "image": "i" }));
    assert_eq!(case.json()["process"]["capabilities"]["effective"].as_array().unwrap().len(), 14);
    case.user.uid = 1000;
    let capabilities = case.json()["process"]["capabilities"].clone();
    assert_eq!(capabilities["effective"], json!([]));
    assert_eq!(capabilities["permitted"], json!([]));
    assert_eq!(capabilities["bounding"].as_array().unwrap().len(), 14);
}

#[test]
fn limits_are_numbers_of_the_kernel() {
    let mut case =
        case(json!({ "name": "c", "image": "i", "cpu": 256, "memory": 20, "memoryReservation": 10 }));
    let (_, limits) = case.build().unwrap();
    let expected = Limits {
        cpu_quota_us: Some(25_000),
        cpu_period_us: Some(100_000),
        cpu_weight: Some(25),
        memory_max_bytes: Some(20 << 20),
        swap_max_bytes: Some(0),
        pids_max: Some(4096),
    };
    assert_eq!(limits, expected);
    let resources = case.json()["linux"]["resources"].clone();
    assert_eq!(resources["cpu"], json!({ "quota": 25_000, "period": 100_000 }));
    assert_eq!(resources["unified"], json!({ "cpu.weight": "25", "memory.swap.max": "0" }));
    assert_eq!(resources["memory"], json!({ "limit": 20 << 20, "swap": 20 << 20, "reservation": 10 << 20 }));
    case.version = CgroupVersion::V1;
    assert_eq!(case.build().unwrap().1.cpu_weight, Some(256));
}

#[test]
fn devices_begin_with_deny_all_and_end_with_what_was_asked() {
    let mut case = case(
        json!({ "name": "c", "image": "i", "linuxParameters": { "devices": [{ "hostPath": "/dev/fuse" }] } }),
    );
    assert!(matches!(case.build(), Err(SpecError::DevicesNotAllowed { .. })));
    case.privileges.devices = true;
    let device = HostDevice {
        path: "/dev/fuse".to_owned(),
        host_path: "/dev/fuse".to_owned(),
        block: false,
        major: 10,
        minor: 229,
        mode: 0o20666,
        access: "rw".to_owned(),
    };
    case.devices = vec![device.clone()];
    let json = case.json();
    let rules = json["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!((&rules[0]["allow"], &rules[0]["access"]), (&json!(false), &json!("rwm")));
    let last = rules.last().unwrap();
    assert_eq!((&last["major"], &last["minor"], &last["access"]), (&json!(10), &json!(229), &json!("rw")));
    assert_eq!(json["linux"]["devices"][0]["path"], "/dev/fuse");
    for path in ["/etc/fuse", "/dev/../etc/x"] {
        case.devices = vec![HostDevice { path: path.to_owned(), ..device.clone() }];
        assert!(matches!(case.build(), Err(SpecError::DevicePath { .. })));
    }
}

#[test]
fn a_privileged_container_is_unconfined_only_where_that_is_allowed() {
    let mut case = case(json!({ "name": "c", "image": "i", "privileged": true }));
    assert!(matches!(case.build(), Err(SpecError::PrivilegedNotAllowed { .. })));
    case.privileges.privileged = true;
    let json = case.json();
    for absent in ["maskedPaths", "readonlyPaths"] {
        assert!(
            json["linux"].get(absent).is_none_or(|value| value.is_null() || value == &json!([])),
            "{absent}"
        );
    }
    assert_eq!(json["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 41);
    assert_eq!(json["process"]["noNewPrivileges"], false);
}

#[test]
fn in_a_user_namespace_volumes_are_mapped_and_devices_shown() {
    let mut case = case(json!({ "name": "c", "image": "i" }));
    let bind = |destination: &str, mapped| BindMount {
        source: "/src".into(),
        destination: destination.to_owned(),
        read_only: false,
        mapped,
    };
    case.mounts = vec![bind("/data", true), bind("/etc/hosts", false)];
    case.devices = vec![HostDevice {
        path: "/dev/gpu".to_owned(),
        host_path: "/dev/nvidia3".to_owned(),
        block: false,
        major: 195,
        minor: 3,
        mode: 0o20666,
        access: "rw".to_owned(),
    }];
    let ids = IdRange { first: 1 << 20, count: 1 << 16 };
    case.user_namespace = Some(UserNamespace { path: "/ids/user".into(), ids });
    let json = case.json();
    let mappings = json!([{ "containerID": 0, "hostID": 1 << 20, "size": 1 << 16 }]);
    assert_eq!((&json["linux"]["uidMappings"], &json["linux"]["gidMappings"]), (&mappings, &mappings));
    let namespaces = json["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&json!({ "type": "user", "path": "/ids/user" })));
    let find = |path: &str| {
        let mounts = json["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["destination"] == path).unwrap().clone()
    };
    assert_eq!((&find("/data")["uidMappings"], &find("/data")["gidMappings"]), (&mappings, &mappings));
    assert_eq!(find("/etc/hosts").get("uidMappings"), None);
    assert_eq!(find("/dev/gpu")["source"], "/dev/nvidia3");
    assert_eq!(json["linux"].get("devices"), None);
    case.user.additional_gids = vec![1 << 16];
    assert!(matches!(case.build(), Err(SpecError::IdNotMapped { id: 65_536, .. })));
}

#[test]
fn mounts_come_outer_before_inner() {
    let mut case = case(
        json!({ "name": "c", "image": "i", "linuxParameters": { "tmpfs": [{ "containerPath": "/a/b", "size": 1 }] } }),
    );
    let bind = |destination: &str| BindMount {
        source: "/src".into(),
        destination: destination.to_owned(),
        read_only: true,
        mapped: true,
    };
    case.mounts = vec![bind("/a/b/c"), bind("/a"), bind("/z/")];
    let json = case.json();
    let all: Vec<&str> = json["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    assert_eq!(&all[all.len() - 4..], ["/a", "/z/", "/a/b", "/a/b/c"]);
    case.mounts = vec![bind("relative")];
    assert!(matches!(case.build(), Err(SpecError::NotAbsolute { .. })));
}

/// `LIGHTER_BLESS=1` writes the file anew; the change is then seen in review.
#[test]
fn the_default_spec_is_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spec/golden.json");
    let mut json = case(json!({ "name": "c", "image": "i", "cpu": 512, "memory": 128 })).json();
    // The crate keeps sets of capabilities without order.
    for set in ["bounding", "effective", "permitted"] {
        let list = json["process"]["capabilities"][set].as_array_mut().unwrap();
        list.sort_by_key(|name| name.as_str().unwrap().to_owned());
    }
    let text = serde_json::to_string_pretty(&json).unwrap() + "\n";
    if std::env::var_os("LIGHTER_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let difference = golden.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(golden == text, "the default spec has changed: {difference:?}");
}

fn environment() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[A-Z]{1,3}", ".{0,5}"), 0..12)
}

proptest! {
    #[test]
    fn any_definition_gives_a_confined_spec_or_an_error(
        image in environment(), own in environment(), cpu in any::<u32>(), memory in prop::option::of(6_u64..1 << 40), uid in any::<u32>(),
    ) {
        let pairs: Vec<Value> = own.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let mut case = case(json!({ "name": "c", "image": "i", "cpu": cpu, "memory": memory, "environment": pairs }));
        case.image.env = image.iter().map(|(name, value)| format!("{name}={value}")).collect();
        case.user.uid = uid;
        let Ok((spec, limits)) = case.build() else {
            prop_assert!(image.iter().chain(&own).any(|(_, value)| value.contains('\0')));
            return Ok(());
        };
        let linux = spec.linux().as_ref().unwrap();
        prop_assert!(linux.masked_paths().as_ref().is_some_and(|paths| !paths.is_empty()));
        prop_assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
        prop_assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
        prop_assert!(limits.cpu_quota_us.is_none_or(|quota| quota >= 1000));
        prop_assert!(limits.cpu_weight.is_some_and(|weight| (1..=10_000).contains(&weight)));
        // Every variable once, with the last value given.
        let list = spec.process().as_ref().unwrap().env().clone().unwrap();
        let mut names: Vec<&str> = list.iter().map(|entry| entry.split('=').next().unwrap()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        prop_assert_eq!(names.len(), count);
        for (name, _) in &own {
            let last = own.iter().rev().find(|(other, _)| other == name).unwrap();
            let wanted = format!("{}={}", last.0, last.1);
            prop_assert!(list.contains(&wanted) || last.0 == "EXTRA");
        }
    }
}
