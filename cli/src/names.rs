//! Finds what a person means by a name: a task by id, beginning of an id or family; lists in pages.
//! In: text and the API. Out: tasks and nodes. Owns nothing.
//! Never: picks one of several; it names them and asks.

use crate::client::Client;
use crate::failure::{Failure, of_failures};
use lighter_proto::v1;
use std::collections::BTreeMap;

/// The API's bound on ids in one Describe call.
const BATCH: usize = 100;

/// The one task that `text` names.
pub async fn task(client: &mut Client, cluster: &str, text: &str) -> Result<v1::Task, Failure> {
    if looks_like_id(text) {
        let request = v1::DescribeTasksRequest { cluster: cluster.to_owned(), tasks: vec![text.to_owned()] };
        let answer = client.describe_tasks(request).await.map_err(Failure::rpc("look for the task"))?;
        let mut answer = answer.into_inner();
        if let Some(task) = answer.tasks.pop() {
            return Ok(task);
        }
        let other_than_missing = answer.failures.iter().any(|failure| failure.reason != "MISSING");
        if other_than_missing {
            return Err(of_failures("look for the task", &answer.failures));
        }
    }
    task_of_family(client, cluster, text).await
}

fn looks_like_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

async fn task_of_family(client: &mut Client, cluster: &str, family: &str) -> Result<v1::Task, Failure> {
    let missing = || Failure::NotFound {
        message: format!(
            "there is no task {family:?}: neither an id, nor the beginning of one, nor a family with tasks"
        ),
        next: "lighter ps -a".to_owned(),
    };
    // The API refuses what cannot be a family; to the person it is a name that is not there.
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if family.is_empty() || !family.bytes().all(valid) {
        return Err(missing());
    }
    let filter = Filter { family: family.to_owned(), ..Filter::default() };
    let mut ids = task_ids(client, cluster, &filter, v1::DesiredStatus::Running).await?;
    if ids.len() > 1 {
        let message = format!("family {family:?} has {} tasks: {}", ids.len(), ids.join(", "));
        return Err(Failure::Refused {
            message,
            next: "name one of them by the beginning of its id".to_owned(),
        });
    }
    if ids.is_empty() {
        // Ids sort by creation: the last one is the newest.
        ids = task_ids(client, cluster, &filter, v1::DesiredStatus::Stopped).await?;
        ids.sort();
    }
    let id = ids.pop().ok_or_else(missing)?;
    describe_tasks(client, cluster, vec![id]).await?.pop().ok_or_else(missing)
}

/// What `ListTasks` can filter by.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub container_instance: String,
    pub family: String,
    pub started_by: String,
    /// Only those that wait in the queue.
    pub queued: bool,
}

/// The ids of all tasks that match, over all pages.
pub async fn task_ids(
    client: &mut Client,
    cluster: &str,
    filter: &Filter,
    desired: v1::DesiredStatus,
) -> Result<Vec<String>, Failure> {
    let mut request = v1::ListTasksRequest {
        cluster: cluster.to_owned(),
        container_instance: filter.container_instance.clone(),
        family: filter.family.clone(),
        started_by: filter.started_by.clone(),
        desired_status: desired as i32,
        queued: filter.queued,
        ..Default::default()
    };
    let mut ids = Vec::new();
    loop {
        let answer =
            client.list_tasks(request.clone()).await.map_err(Failure::rpc("list the tasks"))?.into_inner();
        ids.extend(answer.task_ids);
        if answer.next_token.is_empty() {
            return Ok(ids);
        }
        request.next_token = answer.next_token;
    }
}

/// The tasks of these ids; one that is gone meanwhile is left out.
pub async fn describe_tasks(
    client: &mut Client,
    cluster: &str,
    ids: Vec<String>,
) -> Result<Vec<v1::Task>, Failure> {
    let mut tasks = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        let request = v1::DescribeTasksRequest { cluster: cluster.to_owned(), tasks: batch.to_vec() };
        let answer = client.describe_tasks(request).await.map_err(Failure::rpc("describe the tasks"))?;
        tasks.extend(answer.into_inner().tasks);
    }
    Ok(tasks)
}

