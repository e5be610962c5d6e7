//! Order, health and restarts of a task's containers on the fake machine, and kill -9 of the agent in
//! the middle of them. In: definitions. Out: what the control plane and the machine saw.
//! Never: a pause of a real second; a second of checks lasts `FAST` here.

use super::bench::{Bench, task};
use super::control::wait;
use crate::facilities::fakes::{FakeProbe, Program};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_proto::v1;
use lighter_proto::v1::control_message::Message;
use lighter_proto::v1::{HealthStatus, StopCode, TaskStatus};

/// An init container that must succeed, a sidecar that must be healthy, and the main one.
const ORDERED: &str = r#"{"family":"ordered","containerDefinitions":[
  {"name":"main","image":"side","memory":8,"stopTimeout":1,"dependsOn":[
     {"containerName":"init","condition":"SUCCESS"},{"containerName":"helper","condition":"HEALTHY"}]},
  {"name":"init","image":"side","memory":8,"essential":false,"startTimeout":5},
  {"name":"helper","image":"side","memory":8,"essential":false,"stopTimeout":1,
     "healthCheck":{"command":["CMD","/up"],"interval":5},
     "dependsOn":[{"containerName":"init","condition":"COMPLETE"}]}]}"#;

/// Started again whatever it ends with but 9.
const AGAIN: &str = r#"{"family":"again","containerDefinitions":[
  {"name":"web","image":"side","memory":8,"stopTimeout":1,
   "restartPolicy":{"enabled":true,"ignoredExitCodes":[9],"restartAttemptPeriod":0},
   "healthCheck":{"command":["CMD-SHELL","up"],"interval":5,"retries":2}}]}"#;

fn checked(policy: &str) -> String {
    format!(
        r#"{{"family":"checked","containerDefinitions":[
        {{"name":"web","image":"side","memory":8,"stopTimeout":1,
          "healthCheck":{{"command":["CMD","/up"],"interval":5,"retries":2,"onUnhealthy":"{policy}"}}}}]}}"#
    )
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.control.define("ordered:1", ORDERED);
    bench.control.define("again:1", AGAIN);
    for policy in ["report", "restart", "stop"] {
        bench.control.define(&format!("{policy}:1"), &checked(policy));
    }
    bench.machine.with(|world| world.programs.insert(name("init"), Program::Exits { code: 0, oom: false }));
    bench
}

fn name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

/// Calls of these kinds, in order, as `start main`.
fn calls(bench: &Bench, kinds: &[&str]) -> Vec<String> {
    let all = bench.machine.with(|world| world.calls.clone());
    let of = |call: &String| {
        let (kind, rest) = call.split_once(' ')?;
        kinds.contains(&kind).then(|| format!("{kind} {}", rest.rsplit('/').next().unwrap()))
    };
    all.iter().filter_map(of).collect()
}

fn starts(bench: &Bench, container: &str) -> u32 {
    bench.machine.with(|world| world.starts.get(&(task(1), name(container))).copied().unwrap_or(0))
}

fn end(bench: &mut Bench) -> v1::TaskReport {
    let id = task(1).to_string();
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
    assert_eq!(bench.machine.with(|world| world.offences.clone()), Vec::<String>::new());
    assert_eq!(bench.control.stopped_reports(&id), 1);
    stopped
}

/// The newest report that the test likes.
fn report(bench: &Bench, what: &str, likes: impl Fn(&v1::TaskReport) -> bool) -> v1::TaskReport {
    let id = task(1).to_string();
    bench.control.wait(what, |state| state.applied.get(&id)?.last().filter(|report| likes(report)).cloned())
}

fn health(report: &v1::TaskReport, container: usize) -> HealthStatus {
    report.containers[container].health.as_ref().map_or(HealthStatus::Unspecified, |health| health.status())
}

#[test]
fn init_main_and_sidecar_come_in_order() {
    let mut bench = bench();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "ordered:1");
    let running = bench.control.wait_status(&id, TaskStatus::Running);
    assert_eq!(calls(&bench, &["start"]), ["start init", "start helper", "start main"]);
    assert_eq!((running.containers[1].exit_code, health(&running, 2)), (Some(0), HealthStatus::Healthy));
    let waited = bench.control.with(|state| {
        state.applied[&id].iter().map(|report| report.waiting_reason.clone()).collect::<Vec<_>>()
    });
    assert!(waited.iter().any(|text| text.contains("main waits for helper (HEALTHY)")), "{waited:?}");
    assert_eq!(running.waiting_reason, "");
    bench.control.stop(&id, "");
    let stopped = end(&mut bench);
    assert_eq!(calls(&bench, &["signal"]), ["signal main", "signal helper"], "the reverse of the start");
    assert_eq!(stopped.stop_code(), StopCode::UserInitiated);
}

