//! `lighter task why`: everything a task waits for: what, since when, until when, what would end it.
//! In: a name of the task. Out: facts for each wait, or JSON. Works without the node: it shows what
//! the node said last, and that the node is away when it is.

use crate::args::{Format, Global, OneTask};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::facts;
use crate::{duration, json, names, output, time, words};
use lighter_proto::v1;
use std::time::Duration;

pub async fn run(global: &Global, client: &mut Client, args: OneTask) -> Result<(), Failure> {
    let cluster = super::super::cluster(args.cluster);
    let task = names::task(client, &cluster, &args.task).await?;
    if global.output == Format::Json {
        return output::json(&json::waits(&task));
    }
    output::print(&text(&task, time::now_unix_ms()))
}

fn text(task: &v1::Task, now_unix_ms: i64) -> String {
    let status = words::task_status(task.last_status);
    if task.waits.is_empty() {
        return facts(&[
            ("Task", task.task_id.clone()),
            ("Status", status.to_owned()),
            ("Waits for", "nothing".to_owned()),
            ("Stopped because", task.stopped_reason.clone()),
        ]);
    }
    let mut text = facts(&[("Task", task.task_id.clone()), ("Status", status.to_owned())]);
    for wait in &task.waits {
        text.push('\n');
        text.push_str(&of_wait(wait, now_unix_ms));
    }
    text
}

fn of_wait(wait: &v1::Wait, now_unix_ms: i64) -> String {
    let since = match time::rfc3339(wait.since_unix_ms) {
        Some(at) => format!("{at} ({} ago)", time::age(wait.since_unix_ms, now_unix_ms)),
        None => "not known".to_owned(),
    };
    facts(&[
        ("Waits for", wait.what.clone()),
        ("  Kind", wait.kind.clone()),
        ("  Container", wait.container.clone()),
        ("  Since", since),
        ("  Until", until(wait.until_unix_ms, now_unix_ms)),
        ("  Ends when", wait.ends_by.clone()),
    ])
}

fn until(unix_ms: i64, now_unix_ms: i64) -> String {
    let Some(at) = time::rfc3339(unix_ms) else { return "no time limit".to_owned() };
    match u64::try_from(unix_ms - now_unix_ms) {
        Ok(left) => format!("{at} (in {})", duration::short(Duration::from_millis(left))),
        Err(_) => format!("{at} (over)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(kind: &str, container: &str, what: &str, until_unix_ms: i64, ends_by: &str) -> v1::Wait {
        v1::Wait {
            kind: kind.into(),
            container: container.into(),
            what: what.into(),
            since_unix_ms: 1_000,
            until_unix_ms,
            ends_by: ends_by.into(),
        }
    }

    #[test]
    fn every_kind_of_wait_is_four_facts() {
        // Kind, container, what, until, and the line that tells until when.
        let table = [
            ("NODE", "", "node n1, which is not connected", 0, "no time limit"),
            ("DEFINITION", "", "its task definition", 0, "no time limit"),
            ("RESOURCE", "", "RESOURCE:MEMORY: needs 512 MiB, 100 MiB are free", 0, "no time limit"),
            ("PULL", "", "the pull of r/web:1", 0, "no time limit"),
            ("PULL_RETRY", "", "the next try of pulling r/web:1", 5_000, "1970-01-01T00:00:05.000Z (in 3s)"),
            ("START_LIMIT", "web", "its turn to start", 0, "no time limit"),
            ("DEPENDENCY", "web", "container db to be HEALTHY", 62_000, "1970-01-01T00:01:02.000Z (in 1m0s)"),
            ("RESTART", "web", "its next start", 3_000, "1970-01-01T00:00:03.000Z (in 1s)"),
            ("HEALTH", "web", "its first check", 0, "no time limit"),
            ("STOP", "", "node n1 to begin the stop", 0, "no time limit"),
            ("STOP_SIGNAL", "web", "container web to end", 32_000, "1970-01-01T00:00:32.000Z (in 30s)"),
            ("KILL", "web", "container web to end after SIGKILL", 1_500, "1970-01-01T00:00:01.500Z (over)"),
            ("TEARDOWN", "", "the next try", 2_000, "1970-01-01T00:00:02.000Z (in 0s)"),
            ("MONITOR", "", "the task's monitor to answer", 0, "no time limit"),
        ];
        for (kind, container, what, until_unix_ms, shown) in table {
            let waits = vec![wait(kind, container, what, until_unix_ms, "something happens")];
            let task = v1::Task { task_id: "ab".repeat(16), last_status: 2, waits, ..Default::default() };
            let page = text(&task, 2_000);
            let has = |label: &str, value: &str| {
                let mut lines = page.lines().map(str::trim);
                lines.any(|line| line.strip_prefix(label).is_some_and(|rest| rest.trim() == value))
            };
            assert!(has("Waits for", what) && has("Kind", kind), "{page}");
            assert_eq!(has("Container", container), !container.is_empty(), "{page}");
            assert!(has("Since", "1970-01-01T00:00:01.000Z (1s ago)"), "{page}");
            assert!(has("Until", shown), "{shown}: {page}");
            assert!(has("Ends when", "something happens"), "{page}");
        }
    }

    #[test]
    fn a_task_that_waits_for_nothing_says_so() {
        let task = v1::Task { last_status: 4, ..Default::default() };
        assert!(text(&task, 0).contains("nothing"), "{}", text(&task, 0));
    }
}
