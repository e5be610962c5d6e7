//! `lighter image pull` for nodes: on those that are named and on no others, as the registry saw it.
//! In: the binaries of `make build`, Debian's packages. Out: one test, a whole run of prepull/run.sh.
//! Owns: network and mount namespaces, which take everything with them. Never: looks with our own code.

use lighter_vm_test::host;
use std::process::Command;

#[test]
fn images_are_pulled_before_on_the_nodes_that_are_named() {
    std::fs::create_dir_all("/run/lighter").unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(host::workspace().join("vm-test/tests/prepull/run.sh"))
        .env("BIN_DIR", host::bin_dir())
        .status()
        .unwrap();
    // Only the place of a mount that is gone; another Lighter on this machine may use it.
    let _ = std::fs::remove_dir("/run/lighter");
    assert!(status.success(), "run.sh ended with {status}; its last words are above");
}
