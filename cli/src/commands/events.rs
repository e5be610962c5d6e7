//! `lighter events`: what happens in the cluster, in order and without gaps.
//! In: where to begin. Out: a line, or a JSON object, for each event.
//! A follower whose stream breaks asks again and goes on after the last event it has seen.
//! Never: goes on with the events of another store; what was not kept long enough is an error.

use super::logs::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::args::{EventsArgs, Format, Global};
use crate::client::Client;
use crate::failure::{Failure, is_break};
use crate::{json, output, table, time, words};
use lighter_proto::v1::{self, event::Subject};
use std::io::Write;
use std::time::Duration;
use tonic::{Status, Streaming};

/// Without --follow: the API has no "that was the last one"; silence for so long is taken for it.
const SILENCE: Duration = Duration::from_millis(500);

pub async fn run(global: &Global, client: &mut Client, args: EventsArgs) -> Result<(), Failure> {
    let mut request = v1::WatchEventsRequest {
        cluster: super::cluster(args.cluster),
        after_sequence: args.after.unwrap_or(0),
        from_oldest: !args.follow && args.after.is_none(),
        incarnation: String::new(),
    };
    let what = "watch the events";
    let mut stream = client.watch_events(request.clone()).await.map_err(Failure::rpc(what))?.into_inner();
    loop {
        let next = if args.follow {
            unbroken(client, &mut stream, &mut request).await.map(Some)
        } else {
            match tokio::time::timeout(SILENCE, stream.message()).await {
                Ok(next) => next,
                Err(_silent) => return Ok(()),
            }
        };
        match next.map_err(Failure::rpc(what))? {
            Some(event) if global.output == Format::Json => output::json_line(&json::event(&event))?,
            Some(event) if global.quiet => output::line(&event.sequence.to_string())?,
            Some(event) => output::line(&text(&event))?,
            None => return Ok(()),
        }
    }
}

/// The next event, however often the stream breaks before it comes; the request becomes the one for
/// those after it. Fails when the control plane refuses to go on there.
async fn unbroken(
    client: &mut Client,
    stream: &mut Streaming<v1::Event>,
    request: &mut v1::WatchEventsRequest,
) -> Result<v1::Event, Status> {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match stream.message().await {
            Ok(Some(event)) => {
                resume(request, &event);
                return Ok(event);
            }
            // Events have no end: the control plane goes.
            Ok(None) => "it ended".to_owned(),
            Err(status) if is_break(&status) => status.message().to_owned(),
            Err(status) => return Err(status),
        };
        // Before the first event there is no number to go on after.
        let place = match (request.after_sequence, request.from_oldest) {
            (0, false) => "; what happens meanwhile is not shown",
            _ => "",
        };
        // Who has closed standard error does not want to know.
        let _ = writeln!(
            std::io::stderr(),
            "[lighter] the stream of events broke off ({why}); asking again{place}"
        );
        *stream = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match client.watch_events(request.clone()).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) if is_break(&status) => {}
                Err(status) => return Err(status),
            }
        };
    }
}

/// Asks for what comes after this event, of the store that gave it.
fn resume(request: &mut v1::WatchEventsRequest, event: &v1::Event) {
    request.after_sequence = event.sequence;
    request.from_oldest = false;
    request.incarnation.clone_from(&event.incarnation);
}

/// One line: time, sequence, what changed.
fn text(event: &v1::Event) -> String {
    let time = time::rfc3339(event.time_unix_ms).unwrap_or_default();
    let what = match &event.subject {
        Some(Subject::TaskStateChange(change)) => of_task(&change.task.clone().unwrap_or_default()),
        Some(Subject::ContainerInstanceStateChange(change)) => {
            let node = change.container_instance.clone().unwrap_or_default();
            let agent = if node.agent_connected { "connected" } else { "away" };
            format!("node {} {}, agent {agent}", node.name, words::instance_status(node.status))
        }
        Some(Subject::TaskDefinitionStateChange(change)) => {
            let definition = change.task_definition.clone().unwrap_or_default();
            let status = words::definition_status(definition.status);
            format!("task definition {}:{} {status}", definition.family, definition.revision)
        }
        Some(Subject::ClusterStateChange(change)) => {
            let cluster = change.cluster.clone().unwrap_or_default();
            format!("cluster {} {}", cluster.name, words::cluster_status(cluster.status))
        }
        Some(Subject::ServiceStateChange(change)) => {
            let service = change.service.clone().unwrap_or_default();
            format!(
                "service {} {} of {}",
                service.service_name, service.desired_count, service.task_definition
            )
        }
        Some(Subject::ServiceAction(action)) => action.event.clone().unwrap_or_default().message,
        Some(Subject::RecordDeleted(deleted)) => {
            let kind = words::record_kind(deleted.kind).to_lowercase().replace('_', " ");
            format!("{kind} {} is no longer kept", deleted.id)
        }
        None => "something this version does not know".to_owned(),
    };
    table::clean(&format!("{time} #{} {what}", event.sequence))
}

fn of_task(task: &v1::Task) -> String {
    let id = task.task_id.get(..16).unwrap_or(&task.task_id);
    let mut text = format!("task {id} {} {}", task.task_definition, words::task_status(task.last_status));
    if words::is_stopped(task) {
        for container in task.containers.iter().filter(|container| container.exit_code.is_some()) {
            text.push_str(&format!(", {} {}", container.name, words::exit(container)));
        }
    }
    let reason = if task.stopped_reason.is_empty() { &task.waiting_reason } else { &task.stopped_reason };
    if !reason.is_empty() {
        text.push_str(&format!(": {reason}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_one_line_with_exit_and_reason() {
        let task = v1::Task {
            task_id: "a".repeat(32),
            task_definition: "web:1".into(),
            last_status: 8,
            stopped_reason: "Essential container\nin task exited".into(),
            containers: vec![v1::Container { name: "c".into(), exit_code: Some(3), ..Default::default() }],
            ..Default::default()
        };
        let event = v1::Event {
            sequence: 7,
            time_unix_ms: 1,
            subject: Some(Subject::TaskStateChange(v1::TaskStateChange { task: Some(task) })),
            ..Default::default()
        };
        assert_eq!(
            text(&event),
            "1970-01-01T00:00:00.001Z #7 task aaaaaaaaaaaaaaaa web:1 STOPPED, c exit 3: Essential container in task exited"
        );
    }
}
