//! `lighter node drain|activate|notice`: a node gets no new tasks, gets them again, or is told that
//! its machine will not be there for long.
//! In: a node, a deadline. Out: the node's state, and with --wait what is still on it.
//! Never: stops a task itself; the control plane does when it was asked to.

use crate::args::{DrainArgs, Format, Global, NoticeArgs, NoticeKind};
use crate::client::{self, Client};
use crate::failure::{Failure, of_failures_among};
use crate::{json, names, output, time, words};
use lighter_proto::v1;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks at what is left.
const POLL: Duration = Duration::from_millis(500);
/// Groups of tasks that services keep up, as in ECS.
const SERVICE_GROUP_PREFIX: &str = "service:";
const DAEMON_GROUP_PREFIX: &str = "daemon:";
/// Tasks named in one line of progress.
const NAMED: usize = 3;

pub async fn drain(global: &Global, client: &mut Client, args: DrainArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster.clone());
    let now = time::now_unix_ms();
    let after = args.deadline.map(|after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
    let deadline_unix_ms = after.map_or(0, |after| now.saturating_add(after));
    let request = v1::UpdateContainerInstancesStateRequest {
        cluster: cluster.clone(),
        container_instances: vec![args.node.clone()],
        status: v1::ContainerInstanceStatus::Draining.into(),
        reason: args.reason.clone().unwrap_or_default(),
        deadline_unix_ms,
        stop_tasks: args.stop_tasks,
    };
    let mut node = update(client, request, "drain the node").await?;
    if args.wait {
        node = wait(global, client, &cluster, node, args.stop_tasks).await?;
    }
    print(global, &node)
}

pub async fn activate(
    global: &Global,
    client: &mut Client,
    node: String,
    cluster: Option<String>,
) -> Result<(), Failure> {
    let request = v1::UpdateContainerInstancesStateRequest {
        cluster: super::cluster(cluster),
        container_instances: vec![node],
        status: v1::ContainerInstanceStatus::Active.into(),
        ..Default::default()
    };
    let node = update(client, request, "activate the node").await?;
    print(global, &node)
}

async fn update(
    client: &mut Client,
    request: v1::UpdateContainerInstancesStateRequest,
    what: &str,
) -> Result<v1::ContainerInstance, Failure> {
    let answer = client.update_container_instances_state(request).await.map_err(Failure::rpc(what))?;
    let mut answer = answer.into_inner();
    match answer.container_instances.pop() {
        Some(node) => Ok(node),
        None => Err(of_failures_among(what, &answer.failures, "lighter node ls")),
    }
}

/// Waits until nothing is on the node; says what is whenever that changes.
async fn wait(
    global: &Global,
    client: &mut Client,
    cluster: &str,
    mut node: v1::ContainerInstance,
    stop_tasks: bool,
) -> Result<v1::ContainerInstance, Failure> {
    let mut said = String::new();
    loop {
        let left = node.running_tasks_count + node.pending_tasks_count;
        if left == 0 {
            return Ok(node);
        }
        if node.status() != v1::ContainerInstanceStatus::Draining {
            let message = format!("node {} is {} meanwhile", node.name, words::instance_status(node.status));
            return Err(Failure::Refused { message, next: "lighter node show".to_owned() });
        }
        let deadline = node.status_deadline_unix_ms;
        if !stop_tasks && deadline > 0 && time::now_unix_ms() >= deadline {
            let message = format!("the time is over and {left} tasks are left on node {}", node.name);
            let next = format!("lighter node drain {} --stop-tasks --wait", node.name);
            return Err(Failure::Unavailable { message, next });
        }
        let progress = progress(client, cluster, &node, left).await?;
        if progress != said && !global.quiet {
            output::note(&progress);
            said = progress;
        }
        tokio::time::sleep(POLL).await;
        node = names::node(client, cluster, &node.container_instance_id).await?;
    }
}

async fn progress(
    client: &mut Client,
    cluster: &str,
    node: &v1::ContainerInstance,
    left: u32,
) -> Result<String, Failure> {
    let filter =
        names::Filter { container_instance: node.container_instance_id.clone(), ..Default::default() };
    let mut ids = names::task_ids(client, cluster, &filter, v1::DesiredStatus::Running).await?;
    let kept = ids.len();
    ids.truncate(NAMED);
    let tasks = names::describe_tasks(client, cluster, ids).await?;
    let protected = protected(client, cluster, &tasks).await?;
    let named: Vec<String> = tasks
        .iter()
        .map(|task| {
            let id = task.task_id.get(..8).unwrap_or(&task.task_id);
            format!("{id} ({}, {})", task.task_definition, why_left(task, &protected))
        })
        .collect();
    let more = if kept > named.len() { ", …" } else { "" };
    Ok(match named.len() {
        0 => format!("{left} tasks left, all of them stopping"),
        _ => format!("{left} tasks left; not told to stop: {}{more}", named.join(", ")),
    })
}

