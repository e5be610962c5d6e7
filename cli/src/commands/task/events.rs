//! `lighter task events`: what happened to a task, as the control plane and its node wrote it down.
//! In: a name of the task. Out: a line, or a JSON object, for each event, in order.

use crate::args::{Format, Global, OneTask};
use crate::client::Client;
use crate::failure::Failure;
use crate::{json, names, output, table, time};
use lighter_proto::v1;
use std::time::Duration;

pub async fn run(global: &Global, client: &mut Client, args: OneTask) -> Result<(), Failure> {
    let cluster = super::super::cluster(args.cluster);
    let task = names::task(client, &cluster, &args.task).await?.task_id;
    let request = v1::ListTaskEventsRequest { cluster, task };
    let what = "list the task's events";
    let answer = client.list_task_events(request).await.map_err(Failure::rpc(what))?.into_inner();
    if global.output == Format::Json {
        return output::json(&json::task_events(&answer));
    }
    for event in &answer.events {
        output::line(&text(event))?;
    }
    if !answer.node_missing.is_empty() {
        output::line(&table::clean(&format!("The node's lines are missing: {}", answer.node_missing)))?;
    }
    Ok(())
}

/// One line: time, side, kind, container, words, how long it took.
fn text(event: &v1::TaskEvent) -> String {
    let time = time::rfc3339(event.time_unix_ms).unwrap_or_default();
    let side = if event.from_node { "node" } else { "control" };
    let container = if event.container.is_empty() { "-" } else { &event.container };
    let mut line = format!("{time}  {side:<7}  {:<12}  {container:<12}  {}", event.kind, event.text);
    if event.took_ms > 0 {
        line.push_str(&format!(" ({})", took(event.took_ms)));
    }
    table::clean(&line)
}

fn took(ms: u64) -> String {
    if ms < 10_000 { format!("{ms} ms") } else { crate::duration::short(Duration::from_millis(ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_who_what_and_how_long() {
        let event = v1::TaskEvent {
            time_unix_ms: 1,
            kind: "STEP_ENDED".into(),
            container: "web".into(),
            text: "start".into(),
            took_ms: 23,
            from_node: true,
        };
        let expected = "1970-01-01T00:00:00.001Z  node     STEP_ENDED    web           start (23 ms)";
        assert_eq!(text(&event), expected);
        let own = v1::TaskEvent { from_node: false, container: String::new(), took_ms: 0, ..event };
        let expected = "1970-01-01T00:00:00.001Z  control  STEP_ENDED    -             start";
        assert_eq!(text(&own), expected);
    }
}
