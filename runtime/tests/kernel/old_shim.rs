//! A shim of the last release, which speaks version 1 and outlives the agent's upgrade: the agent of
//! today adopts it, asks, and hears. And the other way round, for an agent that was set back: a shim
//! of today answers an agent of the last release. The old one's bytes are a transcript
//! (`shim-v1.txt`), not today's encoder.
//! The transcript is never written anew: it is what runs on people's machines.

use crate::support::{DEADLINE, Node, shell};
use lighter_model::exit::ExitStatus;
use lighter_runtime::{Phase, ShimEvent};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

/// The bytes of a frame of the last release.
fn frame(name: &str) -> Vec<u8> {
    let mut lines = include_str!("shim-v1.txt").lines();
    let hex = lines.find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Requests of version 1 by their tag: name of the request, and of the answer.
type Answers = [(&'static str, &'static str); 8];
const KNOWN: Answers = [
    ("hello", "reply-hello"),
    ("status", "reply-status"),
    ("bind-ports", "reply-bound"),
    ("start", "reply-started"),
    ("signal", "reply-done"),
    ("kill", "reply-done"),
    ("remove", "reply-done"),
    ("shutdown", "reply-done"),
];

/// Serves one connection; keeps what it was asked. A request that version 1 does not know ends it,
/// as it would end the real one.
fn serve(listener: UnixListener, asked: Arc<Mutex<Vec<&'static str>>>, answers: Answers) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let mut head = [0u8; 8];
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let Some((request, answer)) = answers.get(usize::from(body[0]) - 1) else {
            asked.lock().unwrap().push("unknown");
            return;
        };
        asked.lock().unwrap().push(request);
        let mut bytes = frame(answer);
        bytes[4..8].copy_from_slice(&head[4..8]);
        stream.write_all(&bytes).unwrap();
        if *request == "kill" && *answer == "reply-done" {
            let mut event = frame("event-exited");
            event[4..8].fill(0);
            stream.write_all(&event).unwrap();
        }
    }
}

/// The process that the record names.
struct Monitor(Child);

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn monitor(node: &Node, asked: Arc<Mutex<Vec<&'static str>>>, answers: Answers) -> Monitor {
    let dir = node.runtime.config().task_dir(&node.task);
    fs::create_dir_all(&dir).unwrap();
    let child = Monitor(Command::new("sleep").arg("1000").spawn().unwrap());
    let pid = child.0.id();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = format!(
        "lighter-shim 1\ntask={}\npid={pid}\nstart_time_ticks={start}\nboot_id={}\n",
        node.task,
        boot.trim()
    );
    fs::write(dir.join("shim.record"), record).unwrap();
    let listener = UnixListener::bind(dir.join("shim.sock")).unwrap();
    std::thread::spawn(move || serve(listener, asked, answers));
    child
}

#[tokio::test]
async fn a_shim_of_the_last_release_is_understood() {
    let node = Node::new();
    let asked: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let monitor = monitor(&node, asked.clone(), KNOWN);
    let adopted = node.runtime.adopt(&node.task).await.unwrap();
    let container = &adopted.status.containers[0];
    assert_eq!((container.name.as_str(), container.phase, container.pid), ("a", Phase::Exited, Some(7)));
    let exit = container.exit.clone().unwrap();
    assert_eq!((exit.status, exit.oom_killed, exit.finished_at_unix_ms), (ExitStatus::Signaled(9), true, 3));
    assert_eq!(adopted.status.ports[0].port, 80);
    let (shim, name) = (adopted.handle, "a".parse().unwrap());
    let mut events = shim.events();
    assert_eq!(shim.status().await.unwrap().containers.len(), 1);
    assert_eq!(shim.bind_ports(&adopted.status.ports).await.unwrap()[0].port, 1);
    let started = shim.start_container(&node.bundle(shell("a", "true")).unwrap()).await.unwrap();
    assert_eq!((started.pid, started.limits.memory_max_bytes), (7, Some(2)));
    shim.signal(&name, 15).await.unwrap();
    shim.kill(&name).await.unwrap();
    shim.remove_container(&name).await.unwrap();
    let event = tokio::time::timeout(DEADLINE, events.recv()).await.unwrap().unwrap();
    assert!(matches!(&event, ShimEvent::Exited { container, .. } if *container == name), "{event:?}");
    // What the last release cannot do is refused on this side, in words.
    let argv = ["true".to_owned()];
    assert!(shim.probe(&name, &argv, DEADLINE).await.is_err());
    let lease = shim.lease(&lighter_runtime::LeaseOrder::default()).await.unwrap_err();
    assert!(matches!(lease, lighter_runtime::RequestError::NoLeases), "{lease:?}");
    shim.shutdown().await.unwrap();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["hello", "status", "bind-ports", "start", "signal", "kill", "remove", "shutdown"]);
    drop(monitor);
}

