//! Waits, steps and the journal of one task.

use super::*;
use lighter_telemetry::trace::Tracer;

fn telemetry(dir: &tempfile::TempDir) -> Telemetry {
    Telemetry::new(dir.path().join("events"), Tracer::off())
}

fn lines(log: &TaskLog) -> Vec<(TaskEventKind, String)> {
    log.events().into_iter().map(|event| (event.kind, event.text)).collect()
}

#[tokio::test]
async fn a_wait_keeps_its_beginning_and_ends_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = telemetry(&dir).task(&TaskId::from_parts(1, 0));
    let web: ContainerName = "web".parse().unwrap();
    log.wait(WaitKind::Dependency, Some(&web), "db", Some(Duration::from_secs(5)), "db starts");
    let first = log.waits();
    assert_eq!(first[0].until_unix_ms, Some(first[0].since_unix_ms + 5000));
    log.waits_changed().await;
    log.wait(WaitKind::Dependency, Some(&web), "db", None, "db starts");
    assert_eq!((log.waits().len(), log.waits()[0].since_unix_ms), (1, first[0].since_unix_ms));
    assert_eq!(log.waits()[0].until_unix_ms, None);
    log.wait(WaitKind::Dependency, None, "something else", None, "it");
    log.wait_over(WaitKind::Dependency, Some(&web));
    log.wait_over(WaitKind::Dependency, Some(&web));
    assert_eq!(log.waits().len(), 1);
    log.waits_over(&[WaitKind::Dependency]);
    assert!(log.waits().is_empty());
    let kinds: Vec<_> = lines(&log).into_iter().map(|(kind, _)| kind).collect();
    let (begun, ended) = (TaskEventKind::WaitBegun, TaskEventKind::WaitEnded);
    assert_eq!(kinds, [begun, begun, ended, ended]);
}

#[test]
fn steps_are_written_down_counted_and_given_up_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = telemetry(&dir);
    let task = TaskId::from_parts(1, 0);
    let log = telemetry.task(&task);
    log.start_begun();
    log.step("rootfs", None).done();
    log.step("network", None).failed("no address is free");
    drop(log.step("bundle", None));
    log.start_ended(Some("no address is free"));
    log.start_ended(None);
    let texts: Vec<_> = lines(&log).into_iter().map(|(_, text)| text).collect();
    let expected =
        ["rootfs", "rootfs", "network", "network: no address is free", "bundle", "bundle: given up"];
    assert_eq!(texts, expected);
    let text = telemetry.metrics.render();
    assert!(text.contains("lighter_agent_task_starts_total{result=\"failed\"} 1\n"), "{text}");
    assert!(!text.contains("result=\"ok\""), "{text}");
    assert!(text.contains("lighter_agent_step_failures_total{step=\"network\"} 1\n"), "{text}");
    // A new agent goes on with what is on disk, and so does a question after the task is forgotten.
    assert_eq!(
        super::super::Telemetry::new(dir.path().join("events"), Tracer::off()).task(&task).events(),
        log.events()
    );
    telemetry.forget(&task);
    assert_eq!(telemetry.events(&task), log.events());
}

#[tokio::test]
async fn spans_are_below_the_callers_or_a_trace_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, mut spans) = tokio::sync::mpsc::channel(16);
    let telemetry = Telemetry::new(dir.path().join("events"), Tracer::with_queue(queue));
    let definition: TaskDefinitionId = "web:1".parse().unwrap();
    let mut run = |task: &TaskId, parent: Option<&str>| {
        let log = telemetry.task(task);
        log.identify(&definition, parent.map(|text| text.parse().unwrap()));
        log.start_begun();
        log.step("pull", None).done();
        log.start_ended(None);
        let mut got = || spans.try_recv().ok();
        (got(), got(), got())
    };
    let (first, second) = (TaskId::from_parts(1, 7), TaskId::from_parts(2, 8));
    let (Some(step), Some(root), None) = run(&first, None) else { panic!("two spans") };
    assert_eq!(
        (step.trace_id, root.trace_id),
        (step.trace_id, u128::from_str_radix(first.as_str(), 16).unwrap().to_be_bytes())
    );
    assert_eq!((root.parent_span_id, step.parent_span_id), ([0; 8], root.span_id));
    // Two tasks of one call share its trace, and none of their spans.
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (Some(step), Some(root), None) = run(&second, Some(parent)) else { panic!("two spans") };
    let caller: TraceParent = parent.parse().unwrap();
    assert_eq!((step.trace_id, root.trace_id), (caller.trace_id, caller.trace_id));
    assert_eq!((root.parent_span_id, step.parent_span_id), (caller.span_id, root.span_id));
    let (Some(_), Some(other), None) = run(&TaskId::from_parts(3, 9), Some(parent)) else {
        panic!("two spans")
    };
    assert_ne!(other.span_id, root.span_id);
    let unrecorded = parent.replace("-01", "-00");
    assert_eq!(run(&TaskId::from_parts(4, 9), Some(&unrecorded)), (None, None, None));
}

#[test]
fn the_journal_is_bounded_on_disk_and_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let task = TaskId::from_parts(1, 0);
    let log = telemetry(&dir).task(&task);
    for number in 0..3 * KEPT {
        log.event(TaskEventKind::Restart, None, format!("{number} {}", "é".repeat(2000)));
    }
    let events = log.events();
    assert_eq!((events.len(), events[0].text.starts_with(&format!("{} ", 2 * KEPT))), (KEPT, true));
    assert!(events[0].text.len() <= TEXT_BYTES_MAX);
    let file = std::fs::read_to_string(dir.path().join("events").join(format!("{task}.jsonl"))).unwrap();
    assert!(file.lines().count() <= 2 * KEPT, "{}", file.lines().count());
    assert_eq!(EventFile::new(&dir.path().join("events"), &task).read(), events);
}
