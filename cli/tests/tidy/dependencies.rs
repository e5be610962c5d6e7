//! Who may use whom: the table of ARCHITECTURE.md, "The crates", checked against cargo's own view.

use super::packages::{Kind, Packages};
use super::tree::{none, read};
use std::collections::BTreeSet;

struct Rule {
    package: &'static str,
    /// Our packages it may use, directly.
    may_use: &'static [&'static str],
    /// Packages that must not be linked into it, directly or through others.
    never: &'static [&'static str],
}

const LIBCONTAINER: &str = "libcontainer";
const TABLE: &[Rule] = &[
    Rule { package: "lighter-model", may_use: &[], never: &["tokio", "tonic"] },
    Rule { package: "lighter-proto", may_use: &[], never: &["lighter-model"] },
    Rule {
        package: "lighter-image",
        may_use: &["lighter-model"],
        never: &["lighter-net", "lighter-runtime", "lighter-proto", LIBCONTAINER],
    },
    Rule {
        package: "lighter-net",
        may_use: &["lighter-model"],
        never: &["lighter-image", "lighter-runtime", "lighter-proto", LIBCONTAINER],
    },
    Rule {
        package: "lighter-archive",
        may_use: &["lighter-image"],
        never: &["lighter-net", "lighter-runtime", "lighter-proto", LIBCONTAINER],
    },
    Rule { package: "lighter-shim-wire", may_use: &[], never: &["tokio"] },
    Rule {
        package: "lighter-shim",
        may_use: &["lighter-shim-wire"],
        never: &["tokio", "tonic", LIBCONTAINER],
    },
    Rule { package: "lighter-oci", may_use: &["lighter-shim-wire"], never: &["tokio", "tonic"] },
    Rule {
        package: "lighter-runtime",
        may_use: &["lighter-model", "lighter-shim-wire"],
        never: &[LIBCONTAINER, "lighter-image", "lighter-net", "lighter-proto"],
    },
    Rule {
        package: "lighter-telemetry",
        may_use: &[],
        never: &["lighter-model", "lighter-proto", LIBCONTAINER],
    },
    Rule {
        package: "lighter-agent",
        may_use: &[
            "lighter-telemetry",
            "lighter-model",
            "lighter-proto",
            "lighter-image",
            "lighter-archive",
            "lighter-net",
            "lighter-runtime",
            "lighter-shim-wire",
        ],
        never: &[LIBCONTAINER, "lighter-control"],
    },
    Rule {
        package: "lighter-control",
        may_use: &["lighter-model", "lighter-proto", "lighter-telemetry"],
        never: &[
            "lighter-image",
            "lighter-archive",
            "lighter-net",
            "lighter-runtime",
            "lighter-agent",
            LIBCONTAINER,
        ],
    },
    Rule {
        package: "lighter-cli",
        may_use: &["lighter-proto", "lighter-archive", "lighter-agent", "lighter-control"],
        never: &[LIBCONTAINER],
    },
    Rule {
        package: "lighter-bench",
        // The unpacker and the scheduler are timed in process.
        may_use: &["lighter-proto", "lighter-image", "lighter-control", "lighter-model"],
        never: &["lighter-net", "lighter-runtime", LIBCONTAINER],
    },
    Rule {
        package: "lighter-vm-test",
        may_use: &[],
        never: &["lighter-net", "lighter-runtime", LIBCONTAINER],
    },
];

#[test]
fn every_package_is_in_the_table_and_keeps_to_it() {
    let packages = Packages::load();
    let mut findings = Vec::new();
    for id in packages.members() {
        let name = packages.name(id);
        let Some(rule) = TABLE.iter().find(|rule| rule.package == name) else {
            findings.push(format!("{name} is not in the table"));
            continue;
        };
        for used in packages.direct(id, &[Kind::Normal, Kind::Build]) {
            if used.starts_with("lighter-") && !rule.may_use.contains(&used) {
                findings.push(format!("{name} must not use {used}"));
            }
        }
        let linked = packages.linked(name);
        for banned in rule.never.iter().filter(|banned| linked.contains(**banned)) {
            findings.push(format!("{name} must not have {banned}, directly or through others"));
        }
    }
    none("the dependency table is broken", &findings);
}

#[test]
fn the_monitor_is_made_of_libc_and_the_wire_protocol() {
    let packages = Packages::load();
    assert_eq!(packages.linked("lighter-shim"), BTreeSet::from(["libc", "lighter-shim-wire"]));
    assert_eq!(packages.linked("lighter-shim-wire"), BTreeSet::new());
}

#[test]
fn only_the_helper_links_libcontainer() {
    let packages = Packages::load();
    for id in packages.members() {
        let name = packages.name(id);
        assert_eq!(packages.linked(name).contains(LIBCONTAINER), name == "lighter-oci", "{name}");
    }
}

#[test]
fn model_crates_of_third_parties_are_declared_once() {
    // A version in a crate's own manifest would escape the one table.
    let packages = Packages::load();
    let mut findings = Vec::new();
    for (_, package) in packages.all() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let Ok(ours) = std::path::Path::new(manifest).strip_prefix(super::tree::root()) else { continue };
        let ours = ours.display().to_string();
        for (index, line) in read(&ours).lines().enumerate() {
            let own_version = line.contains(" = \"") && line.starts_with(|c: char| c.is_ascii_lowercase());
            let plain_key = ["name", "path", "version", "edition", "description", "build", "links"]
                .iter()
                .any(|key| line.starts_with(&format!("{key} ")));
            let inline_version = line.contains("version = \"");
            if (own_version && !plain_key || inline_version && !line.starts_with("version"))
                && !line.contains("workspace = true")
            {
                findings.push(format!("{ours}:{}: {line}", index + 1));
            }
        }
    }
    none("a version outside the workspace's table", &findings);
}

#[test]
fn ring_is_the_only_cryptography() {
    let lock = read("Cargo.lock");
    let banned = [
        "aws-lc-rs",
        "aws-lc-sys",
        "aws-lc-fips-sys",
        "boring",
        "boring-sys",
        "native-tls",
        "openssl",
        "openssl-sys",
        "rustables",
    ];
    let found: Vec<String> = banned
        .iter()
        .filter(|name| lock.contains(&format!("name = \"{name}\"\n")))
        .map(ToString::to_string)
        .collect();
    none("one provider of cryptography: ring", &found);
    assert!(lock.contains("name = \"ring\"\n"));
}

#[test]
fn every_package_has_the_workspaces_lints() {
    let packages = Packages::load();
    let without: Vec<String> = packages
        .all()
        .filter(|(id, _)| packages.members().any(|member| member == id.as_str()))
        .map(|(_, package)| package["manifest_path"].as_str().unwrap().to_owned())
        .filter(|manifest| !std::fs::read_to_string(manifest).unwrap().contains("[lints]\nworkspace = true"))
        .collect();
    none("[lints] workspace = true is missing", &without);
}
