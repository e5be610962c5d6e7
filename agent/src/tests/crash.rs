//! kill -9 of the agent at every point of a task's life: before and after each call of a facility and
//! each commit. In: the number of points passed before the halt. Out: the promises of the design: a
//! bystander is undisturbed, no container starts twice, there is exactly one STOPPED with the true
//! exit code, and nothing is left. Never: a point left out; the points are counted, not listed.

use super::bench::{Bench, WEB, task};
use super::control::wait;
use crate::facilities::fakes::{ContainerState, Program};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::TaskId;
use lighter_proto::v1::{StopCode, TaskStatus};

/// How the task under test ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The control plane stops it.
    Stopped,
    /// Its essential container ends by itself, if it runs at the halt, while no agent is there.
    ExitsMeanwhile,
}

const WEB_CODE: i32 = 7;
const MEANWHILE_CODE: i32 = 42;

struct Case {
    bench: Bench,
    bystander: TaskId,
    subject: TaskId,
    bystander_state: Option<ContainerState>,
}

fn bystander_state(bench: &Bench, bystander: &TaskId) -> Option<ContainerState> {
    bench.machine.with(|world| world.shims.get(bystander)?.containers.values().next().cloned())
}

impl Case {
    /// A task that is stopped has ids of its own, one that ends by itself has the node's.
    fn new(end: End) -> Self {
        let mut bench = Bench::new();
        if end == End::Stopped {
            bench.control.define("web:1", &WEB.replacen('{', r#"{"usernsMode":"auto","#, 1));
        }
        bench.start();
        let (bystander, subject) = (task(1), task(2));
        bench.control.assign(bystander.as_str(), "small:1");
        bench.control.wait_status(bystander.as_str(), TaskStatus::Running);
        let bystander_state = bystander_state(&bench, &bystander);
        assert!(matches!(bystander_state, Some(ContainerState::Running { .. })));
        Self { bench, bystander, subject, bystander_state }
    }

    /// The given status is reported, or the agent stands still.
    fn until(&self, status: TaskStatus) -> bool {
        let halted = self.bench.machine.halted();
        let subject = self.subject.to_string();
        wait(
            &format!("{status:?} or a halt"),
            || {
                let reported = self.bench.control.with(|state| {
                    state
                        .applied
                        .get(&subject)
                        .is_some_and(|reports| reports.iter().any(|report| report.last_status() == status))
                });
                if *halted.borrow() { Some(true) } else { reported.then_some(false) }
            },
            || format!("{:?}", self.bench.control.with(|state| state.applied.get(&subject).cloned())),
        )
    }

    /// One life with a halt after so many points; true if it was reached.
    fn live(&mut self, halt: usize, end: End) -> bool {
        self.bench.machine.halt_at(Some(halt));
        self.bench.control.assign(self.subject.as_str(), "web:1");
        let mut halted = self.until(TaskStatus::Running);
        let told = !halted;
        if told {
            self.finish(end);
            halted = self.until(TaskStatus::Stopped) || self.halted_while_forgetting();
        }
        if halted {
            self.bench.kill();
            if end == End::ExitsMeanwhile {
                self.bench.machine.exit(&self.subject, "web", ExitStatus::Exited(MEANWHILE_CODE));
            }
            let subject = self.subject.clone();
            let ran = self.bench.machine.with(|world| {
                world.starts.keys().any(|(task, name)| *task == subject && name.as_str() == "web")
            });
            self.bench.machine.halt_at(None);
            self.bench.start();
            let ends_by_itself = told || (end == End::ExitsMeanwhile && ran);
            if !ends_by_itself {
                self.bench.control.wait_status(self.subject.as_str(), TaskStatus::Running);
                self.finish(end);
            }
        }
        halted
    }

    /// The last points are passed after the report.
    fn halted_while_forgetting(&self) -> bool {
        let halted = self.bench.machine.halted();
        let id = self.subject.to_string();
        let socket = self.bench.config.socket();
        wait(
            "forgotten or a halt",
            || {
                if *halted.borrow() {
                    return Some(true);
                }
                let held = self.bench.runtime().block_on(async {
                    // A halted reconciler does not answer.
                    let ask = super::bench::local_tasks(&socket);
                    tokio::time::timeout(std::time::Duration::from_millis(200), ask).await.ok()
                });
                held.is_some_and(|held| !held.contains(&id)).then_some(false)
            },
            String::new,
        )
    }

    fn finish(&self, end: End) {
        match end {
            End::Stopped => self.bench.control.stop(self.subject.as_str(), "enough"),
            End::ExitsMeanwhile => {
                self.bench.machine.exit(&self.subject, "web", ExitStatus::Exited(MEANWHILE_CODE))
            }
        }
    }

    fn check(&mut self, halt: usize, end: End) {
        let context = format!("halted after point {halt}, {end:?}, {:?}", self.bench.machine.points());
        self.bench.control.wait_status(self.subject.as_str(), TaskStatus::Stopped);
        let subject = self.subject.clone();
        self.bench.wait_forgotten(&[subject]);
        let stopped = self.bench.control.wait_status(self.subject.as_str(), TaskStatus::Stopped);
        let (code, stop_code) = match end {
            End::Stopped => (WEB_CODE, StopCode::UserInitiated),
            End::ExitsMeanwhile => (MEANWHILE_CODE, StopCode::EssentialContainerExited),
        };
        assert_eq!(stopped.containers[0].exit_code, Some(code), "{context} {stopped:?}");
        assert_eq!(stopped.stop_code(), stop_code, "{context}");
        assert_eq!(self.bench.control.stopped_reports(self.subject.as_str()), 1, "{context}");
        let (starts, offences, signals) =
            self.bench.machine.with(|w| (w.starts.clone(), w.offences.clone(), w.signals.clone()));
        assert!(starts.values().all(|times| *times == 1), "{context} {starts:?}");
        // The second container comes after the first, whose end may come before.
        let all_began = starts.len() == 3 || (end == End::ExitsMeanwhile && starts.len() == 2);
        assert!(all_began, "{context} {starts:?}");
        assert_eq!(offences, Vec::<String>::new(), "{context}");
        assert!(signals.iter().all(|(task, ..)| *task == self.subject), "{context} {signals:?}");
        assert_eq!(bystander_state(&self.bench, &self.bystander), self.bystander_state, "{context}");
        assert_eq!(self.bench.control.stopped_reports(self.bystander.as_str()), 0, "{context}");
    }
}

/// Every point, each with a machine of its own; `part` of `parts` for a test, so that they run side
/// by side.
fn every_point(end: End, part: usize, parts: usize) {
    let mut halt = part;
    loop {
        let mut case = Case::new(end);
        let halted = case.live(halt, end);
        case.check(halt, end);
        if !halted {
            assert!(halt > 40, "a life has more points than {halt}");
            return;
        }
        halt += parts;
    }
}

#[test]
fn killed_anywhere_a_stopped_task_ends_once_1() {
    every_point(End::Stopped, 0, 2);
}

#[test]
fn killed_anywhere_a_stopped_task_ends_once_2() {
    every_point(End::Stopped, 1, 2);
}

#[test]
fn killed_anywhere_an_exit_meanwhile_is_known_1() {
    every_point(End::ExitsMeanwhile, 0, 2);
}

#[test]
fn killed_anywhere_an_exit_meanwhile_is_known_2() {
    every_point(End::ExitsMeanwhile, 1, 2);
}

#[test]
fn killed_during_recovery_it_recovers_again() {
    for halt in 0.. {
        let mut case = Case::new(End::Stopped);
        case.bench.control.assign(case.subject.as_str(), "web:1");
        case.bench.control.wait_status(case.subject.as_str(), TaskStatus::Running);
        case.bench.kill();
        case.bench.machine.halt_at(Some(halt));
        case.bench.start();
        let halted = *case.bench.machine.halted().borrow();
        case.bench.kill();
        case.bench.machine.halt_at(None);
        case.bench.start();
        case.bench.control.stop(case.subject.as_str(), "enough");
        case.check(halt, End::Stopped);
        if !halted {
            return;
        }
    }
}

#[test]
fn a_reboot_stops_every_task_once_with_a_reason() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    bench.machine.reboot();
    bench.boot_id = "boot-2".into();
    bench.start();
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), StopCode::InfrastructureHealth);
    assert!(stopped.stopped_reason.contains("rebooted"), "{}", stopped.stopped_reason);
    bench.wait_forgotten(&[task(1)]);
    assert_eq!(bench.control.stopped_reports(&id), 1);
}

