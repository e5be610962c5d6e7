//! The life of a task when nothing goes wrong: order of the steps, reports, ports, volumes, essential
//! containers, waiting. In: definitions. Out: what the control plane and the machine saw.
//! Never: a crash; those are in `crash`.

use super::bench::{Bench, task};
use super::control::wait;
use crate::facilities::fakes::Program;
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;

#[test]
fn a_task_runs_is_stopped_and_leaves_nothing() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let running = bench.control.wait_status(&id, TaskStatus::Running);
    assert_eq!(running.containers.len(), 2);
    let web = &running.containers[0];
    assert!(web.pid > 0 && web.address.starts_with("172.29.") && web.image_digest == "sha256:web");
    let ports: Vec<(u32, u32)> =
        web.network_bindings.iter().map(|b| (b.container_port, b.host_port)).collect();
    assert_eq!((ports[0], ports[1].0), ((80, 8080), 81));
    assert!(ports[1].1 > 1024);
    let volume = bench.config.data_dir.join("volumes/task").join(&id);
    assert!(volume.join("data/from-image").exists() && volume.join("image.web.0/from-image").exists());
    bench.control.stop(&id, "enough");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(
        (stopped.stop_code(), stopped.stopped_reason.as_str()),
        (v1::StopCode::UserInitiated, "enough")
    );
    assert_eq!(stopped.containers[0].exit_code, Some(7));
    assert_eq!(stopped.containers[1].exit_code, Some(0));
    assert!(stopped.started_at_unix_ms > 0 && stopped.stopped_at_unix_ms >= stopped.stopping_at_unix_ms);
    bench.wait_forgotten(&[task(1)]);
    let (signals, calls, offences) =
        bench.machine.with(|w| (w.signals.clone(), w.calls.clone(), w.offences.clone()));
    assert_eq!(offences, Vec::<String>::new());
    let sent: Vec<(&str, i32)> = signals.iter().map(|(_, name, signal)| (name.as_str(), *signal)).collect();
    assert_eq!(sent, [("side", 15), ("web", 3)], "reverse order, the image's STOPSIGNAL");
    assert_order(
        &calls,
        &[
            "start_shim",
            "bind_ports",
            "add",
            "write_bundle",
            "start",
            "signal",
            "del",
            "shutdown",
            "remove_task",
            "remove_rootfs",
        ],
    );
    assert_eq!(bench.control.stopped_reports(&id), 1);
}

/// The first call of each name comes in this order.
fn assert_order(calls: &[String], names: &[&str]) {
    let place = |name: &&str| {
        calls
            .iter()
            .position(|call| call.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name} in {calls:#?}"))
    };
    let places: Vec<usize> = names.iter().map(place).collect();
    assert!(places.is_sorted(), "{names:?} {places:?} {calls:#?}");
}

#[test]
fn an_essential_containers_exit_stops_the_others() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(3));
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), v1::StopCode::EssentialContainerExited);
    assert_eq!(stopped.stopped_reason, "Essential container in task exited");
    assert_eq!((stopped.containers[0].exit_code, stopped.containers[1].exit_code), (Some(3), Some(0)));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn another_containers_exit_does_not_stop_the_task_and_sigkill_follows_the_stop_signal() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("web".parse().unwrap(), Program::IgnoresStop));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.exit(&task(1), "side", ExitStatus::Exited(0));
    let seen = bench.control.wait("side's exit", |state| {
        let report = state.applied.get(&id)?.last()?.clone();
        (report.containers[1].last_status() == v1::ContainerStatus::Stopped).then_some(report)
    });
    assert_eq!(seen.last_status(), TaskStatus::Running);
    bench.control.stop(&id, "");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.stopped_reason, "Task stopped by user");
    assert_eq!(stopped.containers[0].exit_code, Some(137), "SIGKILL after stopTimeout");
    bench.wait_forgotten(&[task(1)]);
}

