//! `lighter node ls|show`: the container instances of a cluster and what is free on them.
//! In: names. Out: a table, facts, or JSON.

use crate::args::{Format, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::{Table, facts};
use crate::{json, names, output, time, words};
use lighter_proto::v1;
use serde_json::Value;

pub async fn ls(
    global: &Global,
    client: &mut Client,
    cluster: Option<String>,
    filter: Option<String>,
) -> Result<(), Failure> {
    let nodes = names::nodes(client, &super::cluster(cluster), filter.unwrap_or_default()).await?;
    if global.output == Format::Json {
        return output::json(&Value::from(nodes.iter().map(json::node).collect::<Vec<_>>()));
    }
    if global.quiet {
        return output::print(
            &nodes.iter().map(|node| format!("{}\n", node.container_instance_id)).collect::<String>(),
        );
    }
    let wide = global.output == Format::Wide;
    let mut titles = vec!["NODE", "STATUS", "AGENT", "TASKS", "CPU FREE", "MEMORY FREE", "ADDRESS", "ID"];
    if wide {
        titles.extend(["VERSION", "REGISTERED"]);
    }
    let mut table = Table::new(&titles);
    let id_length = if wide {
        32
    } else {
        names::short_ids(nodes.iter().map(|node| node.container_instance_id.as_str()))
    };
    for node in &nodes {
        let id = node.container_instance_id.get(..id_length).unwrap_or(&node.container_instance_id);
        let (cpu, memory) = free(node);
        let agent = if node.agent_connected { "connected" } else { "away" };
        let tasks = format!("{}+{}", node.running_tasks_count, node.pending_tasks_count);
        table.push(vec![
            node.name.clone(),
            words::instance_status(node.status).to_owned(),
            agent.to_owned(),
            tasks,
            cpu,
            memory,
            node.address.clone(),
            id.to_owned(),
            node.agent_version.clone(),
            time::rfc3339(node.registered_at_unix_ms).unwrap_or_default(),
        ]);
    }
    super::print_table(global, &table)
}

/// `1024/2048` units and `900/2000 MiB`.
fn free(node: &v1::ContainerInstance) -> (String, String) {
    let all = node.registered_resources.clone().unwrap_or_default();
    let left = node.remaining_resources.clone().unwrap_or_default();
    (format!("{}/{}", left.cpu_units, all.cpu_units), format!("{}/{} MiB", left.memory_mib, all.memory_mib))
}

pub async fn show(
    global: &Global,
    client: &mut Client,
    node: &str,
    cluster: Option<String>,
) -> Result<(), Failure> {
    let node = names::node(client, &super::cluster(cluster), node).await?;
    if global.output == Format::Json {
        return output::json(&json::node(&node));
    }
    if global.quiet {
        return output::line(&node.container_instance_id);
    }
    output::print(&text(&node, time::now_unix_ms()))
}

fn text(node: &v1::ContainerInstance, now_unix_ms: i64) -> String {
    let (cpu, memory) = free(node);
    let agent = if node.agent_connected { "connected" } else { "away" };
    let attributes: Vec<String> = node.attributes.iter().map(|a| format!("{}={}", a.name, a.value)).collect();
    let tags: Vec<String> = node.tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect();
    let taken = node.remaining_resources.clone().unwrap_or_default();
    let ports = |ports: &[u32]| ports.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let registered = time::rfc3339(node.registered_at_unix_ms)
        .map(|text| format!("{text} ({} ago)", time::age(node.registered_at_unix_ms, now_unix_ms)));
    facts(&[
        ("Node", node.name.clone()),
        ("Id", node.container_instance_id.clone()),
        ("Cluster", node.cluster.clone()),
        ("Status", words::instance_status(node.status).to_owned()),
        ("Status reason", node.status_reason.clone()),
        ("Empty by", time::rfc3339(node.status_deadline_unix_ms).unwrap_or_default()),
        ("Agent", format!("{agent}, version {}", node.agent_version)),
        ("Address", node.address.clone()),
        ("Tasks", format!("{} running, {} pending", node.running_tasks_count, node.pending_tasks_count)),
        ("CPU free", format!("{cpu} units")),
        ("Memory free", memory),
        ("Ports taken, tcp", ports(&taken.ports_tcp)),
        ("Ports taken, udp", ports(&taken.ports_udp)),
        ("Capacity type", words::capacity_type(node.capacity_type).to_lowercase().replace('_', "-")),
        ("Attributes", attributes.join(", ")),
        ("Tags", tags.join(", ")),
        ("Registered", registered.unwrap_or_default()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_shows_what_is_free() {
        let resources = |cpu_units, memory_mib| {
            Some(v1::Resources { cpu_units, memory_mib, ports_tcp: vec![22, 80], ..Default::default() })
        };
        let node = v1::ContainerInstance {
            name: "n1".into(),
            agent_connected: true,
            registered_resources: resources(2048, 4096),
            remaining_resources: resources(1024, 4000),
            ..Default::default()
        };
        let page = text(&node, 0);
        assert!(
            page.contains("1024/2048 units") && page.contains("4000/4096 MiB") && page.contains("22, 80"),
            "{page}"
        );
    }
}
