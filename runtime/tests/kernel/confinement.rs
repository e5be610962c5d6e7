//! What a default container must not be able to do, seen from inside it and from /proc.

use crate::support::{Node, bin_dir, eventually, exit_of, shell, status_field};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::TaskId;
use lighter_runtime::selftest::DeviceRules;
use lighter_runtime::{BindMount, BundleError, Privileges, SpecError};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Until the shell has become its program: shells set signals of their own on the way.
async fn is_sleeping(pid: i32) {
    let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    eventually("the shell becomes sleep", async || comm().trim() == "sleep").await;
}

#[tokio::test]
async fn seccomp_capabilities_and_no_new_privileges_are_in_force() {
    let node = Node::new();
    let shim = node.shim().await;
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    is_sleeping(pid).await;
    assert_eq!(status_field(pid, "Seccomp"), "2");
    assert_eq!(status_field(pid, "NoNewPrivs"), "1");
    assert_eq!(status_field(pid, "CapEff"), "00000000a80425fb");
    assert_eq!(status_field(pid, "CapBnd"), "00000000a80425fb");
    assert_eq!(status_field(pid, "CapInh"), "0000000000000000");
    assert_eq!(status_field(pid, "CapAmb"), "0000000000000000");
    // A container begins with no signal blocked or ignored, whatever its monitor does.
    assert_eq!(status_field(pid, "SigBlk"), "0000000000000000");
    let ignored = u64::from_str_radix(&status_field(pid, "SigIgn"), 16).unwrap();
    // 32 and 33 are glibc's own; its posix_spawn leaves them ignored.
    assert_eq!(ignored & !(3 << 31), 0, "{ignored:x}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "0");
    for namespace in ["pid", "mnt", "uts", "ipc", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    node.leave_nothing(&shim).await;
}

/// A daemon that a shell started in the background ignores SIGINT and SIGQUIT; its containers must not.
#[tokio::test]
async fn signals_that_the_agent_ignores_are_not_ignored_in_a_container() {
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("lighter-oci");
    let real = bin_dir().join("lighter-oci");
    let script = format!("#!/bin/sh\ntrap '' INT QUIT HUP USR1\nexec {} \"$@\"\n", real.display());
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let node = Node::with_config(|config| config.oci_path = helper);
    let shim = node.shim().await;
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    is_sleeping(pid).await;
    let ignored = u64::from_str_radix(&status_field(pid, "SigIgn"), 16).unwrap();
    assert_eq!(ignored & !(3 << 31), 0, "{ignored:x}");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn the_default_profile_lets_programs_work_and_refuses_namespaces() {
    let node = Node::new();
    // fork works (clone without namespace flags), unshare and mount do not.
    let script = "(exit 0) && echo forked; unshare -m true 2>&1; mount -t tmpfs none /tmp 2>&1; echo done";
    let (_, output) = node.run(script).await;
    assert!(output.contains("forked") && output.contains("done"), "{output}");
    assert_eq!(
        output.matches("not permitted").count() + output.matches("ermission denied").count(),
        2,
        "{output}"
    );
}

#[tokio::test]
async fn nothing_of_the_host_is_open_in_a_container() {
    let node = Node::new();
    let (_, output) = node.run("ls /proc/self/fd; ls /dev").await;
    let open: BTreeSet<&str> = output.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    // 3 is the directory that ls reads.
    assert_eq!(open, BTreeSet::from(["0", "1", "2", "3"]), "{output}");
    let devices: BTreeSet<&str> = output.lines().filter(|line| line.parse::<u32>().is_err()).collect();
    let devices: BTreeSet<&str> =
        devices.into_iter().filter(|name| !matches!(*name, "core" | "kcore")).collect();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(devices, BTreeSet::from(expected));
}

/// The container's first process is a fork of lighter-oci, which does not stay to keep its file busy.
/// Whether a shim starts the file itself, or something else does (a script here).
#[tokio::test]
async fn an_entry_point_that_leads_to_the_helper_cannot_write_to_it() {
    for by_script in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let helper = directory.path().join("lighter-oci");
        fs::copy(bin_dir().join("lighter-oci"), &helper).unwrap();
        let started = if by_script { script_for(&helper) } else { helper.clone() };
        let node = Node::with_config(|config| config.oci_path = started);
        give_libraries(&helper, &node.rootfs);
        symlink("/proc/self/exe", node.rootfs.join("bin/entry")).unwrap();
        let fifo = Command::new("mkfifo").arg(node.rootfs.join("profile")).status().unwrap();
        assert!(fifo.success());
        // Waits for a writer of the first file, as lighter-oci itself but within the container.
        let shim = node.shim().await;
        let mut container = shell("c", "");
        container["entryPoint"] = json!(["/bin/entry", "compile-seccomp", "/profile", "/filter"]);
        container["command"] = json!([]);
        let pid = node.start(&shim, container).await.unwrap().pid;
        let runs = || fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        eventually("the entry point is the helper", async || runs().contains("compile-seccomp")).await;
        let held = fs::File::open(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(held.metadata().unwrap().ino(), fs::metadata(&helper).unwrap().ino());
        node.leave_nothing(&shim).await;
        // Nothing executes it any more, so that it is busy (ETXTBSY) does not protect it.
        let again = format!("/proc/self/fd/{}", held.as_raw_fd());
        let refused = fs::OpenOptions::new().write(true).open(again).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::libc::EROFS), "{refused}");
    }
}

/// What ldd(1) lists, at the same paths.
fn give_libraries(program: &Path, rootfs: &Path) {
    let list = Command::new("ldd").arg(program).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = rootfs.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(library, copy).unwrap();
    }
}

