//! The node's own life: daemon tasks first and last, all tasks stopped on the spot, how the control
//! plane sees the node, notices. In: assignments, the local socket. Out: orders and reports.
//! Never: the real shutdown of a machine; that is a scenario.

use super::bench::{Bench, local_client, task};
use super::control::wait;
use crate::facilities::fakes::Program;
use futures_util::StreamExt;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message;
use lighter_proto::v1::{StopCode, TaskStatus};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

fn assign(bench: &Bench, number: u64, group: &str) -> String {
    let id = task(number).to_string();
    bench.control.with(|state| state.assignments.entry(id.clone()).or_default().group = group.to_owned());
    bench.control.assign(&id, "small:1");
    id
}

/// Every message of a departure; the last may be an error.
fn stop_tasks(
    bench: &Bench,
    request: v1::StopTasksRequest,
) -> Vec<Result<v1::StopTasksProgress, tonic::Status>> {
    let socket = bench.config.socket();
    bench.runtime().block_on(async {
        let stream = local_client(&socket).await.stop_tasks(request).await.unwrap().into_inner();
        stream.collect().await
    })
}

#[test]
fn all_tasks_stop_daemons_last_and_nothing_new_begins() {
    let mut bench = Bench::new();
    bench.start();
    let daemon = assign(&bench, 1, "daemon:logs");
    let others = [assign(&bench, 2, "family:small"), assign(&bench, 3, "family:small")];
    for id in others.iter().chain([&daemon]) {
        bench.control.wait_status(id, TaskStatus::Running);
    }
    let progress = stop_tasks(&bench, v1::StopTasksRequest::default());
    assert_eq!(progress.first().unwrap().as_ref().unwrap().left.len(), 3);
    assert!(progress.last().unwrap().as_ref().unwrap().done);
    let order: Vec<String> =
        bench.machine.with(|world| world.signals.iter().map(|(task, ..)| task.to_string()).collect());
    assert_eq!(order.len(), 3);
    assert_eq!(order.last(), Some(&daemon), "{order:?}");
    let stopped = bench.control.wait_status(&daemon, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), StopCode::TerminationNotice);
    assert!(stopped.stopped_reason.contains("on the instance itself"), "{}", stopped.stopped_reason);
    let late = assign(&bench, 4, "family:small");
    let waiting = bench.control.wait("it waits", |state| {
        state.applied.get(&late)?.last().filter(|report| !report.waiting_reason.is_empty()).cloned()
    });
    assert!(waiting.waiting_reason.contains("stops all its tasks"), "{}", waiting.waiting_reason);
    // The next agent of this machine takes tasks again.
    bench.kill();
    bench.start();
    bench.control.wait_status(&late, TaskStatus::Running);
}

#[test]
fn a_task_that_takes_too_long_ends_the_departure_and_not_the_agent() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("small".parse().unwrap(), Program::IgnoresStop));
    bench.control.define("slow:1", &super::bench::SMALL.replace("\"stopTimeout\":1", "\"stopTimeout\":600"));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "slow:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    let request = v1::StopTasksRequest { stop_agent: true, timeout_s: 1, ..Default::default() };
    let progress = stop_tasks(&bench, request);
    let failed = progress.last().unwrap().as_ref().unwrap_err();
    assert_eq!(failed.code(), tonic::Code::DeadlineExceeded);
    assert!(failed.message().contains(&id), "{}", failed.message());
    assert_eq!(bench.runtime().block_on(super::bench::local_tasks(&bench.config.socket())), [id]);
}

#[test]
fn the_agent_ends_after_its_tasks() {
    let mut bench = Bench::new();
    bench.start();
    let id = assign(&bench, 1, "family:small");
    bench.control.wait_status(&id, TaskStatus::Running);
    let request = v1::StopTasksRequest { stop_agent: true, ..Default::default() };
    assert!(stop_tasks(&bench, request).last().unwrap().as_ref().unwrap().done);
    assert_eq!(bench.control.stopped_reports(&id), 1);
    let socket = bench.config.socket();
    wait(
        "the agent has left",
        || {
            let uri = format!("unix:{}", socket.display());
            let connect = tonic::transport::Endpoint::from_shared(uri).unwrap();
            bench.runtime().block_on(async { connect.connect().await }).is_err().then_some(())
        },
        String::new,
    );
}

#[test]
fn after_a_start_the_others_wait_for_the_daemon_tasks() {
    let mut bench = Bench::new();
    bench.start();
    // Neither can begin, for want of the definition; both are recorded.
    for (number, group) in [(1, "family:small"), (2, "daemon:logs")] {
        let id = task(number).to_string();
        bench.control.with(|state| state.assignments.entry(id.clone()).or_default().group = group.to_owned());
        bench.control.assign(&id, "later:1");
    }
    let (other, daemon) = (task(1).to_string(), task(2).to_string());
    let waits = |id: &str, words: &str| {
        bench.control.wait(words, |state| {
            let last = state.applied.get(id)?.last()?;
            last.waiting_reason.contains(words).then_some(())
        });
    };
    waits(&daemon, "definition");
    bench.kill();
    bench.control.define("later:1", super::bench::SMALL);
    bench.start();
    bench.control.wait_status(&daemon, TaskStatus::Running);
    bench.control.wait_status(&other, TaskStatus::Running);
    let started: Vec<String> = bench.machine.with(|world| {
        let starts = world.calls.iter().filter_map(|call| call.strip_prefix("start_shim "));
        starts.map(str::to_owned).collect()
    });
    assert_eq!(started, [daemon, other], "the daemon task has the higher id and begins first");
}

