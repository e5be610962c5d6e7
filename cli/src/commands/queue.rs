//! `lighter queue ls`: the tasks that wait for room, in the order of their turns.
//! In: a cluster. Out: a table, ids, or JSON. `lighter why TASK` says what one of them lacks.

use crate::args::{Format, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::names::{self, Filter};
use crate::table::Table;
use crate::{duration, json, output, time};
use lighter_proto::v1;
use serde_json::Value;
use std::cmp::Reverse;
use std::time::Duration;

pub async fn ls(global: &Global, client: &mut Client, cluster: Option<String>) -> Result<(), Failure> {
    let cluster = super::cluster(cluster);
    let filter = Filter { queued: true, ..Filter::default() };
    let ids = names::task_ids(client, &cluster, &filter, v1::DesiredStatus::Running).await?;
    let mut tasks = names::describe_tasks(client, &cluster, ids).await?;
    // One may have found its place meanwhile.
    tasks.retain(|task| task.queue.is_some());
    tasks.sort_by_key(turn);
    if global.output == Format::Json {
        return output::json(&Value::from(tasks.iter().map(json::task).collect::<Vec<_>>()));
    }
    if global.quiet {
        return output::print(&tasks.iter().map(|task| format!("{}\n", task.task_id)).collect::<String>());
    }
    super::print_table(global, &table(global, &tasks, time::now_unix_ms()))
}

/// Higher priorities first, then who came first.
fn turn(task: &v1::Task) -> (Reverse<i32>, String) {
    (Reverse(task.queue.map_or(0, |queue| queue.priority)), task.task_id.clone())
}

/// Without what the other columns say, and what is the same for all.
fn lacks(what: &str) -> &str {
    let lacks = what.split_once(": ").map_or(what, |(_, lacks)| lacks);
    lacks.strip_prefix("no container instance met all of its requirements. ").unwrap_or(lacks)
}

fn table(global: &Global, tasks: &[v1::Task], now_unix_ms: i64) -> Table {
    let wide = global.output == Format::Wide;
    let mut table = Table::new(&["TASK", "DEFINITION", "PRIORITY", "WAITING", "LEFT", "WAITS FOR"]);
    let id_length = names::short_ids(tasks.iter().map(|task| task.task_id.as_str()));
    for task in tasks {
        let id = if wide { &task.task_id } else { task.task_id.get(..id_length).unwrap_or(&task.task_id) };
        let queue = task.queue.unwrap_or_default();
        let left = u64::try_from(queue.until_unix_ms - now_unix_ms).unwrap_or(0);
        table.push(vec![
            id.to_owned(),
            task.task_definition.clone(),
            queue.priority.to_string(),
            time::age(task.created_at_unix_ms, now_unix_ms),
            duration::short(Duration::from_millis(left)),
            task.waits.first().map(|wait| lacks(&wait.what).to_owned()).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_order_is_that_of_the_turns() {
        let task = |id: &str, priority| v1::Task {
            task_id: id.repeat(32),
            task_definition: "web:1".into(),
            created_at_unix_ms: 1_000,
            queue: Some(v1::QueueEntry { priority, until_unix_ms: 63_000 }),
            ..Default::default()
        };
        let mut tasks = [task("c", 0), task("a", 0), task("d", 7), task("b", -1)];
        tasks.sort_by_key(turn);
        let ids: Vec<&str> = tasks.iter().map(|task| &task.task_id[..1]).collect();
        assert_eq!(ids, ["d", "a", "c", "b"]);
        let global = crate::args::Cli::try_parse_from(["lighter", "queue", "ls"]).unwrap().global;
        let shown = table(&global, &tasks[..1], 3_000).render(Some(100), false);
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(&row[1..], ["web:1", "7", "2s", "1m0s"], "{shown}");
    }
}