/// All nodes but those that have left; with a filter those that match it, in the cluster query language.
pub async fn nodes(
    client: &mut Client,
    cluster: &str,
    filter: String,
) -> Result<Vec<v1::ContainerInstance>, Failure> {
    let mut request =
        v1::ListContainerInstancesRequest { cluster: cluster.to_owned(), filter, ..Default::default() };
    let mut ids = Vec::new();
    loop {
        let answer = client.list_container_instances(request.clone()).await;
        let answer = answer.map_err(Failure::rpc("list the nodes"))?.into_inner();
        ids.extend(answer.container_instance_ids);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    let mut nodes = describe_nodes(client, cluster, &ids).await?.0;
    nodes.sort_by(|a, b| (&a.name, &a.container_instance_id).cmp(&(&b.name, &b.container_instance_id)));
    Ok(nodes)
}

/// The one node that `text` names: its name, id, or the beginning of one.
pub async fn node(client: &mut Client, cluster: &str, text: &str) -> Result<v1::ContainerInstance, Failure> {
    let (mut nodes, failures) = describe_nodes(client, cluster, &[text.to_owned()]).await?;
    nodes.pop().ok_or_else(|| {
        let reason =
            failures.first().map(|failure| failure.detail.clone()).filter(|detail| !detail.is_empty());
        let message = reason.unwrap_or_else(|| format!("there is no node {text:?}"));
        Failure::NotFound { message, next: "lighter node ls".to_owned() }
    })
}

/// Names of the nodes of these tasks, by id; a node that is gone keeps its id.
pub async fn node_names(
    client: &mut Client,
    cluster: &str,
    tasks: &[v1::Task],
) -> Result<BTreeMap<String, String>, Failure> {
    let ids: std::collections::BTreeSet<&String> =
        tasks.iter().map(|task| &task.container_instance_id).filter(|id| !id.is_empty()).collect();
    let ids: Vec<String> = ids.into_iter().cloned().collect();
    let (nodes, _) = describe_nodes(client, cluster, &ids).await?;
    Ok(nodes.into_iter().map(|node| (node.container_instance_id, node.name)).collect())
}

async fn describe_nodes(
    client: &mut Client,
    cluster: &str,
    ids: &[String],
) -> Result<(Vec<v1::ContainerInstance>, Vec<v1::Failure>), Failure> {
    let (mut nodes, mut failures) = (Vec::new(), Vec::new());
    for batch in ids.chunks(BATCH) {
        let request = v1::DescribeContainerInstancesRequest {
            cluster: cluster.to_owned(),
            container_instances: batch.to_vec(),
        };
        let answer = client.describe_container_instances(request).await;
        let answer = answer.map_err(Failure::rpc("describe the nodes"))?.into_inner();
        nodes.extend(answer.container_instances);
        failures.extend(answer.failures);
    }
    Ok((nodes, failures))
}

/// Beginnings of these ids that tell them apart, all of one length and at least 16 digits: the first
/// 12 are the time of creation, which tasks of one call share.
pub fn short_ids<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> usize {
    let mut sorted: Vec<&str> = ids.collect();
    sorted.sort_unstable();
    let shared = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let longest =
        sorted.windows(2).filter(|pair| pair[0] != pair[1]).map(|pair| shared(pair[0], pair[1]) + 1).max();
    longest.unwrap_or(0).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_tell_tasks_apart() {
        let (a, b) = ("0".repeat(32), format!("{}1{}", "0".repeat(19), "0".repeat(12)));
        assert_eq!(short_ids([a.as_str(), b.as_str()].into_iter()), 20);
        assert_eq!(short_ids([a.as_str()].into_iter()), 16);
        assert!(looks_like_id("00ff") && !looks_like_id("web") && !looks_like_id("") && !looks_like_id("AB"));
    }
}
