//! Exec with pipes and with a terminal, copies both ways, counters, on a real container that has no
//! tar. In: a world with a running task. Out: assertions.

use super::FIRST;
use super::control::{DataStream, wait};
use super::world::World;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::stream_ended::Result as Ended;
use lighter_proto::v1::stream_input::Input;
use lighter_proto::v1::stream_order::Order;
use lighter_proto::v1::stream_output::Output;
use std::io::Write;
use std::process::{Command, Stdio};

/// What came of a stream.
#[derive(Debug, Default)]
struct Seen {
    out: Vec<u8>,
    err: String,
    end: Option<Ended>,
}

fn rest(stream: &mut DataStream) -> Seen {
    let mut seen = Seen::default();
    while let Some(output) = stream.next() {
        match output {
            Output::Stdout(data) => seen.out.extend(data),
            Output::Stderr(data) => seen.err.push_str(&String::from_utf8_lossy(&data)),
            Output::Ended(ended) => seen.end = ended.result,
            Output::Started(_) | Output::Stats(_) | Output::Images(_) => {}
        }
    }
    seen
}

pub(super) struct Task<'a>(pub(super) &'a World);

impl Task<'_> {
    fn open(&self, order: Order) -> DataStream {
        self.0.control.open_stream(FIRST, "main", order)
    }

    fn exec(&self, script: &str, terminal: Option<v1::WindowSize>, stdin: bool) -> DataStream {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.open(Order::Exec(v1::ExecOrder { command, terminal, stdin, ..Default::default() }))
    }

    pub(super) fn output(&self, script: &str) -> String {
        String::from_utf8(rest(&mut self.exec(script, None, false)).out).unwrap()
    }
}

pub(super) fn run() {
    let mut world = World::new();
    let script = "trap 'exit 0' TERM; while true; do sleep 0.1; done";
    world.control.define(
        "idle:1",
        &format!(
            r#"{{"family":"idle","containerDefinitions":[{{"name":"main","image":"{}","memory":64,"stopTimeout":1,"command":["sh","-c","{script}"]}}]}}"#,
            world.image()
        ),
    );
    world.start();
    world.control.assign(FIRST, "idle:1");
    world.control.wait_status(FIRST, TaskStatus::Running);
    programs(&Task(&world));
    copies(&Task(&world));
    counters(&Task(&world));
    world.control.stop(FIRST, "");
    world.control.wait_status(FIRST, TaskStatus::Stopped);
    world.assert_nothing_left();
}