#[test]
fn a_stop_waits_for_each_dependent_and_never_for_ever() {
    let mut bench = bench();
    bench.machine.with(|world| world.programs.insert(name("main"), Program::IgnoresStop));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "ordered:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.stop(&id, "");
    let stopped = end(&mut bench);
    assert_eq!(calls(&bench, &["signal", "kill"]), ["signal main", "kill main", "signal helper"]);
    assert_eq!(stopped.containers[0].exit_code, Some(137));
}

#[test]
fn an_impossible_dependency_ends_the_task_and_names_both() {
    let mut bench = bench();
    bench.machine.with(|world| world.programs.insert(name("init"), Program::Exits { code: 3, oom: false }));
    bench.start();
    bench.control.assign(task(1).as_str(), "ordered:1");
    let stopped = end(&mut bench);
    assert_eq!(stopped.stop_code(), StopCode::TaskFailedToStart);
    assert_eq!(
        stopped.stopped_reason,
        "TaskDependencyError: container main depends on init (SUCCESS), and init ended with exit code 3"
    );
    assert_eq!((starts(&bench, "main"), stopped.containers[1].exit_code), (0, Some(3)));
}

#[test]
fn what_does_not_come_in_time_ends_the_task() {
    let mut bench = bench();
    bench.machine.with(|world| world.programs.insert(name("init"), Program::Runs { on_stop: 0 }));
    bench.start();
    bench.control.assign(task(1).as_str(), "ordered:1");
    let stopped = end(&mut bench);
    assert_eq!(stopped.stop_code(), StopCode::TaskFailedToStart);
    let reason = stopped.stopped_reason;
    assert!(
        reason.contains("container main depends on init (SUCCESS)") && reason.contains("startTimeout"),
        "{reason}"
    );
}

/// Each of its starts would give it the whole time again.
#[test]
fn a_container_that_is_started_again_and_again_is_not_waited_for_longer() {
    let mut bench = bench();
    bench.control.define(
        "crashes:1",
        r#"{"family":"crashes","containerDefinitions":[
          {"name":"main","image":"side","memory":8,"dependsOn":[{"containerName":"helper","condition":"HEALTHY"}]},
          {"name":"helper","image":"side","memory":8,"essential":false,"stopTimeout":1,"startTimeout":20,
           "restartPolicy":{"enabled":true,"restartAttemptPeriod":0},
           "healthCheck":{"command":["CMD","/up"],"interval":5}}]}"#,
    );
    bench.machine.with(|world| world.programs.insert(name("helper"), Program::Exits { code: 1, oom: false }));
    bench.start();
    bench.control.assign(task(1).as_str(), "crashes:1");
    let stopped = end(&mut bench);
    assert!(stopped.stopped_reason.contains("startTimeout"), "{}", stopped.stopped_reason);
    assert!(starts(&bench, "helper") > 2, "it was started again");
}

#[test]
fn health_is_reported_and_only_its_changes() {
    let mut bench = bench();
    bench.machine.with(|world| {
        let probes = [0, 0, 0, 1, 1, 1, 1, 0, 0];
        let probes = probes.map(|code| FakeProbe::exits(code, if code == 0 { "fine" } else { "down" }));
        world.probes.insert(name("web"), probes.into());
    });
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "report:1");
    let bad = report(&bench, "unhealthy", |report| health(report, 0) == HealthStatus::Unhealthy);
    let known = bad.containers[0].health.clone().unwrap();
    assert_eq!((known.last_end.as_str(), known.last_output.as_str()), ("exit code 1", "down"));
    assert_eq!(bad.last_status(), TaskStatus::Running);
    let good = report(&bench, "healthy again", |report| health(report, 0) == HealthStatus::Healthy);
    assert!(good.containers[0].health.as_ref().unwrap().since_unix_ms >= known.since_unix_ms);
    // A few more checks that change nothing.
    wait("more probes", || (calls(&bench, &["probe"]).len() >= 14).then_some(()), String::new);
    let reports = bench.control.with(|state| state.applied[&id].clone());
    let told: Vec<_> = reports
        .iter()
        .filter(|report| report.last_status() == TaskStatus::Running)
        .map(|report| (health(report, 0), report.containers[0].health.as_ref().unwrap().failing_streak == 0))
        .collect();
    use HealthStatus::{Healthy, Unhealthy, Unknown};
    let expected = [(Unknown, true), (Healthy, true), (Healthy, false), (Unhealthy, false), (Healthy, true)];
    assert_eq!(told, expected, "each change once");
    bench.leave();
    let last = reports.last().unwrap().sequence;
    bench.start();
    let again = report(&bench, "a report of the new agent", |report| report.sequence > last);
    assert_eq!(health(&again, 0), Healthy, "from the record");
    bench.control.stop(&id, "");
    end(&mut bench);
}

