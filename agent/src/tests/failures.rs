//! What goes wrong on a node: pulls, starts, ports, refusals, teardown, a dead shim.
//! In: a machine that fails on demand. Out: the ECS words, and nothing left over.
//! Never: a crash of the agent; those are in `crash`.

use super::bench::{Bench, task};
use crate::facilities::fakes::Program;
use lighter_model::exit::ExitStatus;
use lighter_model::image_config::ImageConfig;
use lighter_model::resources::HostPort;
use lighter_model::task_definition::TransportProtocol::Tcp;
use lighter_proto::v1::{ContainerStatus, StopCode, TaskReport, TaskStatus};

/// Runs a task to its end and checks that nothing is left of it.
fn failed(bench: &mut Bench, definition: &str) -> TaskReport {
    let id = task(1).to_string();
    bench.control.assign(&id, definition);
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
    assert_eq!(bench.machine.with(|world| world.offences.clone()), Vec::<String>::new());
    stopped
}

fn assert_failed_to_start(stopped: &TaskReport, word: &str, detail: &str) {
    assert_eq!(stopped.stop_code(), StopCode::TaskFailedToStart, "{stopped:?}");
    assert!(
        stopped.stopped_reason.starts_with(word) && stopped.stopped_reason.contains(detail),
        "{}",
        stopped.stopped_reason
    );
}

#[test]
fn an_image_that_does_not_exist() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.images.remove("web"));
    bench.start();
    let stopped = failed(&mut bench, "web:1");
    assert_failed_to_start(&stopped, "CannotPullContainerError", "manifest unknown");
    assert_eq!(stopped.containers.len(), 2);
}

#[test]
fn a_registry_that_comes_back() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.retriable_pulls_failing = 1);
    bench.start();
    bench.control.assign(task(1).as_str(), "small:1");
    bench.control.wait_status(task(1).as_str(), TaskStatus::Running);
}

#[test]
fn a_program_that_cannot_be_executed() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("web".parse().unwrap(), Program::CannotStart));
    bench.start();
    let stopped = failed(&mut bench, "web:1");
    assert_failed_to_start(&stopped, "CannotStartContainerError", "/bin/nothing");
    assert!(stopped.containers[0].reason.starts_with("CannotStartContainerError"));
    // The other one comes after it and was never begun.
    assert_eq!(stopped.containers[1].exit_code, None);
}

#[test]
fn another_program_that_cannot_be_executed_ends_nothing() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("side".parse().unwrap(), Program::CannotStart));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let running = bench.control.wait_status(&id, TaskStatus::Running);
    assert!(running.containers[1].reason.starts_with("CannotStartContainerError"), "{running:?}");
    bench.control.stop(&id, "");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.containers[0].exit_code, stopped.containers[1].exit_code), (Some(7), None));
    bench.wait_forgotten(&[task(1)]);
}

/// A helper that is made first and is not essential.
const HELPED: &str = r#"{"family":"helped","containerDefinitions":[
  {"name":"helper","image":"helper","memory":8,"essential":false,"stopTimeout":1},
  {"name":"main","image":"side","memory":8,"stopTimeout":1}]}"#;

/// Runs `helped:1` without its helper, which has this reason, until it is stopped.
fn runs_without_its_helper(bench: &mut Bench, reason: &str) {
    let id = task(1).to_string();
    bench.control.define("helped:1", HELPED);
    bench.start();
    bench.control.assign(&id, "helped:1");
    let running = bench.control.wait_status(&id, TaskStatus::Running);
    let helper = &running.containers[0];
    assert_eq!((helper.last_status(), helper.exit_code), (ContainerStatus::Stopped, None), "{helper:?}");
    assert!(helper.reason.starts_with(reason), "{}", helper.reason);
    bench.leave();
    bench.start();
    bench.control.stop(&id, "");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert!(stopped.containers[0].reason.starts_with(reason), "kept: {stopped:?}");
    assert_eq!(stopped.containers[1].exit_code, Some(0));
    bench.wait_forgotten(&[task(1)]);
    let starts =
        bench.machine.with(|world| world.starts.keys().map(|(_, c)| c.to_string()).collect::<Vec<_>>());
    assert_eq!(starts, ["main"]);
}