/// A program beside `helper` that becomes it.
fn script_for(helper: &Path) -> PathBuf {
    let path = helper.with_extension("sh");
    fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", helper.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn proc_and_sys_are_masked_and_read_only() {
    let node = Node::new();
    let script = "cat /proc/kcore 2>/dev/null | wc -c; cat /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware 2>/dev/null | wc -l; \
        echo 1 2>&1 > /proc/sys/kernel/domainname; echo h 2>&1 > /proc/sysrq-trigger; touch /sys/x 2>&1; echo end";
    let (_, output) = node.run(script).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..3], ["0", "0", "0"], "{output}");
    assert_eq!(
        output.matches("ead-only file system").count() + output.matches("nonexistent").count(),
        3,
        "{output}"
    );
    assert!(output.contains("end"));
}

#[tokio::test]
async fn a_read_only_root_file_system_is_read_only_and_its_tmpfs_and_volumes_are_not() {
    let mut node = Node::new();
    let volume = node.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    node.mounts = vec![
        BindMount { source: volume.clone(), destination: "/data".to_owned(), read_only: false, mapped: true },
        BindMount {
            source: volume.clone(),
            destination: "/data-ro".to_owned(),
            read_only: true,
            mapped: true,
        },
    ];
    let mut container = shell(
        "c",
        "touch /x 2>&1; touch /data-ro/x 2>&1; echo kept > /data/file; cat /data-ro/file; touch /scratch/y && stat -f -c %T /scratch",
    );
    container["readonlyRootFilesystem"] = json!(true);
    container["linuxParameters"] = json!({ "tmpfs": [{ "containerPath": "/scratch", "size": 8 }] });
    let (exit, output) = node.run_container(container).await;
    assert_eq!(exit.status, ExitStatus::Exited(0), "{output}");
    assert_eq!(output.matches("ead-only file system").count(), 2, "{output}");
    assert!(output.contains("kept") && output.contains("tmpfs"), "{output}");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "kept\n");
}

#[tokio::test]
async fn a_working_directory_is_not_made_in_a_volume_that_is_read_only() {
    let mut node = Node::new();
    let volume = node.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mount = |read_only| BindMount {
        source: volume.clone(),
        destination: "/data".to_owned(),
        read_only,
        mapped: true,
    };
    let mut container = shell("c", "pwd");
    container["workingDirectory"] = json!("/data/a/b");
    node.mounts = vec![mount(true)];
    let shim = node.shim().await;
    let error = node.start(&shim, container.clone()).await.unwrap_err().to_string();
    assert!(error.contains("chdir") && error.contains("ENOENT"), "{error}");
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0);
    node.leave_nothing(&shim).await;
    node.mounts = vec![mount(false)];
    let (_, output) = node.run_container(container).await;
    assert_eq!(output, "/data/a/b");
}

#[tokio::test]
async fn a_device_of_the_host_cannot_be_opened_after_mknod() {
    let node = Node::new();
    let (major, minor) = block_device();
    let script = format!(
        "mknod /tmp/disk b {major} {minor} && echo made; head -c 1 /tmp/disk > /dev/null 2>&1 && echo OPENED; \
         echo x > /dev/null && echo null; head -c 1 /dev/zero | wc -c"
    );
    let (_, output) = node.run(&script).await;
    assert!(output.contains("made") && output.contains("null") && output.ends_with('1'), "{output}");
    assert!(!output.contains("OPENED"), "{output}");
}

#[tokio::test]
async fn privileges_are_refused_unless_the_node_allows_them() {
    let mut node = Node::new();
    let mut privileged = shell("c", "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; echo");
    privileged["privileged"] = json!(true);
    let error = node.bundle(privileged.clone()).unwrap_err();
    assert!(matches!(error, BundleError::Spec(SpecError::PrivilegedNotAllowed { .. })), "{error}");
    let mut device = shell("c", "true");
    device["linuxParameters"] = json!({ "devices": [{ "hostPath": "/dev/kmsg" }] });
    let error = node.bundle(device).unwrap_err();
    assert!(matches!(error, BundleError::Spec(SpecError::DevicesNotAllowed { .. })), "{error}");
    node.privileges = Privileges { devices: true, ..Privileges::default() };
    let mut device = shell("c", "head -c 1 /dev/my-kmsg | wc -c");
    device["linuxParameters"] = json!({ "devices": [{ "hostPath": "/dev/kmsg", "containerPath": "/dev/my-kmsg", "permissions": ["read"] }] });
    let (_, output) = node.run_container(device).await;
    assert!(output.lines().any(|line| line == "1" || line == "0"), "{output}");
}

