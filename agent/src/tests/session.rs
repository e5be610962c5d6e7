//! The session's rules: acknowledge after recording, resend, terms, unlisted tasks, heartbeats, logs,
//! and the local socket. In: a control plane that misbehaves on demand. Out: what the agent did.
//! Never: a real network.

use super::bench::{Bench, local_client, task};
use super::control::wait;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;
use lighter_proto::v1::control_message::Message;

#[test]
fn what_is_acknowledged_is_recorded_and_acknowledgements_are_cumulative() {
    let mut bench = Bench::new();
    bench.start();
    bench.control.assign(task(1).as_str(), "small:1");
    bench.control.wait_status(task(1).as_str(), TaskStatus::Running);
    let acknowledged = bench
        .control
        .wait("acknowledgements", |state| (state.acknowledged.len() > 1).then(|| state.acknowledged.clone()));
    assert!(acknowledged.is_sorted());
    let hello = bench.control.with(|state| state.hellos[0].clone());
    assert_eq!((hello.boot_id.as_str(), hello.term, hello.tasks.len()), ("boot-1", 0, 0));
    let state = hello.state.unwrap();
    assert!(state.resources.as_ref().unwrap().memory_mib > 0 && state.name == "node");
    assert!(state.resources.unwrap().ports_tcp.contains(&22));
    bench.kill();
    bench.start();
    let hello = bench.control.wait("the second hello", |state| state.hellos.get(1).cloned());
    assert_eq!((hello.term, hello.incarnation.as_str(), hello.tasks.len()), (1, "first", 1));
    assert!(hello.revision > 0 && hello.tasks[0].generation == 1);
}

#[test]
fn a_control_plane_that_never_answers_the_hello_is_left() {
    let mut bench = Bench::new();
    bench.control.with(|state| state.silent = true);
    bench.start();
    bench.control.wait("another hello", |state| (state.hellos.len() > 1).then_some(()));
    bench.control.with(|state| state.silent = false);
    bench.control.wait("an acknowledgement", |state| state.acknowledged.first().copied());
}

#[test]
fn another_definition_under_a_name_that_runs_here_is_never_run_as_the_old_one() {
    let mut bench = Bench::new();
    bench.start();
    let (runs, clashes, later) = (task(1).to_string(), task(2).to_string(), task(3).to_string());
    bench.control.assign(&runs, "small:1");
    bench.control.wait_status(&runs, TaskStatus::Running);
    let hello = |bench: &Bench| bench.control.with(|state| state.hellos.last().cloned().unwrap());
    // Set back: the name is given again, to something else.
    bench.control.with(|state| {
        state.incarnation = "second".into();
        state.assignments.clear();
        let json = state.definitions["small:1"].replace("\"memory\":", "\"essential\":true,\"memory\":1");
        assert_ne!(json, state.definitions["small:1"]);
        state.definitions.insert("small:1".into(), json);
    });
    bench.control.cut();
    bench.control.assign(&clashes, "small:1");
    let stopped = bench.control.wait_status(&clashes, TaskStatus::Stopped);
    assert!(stopped.stopped_reason.contains("another one of the same name"), "{}", stopped.stopped_reason);
    let hello = hello(&bench);
    assert_eq!(hello.revisions["small"], 1);
    let held = hello.tasks.iter().find(|held| held.task_id == runs).unwrap();
    assert_eq!(held.task_definition, "small:1");
    assert!(held.resources.as_ref().unwrap().memory_mib > 0);
    // When nothing of the old one is left, the new one takes its name.
    bench.control.stop(&runs, "");
    bench.control.wait_status(&runs, TaskStatus::Stopped);
    for gone in [&runs, &clashes] {
        bench.control.change(gone, |assignment| assignment.forget = true);
    }
    bench.control.cut();
    bench.control.assign(&later, "small:1");
    bench.control.wait_status(&later, TaskStatus::Running);
}

#[test]
fn a_stopped_report_is_sent_until_it_is_applied_and_then_forgotten() {
    let mut bench = Bench::new();
    bench.control.with(|state| state.acknowledge_reports = false);
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.stop(&id, "");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    let times = |bench: &Bench| {
        bench
            .control
            .with(|state| state.received.iter().filter(|(t, s)| *t == id && *s == stopped.sequence).count())
    };
    assert_eq!(times(&bench), 1);
    bench.control.cut();
    bench.control.wait("the report again", |state| {
        (state.received.iter().filter(|(_, s)| *s == stopped.sequence).count() >= 2).then_some(())
    });
    bench.kill();
    bench.start();
    bench.control.wait("the report after a restart", |state| {
        (state.received.iter().filter(|(_, s)| *s == stopped.sequence).count() >= 3).then_some(())
    });
    assert_eq!(bench.control.stopped_reports(&id), 1);
    // The control plane says so in an assignment instead.
    bench.control.change(&id, |assignment| assignment.forget = true);
    bench.wait_forgotten(&[task(1)]);
    bench.control.with(|state| state.assignments.clear());
    bench.kill();
    bench.start();
    let hello = bench.control.wait("the last hello", |state| state.hellos.get(3).cloned());
    assert!(hello.tasks.is_empty());
    assert_eq!(bench.control.stopped_reports(&id), 1);
}

