//! Golden frames: the bytes of each kind of message as version 1 sends them. A change here breaks
//! shims that are running: it needs a new protocol version.

use crate::helper::{HelperCreated, HelperFailed};
use crate::message::{BindFailure, Exited, HelloReply, SignalRequest, StartFailure};
use crate::{
    CgroupPaths, CgroupVersion, ContainerPhase, ContainerState, Event, FailureKind, FrameBuffer, FrameError,
    HelloRange, HelperReport, HelperRequest, Limits, LogPolicy, PortBind, PortProtocol, Reply, Request,
    ShimMessage, ShimRecord, ShimStatus, StartContainer, Wire, WireExit, WireExitStatus, encode_frame,
};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn round_trip<M: Wire + PartialEq + std::fmt::Debug>(id: u32, message: &M, golden: &str) {
    let bytes = encode_frame(id, message);
    assert_eq!(hex(&bytes), golden, "{message:?}");
    // In any pieces, with another frame behind it and with fields of a later version.
    for piece in [1, 3, bytes.len()] {
        let mut buffer = FrameBuffer::default();
        for part in bytes.chunks(piece) {
            buffer.push(part);
        }
        buffer.push(&bytes[..5]);
        assert_eq!(buffer.next_frame::<M>().unwrap().as_ref(), Some(&(id, message_copy(message))));
        assert_eq!(buffer.next_frame::<M>(), Ok(None));
    }
    let mut longer = bytes.clone();
    longer.push(0xff);
    let length = u32::try_from(longer.len() - 4).unwrap();
    longer[..4].copy_from_slice(&length.to_le_bytes());
    let mut buffer = FrameBuffer::default();
    buffer.push(&longer);
    assert_eq!(buffer.next_frame::<M>().unwrap().as_ref(), Some(&(id, message_copy(message))));
    // Cut anywhere it is an error, never a panic.
    for end in 8..bytes.len() {
        let mut cut = bytes[..end].to_vec();
        let length = u32::try_from(cut.len() - 4).unwrap();
        cut[..4].copy_from_slice(&length.to_le_bytes());
        let mut buffer = FrameBuffer::default();
        buffer.push(&cut);
        assert!(buffer.next_frame::<M>().is_err());
    }
}

fn message_copy<M: Wire>(message: &M) -> M {
    M::from_bytes(&message.to_bytes()).unwrap()
}

fn paths() -> CgroupPaths {
    CgroupPaths { version: CgroupVersion::V2, cpu: "c".into(), memory: "m".into(), pids: "p".into() }
}

fn limits() -> Limits {
    Limits { cpu_quota_us: Some(1), memory_max_bytes: Some(2), ..Limits::default() }
}

const EXIT: WireExit =
    WireExit { status: WireExitStatus::Signaled(9), oom_killed: true, finished_at_unix_ms: 3 };

fn state() -> ContainerState {
    ContainerState {
        name: "a".into(),
        phase: ContainerPhase::Exited,
        pid: 7,
        start_time_ticks: 8,
        started_at_unix_ms: 9,
        limits: limits(),
        exit: Some(EXIT),
        log_records_dropped: 10,
    }
}

fn port(port: u16) -> PortBind {
    PortBind { protocol: PortProtocol::Udp, ip: [127, 0, 0, 1].into(), port }
}

/// Name in the golden file, comparison with golden bytes, bytes.
pub(crate) type Case = (&'static str, Box<dyn Fn(&str)>, Vec<u8>);

/// A message under its name in the golden file.
pub(crate) fn case<M: Wire + PartialEq + std::fmt::Debug + 'static>(name: &'static str, message: M) -> Case {
    let bytes = encode_frame(1, &message);
    (name, Box::new(move |golden| round_trip(1, &message, golden)), bytes)
}

