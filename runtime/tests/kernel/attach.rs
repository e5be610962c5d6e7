//! Attach: the main process's output and input while its log goes on; containers with a terminal.

use crate::exec::{name, read_until, rest_of};
use crate::support::{Node, eventually, exit_of, shell};
use lighter_model::exit::ExitStatus;
use lighter_runtime::{SessionError, WindowSize};
use serde_json::json;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn an_interactive_container_reads_what_attachers_write() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let mut container = shell("c", "while read line; do echo got $line; test $line = end && exit 5; done");
    container["interactive"] = json!(true);
    node.start(&shim, container).await.unwrap();
    let mut first = shim.attach(&name()).await.unwrap();
    let mut second = shim.attach(&name()).await.unwrap();
    first.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    read_until(&mut first.stdout, "got one\n").await;
    read_until(&mut second.stdout, "got one\n").await;
    // It stays open when an attacher goes.
    drop(first);
    let mut third = shim.attach(&name()).await.unwrap();
    second.stdin.as_mut().unwrap().write_all(b"two\n").await.unwrap();
    assert_eq!(read_until(&mut third.stdout, "got two\n").await, "got two\n", "only what comes from now on");
    third.stdin.as_mut().unwrap().write_all(b"end\n").await.unwrap();
    assert_eq!(third.control.wait().await, Ok(ExitStatus::Exited(5)));
    assert_eq!(rest_of(&mut third.stdout).await, "got end\n");
    exit_of(&mut events, "c").await;
    assert_eq!(node.output("c"), "got one\ngot two\ngot end");
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_container_with_a_terminal_has_it_logged_and_attachers_may_resize_it() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let script =
        "tty; stty size; echo $TERM; id -u; echo own > $(tty); read line; stty size; echo bye $line; exit 3";
    let mut container = shell("c", script);
    container["pseudoTerminal"] = json!(true);
    container["interactive"] = json!(true);
    container["user"] = json!("web");
    node.start(&shim, container).await.unwrap();
    eventually("it reads", async || node.output("c").contains("own")).await;
    let mut session = shim.attach(&name()).await.unwrap();
    assert!(session.stderr.is_none());
    session.control.resize(WindowSize { rows: 11, columns: 22 }).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"bob\n").await.unwrap();
    let text = rest_of(&mut session.stdout).await;
    assert!(text.contains("bye bob"), "{text}");
    assert_eq!(session.control.wait().await, Ok(ExitStatus::Exited(3)));
    exit_of(&mut events, "c").await;
    let log = node.output("c").replace('\r', "");
    let lines: Vec<&str> = log.lines().collect();
    // The command is sent after the resize, but over another way: either size is in order.
    assert_eq!(&lines[1..5], ["24 80", "xterm", "1000", "own"], "{log}");
    assert!(lines[0].starts_with("/dev/pts/"), "{log}");
    assert!(log.ends_with("bye bob"), "{log}");
    node.leave_nothing(&shim).await;
}

/// The init process starts the program in a group of its own, which must be in front.
#[tokio::test]
async fn a_program_behind_an_init_process_reads_its_terminal_and_is_interrupted_by_it() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut container = shell(
        "c",
        "trap 'echo interrupted' INT; echo ready; while true; do read line && test $line = end && exit 6; done",
    );
    container["pseudoTerminal"] = json!(true);
    container["interactive"] = json!(true);
    container["linuxParameters"] = json!({ "initProcessEnabled": true });
    node.start(&shim, container).await.unwrap();
    eventually("it reads", async || node.output("c").contains("ready")).await;
    let mut session = shim.attach(&name()).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"\x03").await.unwrap();
    stdin.write_all(b"x\n").await.unwrap();
    read_until(&mut session.stdout, "interrupted").await;
    stdin.write_all(b"end\n").await.unwrap();
    assert_eq!(session.control.wait().await, Ok(ExitStatus::Exited(6)));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_slow_attacher_is_dropped_and_neither_container_nor_log_waits() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    let mut container = shell("c", "read go; yes 0123456789 | head -c 3000000; echo; echo end");
    container["interactive"] = json!(true);
    node.start(&shim, container).await.unwrap();
    let slow = shim.attach(&name()).await.unwrap();
    let mut quick = shim.attach(&name()).await.unwrap();
    quick.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    // Reads as it comes, and is not cut off for the other's sake.
    let reading = tokio::spawn(async move {
        let text = rest_of(&mut quick.stdout).await;
        (text, quick.control.wait().await)
    });
    assert_eq!(slow.control.wait().await, Err(SessionError::TooSlow));
    assert_eq!(exit_of(&mut events, "c").await.status, ExitStatus::Exited(0));
    let (text, end) = reading.await.unwrap();
    if end == Ok(ExitStatus::Exited(0)) {
        assert!(text.ends_with("end\n"), "{}", text.len());
    } else {
        // On a busy machine this one may be too slow too.
        assert_eq!(end, Err(SessionError::TooSlow));
    }
    assert!(node.output("c").ends_with("end"));
    node.leave_nothing(&shim).await;
}
