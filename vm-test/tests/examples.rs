//! The task definitions of examples/ run as they stand and README.md's commands answer as printed, with images of the same names made from Debian's packages.
//! In: the binaries of `make build`, Debian's packages. Out: one test a whole run of examples/run.sh.
//! Owns: network and mount namespaces, which take everything with them. Never: looks with our own code.

use lighter_vm_test::{example_images, host};
use std::process::Command;

#[test]
fn every_example_runs_unchanged_and_the_readme_is_true() {
    let images = example_images::ensure().unwrap();
    let workspace = host::workspace();
    std::fs::create_dir_all("/run/lighter").unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(workspace.join("vm-test/tests/examples/run.sh"))
        .env("BIN_DIR", host::bin_dir())
        .env("IMAGES", images)
        .env("EXAMPLES", workspace.join("examples"))
        .status()
        .unwrap();
    // Only the place of a mount that is gone; another Lighter on this machine may use it.
    let _ = std::fs::remove_dir("/run/lighter");
    assert!(status.success(), "run.sh ended with {status}; its last words are above");
}
