//! `lighter status`: the cluster on one screen, what is wrong first.
//! In: nodes, services and tasks of a cluster. Out: text, or JSON with the same content.

use crate::args::{Format, Global};
use crate::client::Client;
use crate::commands::service;
use crate::failure::Failure;
use crate::{json, names, output, table, words};
use lighter_proto::v1;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Troubles that are shown; the rest is counted.
const SHOWN: usize = 15;

pub async fn run(global: &Global, client: &mut Client, cluster: Option<String>) -> Result<(), Failure> {
    let cluster = super::cluster(cluster);
    let nodes = names::nodes(client, &cluster, String::new()).await?;
    let services = service::list_all(client, &cluster).await?;
    let ids =
        names::task_ids(client, &cluster, &names::Filter::default(), v1::DesiredStatus::Running).await?;
    let tasks = names::describe_tasks(client, &cluster, ids).await?;
    let trouble = trouble(&nodes, &services, &tasks);
    let (of_nodes, of_tasks) = (by_node_state(&nodes), by_task_state(&tasks));
    if global.output == Format::Json {
        let services: Vec<Value> = services.iter().map(json::service::service).collect();
        let all = json!({"trouble": trouble, "nodes": of_nodes, "tasks": of_tasks, "services": services});
        return output::json(&all);
    }
    for line in trouble.iter().take(SHOWN) {
        output::line(&format!("! {}", table::clean(line)))?;
    }
    if trouble.len() > SHOWN {
        output::line(&format!("! and {} more", trouble.len() - SHOWN))?;
    }
    if trouble.is_empty() {
        output::line("nothing is wrong")?;
    }
    output::line(&format!("nodes: {}\ntasks: {}", counts(&of_nodes), counts(&of_tasks)))?;
    if services.is_empty() {
        return Ok(());
    }
    output::line("")?;
    super::print_table(global, &service::table(&services))
}

fn counts(of: &BTreeMap<String, usize>) -> String {
    if of.is_empty() {
        return "none".to_owned();
    }
    of.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

fn by_node_state(nodes: &[v1::ContainerInstance]) -> BTreeMap<String, usize> {
    let state = |node: &v1::ContainerInstance| match node.agent_connected {
        true => words::instance_status(node.status).to_owned(),
        false => format!("{} (agent away)", words::instance_status(node.status)),
    };
    count(nodes.iter().map(state))
}

fn by_task_state(tasks: &[v1::Task]) -> BTreeMap<String, usize> {
    count(tasks.iter().map(|task| words::task_status(task.last_status).to_owned()))
}

fn count(states: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// What is wrong, with its reason: services first, then nodes, then tasks.
fn trouble(nodes: &[v1::ContainerInstance], services: &[v1::Service], tasks: &[v1::Task]) -> Vec<String> {
    let mut found = Vec::new();
    for service in services.iter().filter(|service| service.status == v1::ServiceStatus::Active as i32) {
        let primary = service.deployments.first().cloned().unwrap_or_default();
        let failed = primary.rollout_state() == v1::RolloutState::Failed;
        if service.running_count >= service.desired_count && !failed {
            continue;
        }
        let event = service.events.first().map(|event| event.message.clone()).unwrap_or_default();
        let why = if primary.rollout_state_reason.is_empty() { event } else { primary.rollout_state_reason };
        let (name, running, desired) = (&service.service_name, service.running_count, service.desired_count);
        found.push(format!("service {name} has {running} of {desired} tasks: {why}"));
    }
    for node in nodes.iter().filter(|node| !node.agent_connected) {
        found.push(format!("node {}: its agent is away", node.name));
    }
    for task in tasks.iter().filter(|task| !task.waiting_reason.is_empty()) {
        let id = task.task_id.get(..16).unwrap_or(&task.task_id);
        found.push(format!("task {id} of {}: {}", task.task_definition, task.waiting_reason));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_reason() {
        let service = v1::Service {
            service_name: "web".into(),
            status: v1::ServiceStatus::Active as i32,
            desired_count: 3,
            running_count: 1,
            events: vec![v1::ServiceEvent {
                message: "(service web) was unable to place a task".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let well = v1::Service { running_count: 3, ..service.clone() };
        let node = v1::ContainerInstance { name: "n1".into(), ..Default::default() };
        assert_eq!(
            trouble(&[node], &[service, well], &[]),
            [
                "service web has 1 of 3 tasks: (service web) was unable to place a task",
                "node n1: its agent is away"
            ]
        );
    }
}