#[test]
fn an_unhealthy_container_is_reported_restarted_or_ends_its_task() {
    let mut bench = bench();
    let failing = || std::iter::repeat_n(FakeProbe::exits(1, "down"), 12).collect();
    bench.machine.with(|world| world.probes.insert(name("web"), failing()));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "restart:1");
    let again =
        report(&bench, "a restart", |report| report.containers.first().is_some_and(|c| c.restart_count >= 1));
    assert!(again.containers[0].last_exit.is_some() && again.containers[0].exit.is_none());
    report(&bench, "healthy", |report| health(report, 0) == HealthStatus::Healthy);
    assert!(!calls(&bench, &["signal"]).is_empty());
    bench.control.stop(&id, "");
    end(&mut bench);
    let other = task(2).to_string();
    bench.machine.with(|world| world.probes.insert(name("web"), failing()));
    bench.control.assign(&other, "stop:1");
    let stopped = bench.control.wait_status(&other, TaskStatus::Stopped);
    assert_eq!(stopped.stopped_reason, "Task failed container health checks: container web is unhealthy");
    assert_eq!(stopped.stop_code(), StopCode::ServiceSchedulerInitiated);
}

#[test]
fn a_container_is_started_again_where_it_was() {
    let mut bench = bench();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "again:1");
    let first = bench.control.wait_status(&id, TaskStatus::Running);
    for (attempt, code) in [(1, 5), (2, 6)] {
        bench.machine.exit(&task(1), "web", ExitStatus::Exited(code));
        let again = report(&bench, "the restart", |report| {
            report.containers[0].restart_count == attempt
                && report.containers[0].last_status() == v1::ContainerStatus::Running
        });
        let container = &again.containers[0];
        assert_eq!(
            container.last_exit.as_ref().unwrap().status,
            Some(v1::container_exit::Status::Exited(code))
        );
        assert_eq!((container.exit_code, &container.address), (None, &first.containers[0].address));
        assert_ne!(container.pid, first.containers[0].pid);
        assert_eq!(again.last_status(), TaskStatus::Running);
    }
    bench.leave();
    bench.start();
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(7));
    let third =
        report(&bench, "a restart by the new agent", |report| report.containers[0].restart_count == 3);
    assert_eq!(third.last_status(), TaskStatus::Running);
    wait("the start", || (starts(&bench, "web") == 4).then_some(()), String::new);
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(9));
    let stopped = end(&mut bench);
    assert_eq!(stopped.stop_code(), StopCode::EssentialContainerExited);
    assert_eq!((stopped.containers[0].exit_code, stopped.containers[0].restart_count), (Some(9), 3));
    assert_eq!(calls(&bench, &["add", "prepare_rootfs", "bind_ports"]).len(), 2, "made once");
}

/// `reached`, or the agent stands still at its point; then it is killed and another takes over.
fn killed_or(bench: &mut Bench, reached: impl Fn(&v1::TaskReport) -> bool) -> bool {
    let halted = bench.machine.halted();
    let id = task(1).to_string();
    let halt = wait(
        "the report or a halt",
        || {
            let seen = bench.control.with(|state| state.applied.get(&id)?.last().map(&reached)) == Some(true);
            if *halted.borrow() { Some(true) } else { seen.then_some(false) }
        },
        || format!("{:?}", bench.control.with(|state| state.applied.get(&id).cloned())),
    );
    // Checks go on after the report, and with them the points.
    let halt = bench.machine.disarm() || halt;
    if halt {
        bench.kill();
        bench.machine.halt_at(None);
        bench.start();
    }
    halt
}

fn ordered_starts_killed_at(halt: usize) -> bool {
    let mut bench = bench();
    bench.start();
    bench.machine.halt_at(Some(halt));
    bench.control.assign(task(1).as_str(), "ordered:1");
    let halted = killed_or(&mut bench, |report| report.last_status() == TaskStatus::Running);
    let running = bench.control.wait_status(task(1).as_str(), TaskStatus::Running);
    let order = calls(&bench, &["start"]);
    assert_eq!(order, ["start init", "start helper", "start main"], "halted at {halt}");
    assert_eq!(running.containers[1].exit_code, Some(0), "halted at {halt}");
    bench.machine.halt_at(None);
    bench.control.stop(task(1).as_str(), "");
    end(&mut bench);
    halted
}

