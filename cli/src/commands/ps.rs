//! `lighter ps`: the tasks of a cluster, one line each.
//! In: filters. Out: a table, ids, or JSON.

use crate::args::{Format, Global, PsArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::names::{self, Filter};
use crate::table::Table;
use crate::{json, output, time, words};
use lighter_proto::v1;
use serde_json::Value;
use std::collections::BTreeMap;

pub async fn run(global: &Global, client: &mut Client, args: PsArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let container_instance = match &args.node {
        Some(node) => names::node(client, &cluster, node).await?.container_instance_id,
        None => String::new(),
    };
    let filter = Filter {
        container_instance,
        family: args.family.unwrap_or_default(),
        started_by: args.started_by.unwrap_or_default(),
        ..Filter::default()
    };
    let mut ids = names::task_ids(client, &cluster, &filter, v1::DesiredStatus::Running).await?;
    if args.all {
        ids.extend(names::task_ids(client, &cluster, &filter, v1::DesiredStatus::Stopped).await?);
    }
    ids.sort();
    ids.dedup();
    if global.quiet && global.output != Format::Json {
        return output::print(&ids.iter().map(|id| format!("{id}\n")).collect::<String>());
    }
    let tasks = names::describe_tasks(client, &cluster, ids).await?;
    if global.output == Format::Json {
        return output::json(&Value::from(tasks.iter().map(json::task).collect::<Vec<_>>()));
    }
    let nodes = names::node_names(client, &cluster, &tasks).await?;
    super::print_table(global, &table(global, &tasks, &nodes))
}

fn table(global: &Global, tasks: &[v1::Task], nodes: &BTreeMap<String, String>) -> Table {
    let wide = global.output == Format::Wide;
    let mut titles = vec!["TASK", "DEFINITION", "STATUS", "NODE", "AGE", "PORTS", "REASON"];
    if wide {
        titles.extend(["ADDRESSES", "GROUP", "STARTED BY"]);
    }
    let mut table = Table::new(&titles);
    let id_length = names::short_ids(tasks.iter().map(|task| task.task_id.as_str()));
    let now = time::now_unix_ms();
    for task in tasks {
        let id = if wide { &task.task_id } else { task.task_id.get(..id_length).unwrap_or(&task.task_id) };
        let node = nodes.get(&task.container_instance_id).unwrap_or(&task.container_instance_id);
        let mut cells = vec![
            id.to_owned(),
            task.task_definition.clone(),
            status(task),
            node.clone(),
            time::age(task.created_at_unix_ms, now),
            ports(task, wide),
            reason(task),
        ];
        if wide {
            let addresses: Vec<&str> = task
                .containers
                .iter()
                .map(|c| c.address.as_str())
                .filter(|address| !address.is_empty())
                .collect();
            cells.extend([addresses.join(","), task.group.clone(), task.started_by.clone()]);
        }
        table.push(cells);
    }
    table
}

/// `RUNNING`, or what it is on the way to; `paused`, or its health if it is checked; with the exit code that tells how it ended.
fn status(task: &v1::Task) -> String {
    let last = words::task_status(task.last_status);
    if words::is_stopped(task) {
        return match deciding_container(task).and_then(|container| container.exit_code) {
            Some(code) => format!("{last} ({code})"),
            None => last.to_owned(),
        };
    }
    let stopping = task.desired_status == v1::DesiredStatus::Stopped as i32;
    if stopping && task.last_status <= v1::TaskStatus::Running as i32 {
        format!("{last}, to stop")
    } else if task.paused_on_node {
        format!("{last} (paused)")
    } else if task.containers.iter().any(|container| container.health.is_some()) {
        format!("{last} ({})", words::health_status(task.health_status).to_lowercase())
    } else {
        last.to_owned()
    }
}

/// The essential container whose end was the task's: the first that ended.
pub fn deciding_container(task: &v1::Task) -> Option<&v1::Container> {
    task.containers
        .iter()
        .filter(|container| container.essential && container.exit_code.is_some())
        .min_by_key(|container| container.exit.as_ref().map_or(i64::MAX, |exit| exit.finished_at_unix_ms))
}

fn ports(task: &v1::Task, wide: bool) -> String {
    let bindings = task.containers.iter().flat_map(|container| &container.network_bindings);
    bindings
        .map(|b| if wide { words::binding(b) } else { words::short_binding(b) })
        .collect::<Vec<_>>()
        .join(",")
}

fn reason(task: &v1::Task) -> String {
    let of_container = || {
        task.containers.iter().map(|container| container.reason.as_str()).find(|reason| !reason.is_empty())
    };
    match (task.stopped_reason.as_str(), task.waiting_reason.as_str()) {
        ("", "") => String::new(),
        ("", waiting) if !words::is_stopped(task) => waiting.to_owned(),
        (stopped, _) => match of_container() {
            Some(detail) if !stopped.contains(detail) => format!("{stopped}: {detail}"),
            _ => stopped.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use proptest::prelude::*;

    fn container(name: &str, finished: i64, code: i32) -> v1::Container {
        v1::Container {
            name: name.into(),
            essential: true,
            exit_code: Some(code),
            exit: Some(v1::ContainerExit { finished_at_unix_ms: finished, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_first_essential_container_to_end_decides() {
        let task = v1::Task {
            last_status: v1::TaskStatus::Stopped as i32,
            containers: vec![
                container("late", 20, 143),
                container("first", 10, 3),
                v1::Container { essential: false, ..container("side", 1, 9) },
            ],
            ..Default::default()
        };
        assert_eq!(deciding_container(&task).map(|c| c.name.as_str()), Some("first"));
        assert_eq!(status(&task), "STOPPED (3)");
        let running = v1::TaskStatus::Running as i32;
        let paused = v1::Task { last_status: running, paused_on_node: true, ..Default::default() };
        assert_eq!(status(&paused), "RUNNING (paused)");
    }

    proptest! {
        #[test]
        fn the_table_fits_whatever_the_names(text in "\\PC{0,255}", id in "[0-9a-f]{0,32}", port in 0u32..65536, count in 1usize..12) {
            let global = crate::args::Cli::try_parse_from(["lighter", "ps"]).unwrap().global;
            let binding = v1::NetworkBinding { bind_ip: "0.0.0.0".into(), container_port: port, host_port: port, protocol: 1 };
            let task = v1::Task {
                task_id: id, task_definition: text.clone(), container_instance_id: text.clone(), stopped_reason: text.clone(),
                last_status: 8, created_at_unix_ms: 1,
                containers: vec![v1::Container { network_bindings: vec![binding; count], reason: text, ..container("c", 1, 1) }],
                ..Default::default()
            };
            for line in table(&global, &[task], &BTreeMap::new()).render(Some(100), false).lines() {
                prop_assert!(unicode_width::UnicodeWidthStr::width(line) <= 100);
            }
        }
    }
}
