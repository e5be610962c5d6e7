//! `lighter system df|prune`: the disk of this node, through its agent's Unix socket.
//! In: the socket. Out: a table, or JSON. Never: touches a file of the agent itself.

use crate::args::{AgentSocket, Format, Global};
use crate::client;
use crate::failure::Failure;
use crate::table::Table;
use crate::{output, words};
use lighter_proto::v1;
use serde_json::{Value, json};

pub async fn df(global: &Global, socket: &AgentSocket) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let answer = agent.get_disk_usage(v1::GetDiskUsageRequest {}).await;
    let rows = answer.map_err(Failure::rpc("ask the agent for its disk usage"))?.into_inner().rows;
    if global.output == Format::Json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({"kind": row.kind, "count": row.count, "inUse": row.in_use, "bytes": row.bytes,
                       "reclaimableBytes": row.reclaimable_bytes})
            })
            .collect();
        return output::json(&Value::from(rows));
    }
    let mut table = Table::new(&["KIND", "COUNT", "IN USE", "SIZE", "RECLAIMABLE"]);
    for row in &rows {
        table.row([
            row.kind.clone(),
            row.count.to_string(),
            row.in_use.to_string(),
            words::bytes(row.bytes),
            words::bytes(row.reclaimable_bytes),
        ]);
    }
    super::print_table(global, &table)
}

pub async fn prune(global: &Global, socket: &AgentSocket, volumes: bool) -> Result<(), Failure> {
    let mut agent = client::connect_agent(&socket.agent_socket).await?;
    let answer = agent.prune(v1::PruneRequest { volumes }).await;
    let freed = answer.map_err(Failure::rpc("prune"))?.into_inner();
    if global.output == Format::Json {
        return output::json(
            &json!({"images": freed.images, "layers": freed.layers, "volumes": freed.volumes, "bytes": freed.bytes}),
        );
    }
    output::line(&format!(
        "removed {} images, {} layers, {} volumes: {}",
        freed.images,
        freed.layers,
        freed.volumes,
        words::bytes(freed.bytes)
    ))
}
