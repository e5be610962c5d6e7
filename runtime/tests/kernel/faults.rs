//! Helpers that fail at the worst moment, and limits that are not in force.

use crate::support::{Node, bin_dir, eventually, is_alive, processes_with, shell};
use lighter_runtime::{RequestError, RuntimeConfig, StartError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A helper that does `script` in place of lighter-oci; `$OCI` is the real one, `$DIR` the directory
/// ($0 is not below it: the shim starts the file on a mount of its own).
fn with_helper(script: &str, directory: &Path) -> impl FnOnce(&mut RuntimeConfig) + use<> {
    let path = directory.join("helper");
    let oci = bin_dir().join("lighter-oci");
    fs::write(
        &path,
        format!(
            "#!/bin/sh\nOCI={}\nDIR={}\n[ \"$1\" != compile-seccomp ] || exec $OCI \"$@\"\n{script}\n",
            oci.display(),
            directory.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    move |config| config.oci_path = path
}

#[tokio::test]
async fn a_helper_that_ends_without_an_answer_is_an_error_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::with_config(with_helper("echo last words >&2; exit 3", directory.path()));
    let shim = node.shim().await;
    let error = node.start(&shim, shell("c", "true")).await.unwrap_err();
    assert!(matches!(&error, StartError::HelperDied { message } if message.contains("code 3")), "{error}");
    assert!(shim.status().await.unwrap().containers.is_empty());
    assert!(node.output("c").contains("last words"));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_container_whose_helper_was_killed_is_found_and_killed() {
    // The helper is killed at some moment of its work, each time a little later: before the
    // container exists, while it is created, while it waits for its start, and after.
    let directory = tempfile::tempdir().unwrap();
    let script =
        "delay=$(cat $DIR/delay)\n( sleep $delay; kill -9 $$ ) >/dev/null 2>&1 </dev/null &\nexec $OCI";
    let node = Node::with_config(with_helper(script, directory.path()));
    let shim = node.shim().await;
    let mut died = 0;
    for step in 0..25 {
        fs::write(directory.path().join("delay"), format!("0.{:03}", step * 2)).unwrap();
        match node.start(&shim, shell("victim", "exec sleep 7654321")).await {
            Ok(_) => {
                shim.kill(&"victim".parse().unwrap()).await.unwrap();
            }
            Err(StartError::HelperDied { message }) => {
                assert!(message.contains("signal 9"), "{message}");
                died += 1;
            }
            Err(other) => panic!("{other}"),
        }
        let name = "victim".parse().unwrap();
        eventually("it can be removed", async || shim.remove_container(&name).await.is_ok()).await;
        eventually("nothing of it runs", async || node_processes(&node).is_empty()).await;
    }
    assert!(died > 0, "the helper was never killed in time");
    node.leave_nothing(&shim).await;
}

fn node_processes(_: &Node) -> Vec<i32> {
    let mut left = processes_with("7654321");
    left.extend(processes_with("youki:"));
    left
}

#[tokio::test]
async fn a_missing_helper_is_named() {
    let node = Node::new();
    let directory = tempfile::tempdir().unwrap();
    let other = Node::with_config(with_helper("exit 0", directory.path()));
    let shim = other.shim().await;
    fs::remove_file(directory.path().join("helper")).unwrap();
    let error = other.start(&shim, shell("c", "true")).await.unwrap_err();
    assert!(error.to_string().contains("helper"), "{error}");
    other.leave_nothing(&shim).await;
    drop(node);
}

#[tokio::test]
async fn a_start_that_hangs_can_be_killed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::with_config(with_helper("exec sleep 9876543", directory.path()));
    let shim = node.shim().await;
    let (starting, other) = (shim.clone(), shim.clone());
    let bundle = node.bundle(shell("c", "true")).unwrap();
    let start = tokio::spawn(async move { starting.start_container(&bundle).await });
    eventually("the start is known", async || !other.status().await.unwrap().containers.is_empty()).await;
    shim.kill(&"c".parse().unwrap()).await.unwrap();
    assert!(matches!(start.await.unwrap(), Err(StartError::HelperDied { .. })));
    eventually("the helper is gone", async || processes_with("9876543").is_empty()).await;
    node.leave_nothing(&shim).await;
}

/// As one that waits for a disk: whoever stops its task is told soon, and gets on by the cgroups.
#[tokio::test]
async fn a_shim_that_does_not_answer_is_an_error_and_its_task_is_removed() {
    let node = Node::new();
    let shim = node.shim().await;
    let started = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    let pid = Pid::from_raw(shim.status().await.unwrap().shim_pid);
    kill(pid, Signal::SIGSTOP).unwrap();
    let error = shim.kill(&"c".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, RequestError::NoAnswer), "{error}");
    node.remove().await;
    assert!(!is_alive(started.pid));
}
