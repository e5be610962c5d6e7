//! `lighter orphan`: tasks that run on nodes and that the control plane's store does not know, after it
//! was set back or made anew. In: a cluster, an id. Out: a table; the task an orphan has become.
//! Never: decides about more than the one that was named.

use crate::args::{Format, Global, OrphanCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::Table;
use crate::{json, output, words};
use lighter_proto::v1;

pub async fn run(global: &Global, client: &mut Client, command: OrphanCommand) -> Result<(), Failure> {
    let task = match command {
        OrphanCommand::Ls { node, cluster } => return ls(global, client, node, cluster).await,
        OrphanCommand::Adopt { task, cluster } => {
            let request = v1::AdoptOrphanRequest { cluster: super::cluster(cluster), task };
            client.adopt_orphan(request).await.map_err(Failure::rpc("adopt the orphan"))?.into_inner().task
        }
        OrphanCommand::Stop { task, reason, cluster } => {
            let cluster = super::cluster(cluster);
            let request = v1::StopOrphanRequest { cluster, task, reason: reason.unwrap_or_default() };
            client.stop_orphan(request).await.map_err(Failure::rpc("stop the orphan"))?.into_inner().task
        }
    };
    let task = task.unwrap_or_default();
    match global.output {
        Format::Json => output::json(&json::task(&task)),
        _ => output::line(&task.task_id),
    }
}

async fn ls(
    global: &Global,
    client: &mut Client,
    node: Option<String>,
    cluster: Option<String>,
) -> Result<(), Failure> {
    let container_instance = node.unwrap_or_default();
    let request = v1::ListOrphansRequest { cluster: super::cluster(cluster), container_instance };
    let orphans = client.list_orphans(request).await.map_err(Failure::rpc("list orphans"))?;
    let orphans = orphans.into_inner().orphans;
    if global.output == Format::Json {
        return output::json(&json::orphans(&orphans));
    }
    if global.quiet {
        return orphans.iter().try_for_each(|orphan| output::line(&orphan.task_id));
    }
    let mut table = Table::new(&["ORPHAN", "DEFINITION", "STATUS", "NODE", "CPU", "MEMORY"]);
    for orphan in orphans {
        let resources = orphan.resources.unwrap_or_default();
        table.row([
            orphan.task_id,
            orphan.task_definition,
            words::task_status(orphan.last_status).to_owned(),
            orphan.container_instance_name,
            resources.cpu_units.to_string(),
            format!("{} MiB", resources.memory_mib),
        ]);
    }
    super::print_table(global, &table)
}
