//! `lighter node attribute` and `lighter node rm`.
//! In: a node, `NAME=VALUE` and `NAME-`. Out: its attributes, with who says them.
//! Never: sets some and not others of what one call can hold.

use crate::args::{AttributeArgs, Format, Global, RemoveNodeArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::Table;
use crate::{json, names, output, words};
use lighter_proto::v1;

pub async fn run(global: &Global, client: &mut Client, args: AttributeArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let (set, gone) = split(&args.node, &args.changes)?;
    if !set.is_empty() {
        let request = v1::PutAttributesRequest { cluster: cluster.clone(), attributes: set };
        client.put_attributes(request).await.map_err(Failure::rpc("set the attributes"))?;
    }
    if !gone.is_empty() {
        let request = v1::DeleteAttributesRequest { cluster: cluster.clone(), attributes: gone };
        client.delete_attributes(request).await.map_err(Failure::rpc("take the attributes away"))?;
    }
    if !args.changes.is_empty() {
        return Ok(());
    }
    let node = names::node(client, &cluster, &args.node).await?;
    if global.output == Format::Json {
        return output::json(&json::attributes(&node.attributes));
    }
    let mut table = Table::new(&["ATTRIBUTE", "VALUE", "SET BY"]);
    for attribute in node.attributes {
        let source = words::attribute_source(attribute.source).to_lowercase();
        table.row([attribute.name, attribute.value, source]);
    }
    super::print_table(global, &table)
}

type Targets = Vec<v1::TargetAttribute>;

/// What to set and what to take away.
fn split(node: &str, changes: &[String]) -> Result<(Targets, Targets), Failure> {
    let (mut set, mut gone) = (Vec::new(), Vec::new());
    for change in changes {
        let target = |name: &str, value: &str| v1::TargetAttribute {
            container_instance: node.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        match (change.split_once('='), change.strip_suffix('-')) {
            (Some((name, value)), _) => set.push(target(name, value)),
            (None, Some(name)) => gone.push(target(name, "")),
            (None, None) => {
                let message = format!("{change:?} changes nothing");
                let next = "write NAME=VALUE to set, NAME- to take away".to_owned();
                return Err(Failure::Refused { message, next });
            }
        }
    }
    Ok((set, gone))
}

pub async fn remove(global: &Global, client: &mut Client, args: RemoveNodeArgs) -> Result<(), Failure> {
    let request = v1::DeregisterContainerInstanceRequest {
        cluster: super::cluster(args.cluster),
        container_instance: args.node,
        force: args.force,
    };
    let answer = client.deregister_container_instance(request).await;
    let node = answer.map_err(Failure::rpc("deregister the node"))?.into_inner().container_instance;
    let node = node.unwrap_or_default();
    if global.output == Format::Json {
        return output::json(&json::node(&node));
    }
    if global.quiet {
        return output::line(&node.container_instance_id);
    }
    output::line(&format!("{} {}", node.name, words::instance_status(node.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_set_or_take_away() {
        let changes = ["rack=r1", "zone-", "note=a-b="].map(str::to_owned);
        let (set, gone) = split("n", &changes).unwrap();
        let set: Vec<_> = set.iter().map(|a| (a.name.as_str(), a.value.as_str())).collect();
        assert_eq!(set, [("rack", "r1"), ("note", "a-b=")]);
        assert_eq!(gone[0].name, "zone");
        assert!(split("n", &["rack".to_owned()]).is_err());
    }
}