fn status(bench: &Bench) -> v1::GetAgentStatusResponse {
    let socket = bench.config.socket();
    bench.runtime().block_on(async {
        let answer = local_client(&socket).await.get_agent_status(v1::GetAgentStatusRequest {}).await;
        answer.unwrap().into_inner()
    })
}

#[test]
fn how_the_control_plane_sees_the_node_is_known_and_kept() {
    let mut bench = Bench::new();
    bench.start();
    bench.control.wait("a session", |state| state.hellos.first().cloned());
    assert!(bench.control.with(|state| state.hellos[0].features.contains(&"instance-state".to_owned())));
    bench.control.push(Message::InstanceState(v1::InstanceState {
        status: v1::ContainerInstanceStatus::Draining.into(),
        reason: "kernel update".into(),
        deadline_unix_ms: 7,
        stop_tasks: true,
    }));
    let drains = |bench: &Bench| {
        let status = status(bench);
        (status.instance_status() == v1::ContainerInstanceStatus::Draining).then_some(status)
    };
    let seen = wait("it drains", || drains(&bench), String::new);
    assert_eq!(
        (seen.instance_status_reason.as_str(), seen.instance_status_deadline_unix_ms),
        ("kernel update", 7)
    );
    bench.kill();
    bench.start();
    assert!(drains(&bench).is_some(), "an agent without a control plane knows it too");
}

#[test]
fn a_notice_given_on_the_node_reaches_the_control_plane_in_every_session() {
    let mut bench = Bench::new();
    bench.config.notices.stop_tasks_before_s = Some(60);
    bench.start();
    let notice = v1::Notice {
        kind: v1::NoticeKind::Maintenance.into(),
        at_unix_ms: 4_000_000_000_000,
        detail: "new disk".into(),
        ..Default::default()
    };
    let socket = bench.config.socket();
    let set = |notice| {
        let socket = socket.clone();
        async move { local_client(&socket).await.set_notice(v1::SetNoticeRequest { notice }).await.unwrap() }
    };
    bench.runtime().block_on(set(Some(notice)));
    let told = bench.control.wait("the notice", |state| state.node_states.last()?.notices.first().cloned());
    assert_eq!((told.detail.as_str(), told.kind()), ("new disk", v1::NoticeKind::Maintenance));
    assert_eq!(told.stop_tasks_at_unix_ms, 4_000_000_000_000 - 60_000);
    bench.control.cut();
    bench.control.wait("the next hello has it", |state| {
        let hello = state.hellos.get(1)?;
        (hello.state.as_ref()?.notices == [told.clone()]).then_some(())
    });
    bench.runtime().block_on(set(None));
    bench
        .control
        .wait("it is taken back", |state| state.node_states.last()?.notices.is_empty().then_some(()));
}

/// A metadata service that tells of a spot interruption, and takes its time.
fn slow_metadata() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut text, mut buffer) = (String::new(), [0u8; 1024]);
            while !text.contains("\r\n\r\n") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    _ => break,
                }
            }
            let body = match text.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" => "secret",
                path if path.ends_with("/instance-action") => {
                    r#"{"action": "terminate", "time": "2027-09-18T08:22:00Z"}"#
                }
                _ => "[]",
            };
            // Far longer than a session takes to open.
            std::thread::sleep(Duration::from_millis(300));
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    base
}

#[test]
fn the_first_hello_of_an_agent_has_the_notice_that_stands() {
    let mut bench = Bench::new();
    bench.config.notices.imds_endpoint = slow_metadata();
    for start in 0..2 {
        bench.start();
        let hello = bench.control.wait("a hello", |state| state.hellos.get(start).cloned());
        let notices = hello.state.unwrap().notices;
        assert_eq!(notices.len(), 1, "start {start}: {notices:?}");
        bench.kill();
    }
}

#[test]
fn one_message_that_cannot_be_read_is_refused_alone() {
    let mut bench = Bench::new();
    bench.start();
    let good = assign(&bench, 1, "family:small");
    bench.control.wait_status(&good, TaskStatus::Running);
    let sessions = bench.control.with(|state| state.hellos.len());
    bench.control.push(Message::Assignments(v1::Assignments {
        revision: 9,
        assignments: vec![v1::Assignment { task_id: "no task id".into(), ..Default::default() }],
    }));
    bench.control.push(Message::StopConfirmed(v1::StopConfirmed { task_ids: vec!["nor this".into()] }));
    let next = assign(&bench, 2, "family:small");
    bench.control.wait_status(&next, TaskStatus::Running);
    assert_eq!(bench.control.with(|state| state.hellos.len()), sessions, "the session goes on");
    assert_eq!(bench.control.stopped_reports(&good), 0);
}
