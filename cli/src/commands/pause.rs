//! `lighter pause`, `lighter unpause`, `lighter task update`: what is wanted of a running task, until
//! its node has done it. In: a name of the task. Out: its id. Never: says that something is done
//! which is only wanted.

use crate::args::{Format, Global, PauseArgs, UpdateArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::{json, names, output, words};
use lighter_proto::v1;
use std::time::{Duration, Instant};

/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

pub async fn pause(global: &Global, client: &mut Client, args: PauseArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let before = names::task(client, &cluster, &args.task.task).await?;
    let request = v1::PauseTaskRequest { cluster, task: before.task_id.clone() };
    let what = "pause the task";
    let answer = client.pause_task(request).await.map_err(Failure::rpc(what))?;
    done(global, client, &before, answer.into_inner().task, what).await
}

pub async fn unpause(global: &Global, client: &mut Client, args: PauseArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let before = names::task(client, &cluster, &args.task.task).await?;
    let request = v1::UnpauseTaskRequest { cluster, task: before.task_id.clone() };
    let what = "let the task go on";
    let answer = client.unpause_task(request).await.map_err(Failure::rpc(what))?;
    done(global, client, &before, answer.into_inner().task, what).await
}

pub async fn update(global: &Global, client: &mut Client, args: UpdateArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let before = names::task(client, &cluster, &args.task.task).await?;
    let request = v1::UpdateTaskRequest {
        cluster,
        task: before.task_id.clone(),
        container: args.container.unwrap_or_default(),
        cpu_units: args.cpu,
        memory_mib: args.memory,
    };
    let what = "update the task";
    let answer = client.update_task(request).await.map_err(Failure::rpc(what))?;
    done(global, client, &before, answer.into_inner().task, what).await
}

/// Waits until the node has done what is wanted, or says that it cannot.
async fn done(
    global: &Global,
    client: &mut Client,
    before: &v1::Task,
    wanted: Option<v1::Task>,
    what: &str,
) -> Result<(), Failure> {
    let mut task = wanted.unwrap_or_default();
    let (generation, began) = (task.generation, Instant::now());
    // Nothing to do: it was wanted before.
    while generation != before.generation && task.settled_generation < generation {
        if words::is_stopped(&task) {
            let message = format!("cannot {what}: it has stopped");
            return Err(Failure::Refused { message, next: "lighter ps -a".to_owned() });
        }
        if began.elapsed() > PATIENCE {
            let message = format!("cannot {what} yet: its node has not done it, and will when it can");
            return Err(Failure::Unavailable { message, next: "lighter node ls".to_owned() });
        }
        tokio::time::sleep(PAUSE).await;
        let found = names::describe_tasks(client, &task.cluster, vec![task.task_id.clone()]).await?;
        task = found.into_iter().next().unwrap_or(task);
    }
    if !task.refusal.is_empty() {
        let message = format!("cannot {what}: {}", task.refusal);
        return Err(Failure::Refused { message, next: "lighter task show TASK".to_owned() });
    }
    match global.output {
        Format::Json | Format::Yaml => output::json(&json::task(&task)),
        Format::Table | Format::Wide => output::line(&task.task_id),
    }
}