/// Compares messages with a golden file; `LIGHTER_BLESS=1` writes it anew, before its version is released only.
pub(crate) fn compare(file: &str, list: &[Case]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("LIGHTER_BLESS").is_some() {
        let text: String = list.iter().map(|(name, _, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), list.len());
    for ((name, check, _), line) in list.iter().zip(text.lines()) {
        let (golden_name, golden) = line.split_once(' ').unwrap();
        assert_eq!(*name, golden_name);
        check(golden);
    }
}

/// Every kind of message, named as in the golden file.
fn messages() -> Vec<Case> {
    let mut list: Vec<Case> = Vec::new();
    fn add<M: Wire + PartialEq + std::fmt::Debug + 'static>(
        list: &mut Vec<Case>,
        name: &'static str,
        message: M,
    ) {
        list.push(case(name, message));
    }
    let range = HelloRange { min: 1, max: 2 };
    let status = ShimStatus {
        task: "t".into(),
        shim_pid: 5,
        shim_start_time_ticks: 6,
        containers: vec![state()],
        ports: vec![port(80)],
    };
    let reply = |reply| ShimMessage::Reply(reply);
    add(&mut list, "hello", Request::Hello(range));
    add(&mut list, "status", Request::Status);
    add(&mut list, "bind-ports", Request::BindPorts(vec![port(53)]));
    add(&mut list, "start", Request::Start(start()));
    add(&mut list, "signal", Request::Signal(SignalRequest { name: "a".into(), signal: 15 }));
    add(&mut list, "kill", Request::Kill("a".into()));
    add(&mut list, "remove", Request::Remove("a".into()));
    add(&mut list, "shutdown", Request::Shutdown);
    add(&mut list, "reply-hello", reply(Reply::Hello(HelloReply { range, status: status.clone() })));
    add(&mut list, "reply-status", reply(Reply::Status(status)));
    add(
        &mut list,
        "reply-bound",
        reply(Reply::Bound(vec![PortBind { ip: std::net::Ipv6Addr::LOCALHOST.into(), ..port(1) }])),
    );
    add(&mut list, "reply-bind-failed", reply(Reply::BindFailed(BindFailure { port: port(2), errno: 98 })));
    add(&mut list, "reply-started", reply(Reply::Started(state())));
    add(
        &mut list,
        "reply-start-failed",
        reply(Reply::StartFailed(StartFailure { kind: FailureKind::Limits, message: "m".into() })),
    );
    add(&mut list, "reply-done", reply(Reply::Done));
    add(&mut list, "reply-not-found", reply(Reply::NotFound));
    add(&mut list, "reply-busy", reply(Reply::Busy));
    add(&mut list, "reply-failed", reply(Reply::Failed(3)));
    add(
        &mut list,
        "event-exited",
        ShimMessage::Event(Event::Exited(Exited { name: "a".into(), exit: EXIT })),
    );
    let request = HelperRequest {
        container_id: "a".into(),
        bundle: "b".into(),
        state_root: "s".into(),
        cgroup: paths(),
        expected: limits(),
        seccomp_filter: None,
    };
    add(&mut list, "helper-request", request);
    add(&mut list, "helper-created", HelperReport::Created(HelperCreated { pid: 7, limits: limits() }));
    add(&mut list, "helper-started", HelperReport::Started);
    let failed = HelperFailed { kind: FailureKind::CannotStart, message: "exec".into() };
    add(&mut list, "helper-failed", HelperReport::Failed(failed));
    list
}

pub(crate) fn start() -> StartContainer {
    StartContainer {
        name: "a".into(),
        bundle: "b".into(),
        state_root: "s".into(),
        cgroup: paths(),
        expected: limits(),
        seccomp_filter: Some("f".into()),
        log_path: "l".into(),
        log: LogPolicy { file_bytes_max: 5, files_max: 3 },
    }
}

#[test]
fn frames_are_as_version_1_sends_them() {
    compare("src/golden-v1.txt", &messages());
}

#[test]
fn a_frame_that_is_too_long_or_too_short_ends_the_connection() {
    let mut buffer = FrameBuffer::default();
    buffer.push(&[0xff; 8]);
    assert!(matches!(buffer.next_frame::<Request>(), Err(FrameError::TooLong { .. })));
    let mut buffer = FrameBuffer::default();
    buffer.push(&[3, 0, 0, 0, 1, 2, 3]);
    assert_eq!(buffer.next_frame::<Request>(), Err(FrameError::TooShort));
    let mut buffer = FrameBuffer::default();
    buffer.push(&[5, 0, 0, 0, 1, 0, 0, 0, 200]);
    assert!(matches!(buffer.next_frame::<Request>(), Err(FrameError::Message(_))));
}

#[test]
fn a_list_longer_than_its_bytes_takes_no_memory() {
    // BindPorts with 4 billion ports announced and none sent.
    let mut buffer = FrameBuffer::default();
    buffer.push(&[9, 0, 0, 0, 1, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(buffer.next_frame::<Request>(), Err(FrameError::Message(_))));
}

#[test]
fn records_are_text_and_are_read_back() {
    assert_eq!(EXIT.to_text(), "lighter-exit 1\nsignaled=9\noom_killed=1\nfinished_at_unix_ms=3\n");
    for exit in
        [EXIT, WireExit { status: WireExitStatus::Exited(137), oom_killed: false, finished_at_unix_ms: 0 }]
    {
        assert_eq!(WireExit::from_text(&exit.to_text()), Ok(exit));
        let longer = format!("{}later=1\n", exit.to_text());
        assert_eq!(WireExit::from_text(&longer), Ok(exit));
    }
    let shim = ShimRecord { task: "t".into(), pid: 1, start_time_ticks: 2, boot_id: "b".into() };
    assert_eq!(ShimRecord::from_text(&shim.to_text()), Ok(shim));
    for broken in [
        "",
        "lighter-exit 2\nexited=1\n",
        "lighter-exit 1\nexited=x\n",
        "lighter-exit 1\nexited=0\noom_killed=0",
    ] {
        assert!(WireExit::from_text(broken).is_err(), "{broken:?}");
    }
}