#[test]
fn an_unlisted_task_is_stopped_only_when_that_is_confirmed() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.with(|state| {
        state.confirm = false;
        state.assignments.clear();
        state.revision += 1;
    });
    bench.control.cut();
    bench.control.wait("the question", |state| state.confirm_asked.contains(&id).then_some(()));
    // Not confirmed: it goes on. A confirmation nobody asked for changes nothing either.
    assert!(bench.machine.with(|world| world.signals.is_empty()));
    bench.control.push(Message::StopConfirmed(v1::StopConfirmed { task_ids: vec![task(9).to_string()] }));
    bench.control.push(Message::StopConfirmed(v1::StopConfirmed { task_ids: vec![id.clone()] }));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn a_restored_backup_stops_nothing() {
    for incarnation in ["first", "second"] {
        let mut bench = Bench::new();
        bench.start();
        let id = task(1).to_string();
        bench.control.with(|state| state.revision = 100);
        bench.control.assign(&id, "small:1");
        bench.control.wait_status(&id, TaskStatus::Running);
        // The store went back to before the task, or is another one.
        bench.control.with(|state| {
            state.assignments.clear();
            state.incarnation = incarnation.into();
            state.revision = if incarnation == "first" { 50 } else { 200 };
        });
        for hellos in 2..=4 {
            bench.control.cut();
            bench.control.wait("another session", |state| (state.hellos.len() >= hellos).then_some(()));
            bench.control.with(|state| state.revision += 100);
        }
        bench.control.assign(task(2).as_str(), "small:1");
        bench.control.wait_status(task(2).as_str(), TaskStatus::Running);
        assert!(bench.control.with(|state| state.confirm_asked.is_empty()));
        assert!(bench.machine.with(|world| world.signals.is_empty()));
        // The new store takes it over.
        bench.control.change(&id, |assignment| {
            assignment.task_definition = "small:1".into();
            assignment.generation = 7;
            assignment.desired_status = v1::DesiredStatus::Stopped.into();
        });
        bench.control.wait_status(&id, TaskStatus::Stopped);
    }
}

#[test]
fn a_lower_term_is_refused() {
    let mut bench = Bench::new();
    bench.control.with(|state| state.term = 5);
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.with(|state| state.term = 4);
    bench.control.cut();
    bench.control.wait("tries", |state| (state.hellos.len() >= 3).then_some(()));
    bench.control.stop(&id, "");
    let socket = bench.config.socket();
    let status = bench.runtime().block_on(async {
        local_client(&socket).await.get_agent_status(v1::GetAgentStatusRequest {}).await.unwrap().into_inner()
    });
    assert!(!status.session_connected && status.session_error.contains("term 4"), "{status:?}");
    assert!(bench.machine.with(|world| world.signals.is_empty()));
    bench.control.with(|state| state.term = 6);
    bench.control.cut();
    bench.control.wait_status(&id, TaskStatus::Stopped);
}

#[test]
fn heartbeats_go_out_and_logs_come_on_their_own_connection() {
    let mut bench = Bench::new();
    bench.control.with(|state| state.heartbeat_ms = 10);
    bench.start();
    bench.control.wait("heartbeats", |state| (state.heartbeats > 3).then_some(()));
    let open = v1::OpenLogStream {
        stream_id: "stream-1".into(),
        task_id: task(1).to_string(),
        container: "web".into(),
        follow: true,
        ..Default::default()
    };
    bench.control.push(Message::OpenLogStream(open));
    bench.control.wait("the log", |state| (state.log_streams_ended == 1).then_some(()));
    let lines = bench.control.with(|state| state.log_lines.clone());
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2].line, b"line 2");
}

