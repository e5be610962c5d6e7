//! From create to remove: exit codes and signals apart, output, users, directories, errors in words.

use crate::support::{Node, eventually, exit_of, is_alive, shell};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_runtime::StartError;
use serde_json::json;
use std::fs;

#[tokio::test]
async fn a_container_runs_and_its_exit_code_and_output_are_kept() {
    let node = Node::new();
    let (exit, output) =
        node.run("echo out; echo err >&2; echo \"$HOSTNAME $(hostname) $HOME $PATH\"; exit 42").await;
    assert_eq!(exit.status, ExitStatus::Exited(42));
    assert!(!exit.oom_killed);
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "err",
            "host-of-test host-of-test /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "out"
        ]
    );
    let log = fs::read_to_string(node.log_path("c")).unwrap();
    assert!(log.lines().any(|line| line.ends_with(" stdout F out")), "{log}");
    assert!(log.lines().any(|line| line.ends_with(" stderr F err")), "{log}");
}

#[tokio::test]
async fn a_signal_and_the_exit_code_that_looks_like_it_are_told_apart() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("code", "exit 137")).await.unwrap();
    let started = node.start(&shim, shell("killed", "exec sleep 1000")).await.unwrap();
    assert!(is_alive(started.pid));
    assert_eq!(exit_of(&mut events, "code").await.status, ExitStatus::Exited(137));
    shim.signal(&"killed".parse().unwrap(), 9).await.unwrap();
    let exit = exit_of(&mut events, "killed").await;
    assert_eq!(exit.status, ExitStatus::Signaled(9));
    assert!(!exit.oom_killed);
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_stop_signal_reaches_the_program_and_kill_needs_no_cooperation() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("polite", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
        .await
        .unwrap();
    node.start(&shim, shell("deaf", "trap '' TERM; sleep 1000 & sleep 1000")).await.unwrap();
    eventually("the trap is set", async || node.output("polite").contains("ready")).await;
    shim.signal(&"polite".parse().unwrap(), 15).await.unwrap();
    shim.signal(&"deaf".parse().unwrap(), 15).await.unwrap();
    assert_eq!(exit_of(&mut events, "polite").await.status, ExitStatus::Exited(7));
    let deaf: ContainerName = "deaf".parse().unwrap();
    shim.kill(&deaf).await.unwrap();
    assert_eq!(exit_of(&mut events, "deaf").await.status, ExitStatus::Signaled(9));
    shim.kill(&deaf).await.expect("killing what has ended is success");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn users_groups_and_working_directories_are_those_of_the_definition() {
    let mut node = Node::new();
    node.image.working_dir = "/made/for/it".to_owned();
    let mut container = shell("c", "id -u; id -g; id -G; pwd; echo $HOME");
    container["user"] = json!("web");
    let (_, output) = node.run_container(container).await;
    assert_eq!(
        output.lines().collect::<Vec<_>>(),
        ["1000", "1001", "1001 29 50", "/made/for/it", "/home/web"]
    );
    let mut container = shell("c", "id -u; id -g; id -G");
    container["user"] = json!("4242:log");
    container["groups"] = json!(["audio", "77", "log"]);
    node.image.working_dir = String::new();
    let _ = node.runtime.remove_logs(&node.task);
    let (_, output) = node.run_container(container).await;
    assert_eq!(output.lines().collect::<Vec<_>>(), ["4242", "50", "50 29 77"]);
    let mut container = shell("c", "true");
    container["user"] = json!("nobody-here");
    let error = node.bundle(container).unwrap_err();
    assert_eq!(error.ecs_name(), "CannotCreateContainerError");
}

#[tokio::test]
async fn a_program_that_cannot_run_is_refused_in_words() {
    let node = Node::new();
    fs::write(node.rootfs.join("bin/text"), "no program\n").unwrap();
    fs::write(node.rootfs.join("bin/broken"), b"\x7fELFbroken").unwrap();
    std::os::unix::fs::chown(node.rootfs.join("bin/text"), Some(0), Some(0)).unwrap();
    std::fs::set_permissions(
        node.rootfs.join("bin/broken"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let shim = node.shim().await;
    let cases = [
        ("foo", "exec: \"foo\": executable file not found in $PATH"),
        ("/bin/foo", "exec: \"/bin/foo\": no such file or directory"),
        ("/bin/text", "exec: \"/bin/text\": permission denied"),
        ("/bin", "exec: \"/bin\": is a directory"),
        ("/bin/broken", "exec: \"/bin/broken\": exec format error"),
    ];
    for (at, (program, words)) in cases.into_iter().enumerate() {
        let error = node
            .start(&shim, json!({ "name": format!("c{at}"), "image": "i", "entryPoint": [program] }))
            .await
            .unwrap_err();
        assert_eq!(error.ecs_name(), "CannotStartContainerError", "{error}");
        assert_eq!(error.to_string(), words);
    }
    // A failed start can be repeated under the same name, and nothing of it is in the status.
    assert!(shim.status().await.unwrap().containers.is_empty());
    let mut events = shim.events();
    node.start(&shim, shell("c4", "exit 9")).await.unwrap();
    assert_eq!(exit_of(&mut events, "c4").await.status, ExitStatus::Exited(9));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_program_only_its_owner_may_execute_runs_for_its_owner() {
    let node = Node::new();
    fs::create_dir(node.rootfs.join("opt")).unwrap();
    let path = node.rootfs.join("opt/busybox");
    fs::copy(node.rootfs.join("bin/busybox"), &path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
    std::os::unix::fs::chown(&path, Some(1000), None).unwrap();
    let container =
        json!({ "name": "c", "image": "i", "entryPoint": ["/opt/busybox", "echo", "works"], "user": "web" });
    let (exit, output) = node.run_container(container).await;
    assert_eq!((exit.status, output.as_str()), (ExitStatus::Exited(0), "works"));
}

#[tokio::test]
async fn a_failed_creation_says_what_failed() {
    let mut node = Node::new();
    node.mounts.push(lighter_runtime::BindMount {
        source: "/nowhere/at/all".into(),
        destination: "/data".to_owned(),
        read_only: true,
        mapped: true,
    });
    let shim = node.shim().await;
    let error = node.start(&shim, shell("c", "true")).await.unwrap_err();
    assert!(matches!(error, StartError::CannotCreate { .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/at/all"), "the cause is named: {error}");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn two_containers_of_a_task_live_side_by_side_and_names_are_unique() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let first = node.start(&shim, shell("a", "exec sleep 1000")).await.unwrap();
    let second = node.start(&shim, shell("b", "exit 3")).await.unwrap();
    assert_ne!(first.pid, second.pid);
    assert!(node.start(&shim, shell("a", "true")).await.is_err());
    assert_eq!(exit_of(&mut events, "b").await.status, ExitStatus::Exited(3));
    let status = shim.status().await.unwrap();
    assert_eq!(status.containers.len(), 2);
    assert!(matches!(shim.shutdown().await, Err(lighter_runtime::RequestError::Busy)));
    shim.remove_container(&"b".parse().unwrap()).await.unwrap();
    node.start(&shim, shell("b", "exit 4")).await.expect("a removed name is free");
    assert_eq!(exit_of(&mut events, "b").await.status, ExitStatus::Exited(4));
    assert!(is_alive(first.pid));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn programs_that_end_at_once_are_never_lost() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    for number in 0..30 {
        let name = format!("c{number}");
        node.start(&shim, json!({ "name": name, "image": "i", "entryPoint": ["/bin/true"] })).await.unwrap();
        assert_eq!(exit_of(&mut events, &name).await.status, ExitStatus::Exited(0));
    }
    node.leave_nothing(&shim).await;
}
