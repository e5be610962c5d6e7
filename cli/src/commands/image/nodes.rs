//! `lighter image pull|ls|prune --node … | --all`: the images of other nodes, through the control plane.
//! In: nodes, an order. Out: what each node says of it; a failure that names the nodes that failed.
//! Never: sends credentials; a node pulls with its own.

use super::{as_json, image_row};
use crate::args::{Format, Global, ImageNodes};
use crate::failure::Failure;
use crate::table::Table;
use crate::{client, output, time, words};
use lighter_proto::v1;
use lighter_proto::v1::image_report::Report;
use lighter_proto::v1::node_image_report::Said;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What one node said, and how it ended.
#[derive(Debug, Default)]
struct Node {
    id: String,
    /// By image: how many layers were done when it was said last.
    layers_said: BTreeMap<String, u32>,
    pulled: Vec<v1::ImagePulled>,
    images: Vec<v1::LocalImage>,
    pruned: Option<v1::ImagesPruned>,
    ended: Option<v1::ImageOrderEnded>,
}

/// By name.
type Nodes = BTreeMap<String, Node>;

/// Pulls these images, and those of the task definition; empty: none.
pub async fn pull(
    global: &Global,
    nodes: ImageNodes,
    image: Option<String>,
    pull_behavior: String,
    task_definition: String,
) -> Result<(), Failure> {
    let images: Vec<String> = image.into_iter().collect();
    let order = v1::image_order::Order::Pull(v1::ImagePull { images, pull_behavior });
    let what = "pull the images";
    let said = ask(global, nodes, order, task_definition, what).await?;
    if global.output == Format::Json {
        output::json(&said.iter().map(|(name, node)| pull_json(name, node)).collect())?;
    } else {
        let mut table = Table::new(&["NODE", "IMAGE", "DIGEST"]);
        for (name, pulled) in said.iter().flat_map(|(name, node)| node.pulled.iter().map(move |p| (name, p)))
        {
            let digest =
                if pulled.error.is_empty() { pulled.image_digest.clone() } else { "failed".to_owned() };
            table.row([name.clone(), pulled.image.clone(), digest]);
        }
        super::super::print_table(global, &table)?;
    }
    result(what, &said)
}

fn pull_json(name: &str, node: &Node) -> Value {
    let images = node.pulled.iter().map(
        |pulled| json!({"image": pulled.image, "imageDigest": pulled.image_digest, "error": pulled.error}),
    );
    json!({"node": name, "containerInstanceId": node.id, "images": images.collect::<Vec<_>>(), "error": error(node)})
}

pub async fn ls(global: &Global, nodes: ImageNodes) -> Result<(), Failure> {
    let order = v1::image_order::Order::List(v1::ImageList {});
    let what = "list the images";
    let said = ask(global, nodes, order, String::new(), what).await?;
    if global.output == Format::Json {
        let of_node = |(name, node): (&String, &Node)| {
            let images: Vec<Value> = node.images.iter().map(as_json).collect();
            json!({"node": name, "containerInstanceId": node.id, "images": images, "error": error(node)})
        };
        output::json(&said.iter().map(of_node).collect())?;
        return result(what, &said);
    }
    let mut table = Table::new(&["NODE", "IMAGE", "DIGEST", "SIZE", "USED", "IN USE"]);
    let now = time::now_unix_ms();
    for (name, image) in said.iter().flat_map(|(name, node)| node.images.iter().map(move |i| (name, i))) {
        let [reference, digest, size, used, in_use] = image_row(image, now);
        table.row([name.clone(), reference, digest, size, used, in_use]);
    }
    super::super::print_table(global, &table)?;
    result(what, &said)
}

pub async fn prune(global: &Global, nodes: ImageNodes) -> Result<(), Failure> {
    let order = v1::image_order::Order::Prune(v1::ImagePrune {});
    let what = "prune the images";
    let said = ask(global, nodes, order, String::new(), what).await?;
    if global.output == Format::Json {
        let of_node = |(name, node): (&String, &Node)| {
            let v1::ImagesPruned { images, layers, bytes } = node.pruned.unwrap_or_default();
            json!({"node": name, "containerInstanceId": node.id, "images": images, "layers": layers,
                "bytes": bytes, "error": error(node)})
        };
        output::json(&said.iter().map(of_node).collect())?;
        return result(what, &said);
    }
    let mut table = Table::new(&["NODE", "IMAGES", "LAYERS", "FREED"]);
    for (name, pruned) in said.iter().filter_map(|(name, node)| Some((name, node.pruned.as_ref()?))) {
        let (images, layers) = (pruned.images.to_string(), pruned.layers.to_string());
        table.row([name.clone(), images, layers, words::bytes(pruned.bytes)]);
    }
    super::super::print_table(global, &table)?;
    result(what, &said)
}

