//! `lighter pause`, `lighter unpause`, `lighter task update`: what is wanted of a running task.
//! In: a name of the task. Out: its id. Never: says it is done when it is only wanted, unless asked
//! not to wait.

use crate::args::{Global, PauseArgs, UpdateArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::{json, names, output};
use lighter_proto::v1;

pub async fn pause(global: &Global, client: &mut Client, args: PauseArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let task = names::task(client, &cluster, &args.task.task).await?.task_id;
    let answer = client.pause_task(v1::PauseTaskRequest { cluster, task }).await;
    told(global, answer.map_err(Failure::rpc("pause the task"))?.into_inner().task)
}

pub async fn unpause(global: &Global, client: &mut Client, args: PauseArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let task = names::task(client, &cluster, &args.task.task).await?.task_id;
    let answer = client.unpause_task(v1::UnpauseTaskRequest { cluster, task }).await;
    told(global, answer.map_err(Failure::rpc("let the task go on"))?.into_inner().task)
}

pub async fn update(global: &Global, client: &mut Client, args: UpdateArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let task = names::task(client, &cluster, &args.task.task).await?.task_id;
    let container = args.container.unwrap_or_default();
    let request =
        v1::UpdateTaskRequest { cluster, task, container, cpu_units: args.cpu, memory_mib: args.memory };
    let answer = client.update_task(request).await;
    told(global, answer.map_err(Failure::rpc("update the task"))?.into_inner().task)
}

fn told(global: &Global, task: Option<v1::Task>) -> Result<(), Failure> {
    let task = task.unwrap_or_default();
    match global.output {
        crate::args::Format::Json => output::json(&json::task(&task)),
        _ => output::line(&task.task_id),
    }
}