#[test]
fn a_container_that_is_not_essential_and_cannot_be_pulled_ends_nothing() {
    runs_without_its_helper(&mut Bench::new(), "CannotPullContainerError: ");
}

#[test]
fn a_container_that_is_not_essential_and_cannot_be_made_ends_nothing() {
    for step in ["prepare_rootfs", "write_bundle"] {
        let mut bench = Bench::new();
        bench.machine.with(|world| {
            world.images.insert("helper".into(), ImageConfig::default());
            world.failing.insert(step, 1);
        });
        runs_without_its_helper(&mut bench, "CannotCreateContainerError: container helper: ");
    }
}

#[test]
fn what_depends_on_a_container_that_cannot_be_pulled_ends_the_task_by_name() {
    let mut bench = Bench::new();
    let depends = HELPED.replace(
        r#""name":"main","#,
        r#""name":"main","dependsOn":[{"containerName":"helper","condition":"START"}],"#,
    );
    bench.control.define("depends:1", &depends);
    bench.start();
    let stopped = failed(&mut bench, "depends:1");
    assert_failed_to_start(
        &stopped,
        "TaskDependencyError: container main depends on helper (START), ",
        "and helper could not be started",
    );
    assert!(stopped.containers[0].reason.starts_with("CannotPullContainerError"), "{stopped:?}");
    assert!(bench.machine.with(|world| world.starts.is_empty()));
}

#[test]
fn a_pull_that_must_be_fresh_fails_the_task_whatever_is_essential() {
    let mut bench = Bench::new();
    bench.control.define("fresh:1", &HELPED.replace(r#""family""#, r#""pullBehavior":"always","family""#));
    bench.start();
    let stopped = failed(&mut bench, "fresh:1");
    assert_failed_to_start(&stopped, "CannotPullContainerError", "manifest unknown");
}

#[test]
fn a_port_that_somebody_else_has() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.foreign_ports.insert(HostPort { protocol: Tcp, port: 8080 }));
    bench.start();
    let stopped = failed(&mut bench, "web:1");
    assert_failed_to_start(
        &stopped,
        "CannotStartContainerError",
        "host port 8080/tcp is in use by nginx (pid 7)",
    );
}

#[test]
fn dynamic_ports_that_others_have_are_passed_over() {
    let mut bench = Bench::new();
    let range = lighter_net::PortAllocator::from_kernel().range();
    let first = *range.start();
    bench.machine.with(|world| {
        world.foreign_ports.extend((first..first + 5).map(|port| HostPort { protocol: Tcp, port }))
    });
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let running = bench.control.wait_status(&id, TaskStatus::Running);
    assert_eq!(running.containers[0].network_bindings[1].host_port, u32::from(first) + 5);
}

#[test]
fn every_step_of_the_start_may_fail() {
    for (step, word) in [
        ("start_shim", "ResourceInitializationError"),
        ("bind_ports", "CannotStartContainerError"),
        ("add", "ResourceInitializationError"),
        ("prepare_rootfs", "CannotCreateContainerError"),
        ("seed_volume", "ResourceInitializationError"),
        ("write_bundle", "CannotCreateContainerError"),
    ] {
        let mut bench = Bench::new();
        // Twice: a container that is not essential is done without.
        bench.machine.with(|world| world.failing.insert(step, 2));
        bench.start();
        let stopped = failed(&mut bench, "web:1");
        assert_failed_to_start(&stopped, word, "was made to fail");
    }
}

