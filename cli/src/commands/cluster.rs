//! `lighter cluster create|ls|show|update|rm` and `lighter tag add|rm|ls`.
//! In: names, settings, tags. Out: a table, facts, or JSON. Never: checks what the API checks.

use crate::args::{ClusterCommand, Format, Global, TagCommand};
use crate::client::Client;
use crate::failure::{Failure, of_failures_among};
use crate::table::{Table, facts};
use crate::{json, output, time, words};
use lighter_proto::v1;
use serde_json::{Value, json};

/// The API's bound on names in one Describe call.
const BATCH: usize = 100;

pub async fn run(global: &Global, client: &mut Client, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Create { name, setting, tag } => {
            let request =
                v1::CreateClusterRequest { cluster_name: name, settings: settings(setting), tags: tags(tag) };
            let answer = client.create_cluster(request).await.map_err(Failure::rpc("create the cluster"))?;
            changed(global, answer.into_inner().cluster)
        }
        ClusterCommand::Ls => list(global, client).await,
        ClusterCommand::Show { name } => show(global, client, name).await,
        ClusterCommand::Update { name, setting, release_brake } => {
            let request = v1::UpdateClusterRequest {
                cluster: name,
                settings: settings(setting),
                release_replacement_brake: release_brake,
            };
            let answer = client.update_cluster(request).await.map_err(Failure::rpc("update the cluster"))?;
            changed(global, answer.into_inner().cluster)
        }
        ClusterCommand::Rm { name } => {
            let request = v1::DeleteClusterRequest { cluster: name };
            let answer = client.delete_cluster(request).await.map_err(Failure::rpc("delete the cluster"))?;
            changed(global, answer.into_inner().cluster)
        }
    }
}

fn settings(pairs: Vec<(String, String)>) -> Vec<v1::ClusterSetting> {
    pairs.into_iter().map(|(name, value)| v1::ClusterSetting { name, value }).collect()
}

/// Tags of the API from typed pairs.
pub fn tags(pairs: Vec<(String, String)>) -> Vec<v1::Tag> {
    pairs.into_iter().map(|(key, value)| v1::Tag { key, value }).collect()
}

fn changed(global: &Global, cluster: Option<v1::Cluster>) -> Result<(), Failure> {
    let cluster = cluster.unwrap_or_default();
    if global.output == Format::Json {
        return output::json(&json::cluster(&cluster));
    }
    if global.quiet {
        return output::line(&cluster.name);
    }
    output::line(&format!("{} {}", cluster.name, words::cluster_status(cluster.status)))
}

async fn list(global: &Global, client: &mut Client) -> Result<(), Failure> {
    let mut request = v1::ListClustersRequest::default();
    let mut names = Vec::new();
    loop {
        let answer =
            client.list_clusters(request.clone()).await.map_err(Failure::rpc("list the clusters"))?;
        let answer = answer.into_inner();
        names.extend(answer.clusters);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    if global.quiet && global.output != Format::Json {
        return output::print(&names.iter().map(|name| format!("{name}\n")).collect::<String>());
    }
    let mut clusters = Vec::with_capacity(names.len());
    for names in names.chunks(BATCH) {
        let request = v1::DescribeClustersRequest { clusters: names.to_vec() };
        let answer = client.describe_clusters(request).await.map_err(Failure::rpc("list the clusters"))?;
        clusters.extend(answer.into_inner().clusters);
    }
    if global.output == Format::Json {
        return output::json(&Value::from(clusters.iter().map(json::cluster).collect::<Vec<_>>()));
    }
    let mut table = Table::new(&["CLUSTER", "STATUS", "NODES", "TASKS"]);
    for cluster in &clusters {
        table.row([
            cluster.name.clone(),
            words::cluster_status(cluster.status).to_owned(),
            cluster.registered_container_instances_count.to_string(),
            format!("{}+{}", cluster.running_tasks_count, cluster.pending_tasks_count),
        ]);
    }
    super::print_table(global, &table)
}

async fn show(global: &Global, client: &mut Client, name: String) -> Result<(), Failure> {
    let request = v1::DescribeClustersRequest { clusters: vec![name] };
    let answer = client.describe_clusters(request).await.map_err(Failure::rpc("show the cluster"))?;
    let mut answer = answer.into_inner();
    let Some(cluster) = answer.clusters.pop() else {
        return Err(of_failures_among("show the cluster", &answer.failures, "lighter cluster ls"));
    };
    if global.output == Format::Json {
        return output::json(&json::cluster(&cluster));
    }
    let joined = |pairs: Vec<String>| pairs.join(", ");
    output::print(&facts(&[
        ("Cluster", cluster.name.clone()),
        ("Status", words::cluster_status(cluster.status).to_owned()),
        ("Nodes", cluster.registered_container_instances_count.to_string()),
        (
            "Tasks",
            format!("{} running, {} pending", cluster.running_tasks_count, cluster.pending_tasks_count),
        ),
        ("Brake", cluster.replacement_brake.as_ref().map(brake).unwrap_or_default()),
        ("Settings", joined(cluster.settings.iter().map(|s| format!("{}={}", s.name, s.value)).collect())),
        ("Tags", joined(cluster.tags.iter().map(|t| format!("{}={}", t.key, t.value)).collect())),
        ("Created", time::rfc3339(cluster.created_at_unix_ms).unwrap_or_default()),
    ]))
}

fn brake(brake: &v1::ReplacementBrake) -> String {
    format!(
        "lost tasks are not replaced since {}: {} of {} nodes fell silent at once",
        time::rfc3339(brake.since_unix_ms).unwrap_or_default(),
        brake.silent_container_instances,
        brake.container_instances
    )
}

pub async fn tag(global: &Global, client: &mut Client, command: TagCommand) -> Result<(), Failure> {
    match command {
        TagCommand::Add { resource, tags: pairs } => {
            let request = v1::TagResourceRequest { resource, tags: tags(pairs) };
            client.tag_resource(request).await.map(drop).map_err(Failure::rpc("set the tags"))
        }
        TagCommand::Rm { resource, keys } => {
            let request = v1::UntagResourceRequest { resource, tag_keys: keys };
            client.untag_resource(request).await.map(drop).map_err(Failure::rpc("take the tags away"))
        }
        TagCommand::Ls { resource } => {
            let request = v1::ListTagsForResourceRequest { resource };
            let answer =
                client.list_tags_for_resource(request).await.map_err(Failure::rpc("list the tags"))?;
            let tags = answer.into_inner().tags;
            if global.output == Format::Json {
                return output::json(&json!(json::tags(&tags)));
            }
            let mut table = Table::new(&["KEY", "VALUE"]);
            for tag in tags {
                table.row([tag.key, tag.value]);
            }
            super::print_table(global, &table)
        }
    }
}