#[tokio::test]
async fn a_granted_device_can_be_used_where_devices_are_not_allowed() {
    let mut node = Node::new();
    // Not one of Docker's own: closed to a container without a grant.
    node.granted_devices = vec!["/dev/fuse".into()];
    let (_, output) =
        node.run_container(shell("c", "test -c /dev/fuse && : < /dev/fuse && echo opened")).await;
    assert_eq!(output, "opened");
}

#[tokio::test]
async fn ulimits_and_kernel_parameters_are_in_force() {
    let node = Node::new();
    let mut container = shell(
        "c",
        "grep -E 'core|open files' /proc/self/limits; cat /proc/sys/kernel/shmmni /proc/sys/fs/mqueue/msg_max; df -k /dev/shm | tail -n 1",
    );
    container["ulimits"] = json!([
        { "name": "nofile", "softLimit": 100, "hardLimit": 200 },
        { "name": "core", "softLimit": 0, "hardLimit": -1 },
    ]);
    container["systemControls"] = json!([
        { "namespace": "kernel.shmmni", "value": "77" },
        { "namespace": "fs.mqueue.msg_max", "value": "33" },
    ]);
    container["linuxParameters"] = json!({ "sharedMemorySize": 3 });
    let (exit, output) = node.run_container(container).await;
    assert_eq!(exit.status, ExitStatus::Exited(0), "{output}");
    let lines: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][4..6], ["0", "unlimited"], "{output}");
    assert_eq!(lines[1][3..5], ["100", "200"], "{output}");
    assert_eq!((lines[2][0], lines[3][0]), ("77", "33"), "{output}");
    assert_eq!(lines[4][1], "3072", "{output}");
}

#[tokio::test]
async fn an_added_capability_works_together_with_its_system_calls() {
    let mut node = Node::new();
    node.privileges = Privileges { capabilities: vec!["SYS_ADMIN".to_owned()], ..Privileges::default() };
    let mut container = shell(
        "c",
        "grep -E 'Cap(Eff|Bnd)|Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted",
    );
    container["linuxParameters"] = json!({ "capabilities": { "add": ["SYS_ADMIN"], "drop": ["MKNOD"] } });
    let (_, output) = node.run_container(container).await;
    // Docker's default set, less CAP_MKNOD (27), and CAP_SYS_ADMIN (21).
    assert_eq!(output.matches("00000000a02425fb").count(), 2, "{output}");
    assert!(output.contains("Seccomp:\t2") && output.contains("mounted"), "{output}");
}

#[tokio::test]
async fn seccomp_can_be_left_out_only_where_that_is_allowed() {
    let mut node = Node::new();
    let mut container = shell("c", "grep Seccomp: /proc/self/status");
    container["dockerSecurityOptions"] = json!(["seccomp:unconfined", "no-new-privileges"]);
    let error = node.bundle(container.clone()).unwrap_err();
    assert!(matches!(error, BundleError::Spec(SpecError::UnconfinedNotAllowed { .. })), "{error}");
    node.privileges.unconfined = true;
    let (_, output) = node.run_container(container).await;
    assert_eq!(output, "Seccomp:\t0");
}

#[tokio::test]
async fn the_self_test_proves_this_machine_and_leaves_nothing() {
    let node = Node::new();
    let task = TaskId::from_parts(2, u128::from(std::process::id()));
    let work = node.directory.path().join("self-test");
    let report = node.runtime.self_test(&task, &work).await.unwrap();
    assert_eq!(report.problems(), Vec::<String>::new(), "{report:?}");
    assert!(report.seccomp_in_force && report.no_new_privileges);
    assert_eq!(report.device_rules, DeviceRules::Enforced);
    assert!(!work.join(task.as_str()).exists());
    assert!(node.runtime.list_tasks_on_disk().is_empty());
}

#[tokio::test]
async fn the_host_network_is_shared_only_when_no_namespace_is_given() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let pid = node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap().pid;
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(of(&pid.to_string()), of("self"));
    shim.kill(&"c".parse().unwrap()).await.unwrap();
    exit_of(&mut events, "c").await;
    node.leave_nothing(&shim).await;
}

fn block_device() -> (u32, u32) {
    let text = fs::read_to_string("/proc/partitions").unwrap();
    let numbers = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    numbers.expect("a machine with a block device")
}