#[test]
fn after_a_reboot_a_task_with_a_restart_policy_runs_again_and_the_others_are_reported() {
    let mut bench = Bench::new();
    let resumed = super::bench::SMALL
        .replace("\"stopTimeout\":1", "\"stopTimeout\":1,\"restartPolicy\":{\"enabled\":true}");
    bench.control.define("again:1", &resumed);
    bench.start();
    let (again, daemon, once) = (task(1).to_string(), task(3).to_string(), task(2).to_string());
    bench
        .control
        .with(|state| state.assignments.entry(daemon.clone()).or_default().group = "daemon:x".into());
    for (id, definition) in [(&again, "again:1"), (&daemon, "again:1"), (&once, "small:1")] {
        bench.control.assign(id, definition);
        bench.control.wait_status(id, TaskStatus::Running);
    }
    for boot in ["boot-2", "boot-3"] {
        bench.kill();
        bench.machine.reboot();
        bench.boot_id = boot.into();
        bench.machine.with(|world| world.calls.clear());
        bench.start();
        wait(
            "both run again",
            || {
                let runs = |id: u64| {
                    bench.machine.with(|world| {
                        let shim = world.shims.get(&task(id))?;
                        shim.containers
                            .values()
                            .any(|c| matches!(c, ContainerState::Running { .. }))
                            .then_some(())
                    })
                };
                runs(1).and(runs(3))
            },
            || format!("{:?}", bench.machine.with(|world| world.calls.clone())),
        );
        let order: Vec<String> = bench.machine.with(|world| {
            world
                .calls
                .iter()
                .filter_map(|call| call.strip_prefix("start_shim "))
                .map(str::to_owned)
                .collect()
        });
        assert_eq!(order, [daemon.clone(), again.clone()], "the daemon task is resumed first");
    }
    bench.control.wait_status(&once, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(2)]);
    assert_eq!([&again, &daemon, &once].map(|id| bench.control.stopped_reports(id)), [0, 0, 1]);
    assert_eq!(bench.machine.with(|world| world.offences.clone()), Vec::<String>::new());
    bench.control.stop(&again, "enough");
    bench.control.wait_status(&again, TaskStatus::Stopped);
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn a_lost_store_costs_no_task() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    let before = bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    wait("the store to close", || crate::store::Store::open(&bench.store_path()).ok().map(drop), String::new);
    std::fs::write(bench.store_path(), b"damaged").unwrap();
    bench.start();
    let after = bench.control.wait("a report of the new agent", |state| {
        state.applied.get(&id)?.last().filter(|report| report.sequence > before.sequence).cloned()
    });
    assert_eq!((after.last_status(), &after.containers), (TaskStatus::Running, &before.containers));
    bench.control.stop(&id, "enough");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.containers[0].exit_code, Some(WEB_CODE));
    bench.wait_forgotten(&[task(1)]);
    assert!(bench.machine.with(|world| world.starts.values().all(|times| *times == 1)));
}

