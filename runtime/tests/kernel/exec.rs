//! Exec: streams, terminals, signals, ends; what becomes of a session whose agent goes away.

use crate::support::{Node, eventually, exit_of, is_alive, processes_with, shell};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_runtime::exec::SessionOutput;
use lighter_runtime::{ExecError, ExecOrder, ExecSession, RequestError, ShimHandle, WindowSize};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const SIZE: WindowSize = WindowSize { rows: 33, columns: 77 };
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn name() -> ContainerName {
    "c".parse().unwrap()
}

fn order(argv: &[&str]) -> ExecOrder {
    ExecOrder { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..ExecOrder::default() }
}

async fn piped(shim: &ShimHandle, order: &ExecOrder) -> ExecSession {
    shim.exec(&name(), order, None, true).await.unwrap()
}

async fn in_terminal(shim: &ShimHandle, script: &str) -> ExecSession {
    shim.exec(&name(), &order(&["sh", "-c", script]), Some(SIZE), true).await.unwrap()
}

pub(crate) async fn rest_of(output: &mut SessionOutput) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(DEADLINE, output.read_to_end(&mut bytes)).await.expect("in time").unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads until `wanted` has come, and gives all that came.
pub(crate) async fn read_until(output: &mut SessionOutput, wanted: &str) -> String {
    let mut text = String::new();
    let read = async {
        let mut chunk = [0; 1024];
        while !text.contains(wanted) {
            let count = output.read(&mut chunk).await.unwrap();
            assert!(count > 0, "the end came before {wanted:?}: {text:?}");
            text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
        }
    };
    let ended = tokio::time::timeout(DEADLINE, read).await.is_ok();
    assert!(ended, "no {wanted:?} in time: {text:?}");
    text
}

async fn end(session: &ExecSession) -> ExitStatus {
    tokio::time::timeout(DEADLINE, session.control.wait()).await.expect("it ends in time").unwrap()
}

async fn running_node() -> (Node, ShimHandle) {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("c", "exec sleep 1000")).await.unwrap();
    (node, shim)
}

#[tokio::test]
async fn streams_are_the_programs_own_and_its_end_is_exact() {
    let (node, shim) = running_node().await;
    let mut session = piped(&shim, &order(&["sh", "-c", "cat; echo to-err >&2; exit 42"])).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"one\ntwo\n").await.unwrap();
    assert_eq!(read_until(&mut session.stdout, "two\n").await, "one\ntwo\n");
    // The end of its input.
    drop(stdin);
    assert_eq!(rest_of(session.stderr.as_mut().unwrap()).await, "to-err\n");
    assert_eq!(end(&session).await, ExitStatus::Exited(42));

    let mut session = shim.exec(&name(), &order(&["cat"]), None, false).await.unwrap();
    assert!(session.stdin.is_none());
    assert_eq!(rest_of(&mut session.stdout).await, "", "without input it reads /dev/null");
    assert_eq!(end(&session).await, ExitStatus::Exited(0));

    let session = piped(&shim, &order(&["sleep", "1000"])).await;
    session.control.signal(15).await.unwrap();
    assert_eq!(end(&session).await, ExitStatus::Signaled(15));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn an_order_changes_user_directory_and_environment() {
    let (node, shim) = running_node().await;
    let script =
        "id -u; id -G; pwd; echo $HOME $ADDED; echo again > /dev/stdout; grep CapEff /proc/self/status";
    let changed = ExecOrder {
        user: Some("web".into()),
        working_directory: Some("/tmp".into()),
        environment_added: vec![("ADDED".into(), "yes".into())],
        ..order(&["sh", "-c", script])
    };
    let mut session = piped(&shim, &changed).await;
    let text = rest_of(&mut session.stdout).await;
    assert_eq!(text, "1000\n1001 29 50\n/tmp\n/home/web yes\nagain\nCapEff:\t0000000000000000\n");
    let failures = [
        (order(&["nothing-here"]), "executable file not found in $PATH"),
        (ExecOrder { working_directory: Some("/none".into()), ..order(&["true"]) }, "working directory"),
        (
            ExecOrder { working_directory: Some("/proc/self/fd/5".into()), ..order(&["true"]) },
            "working directory",
        ),
    ];
    for (order, words) in failures {
        match shim.exec(&name(), &order, None, true).await.err() {
            Some(ExecError::CannotStart { message }) => assert!(message.contains(words), "{message}"),
            other => panic!("{order:?}: {other:?}"),
        }
    }
    let nobody = ExecOrder { user: Some("nobody".into()), ..order(&["true"]) };
    assert!(matches!(shim.exec(&name(), &nobody, None, true).await.err(), Some(ExecError::User { .. })));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_terminal_has_size_resize_and_signals_from_its_keys() {
    let (node, shim) = running_node().await;
    let script = "trap 'stty size' WINCH; trap 'echo interrupted' INT; tty; stty size; echo $TERM; \
        while true; do read line && test \"$line\" = end && exit 7; done";
    let mut session = in_terminal(&shim, script).await;
    assert!(session.stderr.is_none());
    let text = read_until(&mut session.stdout, "xterm").await;
    assert!(text.contains("/dev/pts/") && text.contains("33 77"), "{text}");
    session.control.resize(WindowSize { rows: 40, columns: 100 }).await.unwrap();
    // The trap runs when `read` has returned.
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"x\n").await.unwrap();
    read_until(&mut session.stdout, "40 100").await;
    stdin.write_all(b"\x03").await.unwrap();
    stdin.write_all(b"y\n").await.unwrap();
    read_until(&mut session.stdout, "interrupted").await;
    stdin.write_all(b"end\n").await.unwrap();
    rest_of(&mut session.stdout).await;
    assert_eq!(end(&session).await, ExitStatus::Exited(7));
    node.leave_nothing(&shim).await;
}

