//! What a task's end means for the exit code of `lighter run --wait`, as `docker run` does it.
//! In: a STOPPED task. Out: a number and words. Pure.

use crate::commands::ps::deciding_container;
use crate::failure::{EXIT_NO_PROGRAM, EXIT_NOT_RUN, EXIT_NOT_STARTED};
use crate::{table, words};
use lighter_proto::v1;

/// The essential container's exit code; 125 to 127 when it was never started.
pub fn exit_code(task: &v1::Task) -> u8 {
    if task.stop_code != v1::StopCode::TaskFailedToStart as i32
        && let Some(code) = deciding_container(task).and_then(|container| container.exit_code)
    {
        // wait(2) gives eight bits; 128 + signal fits.
        return u8::try_from(code).unwrap_or(EXIT_NOT_RUN);
    }
    let reasons = reasons(task).to_lowercase();
    let start =
        reasons.contains("cannotstartcontainererror") || reasons.contains("cannotcreatecontainererror");
    match start {
        true if ["not found", "no such file"].iter().any(|words| reasons.contains(words)) => EXIT_NO_PROGRAM,
        true if ["permission denied", "exec format", "is a directory"]
            .iter()
            .any(|words| reasons.contains(words)) =>
        {
            EXIT_NOT_STARTED
        }
        _ => EXIT_NOT_RUN,
    }
}

/// Why, and where to look next.
pub fn explain(task: &v1::Task) -> String {
    let reasons = reasons(task);
    let mut text = String::new();
    if !reasons.is_empty() {
        text.push_str(&format!("  because: {}\n", table::clean(&reasons)));
    }
    let id = task.task_id.get(..16).unwrap_or(&task.task_id);
    let command = if words::stop_code(task.stop_code) == "TaskFailedToStart" { "task show" } else { "logs" };
    text.push_str(&format!("  try: lighter {command} {id}"));
    text
}

fn reasons(task: &v1::Task) -> String {
    let mut reasons = vec![task.stopped_reason.as_str()];
    for container in &task.containers {
        if !container.reason.is_empty() && !task.stopped_reason.contains(&container.reason) {
            reasons.push(&container.reason);
        }
    }
    reasons.retain(|reason| !reason.is_empty());
    reasons.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(stop_code: v1::StopCode, reason: &str, exit: Option<i32>) -> v1::Task {
        v1::Task {
            last_status: v1::TaskStatus::Stopped as i32,
            stop_code: stop_code as i32,
            stopped_reason: reason.into(),
            containers: vec![v1::Container { essential: true, exit_code: exit, ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn exit_codes_are_as_dockers() {
        use v1::StopCode::{EssentialContainerExited, TaskFailedToStart, UserInitiated};
        for (code, reason, exit, expected) in [
            (EssentialContainerExited, "Essential container in task exited", Some(0), 0),
            (EssentialContainerExited, "Essential container in task exited", Some(3), 3),
            (UserInitiated, "stopped", Some(143), 143),
            (UserInitiated, "stopped", None, 125),
            (TaskFailedToStart, "CannotPullContainerError: manifest not found", None, 125),
            (TaskFailedToStart, "CannotStartContainerError: exec /x: no such file or directory", None, 127),
            (
                TaskFailedToStart,
                "CannotStartContainerError: \"x\": executable file not found in PATH",
                None,
                127,
            ),
            (TaskFailedToStart, "CannotStartContainerError: exec /x: Permission denied", None, 126),
            (TaskFailedToStart, "CannotStartContainerError: exec: \"/etc\": is a directory", None, 126),
            (TaskFailedToStart, "ResourceInitializationError: port 80 is taken", Some(137), 125),
        ] {
            assert_eq!(exit_code(&task(code, reason, exit)), expected, "{reason}");
        }
    }

    #[test]
    fn the_words_say_why_and_where_to_look() {
        let mut task =
            task(v1::StopCode::EssentialContainerExited, "Essential container in task exited", Some(137));
        task.task_id = "ab".repeat(16);
        task.containers[0].reason = "OutOfMemoryError: container killed due to memory usage".into();
        assert_eq!(
            explain(&task),
            "  because: Essential container in task exited; OutOfMemoryError: container killed due to memory usage\n  try: lighter logs abababababababab"
        );
    }
}