/// Until when each task of a service is protected; those that are not are left out.
async fn protected(
    client: &mut Client,
    cluster: &str,
    tasks: &[v1::Task],
) -> Result<BTreeMap<String, i64>, Failure> {
    let of_services = tasks.iter().filter(|task| task.group.starts_with(SERVICE_GROUP_PREFIX));
    let tasks: Vec<String> = of_services.map(|task| task.task_id.clone()).collect();
    if tasks.is_empty() {
        return Ok(BTreeMap::new());
    }
    let request = v1::GetTaskProtectionRequest { cluster: cluster.to_owned(), tasks };
    let answer = client.get_task_protection(request).await;
    // A task that is gone meanwhile is among the failures, and is not left.
    let answer = answer.map_err(Failure::rpc("look at the protection"))?.into_inner();
    let protected = answer.protected_tasks.into_iter().filter(|task| task.protection_enabled);
    Ok(protected.map(|task| (task.task_id, task.expires_at_unix_ms)).collect())
}

/// Why a task that is not told to stop is still on a node that drains.
fn why_left(task: &v1::Task, protected: &BTreeMap<String, i64>) -> String {
    if let Some(until) = protected.get(&task.task_id) {
        return format!("protected until {}", time::rfc3339(*until).unwrap_or_default());
    }
    match task.group.as_str() {
        group if group.starts_with(DAEMON_GROUP_PREFIX) => "a daemon, the last to go".to_owned(),
        group if group.starts_with(SERVICE_GROUP_PREFIX) => "its service starts another first".to_owned(),
        _ => "of no service, runs until it ends".to_owned(),
    }
}

fn print(global: &Global, node: &v1::ContainerInstance) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&json::node(node));
    }
    if global.quiet {
        return output::line(&node.container_instance_id);
    }
    output::line(&text(node))
}

fn text(node: &v1::ContainerInstance) -> String {
    let left = node.running_tasks_count + node.pending_tasks_count;
    let until = time::rfc3339(node.status_deadline_unix_ms).map(|at| format!(" until {at}"));
    let tasks = match (node.status(), left, node.stop_tasks) {
        (v1::ContainerInstanceStatus::Draining, 0, _) => ", no tasks left".to_owned(),
        (v1::ContainerInstanceStatus::Draining, left, true) => format!(", {left} tasks to stop"),
        (v1::ContainerInstanceStatus::Draining, left, false) => format!(", {left} tasks go on"),
        _ => String::new(),
    };
    format!("{}  {}{}{tasks}", node.name, words::instance_status(node.status), until.unwrap_or_default())
}

/// On the node itself, through its agent.
pub async fn notice(global: &Global, args: NoticeArgs) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&args.socket.agent_socket).await?;
    let kind = match args.kind {
        NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
        NoticeKind::SpotInterruption => v1::NoticeKind::SpotInterruption,
    };
    let notice = args.detail.map(|detail| v1::Notice {
        kind: kind.into(),
        at_unix_ms: args.after.map_or(0, |after| {
            time::now_unix_ms().saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
        }),
        detail,
        ..Default::default()
    });
    let given = notice.is_some();
    agent.set_notice(v1::SetNoticeRequest { notice }).await.map_err(Failure::rpc("give notice"))?;
    if global.quiet {
        return Ok(());
    }
    output::note(if given { "the node drains in a moment" } else { "the notice is taken back" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_becomes_of_its_tasks() {
        let node =
            |status: v1::ContainerInstanceStatus, running_tasks_count, stop_tasks| v1::ContainerInstance {
                name: "n1".into(),
                status: status.into(),
                running_tasks_count,
                stop_tasks,
                ..Default::default()
            };
        let draining = v1::ContainerInstanceStatus::Draining;
        assert_eq!(text(&node(draining, 2, false)), "n1  DRAINING, 2 tasks go on");
        assert_eq!(text(&node(draining, 2, true)), "n1  DRAINING, 2 tasks to stop");
        assert_eq!(text(&node(draining, 0, true)), "n1  DRAINING, no tasks left");
        assert_eq!(text(&node(v1::ContainerInstanceStatus::Active, 2, false)), "n1  ACTIVE");
    }

    #[test]
    fn a_task_that_is_left_has_a_reason() {
        let task = |group: &str| v1::Task { task_id: "1".into(), group: group.into(), ..Default::default() };
        let protected = BTreeMap::from([("1".to_owned(), 1_700_000_000_000)]);
        assert_eq!(why_left(&task("service:web"), &protected), "protected until 2023-11-14T22:13:20.000Z");
        assert_eq!(why_left(&task("service:web"), &BTreeMap::new()), "its service starts another first");
        assert_eq!(why_left(&task("daemon:logs"), &BTreeMap::new()), "a daemon, the last to go");
        assert_eq!(why_left(&task("family:web"), &BTreeMap::new()), "of no service, runs until it ends");
    }
}
