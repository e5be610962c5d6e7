//! Golden frames of what version 2 added. A change here breaks shims that are running: it needs a
//! new protocol version. The messages of version 1 are in `golden`, and are the same in version 2.

use crate::exec::{
    Capabilities, ExecFailure, ExecProcess, ExecRequest, ExecStep, ProbeEnd, ProbeRequest, ProbeResult,
    ResourceLimit, SessionEnd, SessionOpened, StartWith, WireWindow,
};
use crate::golden::{Case, case, compare, start};
use crate::{Event, HelperReport, Reply, Request, ShimMessage};

fn process() -> ExecProcess {
    ExecProcess {
        programs: vec!["/bin/p".into()],
        arguments: vec!["p".into(), "a".into()],
        environment: vec!["K=v".into()],
        working_directory: "/w".into(),
        uid: 1,
        gid: 2,
        groups: vec![3, 4],
        capabilities: Capabilities { bounding: 5, effective: 6, permitted: 7, inheritable: 8, ambient: 9 },
        no_new_privileges: true,
        apparmor_profile: Some("l".into()),
        oom_score_adj: Some(-10),
        umask: Some(0o22),
        limits: vec![ResourceLimit { resource: 7, soft: 11, hard: 12 }],
    }
}

fn messages() -> Vec<Case> {
    let reply = ShimMessage::Reply;
    let failure = ExecFailure { step: ExecStep::Execute, errno: 2 };
    let exec = |terminal| ExecRequest { name: "a".into(), process: process(), terminal, stdin: true };
    let window = WireWindow { rows: 24, columns: 80 };
    let probed = |end| reply(Reply::Probed(ProbeResult { end, output: b"out".to_vec() }));
    vec![
        case(
            "probe",
            Request::Probe(ProbeRequest { name: "a".into(), process: process(), timeout_ms: 5000 }),
        ),
        case("exec", Request::Exec(exec(None))),
        case("exec-terminal", Request::Exec(exec(Some(window)))),
        case("attach", Request::Attach("a".into())),
        case("session-signal", Request::SessionSignal(2)),
        case(
            "start-with",
            Request::StartWith(StartWith { start: start(), terminal: true, interactive: false }),
        ),
        case("reply-probed", probed(ProbeEnd::Exited(1))),
        case("reply-probed-signaled", probed(ProbeEnd::Signaled(9))),
        case("reply-probed-timed-out", probed(ProbeEnd::TimedOut)),
        case("reply-probed-cannot-start", probed(ProbeEnd::CannotStart(failure))),
        case("reply-cannot-exec", reply(Reply::CannotExec(failure))),
        case("reply-not-running", reply(Reply::NotRunning)),
        case("reply-session", reply(Reply::Session(SessionOpened { terminal: true, stdin: false }))),
        case("event-session-exited", ShimMessage::Event(Event::SessionEnded(SessionEnd::Exited(3)))),
        case("event-session-signaled", ShimMessage::Event(Event::SessionEnded(SessionEnd::Signaled(1)))),
        case("event-session-too-slow", ShimMessage::Event(Event::SessionEnded(SessionEnd::TooSlow))),
        case("helper-terminal", HelperReport::Terminal),
    ]
}

#[test]
fn frames_are_as_version_2_sends_them() {
    compare("src/golden-v2.txt", &messages());
}

/// A shim of version 1 closes the connection on these; an agent therefore asks for the version first.
#[test]
fn every_message_of_version_2_has_a_tag_that_version_1_does_not_know() {
    for (name, _, bytes) in messages() {
        let tags = &bytes[8..];
        let newest_of_v1 = match name {
            name if name.starts_with("reply") => (tags[1], 10),
            name if name.starts_with("event") => (tags[1], 1),
            name if name.starts_with("helper") => (tags[0], 3),
            _ => (tags[0], 8),
        };
        assert!(newest_of_v1.0 > newest_of_v1.1, "{name}");
    }
}