#[test]
fn the_local_socket_answers_and_is_roots_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    let socket = bench.config.socket();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    wait(
        "the forwarding probe",
        || {
            let status = bench.runtime().block_on(async {
                local_client(&socket)
                    .await
                    .get_agent_status(v1::GetAgentStatusRequest {})
                    .await
                    .unwrap()
                    .into_inner()
            });
            status
                .self_test
                .iter()
                .find(|result| result.name == "forwarding" && !result.ok && result.mend == "nft add rule")
                .map(drop)
        },
        String::new,
    );
    let shared = bench.config.data_dir.join("volumes/shared/unused");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("file"), b"12345").unwrap();
    bench.machine.with(|world| world.images.insert("unused".into(), Default::default()));
    bench.runtime().block_on(async {
        let mut client = local_client(&socket).await;
        let status = client.get_agent_status(v1::GetAgentStatusRequest {}).await.unwrap().into_inner();
        assert!(status.session_connected && status.reconciled && status.cluster == "default");
        let tasks = client.list_local_tasks(v1::ListLocalTasksRequest {}).await.unwrap().into_inner().tasks;
        assert_eq!(
            (tasks[0].task_id.as_str(), tasks[0].task_definition.as_str(), tasks[0].memory_mib),
            (id.as_str(), "web:1", 128)
        );
        let rows = client.get_disk_usage(v1::GetDiskUsageRequest {}).await.unwrap().into_inner().rows;
        let volumes = rows.iter().find(|row| row.kind == "volumes").unwrap();
        assert_eq!((volumes.count, volumes.in_use, volumes.reclaimable_bytes), (3, 2, 5));
        let pruned = client.prune(v1::PruneRequest { volumes: true }).await.unwrap().into_inner();
        assert_eq!((pruned.images, pruned.volumes, pruned.bytes), (1, 1, 5));
        let unknown = v1::StreamPullProgressRequest { task_id: task(9).to_string() };
        assert_eq!(client.stream_pull_progress(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
    });
    assert!(!shared.exists());
}

#[test]
fn the_agent_comes_up_before_its_control_plane() {
    let mut bench = Bench::new();
    bench.control.cut();
    let away = bench.control.socket.with_extension("away");
    std::fs::rename(&bench.control.socket, &away).unwrap();
    bench.start();
    let socket = bench.config.socket();
    wait(
        "the reason",
        || {
            let status = bench.runtime().block_on(async {
                local_client(&socket)
                    .await
                    .get_agent_status(v1::GetAgentStatusRequest {})
                    .await
                    .unwrap()
                    .into_inner()
            });
            status.session_error.contains("connect to the control plane").then_some(())
        },
        String::new,
    );
    std::fs::rename(&away, &bench.control.socket).unwrap();
    bench.control.wait("the hello", |state| state.hellos.first().map(drop));
}

#[test]
fn an_assignment_that_cannot_be_read_is_reported_stopped_once_and_what_runs_goes_on() {
    let mut bench = Bench::new();
    bench.start();
    let (runs, fresh) = (task(1).to_string(), task(2).to_string());
    bench.control.assign(&runs, "small:1");
    bench.control.wait_status(&runs, TaskStatus::Running);
    let unknown = |assignment: &mut v1::Assignment| {
        assignment.task_definition = "small:1".into();
        assignment.desired_status = v1::DesiredStatus::Running.into();
        let container = "a container of tomorrow".into();
        assignment.container_resources = vec![v1::ContainerResources { container, ..Default::default() }];
    };
    bench.control.change(&runs, unknown);
    bench.control.change(&fresh, unknown);
    let stopped = bench.control.wait_status(&fresh, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), v1::StopCode::TaskFailedToStart);
    let reason = &stopped.stopped_reason;
    assert!(reason.contains("does not understand") && reason.contains("a container of tomorrow"), "{reason}");
    // A desired status of tomorrow is no order to stop, and neither is what comes with it.
    bench.control.change(&runs, |assignment| assignment.desired_status = 77);
    bench.kill();
    bench.start();
    bench.wait_forgotten(&[task(2)]);
    let hello = bench.control.wait("the second hello", |state| state.hellos.get(1).cloned());
    assert!(hello.tasks.iter().any(|held| held.task_id == runs));
    bench.control.assign(task(3).as_str(), "small:1");
    bench.control.wait_status(task(3).as_str(), TaskStatus::Running);
    assert_eq!(bench.control.stopped_reports(&fresh), 1);
    assert!(bench.machine.with(|world| world.signals.is_empty()), "the running task was left alone");
    assert!(bench.control.with(|state| state.confirm_asked.is_empty()), "it counts as listed");
    bench.control.stop(&runs, "still understood");
    assert_eq!(bench.control.wait_status(&runs, TaskStatus::Stopped).stopped_reason, "still understood");
}

#[test]
fn a_definition_of_tomorrow_is_refused_by_the_name_of_what_is_unknown() {
    let mut bench = Bench::new();
    bench.control.define("later:1", &super::bench::SMALL.replace(r#""cpu":10"#, r#""quantumCores":1"#));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "later:1");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert!(stopped.stopped_reason.contains("quantumCores"), "{}", stopped.stopped_reason);
    bench.kill();
    bench.start();
    bench.wait_forgotten(&[task(1)]);
    assert_eq!(bench.control.stopped_reports(&id), 1);
}

#[test]
fn a_session_begins_anew_with_a_renewed_certificate_and_loses_nothing() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.credentials.send_replace(super::bench::credentials("second"));
    bench.control.wait("the second hello", |state| state.hellos.get(1).cloned());
    bench.control.stop(&id, "");
    bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((bench.control.with(|state| state.hellos.len()), bench.control.stopped_reports(&id)), (2, 1));
}