#[test]
fn a_shim_that_died_meanwhile_ends_its_task_with_what_is_known() {
    let mut bench = Bench::new();
    bench.machine.with(|world| world.programs.insert("side".parse().unwrap(), Program::IgnoresStop));
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    bench.machine.exit(&task(1), "web", ExitStatus::Exited(MEANWHILE_CODE));
    bench.machine.kill_shim(&task(1));
    bench.start();
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!(stopped.stop_code(), StopCode::EssentialContainerExited);
    assert_eq!(
        (stopped.containers[0].exit_code, stopped.containers[1].exit_code),
        (Some(MEANWHILE_CODE), None)
    );
    bench.wait_forgotten(&[task(1)]);
}

#[test]
fn a_shim_that_does_not_answer_delays_nobody_and_its_task_goes_on() {
    let mut bench = Bench::new();
    bench.start();
    let (silent, other) = (task(1), task(2));
    bench.control.assign(silent.as_str(), "web:1");
    bench.control.wait_status(silent.as_str(), TaskStatus::Running);
    bench.kill();
    bench.machine.with(|world| world.shims.values_mut().for_each(|shim| shim.silent = true));
    bench.start();
    bench.control.assign(other.as_str(), "small:1");
    bench.control.wait_status(other.as_str(), TaskStatus::Running);
    assert!(bench.machine.with(|world| world.signals.is_empty()));
    bench.machine.exit(&silent, "web", ExitStatus::Exited(MEANWHILE_CODE));
    bench.machine.with(|world| world.shims.values_mut().for_each(|shim| shim.silent = false));
    let stopped = bench.control.wait_status(silent.as_str(), TaskStatus::Stopped);
    assert_eq!(stopped.containers[0].exit_code, Some(MEANWHILE_CODE));
    bench.wait_forgotten(&[silent]);
}

#[test]
fn a_task_whose_shim_does_not_answer_can_be_stopped() {
    let mut bench = Bench::new();
    bench.start();
    let id = task(1).to_string();
    bench.control.assign(&id, "web:1");
    bench.control.wait_status(&id, TaskStatus::Running);
    bench.kill();
    bench.machine.with(|world| world.shims.values_mut().for_each(|shim| shim.silent = true));
    bench.start();
    bench.control.stop(&id, "enough");
    let stopped = bench.control.wait_status(&id, TaskStatus::Stopped);
    assert_eq!((stopped.stopped_reason.as_str(), stopped.containers[0].exit_code), ("enough", None));
    bench.wait_forgotten(&[task(1)]);
}