fn restart_killed_at(halt: usize) -> bool {
    let mut bench = bench();
    bench.start();
    bench.control.assign(task(1).as_str(), "again:1");
    report(&bench, "healthy", |report| health(report, 0) == HealthStatus::Healthy);
    bench.machine.halt_at(Some(halt));
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(5));
    let runs_again = |report: &v1::TaskReport| {
        let web = &report.containers[0];
        web.restart_count == 1 && web.last_status() == v1::ContainerStatus::Running
    };
    let halted = killed_or(&mut bench, runs_again);
    let again = report(&bench, "the restart", runs_again);
    assert_eq!(starts(&bench, "web"), 2, "halted at {halt}");
    let last = again.containers[0].last_exit.as_ref().unwrap();
    assert_eq!(last.status, Some(v1::container_exit::Status::Exited(5)), "halted at {halt}");
    bench.machine.halt_at(None);
    bench.control.stop(task(1).as_str(), "");
    let stopped = end(&mut bench);
    assert_eq!(stopped.containers[0].restart_count, 1, "halted at {halt}");
    halted
}

fn unhealthy_restart_killed_at(halt: usize) -> bool {
    let mut bench = bench();
    bench.machine.with(|world| {
        world.programs.insert(name("web"), Program::IgnoresStop);
        let codes = std::iter::once(0).chain(std::iter::repeat_n(1, 500));
        world.probes.insert(name("web"), codes.map(|code| FakeProbe::exits(code, "")).collect());
    });
    bench.start();
    bench.control.assign(task(1).as_str(), "restart:1");
    report(&bench, "healthy", |report| health(report, 0) == HealthStatus::Healthy);
    bench.machine.halt_at(Some(halt));
    let runs_again = |report: &v1::TaskReport| report.containers[0].restart_count >= 1;
    let halted = killed_or(&mut bench, runs_again);
    report(&bench, "the restart", runs_again);
    bench.machine.halt_at(None);
    bench.control.stop(task(1).as_str(), "");
    end(&mut bench);
    halted
}

/// It does not heed its stop signal, and what would have killed it was known to the agent that is gone.
#[test]
fn killed_anywhere_in_the_end_of_an_unhealthy_container_it_is_started_again() {
    let mut halt = 0;
    // The points after these are those of the next round.
    while halt < 6 && unhealthy_restart_killed_at(halt) {
        halt += 1;
    }
    assert_eq!(halt, 6, "halted at {halt} points only");
}

#[test]
fn killed_anywhere_in_ordered_starts_nothing_starts_twice_or_too_early() {
    let mut halt = 0;
    while ordered_starts_killed_at(halt) {
        halt += 1;
    }
    assert!(halt > 20, "ordered starts have more points than {halt}");
}

#[test]
fn killed_anywhere_in_a_restart_it_happens_once() {
    // Checks go on for ever, so the points do not end; a restart has less than this.
    let halted = (0..14).filter(|halt| restart_killed_at(*halt)).count();
    assert!(halted >= 6, "{halted}");
}

fn follow(id: &str, stream: usize) -> v1::OpenLogStream {
    v1::OpenLogStream {
        stream_id: format!("stream-{stream}"),
        task_id: id.to_owned(),
        container: "web".into(),
        follow: true,
        ..Default::default()
    }
}

#[test]
fn a_followed_log_goes_on_between_two_runs_and_ends_with_the_last() {
    let mut bench = bench();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "again:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.control.push(Message::OpenLogStream(follow(&id, 1)));
    bench.control.wait("its lines", |state| (state.log_lines.len() == 3).then_some(()));
    for run in 1..4 {
        bench.machine.exit(&task(1), "web", ExitStatus::Exited(3));
        report(&bench, "a restart", |report| {
            report.containers.first().is_some_and(|c| c.restart_count == run && c.pid > 0)
        });
        assert_eq!(bench.control.with(|state| state.log_streams_ended), 0, "after run {run}");
    }
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(9));
    bench.control.wait("the end of the log", |state| (state.log_streams_ended == 1).then_some(()));
    end(&mut bench);
}

/// What is asked right behind an assignment may be answered with it, when the reconciler was busy.
#[test]
fn a_log_is_followed_from_the_moment_its_task_is_assigned() {
    const TASKS: usize = 24;
    let mut bench = bench();
    bench.start();
    bench.control.wait("the session", |state| (!state.hellos.is_empty()).then_some(()));
    for number in 0..TASKS {
        let id = task(number as u64 + 1).to_string();
        bench.control.assign(&id, "again:1");
        bench.control.push(Message::OpenLogStream(follow(&id, number)));
    }
    bench.control.wait("all lines", |state| (state.log_lines.len() == 3 * TASKS).then_some(()));
    for number in 0..TASKS {
        bench.control.wait_status(task(number as u64 + 1).as_str(), TaskStatus::Running);
    }
    assert_eq!(bench.control.with(|state| state.log_streams_ended), 0);
}
