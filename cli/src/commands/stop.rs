//! `lighter stop`: asks for the end of tasks, and waits for it when told to.
//! In: names of tasks, a reason. Out: their ids. Every task is tried; the first failure is reported last.

use crate::args::{Format, Global, StopArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::{json, names, output, words};
use lighter_proto::v1;
use serde_json::Value;
use std::time::Duration;

/// Between two looks at a task that stops.
const POLL: Duration = Duration::from_millis(200);

pub async fn run(global: &Global, client: &mut Client, args: StopArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let mut stopped = Vec::new();
    let mut failures = Vec::new();
    for name in &args.tasks {
        match stop_one(client, &cluster, name, args.reason.as_deref(), args.force).await {
            Ok(task) => stopped.push(task),
            Err(failure) => failures.push(failure),
        }
    }
    if args.wait {
        for task in &mut stopped {
            *task = wait(client, &cluster, task.clone()).await?;
        }
    }
    print(global, &stopped)?;
    let last = failures.pop();
    for failure in &failures {
        crate::failure::report(failure);
    }
    last.map_or(Ok(()), Err)
}

async fn stop_one(
    client: &mut Client,
    cluster: &str,
    name: &str,
    reason: Option<&str>,
    force: bool,
) -> Result<v1::Task, Failure> {
    let task = names::task(client, cluster, name).await?;
    let request = v1::StopTaskRequest {
        cluster: cluster.to_owned(),
        task: task.task_id,
        reason: reason.unwrap_or("stopped by lighter stop").to_owned(),
        force,
    };
    request_stop(client, request).await
}

/// Asks for the end of a task.
pub async fn stop(client: &mut Client, cluster: &str, id: &str, reason: &str) -> Result<v1::Task, Failure> {
    let (cluster, task, reason) = (cluster.to_owned(), id.to_owned(), reason.to_owned());
    request_stop(client, v1::StopTaskRequest { cluster, task, reason, force: false }).await
}

async fn request_stop(client: &mut Client, request: v1::StopTaskRequest) -> Result<v1::Task, Failure> {
    let what = format!("stop task {}", request.task);
    let answer = client.stop_task(request).await.map_err(Failure::rpc(what))?;
    Ok(answer.into_inner().task.unwrap_or_default())
}

/// Waits until the task is STOPPED, or is no longer known.
pub async fn wait(client: &mut Client, cluster: &str, mut task: v1::Task) -> Result<v1::Task, Failure> {
    while !words::is_stopped(&task) {
        tokio::time::sleep(POLL).await;
        match names::describe_tasks(client, cluster, vec![task.task_id.clone()]).await?.pop() {
            Some(found) => task = found,
            None => return Ok(task),
        }
    }
    Ok(task)
}

fn print(global: &Global, tasks: &[v1::Task]) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&Value::from(tasks.iter().map(json::task).collect::<Vec<_>>()));
    }
    for task in tasks {
        if global.quiet {
            output::line(&task.task_id)?;
        } else {
            let status = words::task_status(task.last_status);
            let end = super::ps::deciding_container(task).map(words::exit).unwrap_or_default();
            let end = if end.is_empty() { end } else { format!(", {end}") };
            let how =
                if words::is_stopped(task) { format!("{status}{end}") } else { format!("{status}, to stop") };
            output::line(&format!("{}  {how}", task.task_id))?;
        }
    }
    Ok(())
}
