//! Pause, resume and other limits for running tasks. In: assignments that change. Out: reports, and
//! what the machine was told. Never: real cgroups; those are in the runtime's kernel tests.

use super::bench::{Bench, task};
use crate::facilities::fakes::Program;
use lighter_model::exit::ExitStatus;
use lighter_model::ids::ContainerName;
use lighter_proto::v1;
use lighter_proto::v1::TaskStatus;

fn frozen(bench: &Bench) -> bool {
    bench.machine.with(|world| world.shims[&task(1)].frozen)
}

fn started(bench: &mut Bench) -> String {
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    id
}

/// The newest report, once it says so.
fn report(bench: &Bench, id: &str, so: impl Fn(&v1::TaskReport) -> bool) -> v1::TaskReport {
    bench.control.wait("the report", |state| state.applied.get(id)?.last().filter(|last| so(last)).cloned())
}

fn memory(container: &str, memory_mib: u64) -> v1::ContainerResources {
    let container = container.to_owned();
    v1::ContainerResources { container, memory_mib: Some(memory_mib), cpu_units: None }
}

#[test]
fn a_paused_task_stays_so_without_the_agent_and_stops_thawed() {
    let mut bench = Bench::new();
    let id = started(&mut bench);
    bench.control.change(&id, |assignment| assignment.paused = true);
    let paused = report(&bench, &id, |report| report.paused);
    assert_eq!((paused.last_status(), paused.settled_generation), (TaskStatus::Running, 2));
    assert!(frozen(&bench));
    bench.kill();
    bench.start();
    report(&bench, &id, |report| report.paused && report.sequence > paused.sequence);
    assert!(frozen(&bench));
    bench.control.change(&id, |assignment| assignment.paused = false);
    report(&bench, &id, |report| !report.paused);
    assert!(!frozen(&bench));
    bench.control.change(&id, |assignment| assignment.paused = true);
    report(&bench, &id, |report| report.paused);
    bench.control.stop(&id, "enough");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.containers[0].exit_code, stopped.paused), (Some(7), false));
    // A signal to what stands still would be one.
    assert_eq!(bench.machine.with(|world| world.offences.clone()), Vec::<String>::new());
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn what_was_ordered_while_the_agent_was_away_is_done_when_it_is_back() {
    let mut bench = Bench::new();
    let id = started(&mut bench);
    bench.kill();
    bench.control.change(&id, |assignment| {
        assignment.paused = true;
        assignment.container_resources = vec![memory("web", 80)];
    });
    bench.start();
    let report = report(&bench, &id, |report| report.settled_generation == 2);
    assert!(report.paused && report.refusal.is_empty());
    assert_eq!(report.containers[0].limits.as_ref().unwrap().memory_max_bytes, Some(80 << 20));
}

#[test]
fn limits_change_in_place_or_are_refused_in_words() {
    let mut bench = Bench::new();
    let id = started(&mut bench);
    bench.control.change(&id, |assignment| assignment.container_resources = vec![memory("web", 100)]);
    let grown = report(&bench, &id, |report| report.settled_generation == 2);
    let limit = |report: &v1::TaskReport| report.containers[0].limits.as_ref().unwrap().memory_max_bytes;
    assert_eq!((limit(&grown), grown.refusal.as_str()), (Some(100 << 20), ""));
    // More than any machine has.
    bench.control.change(&id, |assignment| assignment.container_resources = vec![memory("web", 1 << 40)]);
    let refused = report(&bench, &id, |report| report.settled_generation == 3);
    assert!(refused.refusal.starts_with("RESOURCE:MEMORY: needs"), "{}", refused.refusal);
    assert_eq!(limit(&refused), Some(100 << 20));
    bench.machine.with(|world| world.failing.insert("set_limits", 1));
    bench.control.change(&id, |assignment| assignment.container_resources = vec![memory("web", 20)]);
    let refused = report(&bench, &id, |report| report.settled_generation == 4);
    assert!(refused.refusal.contains("made to fail"), "{}", refused.refusal);
    assert_eq!(limit(&refused), Some(100 << 20));
    bench.control.change(&id, |assignment| assignment.container_resources = vec![memory("web", 30)]);
    let shrunk = report(&bench, &id, |report| report.settled_generation == 5);
    assert_eq!((limit(&shrunk), shrunk.refusal.as_str()), (Some(30 << 20), ""));
    assert!(bench.machine.with(|world| world.starts.values().all(|times| *times == 1)));
}

const AGAIN: &str = r#"{"family":"again","containerDefinitions":[{"name":"web","image":"side","memory":8,"stopTimeout":1,
    "restartPolicy":{"enabled":true,"restartAttemptPeriod":0}}]}"#;

/// Its next start would hang, and the stop with it.
#[test]
fn a_paused_task_starts_nothing_again_and_stops() {
    let mut bench = Bench::new();
    bench.control.define("again:1", AGAIN);
    bench.start();
    let (id, other) = (task(1).to_string(), task(2).to_string());
    for id in [&id, &other] {
        bench.control.assign(id, "again:1");
        bench.control.wait_status(id, TaskStatus::Running);
    }
    bench.control.change(&id, |assignment| assignment.paused = true);
    report(&bench, &id, |report| report.paused);
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(1));
    bench.machine.exit(&task(2), "web", ExitStatus::Exited(1));
    // Then the first one's pause before its next start is over as well.
    report(&bench, &other, |report| report.containers[0].restart_count == 1);
    let container: ContainerName = "web".parse().unwrap();
    assert_eq!(bench.machine.with(|world| world.starts[&(task(1), container)]), 1);
    bench.control.stop(&id, "enough");
    bench.control.wait_status(&id, TaskStatus::Stopped);
}

#[test]
fn a_start_that_hangs_is_ended_by_an_order_to_kill() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("web".parse().unwrap(), Program::HangsAtStart));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Activating);
    bench.control.change(&id, |assignment| {
        assignment.desired_status = v1::DesiredStatus::Stopped.into();
        assignment.stop_force = true;
    });
    bench.control.wait_status(&id, TaskStatus::Stopped);
}
