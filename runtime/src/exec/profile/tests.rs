//! What an order makes of a container's config.json. Pure, but for a user file in a directory.

use super::*;
use serde_json::json;

fn profile(root: &Path) -> Profile {
    serde_json::from_value(json!({
        "process": {
            "user": { "uid": 7, "gid": 8, "additionalGids": [9], "umask": 18 },
            "env": ["PATH=/a:/b", "HOME=/h", "K=v"],
            "cwd": "/w",
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"], "ambient": ["CAP_CHECKPOINT_RESTORE"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }],
            "noNewPrivileges": true,
            "oomScoreAdj": -3,
        },
        "root": { "path": root },
    }))
    .unwrap()
}

fn order(argv: &[&str]) -> ExecOrder {
    ExecOrder { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..ExecOrder::default() }
}

#[test]
fn without_changes_it_is_as_the_container() {
    let process = profile(Path::new("/")).process(&order(&["p", "x"]), false).unwrap();
    assert_eq!(process.programs, ["/a/p", "/b/p"]);
    assert_eq!(process.arguments, ["p", "x"]);
    assert_eq!(process.environment, ["PATH=/a:/b", "HOME=/h", "K=v"]);
    assert_eq!((process.uid, process.gid, process.groups.as_slice()), (7, 8, [9].as_slice()));
    assert_eq!(process.capabilities.bounding, 1 | 1 << 21);
    assert_eq!(process.capabilities.ambient, 1 << 40);
    assert_eq!((process.umask, process.oom_score_adj), (Some(18), Some(-3)));
    assert_eq!(process.limits, [ResourceLimit { resource: 7, soft: 1, hard: 2 }]);
    assert!(process.no_new_privileges);
}

#[test]
fn an_order_changes_user_directory_and_environment() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    std::fs::write(
        root.path().join("etc/passwd"),
        "web:x:5:6::/home/web:/bin/sh\nroot:x:0:0::/root:/bin/sh\n",
    )
    .unwrap();
    let profile = profile(root.path());
    let changed = ExecOrder {
        user: Some("web".into()),
        working_directory: Some("/d".into()),
        environment_added: vec![("K".into(), "2".into()), ("N".into(), "".into())],
        ..order(&["/bin/p"])
    };
    let process = profile.process(&changed, true).unwrap();
    assert_eq!(process.programs, ["/bin/p"]);
    assert_eq!((process.uid, process.gid, process.groups.len()), (5, 6, 0));
    assert_eq!(process.working_directory, "/d");
    assert_eq!(process.environment, ["PATH=/a:/b", "TERM=xterm", "HOME=/home/web", "K=2", "N="]);
    assert_eq!((process.capabilities.permitted, process.capabilities.bounding), (0, 1 | 1 << 21));
    let root_user = ExecOrder { user: Some("root".into()), ..order(&["p"]) };
    assert_eq!(profile.process(&root_user, false).unwrap().capabilities.effective, 1 | 1 << 21);
    assert!(profile.process(&ExecOrder { user: Some("nobody".into()), ..order(&["p"]) }, false).is_err());
}

#[test]
fn failures_are_in_dockers_words() {
    let text = |step, errno, name: &str| failure_text(ExecFailure { step, errno }, &order(&[name]));
    assert_eq!(text(ExecStep::Execute, 2, "x"), "exec: \"x\": executable file not found in $PATH");
    assert_eq!(text(ExecStep::Execute, 2, "/x"), "exec: \"/x\": no such file or directory");
    assert_eq!(text(ExecStep::Execute, 13, "/x"), "exec: \"/x\": permission denied");
    assert!(text(ExecStep::ChangeDirectory, 2, "x").contains("working directory"));
}

#[test]
fn every_capability_that_a_spec_can_name_has_its_bit() {
    // linux/capability.h
    assert_eq!(bit("CAP_SYS_PTRACE"), Some(1 << 19));
    assert_eq!(bit("CAP_AUDIT_READ"), Some(1 << 37));
    assert_eq!(bit("CAP_NONE"), None);
}