/// Also when the task is stopping already, and its containers have all the time in the world.
#[test]
fn a_forced_stop_kills_at_once() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("web".parse().unwrap(), Program::IgnoresStop));
    let json = r#"{"family":"slow","containerDefinitions":[{"name":"web","image":"web","memory":64,"stopTimeout":4000000}]}"#;
    bench.control.define("slow:1", json);
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "slow:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.stop(&id, "slowly");
    bench.control.wait_status(&id, TaskStatus::Stopping);
    bench.control.change(&id, |assignment| assignment.stop_force = true);
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.stopped_reason.as_str(), stopped.containers[0].exit_code), ("slowly", Some(137)));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn an_exit_that_comes_with_the_start_is_not_lost() {
    let mut bench = Bench::new();
    bench
        .machine
        .with(|world| world.programs.insert("small".parse().unwrap(), Program::Exits { code: 0, oom: true }));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.containers[0].exit_code, Some(137));
    assert!(stopped.containers[0].exit.as_ref().unwrap().oom_killed);
    assert!(stopped.containers[0].reason.starts_with("OutOfMemoryError"));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn a_taken_static_port_waits_and_others_go_past_it() {
    let mut bench = Bench::new();
    bench.start();
    let (first, second, small) = (task(1).to_string(), task(2).to_string(), task(3).to_string());
    bench.control.assign(&first, "web:1");
    bench.control.wait_status(&first, TaskStatus::Running);
    bench.control.assign(&second, "web:1");
    let waiting = bench.control.wait("the second to wait", |state| {
        let report = state.applied.get(&second)?.last()?.clone();
        (!report.waiting_reason.is_empty()).then_some(report)
    });
    assert!(
        waiting.waiting_reason.contains("8080") && waiting.waiting_reason.contains(&first),
        "{}",
        waiting.waiting_reason
    );
    bench.control.assign(&small, "small:1");
    bench.control.wait_status(&small, TaskStatus::Running);
    bench.control.stop(&first, "");
    bench.control.wait_status(&second, TaskStatus::Running);
    assert!(bench.machine.with(|world| world.offences.is_empty()));
}

#[test]
fn a_task_stopped_before_it_began_never_starts() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    // Its definition never comes.
    bench.control.assign(&id, "unknown:1");
    bench.control.wait("it to wait", |state| {
        state.applied.get(&id)?.last().filter(|r| r.waiting_reason.contains("definition")).map(drop)
    });
    bench.control.stop(&id, "changed my mind");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.stopped_reason.as_str(), stopped.containers.len()), ("changed my mind", 0));
    bench.wait_forgotten(&[task(1)]);
    let other = task(2).to_string();
    bench.control.with(|state| state.revision += 1);
    bench.control.change(&other, |assignment| {
        assignment.task_definition = "small:1".into();
        assignment.desired_status = v1::DesiredStatus::Stopped.into();
    });
    bench.control.wait_status(&other, TaskStatus::Stopped);
    assert!(bench.machine.with(|world| world.starts.is_empty()));
}

#[test]
fn the_agent_leaves_and_comes_back_without_touching_a_task() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let before = bench.control.wait_status(&id, TaskStatus::Running);
    bench.leave();
    bench.start();
    let after = bench.control.wait("a report of the new agent", |state| {
        state.applied.get(&id)?.last().filter(|report| report.sequence > before.sequence + 100).cloned()
    });
    assert_eq!(after.last_status(), TaskStatus::Running);
    assert_eq!(after.containers, before.containers);
    let name: ContainerName = "web".parse().unwrap();
    assert_eq!(bench.machine.with(|world| world.starts[&(task(1), name)]), 1);
    bench.control.stop(&id, "");
    bench.control.wait_status(&id, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
    let volumes = bench.config.data_dir.join("volumes/task");
    wait("no volumes", || std::fs::read_dir(&volumes).unwrap().next().is_none().then_some(()), String::new);
}