#[tokio::test]
async fn a_session_that_nobody_holds_is_hung_up_and_others_go_on() {
    let (node, shim) = running_node().await;
    let mark = "771234567";
    let mut dropped = in_terminal(&shim, &format!("echo ready; sleep {mark}")).await;
    read_until(&mut dropped.stdout, "ready").await;
    let mut piped_session =
        piped(&shim, &order(&["sh", "-c", &format!("echo ready; exec sleep {mark}1")])).await;
    read_until(&mut piped_session.stdout, "ready").await;
    let mut kept = piped(&shim, &order(&["sh", "-c", "echo ready; cat"])).await;
    read_until(&mut kept.stdout, "ready").await;
    // A new agent takes up the task; the session is its own connection.
    let adopted = node.runtime.adopt(&node.task).await.unwrap_or_else(|error| panic!("{error}"));
    drop((dropped, piped_session));
    eventually("the sessions end", async || processes_with(mark).is_empty()).await;
    let mut stdin = kept.stdin.take().unwrap();
    stdin.write_all(b"still here").await.unwrap();
    read_until(&mut kept.stdout, "still here").await;
    drop(stdin);
    assert_eq!(end(&kept).await, ExitStatus::Exited(0));
    assert!(is_alive(adopted.status.shim_pid));
    node.leave_nothing(&adopted.handle).await;
}

/// Its request and its end reach a busy shim together.
#[tokio::test]
async fn a_session_whose_caller_is_gone_before_it_begins_is_not_begun() {
    let (node, shim) = running_node().await;
    let pid = shim.status().await.unwrap().shim_pid;
    let mark = "771234568";
    send_signal(pid, Signal::SIGSTOP);
    let order = order(&["sleep", mark]);
    {
        let name = name();
        let mut opening = std::pin::pin!(shim.exec(&name, &order, None, false));
        let mut go_on = async || {
            assert!(poll_fn(|context| Poll::Ready(opening.as_mut().poll(context).is_pending())).await);
        };
        eventually("it is connected", async || {
            go_on().await;
            waiting_connections(pid) == 1
        })
        .await;
        // The socket takes the request at once.
        for _ in 0..10 {
            go_on().await;
            tokio::task::yield_now().await;
        }
    }
    send_signal(pid, Signal::SIGCONT);
    // What comes later is served later.
    let later = piped(&shim, &self::order(&["true"])).await;
    assert_eq!(end(&later).await, ExitStatus::Exited(0));
    eventually("no session is left", async || processes_with(mark).is_empty()).await;
    node.leave_nothing(&shim).await;
}

/// Connections to the Unix sockets of a process that it has not accepted (ss(8): Recv-Q of LISTEN).
fn waiting_connections(pid: i32) -> u32 {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let list = std::process::Command::new("ss").args(["-xlH"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let words = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words
        .filter(|words| inodes.iter().any(|inode| inode == words[5]))
        .map(|words| words[2].parse::<u32>().unwrap())
        .sum()
}

fn send_signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test]
async fn exec_into_a_container_that_has_ended_says_so() {
    let node = Node::new();
    let shim = node.shim().await;
    let mut events = shim.events();
    node.start(&shim, shell("c", "exit 0")).await.unwrap();
    exit_of(&mut events, "c").await;
    let error = shim.exec(&name(), &order(&["true"]), None, true).await.err().unwrap();
    assert!(matches!(error, ExecError::Request(RequestError::NotRunning(_))), "{error:?}");
    assert_eq!(error.to_string(), "container c does not run");
    let error = shim.attach(&name()).await.err().unwrap();
    assert!(matches!(error, ExecError::Request(RequestError::NotRunning(_))), "{error:?}");
    node.leave_nothing(&shim).await;
}