/// Passes the order on and hears every node to its end.
async fn ask(
    global: &Global,
    nodes: ImageNodes,
    order: v1::image_order::Order,
    task_definition: String,
    what: &'static str,
) -> Result<Nodes, Failure> {
    let mut client = client::connect(global).await?;
    let request = v1::OrderImagesRequest {
        cluster: super::super::cluster(nodes.cluster),
        container_instances: nodes.node,
        all: nodes.all,
        order: Some(v1::ImageOrder { order: Some(order) }),
        task_definition,
    };
    let mut reports = client.order_images(request).await.map_err(Failure::rpc(what))?.into_inner();
    let mut said = Nodes::new();
    while let Some(message) = reports.message().await.map_err(Failure::rpc(what))? {
        let node = said.entry(message.name.clone()).or_default();
        node.id = message.container_instance_id;
        match message.said {
            Some(Said::Ended(ended)) => {
                if !global.quiet && !ended.reason.is_empty() {
                    output::note(&format!("{}: {}", message.name, ended.message));
                }
                node.ended = Some(ended);
            }
            Some(Said::Report(report)) => take(global, &message.name, node, report),
            None => {}
        }
    }
    Ok(said)
}

fn take(global: &Global, name: &str, node: &mut Node, report: v1::ImageReport) {
    match report.report {
        Some(Report::Progress(step)) => {
            let before = node.layers_said.insert(step.image.clone(), step.layers_done);
            if before != Some(step.layers_done) && !global.quiet {
                output::note(&format!("{name}: {}", super::step(&step.image, &step)));
            }
        }
        Some(Report::Pulled(pulled)) => {
            if pulled.error.is_empty() && !global.quiet {
                output::note(&format!("{name}: {} is there", pulled.image));
            }
            node.pulled.push(pulled);
        }
        Some(Report::Images(list)) => node.images.extend(list.images),
        Some(Report::Pruned(pruned)) => node.pruned = Some(pruned),
        // Of a newer agent.
        None => {}
    }
}

/// Why a node did not do it.
fn error(node: &Node) -> Option<&str> {
    match &node.ended {
        Some(ended) if ended.reason.is_empty() => None,
        Some(ended) => Some(&ended.message),
        None => Some("it was cut off before its end"),
    }
}

/// A failure that names the nodes that failed.
fn result(what: &str, said: &Nodes) -> Result<(), Failure> {
    let failed: Vec<(&String, &str)> =
        said.iter().filter_map(|(name, node)| Some((name, error(node)?))).collect();
    if failed.is_empty() {
        return match said.is_empty() {
            true => Err(Failure::NotFound {
                message: format!("cannot {what}: there is no active node"),
                next: "lighter node ls".to_owned(),
            }),
            false => Ok(()),
        };
    }
    let mut message = format!("cannot {what} on {} of {} nodes", failed.len(), said.len());
    for (name, words) in failed {
        message.push_str(&format!("\n  because: {name}: {words}"));
    }
    let next = "lighter node ls; then the same again: what is there already is not fetched again";
    Err(Failure::Partial { message, next: next.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_that_failed_are_named_and_a_node_without_an_end_is_one_of_them() {
        let ended = |reason: &str, message: &str| {
            Some(v1::ImageOrderEnded { reason: reason.to_owned(), message: message.to_owned() })
        };
        let node = |ended| Node { ended, ..Node::default() };
        let mut said = Nodes::from([("a".to_owned(), node(ended("", "")))]);
        assert!(result("pull the images", &said).is_ok());
        said.insert("b".to_owned(), node(ended("NODE_NOT_CONNECTED", "it is away")));
        said.insert("c".to_owned(), node(None));
        let failure = result("pull the images", &said).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "cannot pull the images on 2 of 3 nodes\n  because: b: it is away\n  because: c: it was cut off before its end"
        );
        assert_eq!(failure.exit() as u8, 1);
        assert_eq!(result("pull the images", &Nodes::new()).unwrap_err().exit() as u8, 4);
    }
}
