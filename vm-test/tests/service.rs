//! T4: a service behind haproxy through an update, a bad revision, a drain and the death of a node:
//! `packaging/demo/service.sh` with the binaries of the build. In: root, haproxy, python3, a static busybox.
//! Out: at least 5,000 requests, none of which failed. Leaves nothing behind: the script has namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lighter_vm_test::host;
use std::process::Command;

#[test]
fn no_request_fails_while_a_service_changes_and_nodes_come_and_go() {
    let script = host::workspace().join("packaging/demo/service.sh");
    let done = Command::new(script).env("BIN_DIR", host::bin_dir()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}\n{err}");
    let last = out.lines().last().unwrap();
    let words: Vec<&str> = last.split_whitespace().collect();
    let requests: u32 = words[0].parse().unwrap_or_else(|_| panic!("{last}"));
    assert!(requests >= 5_000 && words[1..4] == ["requests,", "0", "failed;"], "{last}");
    assert!(!last.contains("version 3"), "the bad revision has answered: {last}");
}
