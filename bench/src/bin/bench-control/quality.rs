//! How good the places are that tasks were given, looked at when all of them run.
//! In: what was asked, what was answered. Out: words; an error where a constraint does not hold.
//! Never: takes part in a time.

use super::callers::Placed;
use super::join::{CPU_UNITS, ZONES};
use super::workload::{Kind, Workload};
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::collections::{BTreeSet, HashMap};
use tonic::transport::Channel;

/// A container instance with its tasks.
pub(crate) struct Node {
    pub id: String,
    pub zone: String,
    /// Tasks of the family `bench` that have room on it when it is empty.
    pub places: usize,
    /// RUNNING or before.
    pub tasks: usize,
}

impl Node {
    fn of(instance: v1::ContainerInstance) -> Result<Self> {
        let offered = instance.registered_resources.context("an instance without resources")?;
        let zone = instance.attributes.iter().find(|a| a.name == "ecs.availability-zone");
        Ok(Self {
            id: instance.container_instance_id,
            zone: zone.context("an instance without a zone")?.value.clone(),
            places: offered.cpu_units as usize / CPU_UNITS,
            tasks: (instance.running_tasks_count + instance.pending_tasks_count) as usize,
        })
    }
}

/// What of the quality of the places is worth saying beside a rate; begins with a comma.
pub(crate) async fn look(
    client: &mut LighterClient<Channel>,
    workload: &Workload,
    placed: &[Placed],
) -> Result<String> {
    if workload.kind == Kind::Plain {
        return Ok(String::new());
    }
    let ids = ids(client).await?;
    let nodes = describe(client, &ids).await?;
    let counted: usize = nodes.iter().map(|node| node.tasks).sum();
    anyhow::ensure!(
        counted == placed.len(),
        "{counted} tasks are on the nodes, {} were placed",
        placed.len()
    );
    match workload.kind {
        Kind::Plain | Kind::Binpack => Ok(packed(&nodes)),
        Kind::Spread => Ok(skew(&nodes)),
        Kind::Distinct { .. } => distinct(workload, placed),
        Kind::MemberOf => in_zones(workload, placed, &nodes),
    }
}

/// All container instances of the cluster.
pub(crate) async fn ids(client: &mut LighterClient<Channel>) -> Result<Vec<String>> {
    let (mut ids, mut next_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListContainerInstancesRequest { next_token, ..Default::default() };
        let page = client.list_container_instances(request).await?.into_inner();
        ids.extend(page.container_instance_ids);
        if page.next_token.is_empty() {
            return Ok(ids);
        }
        next_token = page.next_token;
    }
}

pub(crate) async fn describe(client: &mut LighterClient<Channel>, ids: &[String]) -> Result<Vec<Node>> {
    let mut nodes = Vec::with_capacity(ids.len());
    for some in ids.chunks(100) {
        let request = v1::DescribeContainerInstancesRequest {
            cluster: String::new(),
            container_instances: some.to_vec(),
        };
        let answer = client.describe_container_instances(request).await?.into_inner();
        anyhow::ensure!(answer.failures.is_empty(), "an instance is missing: {:?}", answer.failures.first());
        for instance in answer.container_instances {
            nodes.push(Node::of(instance)?);
        }
    }
    Ok(nodes)
}

/// Nodes used, and the fewest that could hold as many tasks: the largest ones.
fn packed(nodes: &[Node]) -> String {
    let tasks: usize = nodes.iter().map(|node| node.tasks).sum();
    let used = nodes.iter().filter(|node| node.tasks > 0).count();
    let partly = nodes.iter().filter(|node| node.tasks > 0 && node.tasks < node.places).count();
    let mut places: Vec<usize> = nodes.iter().map(|node| node.places).collect();
    places.sort_unstable_by(|a, b| b.cmp(a));
    let mut held = 0;
    let fewest = places.iter().take_while(|places| {
        let more = held < tasks;
        held += **places;
        more
    });
    let fewest = fewest.count();
    format!(
        ", {used} of {} nodes used, {partly} of them not full, the {fewest} largest would do",
        nodes.len()
    )
}

/// The most tasks of a zone less the fewest; the same of the nodes of one zone, where the fewest counts only of
/// nodes with room left.
fn skew(nodes: &[Node]) -> String {
    let mut of_zones = Vec::new();
    let mut of_nodes = 0;
    for zone in ZONES {
        let own: Vec<&Node> = nodes.iter().filter(|node| node.zone == zone).collect();
        of_zones.push(own.iter().map(|node| node.tasks).sum::<usize>());
        let most = own.iter().map(|node| node.tasks).max().unwrap_or(0);
        let with_room = own.iter().filter(|node| node.tasks < node.places);
        let fewest = with_room.map(|node| node.tasks).min().unwrap_or(most);
        of_nodes = of_nodes.max(most.saturating_sub(fewest));
    }
    let most = of_zones.iter().max().copied().unwrap_or(0);
    let fewest = of_zones.iter().min().copied().unwrap_or(0);
    format!(", skew of zones {}, of nodes with room {of_nodes}", most - fewest)
}

fn distinct(workload: &Workload, placed: &[Placed]) -> Result<String> {
    let taken: BTreeSet<(usize, &str)> =
        placed.iter().map(|placed| (workload.group(placed.call), placed.instance.as_str())).collect();
    anyhow::ensure!(
        taken.len() == placed.len(),
        "{} tasks share an instance with another of their group",
        placed.len() - taken.len()
    );
    let groups: BTreeSet<usize> = taken.iter().map(|(group, _)| *group).collect();
    Ok(format!(", {} groups, none twice on a node", groups.len()))
}

fn in_zones(workload: &Workload, placed: &[Placed], nodes: &[Node]) -> Result<String> {
    let zones: HashMap<&str, &str> =
        nodes.iter().map(|node| (node.id.as_str(), node.zone.as_str())).collect();
    let elsewhere = placed
        .iter()
        .filter(|placed| zones.get(placed.instance.as_str()).copied() != workload.zone(placed.call));
    let elsewhere = elsewhere.count();
    anyhow::ensure!(elsewhere == 0, "{elsewhere} tasks are in another zone than the one asked for");
    Ok(", all in the zone asked for".to_owned())
}
