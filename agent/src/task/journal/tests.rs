//! The record's own rules: what an exit makes of a container, whoever brings the news, however often.

use super::*;
use crate::task::restart::BACKOFF;
use lighter_model::exit::ExitStatus;

const PACE: Pace = Pace { second_ms: 1000, backoff: BACKOFF };

fn at(boot_ms: u64) -> Clock {
    Clock { boot_ms, unix_ms: 1_000_000 + boot_ms, pace: PACE }
}

fn exit(code: i32, boot_ms: u64) -> ContainerExit {
    ContainerExit {
        status: ExitStatus::Exited(code),
        oom_killed: false,
        finished_at_unix_ms: 1_000_000 + boot_ms,
    }
}

fn record() -> (TaskRecord, ContainerName) {
    let definition: TaskDefinition = serde_json::from_str(
        r#"{"family":"f","containerDefinitions":[{"name":"a","image":"i",
            "restartPolicy":{"enabled":true,"ignoredExitCodes":[9],"restartAttemptPeriod":60}}]}"#,
    )
    .unwrap();
    let mut record = new_record(TaskId::from_parts(1, 0), "boot", 0);
    record.containers = new_containers(&definition);
    (record, "a".parse().unwrap())
}

fn started(pid: i32) -> Started {
    Started { pid, limits: KernelLimits::default() }
}

#[test]
fn an_attempt_is_counted_once_however_often_it_is_told() {
    let (mut record, name) = record();
    record.started(&name, started(1), &at(0));
    for _ in 0..3 {
        record.ended(&name, exit(1, 61_000), &at(61_000));
    }
    let life = &record.containers[0].life;
    assert_eq!((life.restarts, life.again_at_boot_ms), (0, Some(61_000)));
    assert!(!record.essential_ended());
    record.started(&name, started(2), &at(61_010));
    record.started(&name, started(2), &at(62_000));
    // The old exit once more, late.
    record.ended(&name, exit(1, 61_000), &at(62_500));
    let container = &record.containers[0];
    assert_eq!(
        (container.status, container.pid, container.life.restarts),
        (ContainerStatus::Running, Some(2), 1)
    );
    assert_eq!(container.life.last_exit, Some(exit(1, 61_000)));
    // It did not run long enough for another.
    record.ended(&name, exit(1, 100_000), &at(100_000));
    assert!(record.essential_ended());
    assert_eq!(record.containers[0].exit, Some(exit(1, 100_000)));
}

#[test]
fn an_exit_while_no_agent_was_there_is_judged_by_its_own_time() {
    let (mut record, name) = record();
    record.started(&name, started(1), &at(0));
    let status = ShimStatus {
        containers: vec![(name.clone(), ContainerPhase::Exited(exit(1, 30_000)))],
        ports: Vec::new(),
    };
    record.take_status(&status, &at(500_000));
    assert!(record.essential_ended(), "it ran for 30 s only");
    let (mut record, name) = self::record();
    record.started(&name, started(1), &at(0));
    record.ended(&name, exit(1, 70_000), &at(70_000));
    // The restart was begun, not recorded, and over before the next agent came.
    let status =
        ShimStatus { containers: vec![(name, ContainerPhase::Exited(exit(9, 80_000)))], ports: Vec::new() };
    record.take_status(&status, &at(200_000));
    let container = &record.containers[0];
    assert_eq!((container.life.restarts, &container.exit), (1, &Some(exit(9, 80_000))));
}

#[test]
fn a_task_that_stops_starts_nothing_again() {
    let (mut record, name) = record();
    record.started(&name, started(1), &at(0));
    record.ended(&name, exit(1, 61_000), &at(61_000));
    record.stopping(None, "enough");
    let container = &record.containers[0];
    assert_eq!((container.status, &container.exit), (ContainerStatus::Stopped, &Some(exit(1, 61_000))));
    record.ended(&name, exit(1, 61_000), &at(61_001));
    assert_eq!(record.containers[0].exit, Some(exit(1, 61_000)));
}