#[test]
fn teardown_tries_again_until_nothing_is_left() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.with(|world| {
        for step in ["del", "remove_task", "remove_rootfs"] {
            world.failing.insert(step, 3);
        }
    });
    bench.control.stop(&id, "");
    let waiting = bench.control.wait("the reason", |state| {
        state.applied.get(&id)?.iter().find(|report| report.waiting_reason.contains("again")).cloned()
    });
    assert_eq!(waiting.last_status(), TaskStatus::Deprovisioning);
    for step in ["network of web", "monitor", "root file system of web"] {
        assert!(waiting.waiting_reason.contains(step), "{}", waiting.waiting_reason);
    }
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.waiting_reason.as_str(), stopped.containers[0].exit_code), ("", Some(7)));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn what_the_node_does_not_allow_is_refused_by_the_settings_name() {
    let mut bench = Bench::new();
    let container = r#"{"name":"a","image":"side","memory":8"#;
    let host = r#""volumes":[{"name":"v","host":{"sourcePath":"/etc"}}]"#;
    let device = r#","linuxParameters":{"devices":[{"hostPath":"/dev/kvm"}]}}"#;
    for (name, json) in [
        (
            "privileged:1",
            format!(r#"{{"family":"f","containerDefinitions":[{container},"privileged":true}}]}}"#),
        ),
        ("devices:1", format!(r#"{{"family":"f","containerDefinitions":[{container}{device}]}}"#)),
        ("host_paths:1", format!(r#"{{"family":"f","containerDefinitions":[{container}}}],{host}}}"#)),
        (
            "host_namespaces:1",
            format!(r#"{{"family":"f","networkMode":"host","containerDefinitions":[{container}}}]}}"#),
        ),
    ] {
        bench.control.define(name, &json);
    }
    bench.start();
    for (number, setting) in ["privileged", "devices", "host_paths", "host_namespaces"].iter().enumerate() {
        let id = task(10 + number as u64).to_string();
        bench.control.assign(&id, &format!("{setting}:1"));
        let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
        assert_failed_to_start(&stopped, "ResourceInitializationError", &format!("allow_{setting}"));
    }
    let too_large =
        r#"{"family":"f","containerDefinitions":[{"name":"a","image":"side","memory":999999999}]}"#;
    bench.control.define("large:1", too_large);
    bench.control.assign(task(20).as_str(), "large:1");
    let stopped = bench.control.wait_status(task(20).as_str(), TaskStatus::Stopped);
    assert_failed_to_start(&stopped, "ResourceInitializationError", "RESOURCE:MEMORY");
    bench.control.define("odd:1", r#"{"family":"f","surprise":1}"#);
    bench.control.assign(task(21).as_str(), "odd:1");
    let stopped = bench.control.wait_status(task(21).as_str(), TaskStatus::Stopped);
    assert_failed_to_start(&stopped, "ResourceInitializationError", "surprise");
}

#[test]
fn a_shim_that_dies_takes_its_task_along_and_known_exits_are_kept() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.machine.exit(&task(1), "side", ExitStatus::Exited(4));
    bench.machine.kill_shim(&task(1));
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), StopCode::InfrastructureHealth);
    assert!(stopped.stopped_reason.contains("monitor"));
    assert_eq!((stopped.containers[0].exit_code, stopped.containers[1].exit_code), (None, Some(4)));
    assert!(stopped.containers[0].reason.contains("not known"));
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn a_stop_during_a_long_pull_ends_it_at_once() {
    let mut bench = Bench::new();
    // Three tries with pauses of seconds between them.
    bench.machine.with(|world| world.retriable_pulls_failing = 1000);
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "small:1");
    bench.control.wait_status(&id, TaskStatus::Pending);
    let begun = std::time::Instant::now();
    bench.control.stop(&id, "too slow");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert!(begun.elapsed() < std::time::Duration::from_millis(900));
    assert_eq!((stopped.stop_code(), stopped.stopped_reason.as_str()), (StopCode::UserInitiated, "too slow"));
    bench.wait_forgotten(&[task(1)]);
}
