//! packaging/ and the Vagrantfile name the same units, paths and keys, and what they name exists.
//! In: the files of the checkout, Debian's vagrant. Out: assertions. Never: installs on this machine.

use lighter_vm_test::host::{sh, workspace};
use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// The words of a text that look like a unit of ours.
fn units_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c)))
        .filter(|word| word.starts_with("lighter-") && word.ends_with(".service"))
        .map(str::to_string)
        .collect()
}

#[test]
fn vagrant_validates_the_vagrantfile() {
    let home = tempfile::tempdir().unwrap();
    let out = sh(&format!(
        "cd {} && VAGRANT_HOME={} VAGRANT_CHECKPOINT_DISABLE=1 vagrant validate --ignore-provider",
        workspace().display(),
        home.path().display()
    ))
    .unwrap();
    assert!(out.contains("validated successfully"), "{out}");
}

#[test]
fn the_vagrantfile_has_one_control_machine_and_two_nodes() {
    // Ruby evaluates the file: the machines are those that Vagrant would make.
    let names = sh(&format!(
        "cd {} && ruby -e 'module Vagrant; def self.configure(_v) end; end; load \"Vagrantfile\"; puts CONTROL[:name], NODES.map {{ |n| n[:name] }}'",
        workspace().display()
    ))
    .unwrap();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["control", "node1", "node2"]);
}

#[test]
fn every_path_and_unit_of_the_vagrantfile_exists() {
    let texts =
        [read("Vagrantfile"), read("packaging/vagrant/control.sh"), read("packaging/vagrant/join.sh")]
            .concat();
    let paths: BTreeSet<&str> = texts
        .split(|c: char| !(c.is_ascii_alphanumeric() || "-._/".contains(c)))
        .map(|word| word.trim_start_matches("/vagrant/").trim_end_matches('.'))
        .filter(|word| word.starts_with("packaging/") && word.len() > "packaging/".len())
        .collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        assert!(workspace().join(path).exists(), "{path} is named and is not there");
    }
    let units = units_in(&texts);
    assert_eq!(units.len(), 3, "{units:?}");
    for unit in units {
        assert!(
            workspace().join("packaging/systemd").join(&unit).exists(),
            "{unit} is not in packaging/systemd"
        );
    }
}

#[test]
fn the_apparmor_profile_is_understood_by_debians_parser() {
    // -Q: nothing is loaded into the kernel, which may have no AppArmor.
    let parse = "apparmor_parser -Q -K --names packaging/apparmor/lighter-default 2>/dev/null";
    let names = sh(&format!("cd {} && {parse}", workspace().display())).unwrap();
    assert_eq!(names.trim(), "lighter-default");
}

#[test]
fn install_puts_everything_where_the_units_look() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, dest) = (folder.path().join("bin"), folder.path().join("dest"));
    std::fs::create_dir(&bin).unwrap();
    for name in ["lighter", "lighter-shim", "lighter-oci"] {
        std::fs::write(bin.join(name), "#!/bin/sh\n").unwrap();
    }
    let install = format!("BIN_DIR={} DESTDIR={} packaging/install.sh", bin.display(), dest.display());
    let install = format!("cd {} && {install}", workspace().display());
    sh(&install).unwrap();
    let units = dest.join("usr/lib/systemd/system");
    let mut names: Vec<_> = std::fs::read_dir(&units).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let expected = ["agent", "control", "shutdown", "tasks"];
    let expected = expected.map(|name| std::ffi::OsString::from(format!("lighter-{name}.service")));
    assert_eq!(names, expected);
    for name in names {
        let text = std::fs::read_to_string(units.join(&name)).unwrap();
        let program = text.lines().find_map(|l| l.strip_prefix("ExecStart=/")).unwrap();
        let program = program.split_whitespace().next().unwrap();
        let there = dest.join(program).exists() || program == "bin/true";
        assert!(there, "{name:?} starts /{program}, which is not installed");
    }
    // Settings of a person stay.
    let settings = dest.join("etc/lighter/agent.toml");
    std::fs::write(&settings, "name = \"mine\"\n").unwrap();
    sh(&install).unwrap();
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "name = \"mine\"\n");
}

#[test]
fn tasks_outlive_the_agent_by_their_units() {
    let agent = read("packaging/systemd/lighter-agent.service");
    let tasks = read("packaging/systemd/lighter-tasks.service");
    for line in ["KillMode=process", "Restart=always", "RuntimeDirectoryPreserve=yes"] {
        assert!(agent.lines().any(|l| l == line), "lighter-agent.service lacks {line}");
    }
    assert!(
        !agent.lines().any(|l| l.starts_with("Delegate")),
        "a delegated agent cannot restart beside its tasks"
    );
    let shutdown = read("packaging/systemd/lighter-shutdown.service");
    let after = shutdown.lines().find(|l| l.starts_with("After=")).unwrap();
    assert!(after.contains("lighter-agent.service"), "stopped before the agent, which stops the tasks");
    assert!(
        shutdown.lines().any(|l| l.starts_with("ExecStop=/usr/bin/lighter agent stop --tasks --keep-agent"))
    );
    assert!(agent.lines().any(|l| l.starts_with("Wants=") && l.contains("lighter-shutdown.service")));
    assert!(tasks.lines().any(|l| l == "Delegate=yes"));
    assert!(tasks.lines().any(|l| l == "ExecStart=/usr/bin/lighter-shim keeper"));
}

#[test]
fn the_example_settings_name_only_keys_that_exist() {
    for (example, sources) in [
        ("packaging/etc/agent.toml", &["agent/src/config.rs"][..]),
        (
            "packaging/etc/control.toml",
            &[
                "control/src/config.rs",
                "control/src/config/store.rs",
                "control/src/core/quota.rs",
                "control/src/rate_limit.rs",
            ][..],
        ),
    ] {
        let code: String = sources.iter().map(|source| read(source)).collect();
        let text = read(example);
        assert!(
            text.lines().all(|l| l.is_empty() || l.starts_with('#')),
            "{example}: an example changes nothing"
        );
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|l| l.strip_prefix('#')?.split_once(" = "))
            .map(|(key, _)| key)
            .filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            .collect();
        assert!(keys.len() > 4, "{keys:?}");
        for key in keys {
            assert!(
                code.contains(&format!("pub {key}:")),
                "{example} names {key}, which is in none of {sources:?}"
            );
        }
    }
}

#[test]
fn every_tests_folder_belongs_to_a_tier() {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let tiers = read("vm-test/src/tiers.rs");
    for member in members.split(',').map(|m| m.trim().trim_matches('"')).filter(|m| !m.is_empty()) {
        let has_tests = Path::new(&workspace()).join(member).join("tests").exists();
        assert!(!has_tests || tiers.contains(&format!("\"{member}\"")), "no tier runs the tests of {member}");
    }
}