fn programs(task: &Task<'_>) {
    let mut stream = task.exec("read x; echo got $x; echo err >&2; exit 4", None, true);
    stream.send(Input::Data(b"a\n".to_vec()));
    stream.send(Input::DataEnd(v1::DataEnd {}));
    let seen = rest(&mut stream);
    assert_eq!(
        (seen.out.as_slice(), seen.err.as_str(), &seen.end),
        (&b"got a\n"[..], "err\n", &Some(Ended::Exited(4)))
    );
    let size = v1::WindowSize { rows: 31, columns: 97 };
    let mut stream = task.exec("busybox stty size; read x; busybox stty size", Some(size), true);
    let mut seen = String::new();
    while !seen.contains("31 97") {
        match stream.next() {
            Some(Output::Stdout(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
            Some(Output::Started(_)) => {}
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    stream.send(Input::Resize(v1::WindowSize { rows: 32, columns: 98 }));
    stream.send(Input::Data(b"\n".to_vec()));
    let seen = rest(&mut stream);
    let text = String::from_utf8_lossy(&seen.out).into_owned();
    assert!(text.contains("32 98") && seen.end == Some(Ended::Exited(0)), "{text:?} {:?}", seen.end);
    let order = v1::ExecOrder { command: vec!["/bin/no-such-program".to_owned()], ..Default::default() };
    match rest(&mut task.open(Order::Exec(order))).end {
        Some(Ended::Failed(failure)) => assert_eq!(failure.reason, "COMMAND_NOT_FOUND", "{failure:?}"),
        other => panic!("{other:?}"),
    }
    // A reader that goes away takes its program along.
    let mut stream = task.exec("sleep 86399", None, true);
    assert!(matches!(stream.next(), Some(Output::Started(_))));
    let runs = || {
        task.output("for p in /proc/[0-9]*; do busybox cat $p/cmdline; echo; done")
            .contains("sleep\u{0}86399")
    };
    wait("the program", || runs().then_some(()), String::new);
    drop(stream);
    wait("the program's end", || (!runs()).then_some(()), String::new);
}

fn tar(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut tar = Command::new("tar");
    let mut child = tar.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Puts an archive's files into the container.
pub(super) fn copy_in(task: &Task<'_>, order: v1::CopyInOrder, archive: &[u8]) -> Option<Ended> {
    let mut stream = task.open(Order::CopyIn(order));
    for chunk in archive.chunks(32 * 1024) {
        stream.send(Input::Data(chunk.to_vec()));
    }
    stream.send(Input::DataEnd(v1::DataEnd {}));
    rest(&mut stream).end
}

/// The archive of a path of the container, and how that ended.
pub(super) fn copy_out(task: &Task<'_>, path: &str) -> (Vec<u8>, Option<Ended>) {
    let order = v1::CopyOutOrder { path: path.to_owned(), follow_link: false };
    let seen = rest(&mut task.open(Order::CopyOut(order)));
    (seen.out, seen.end)
}

pub(super) fn copies(task: &Task<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("site");
    std::fs::create_dir_all(from.join("sub")).unwrap();
    // More than all buffers on the way together.
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(from.join("large"), &large).unwrap();
    std::fs::write(from.join("sub/page"), "page\n").unwrap();
    std::os::unix::fs::symlink("sub/page", from.join("link")).unwrap();
    let archive = tar(&["-C", &dir.path().display().to_string(), "-c", "site"], b"");
    let order = v1::CopyInOrder { path: "/tmp".to_owned(), owner_uid: 7, owner_gid: 8, ..Default::default() };
    assert_eq!(copy_in(task, order, &archive), Some(Ended::Done(v1::StreamDone { entries: 5 })));
    assert_eq!(task.output("busybox cat /tmp/site/link"), "page\n");
    assert_eq!(task.output("busybox stat -c '%u %g' /tmp/site/large"), "7 8\n");
    let order = v1::CopyOutOrder { path: "/tmp/site".to_owned(), follow_link: false };
    let seen = rest(&mut task.open(Order::CopyOut(order)));
    assert_eq!(seen.end, Some(Ended::Done(v1::StreamDone { entries: 5 })));
    let back = dir.path().join("back");
    std::fs::create_dir(&back).unwrap();
    tar(&["-C", &back.display().to_string(), "-x"], &seen.out);
    assert_eq!(std::fs::read(back.join("site/large")).unwrap(), large);
    assert_eq!(std::fs::read_link(back.join("site/link")).unwrap().to_str(), Some("sub/page"));
    // A link of the container leads into the container, whatever it says.
    task.output("busybox ln -s /etc/hostname /tmp/trap; echo inside > /tmp/mark; busybox ln -s ../../../../../../tmp/mark /tmp/climb");
    let order = v1::CopyOutOrder { path: "/tmp/climb".to_owned(), follow_link: true };
    let seen = rest(&mut task.open(Order::CopyOut(order)));
    assert_eq!(tar(&["-x", "-O"], &seen.out), b"inside\n");
    let order = v1::CopyOutOrder { path: "/no/such".to_owned(), follow_link: false };
    match rest(&mut task.open(Order::CopyOut(order))).end {
        Some(Ended::Failed(failure)) => assert_eq!(failure.reason, "PATH_NOT_FOUND", "{failure:?}"),
        other => panic!("{other:?}"),
    }
}

fn counters(task: &Task<'_>) {
    let mut stream = task.open(Order::Stats(v1::StatsOrder { interval_ms: 200 }));
    let mut rows = Vec::new();
    while rows.len() < 2 {
        match stream.next() {
            Some(Output::Stats(sample)) => rows.extend(sample.containers),
            Some(Output::Started(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(rows[1].memory_bytes > Some(0) && rows[1].pids > Some(0), "{:?}", rows[1]);
    assert!(rows[1].cpu_usage_ns >= rows[0].cpu_usage_ns && rows[1].read_at_ns > rows[0].read_at_ns);
    assert_eq!(rows[1].memory_limit_bytes, Some(64 << 20));
    assert!(rows[1].network_received_bytes.is_some(), "{:?}", rows[1]);
}
