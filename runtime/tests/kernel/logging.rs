//! Output on its way into files: long lines, rotation, a full disk.

use crate::support::{Node, eventually, exit_of, shell};
use lighter_model::exit::ExitStatus;
use lighter_runtime::LogConfig;
use lighter_runtime::logs::{self, LogOptions, LogStream};
use serde_json::json;
use std::fs;
use std::process::Command;

#[tokio::test]
async fn long_lines_are_split_and_marked() {
    let node = Node::new();
    let (_, _) = node.run("head -c 40000 /dev/zero | awk '{ gsub(/\\0/, \"x\"); print }' 2>/dev/null; yes x | head -n 20000 | awk '{ printf \"%s\", $0 } END { print \"\" }'").await;
    let log = fs::read_to_string(node.log_path("c")).unwrap();
    let marks: Vec<(&str, usize)> = log
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.splitn(4, ' ').collect();
            (fields[2], fields[3].len())
        })
        .filter(|(_, length)| *length > 0)
        .collect();
    let tail: Vec<_> = marks.iter().rev().take(2).rev().copied().collect();
    assert_eq!(tail, [("P", 16_384), ("F", 20_000 - 16_384)], "{marks:?}");
}

#[tokio::test]
async fn logs_rotate_and_are_read_across_files() {
    let node = Node::with_config(|config| config.log = LogConfig { file_bytes_max: 20_000, files_max: 3 });
    let (_, _) = node.run("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done").await;
    let directory = node.runtime.config().task_log_dir(&node.task);
    let mut files: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["c.log", "c.log.1", "c.log.2"]);
    for file in &files {
        assert!(fs::metadata(directory.join(file)).unwrap().len() <= 20_000, "{file}");
    }
    let mut reader = logs::read(&directory, &"c".parse().unwrap(), LogOptions::default()).unwrap();
    let mut numbers = Vec::new();
    while let Some(line) = reader.next().await.unwrap() {
        assert_eq!((line.stream, line.partial), (LogStream::Stdout, false));
        numbers
            .push(String::from_utf8(line.text).unwrap().trim_start_matches("line ").parse::<u32>().unwrap());
    }
    let first = numbers[0];
    assert_eq!(numbers, (first..2000).collect::<Vec<_>>(), "no record is missing or doubled");
}

#[tokio::test]
async fn a_follower_sees_each_line_once_across_many_rotations_and_a_restart_of_the_container() {
    let node = Node::with_config(|config| config.log = LogConfig { file_bytes_max: 20_000, files_max: 50 });
    let shim = node.shim().await;
    let mut events = shim.events();
    let directory = node.runtime.config().task_log_dir(&node.task);
    let (ended, follow_until) = tokio::sync::watch::channel(false);
    let options = LogOptions { follow_until: Some(follow_until), ..LogOptions::default() };
    let mut reader = logs::read(&directory, &"c".parse().unwrap(), options).unwrap();
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            seen.push(String::from_utf8(line.text).unwrap());
        }
        seen
    });
    let mut expected = Vec::new();
    for start in 0..2 {
        let script = format!("i=0; while [ $i -lt 3000 ]; do echo line {start} $i; i=$((i+1)); done");
        node.start(&shim, shell("c", &script)).await.unwrap();
        assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(0));
        shim.remove_container(&"c".parse().unwrap()).await.unwrap();
        expected.extend((0..3000).map(|number| format!("line {start} {number}")));
    }
    ended.send(true).unwrap();
    let seen = following.await.unwrap();
    assert_eq!(seen.len(), 6000, "none is lost or doubled");
    assert_eq!(seen, expected);
    assert!(directory.join("c.log.10").exists(), "it has rotated");
    let tail = LogOptions { tail: Some(2), ..LogOptions::default() };
    let mut reader = logs::read(&directory, &"c".parse().unwrap(), tail).unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().text, b"line 1 2998");
    assert_eq!(reader.next().await.unwrap().unwrap().text, b"line 1 2999");
    assert!(reader.next().await.unwrap().is_none());
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_full_disk_never_blocks_the_container_and_leaves_a_gap_marker() {
    let node = Node::new();
    // A tmpfs of 64 KiB in place of the task's log directory.
    let directory = node.runtime.config().task_log_dir(&node.task);
    fs::create_dir_all(&directory).unwrap();
    mount_tmpfs(&directory, "size=64k");
    let shim = node.shim().await;
    let mut events = shim.events();
    let script = "i=0; while [ $i -lt 3000 ]; do echo a line that is long enough to fill a small disk soon $i; i=$((i+1)); done; echo; \
        while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after";
    node.start(&shim, shell("c", script)).await.unwrap();
    let dropped = async || shim.status().await.unwrap().containers[0].log_records_dropped;
    eventually("records are dropped", async || dropped().await > 0).await;
    // Room again: another file of the directory goes away.
    let log = fs::read_to_string(node.log_path("c")).unwrap();
    assert!(log.ends_with('\n'), "no torn record");
    let mut last = 0;
    eventually("the container has written all", async || {
        let now = dropped().await;
        let same = now == last && now > 1000;
        last = now;
        same
    })
    .await;
    remount_tmpfs(&directory, "size=10m");
    fs::write(node.rootfs.join("tmp/go"), "").unwrap();
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(0));
    let log = fs::read_to_string(node.log_path("c")).unwrap();
    let marker = log.lines().find(|line| line.contains(" lighter F ")).expect("a gap marker");
    assert!(marker.contains("records of output could not be written here"), "{marker}");
    assert!(log.trim_end().ends_with("stdout F after"), "{}", &log[log.len() - 300..]);
    node.leave_nothing(&shim).await;
    assert!(Command::new("umount").arg(&directory).status().unwrap().success());
}

#[tokio::test]
async fn a_fast_writer_is_logged_whole() {
    let node = Node::new();
    let (exit, output) = node.run("yes 0123456789 | head -n 200000").await;
    assert_eq!(exit.status, ExitStatus::Exited(0));
    let rotated = fs::read_dir(node.runtime.config().task_log_dir(&node.task)).unwrap().count();
    assert!(rotated >= 1);
    // 200,000 records of 50 bytes are 9.5 MiB: one file.
    assert_eq!(output.lines().filter(|line| *line == "0123456789").count(), 200_000);
}

fn mount_tmpfs(directory: &std::path::Path, options: &str) {
    assert!(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory)
            .status()
            .unwrap()
            .success()
    );
}

fn remount_tmpfs(directory: &std::path::Path, options: &str) {
    assert!(
        Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(directory)
            .status()
            .unwrap()
            .success()
    );
}

/// Images write logs through links to /dev/stdout; only the owner of a pipe may open it anew.
#[tokio::test]
async fn a_user_may_open_its_standard_output_anew() {
    let node = Node::new();
    let mut container = shell("c", "echo out > /dev/stdout && echo err > /dev/stderr && id -u");
    container["user"] = json!("web");
    let (exit, output) = node.run_container(container).await;
    assert_eq!(exit.status, ExitStatus::Exited(0), "{output}");
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1000", "err", "out"]);
}