/// A shim of the last release that says no to everything.
#[tokio::test]
async fn refusals_of_the_last_release_are_understood() {
    use lighter_runtime::{BindError, RequestError, StartError};
    let node = Node::new();
    let answers = [
        ("hello", "reply-hello"),
        ("status", "reply-failed"),
        ("bind-ports", "reply-bind-failed"),
        ("start", "reply-start-failed"),
        ("signal", "reply-not-found"),
        ("kill", "reply-failed"),
        ("remove", "reply-busy"),
        ("shutdown", "reply-busy"),
    ];
    let monitor = monitor(&node, Arc::default(), answers);
    let adopted = node.runtime.adopt(&node.task).await.unwrap();
    let (shim, name) = (adopted.handle, "a".parse().unwrap());
    assert!(shim.status().await.is_err());
    let bound = shim.bind_ports(&adopted.status.ports).await.unwrap_err();
    assert!(matches!(&bound, BindError::Port { errno: 98, .. }), "{bound:?}");
    let started = shim.start_container(&node.bundle(shell("a", "true")).unwrap()).await.unwrap_err();
    assert!(matches!(&started, StartError::Limits { .. }), "{started:?}");
    assert!(matches!(shim.signal(&name, 15).await, Err(RequestError::NotFound(_))));
    assert!(shim.kill(&name).await.is_err());
    assert!(matches!(shim.remove_container(&name).await, Err(RequestError::Busy)));
    assert!(matches!(shim.shutdown().await, Err(RequestError::Busy)));
    drop(monitor);
}

/// An agent of the last release: sends its frames, reads whole frames.
struct OldAgent(UnixStream);

impl OldAgent {
    fn ask(&mut self, request: &str) -> Vec<u8> {
        self.0.write_all(&frame(request)).unwrap();
        self.next()
    }

    fn next(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        self.0.read_exact(&mut bytes).unwrap();
        bytes.resize(4 + u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, 0);
        self.0.read_exact(&mut bytes[4..]).unwrap();
        bytes
    }
}

#[tokio::test]
async fn a_shim_of_today_answers_an_agent_of_the_last_release() {
    let node = Node::new();
    let shim = node.shim().await;
    node.start(&shim, shell("a", "trap '' TERM; while :; do sleep 1; done")).await.unwrap();
    drop(shim);
    let stream = UnixStream::connect(node.task_dir().join("shim.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut agent = OldAgent(stream);
    let hello = agent.ask("hello");
    // id, a reply, to hello; version 1 is one it speaks; the task; container `a`, running.
    assert_eq!(hello[4..10], [1, 0, 0, 0, 1, 1]);
    assert_eq!(hello[10..12], [1, 0], "version 1 is the oldest it speaks");
    assert_eq!(&hello[18..50], node.task.as_str().as_bytes());
    let at = hello.windows(6).position(|bytes| bytes == [1, 0, 0, 0, b'a', 2]);
    assert!(at.is_some(), "container a is told as running: {hello:02x?}");
    assert_eq!(agent.ask("status")[8..10], [1, 2]);
    // The port of the transcript is somebody else's.
    let _taken = std::net::UdpSocket::bind("127.0.0.1:53");
    let refused = agent.ask("bind-ports");
    assert_eq!((&refused[8..10], &refused[refused.len() - 4..]), (&[1, 4][..], &98u32.to_le_bytes()[..]));
    assert_eq!(agent.ask("signal"), frame("reply-done"));
    assert_eq!(agent.ask("remove"), frame("reply-busy"));
    assert_eq!(agent.ask("shutdown"), frame("reply-busy"));
    assert_eq!(agent.ask("kill"), frame("reply-done"));
    let (event, known) = (agent.next(), frame("event-exited"));
    // No reply's id; the same container and signal; the rest is a flag and a time.
    assert_eq!((&event[..4], &event[4..8], &event[8..20]), (&known[..4], &[0; 4][..], &known[8..20]));
    assert_eq!(event.len(), known.len());
    assert_eq!(agent.ask("remove"), frame("reply-done"));
    for request in ["remove", "signal", "kill"] {
        assert_eq!(agent.ask(request), frame("reply-not-found"), "{request}");
    }
    assert_eq!(agent.ask("shutdown"), frame("reply-done"));
    node.remove().await;
}
