//! Two nodes joined by token.

use super::Scenario;
use crate::world::{World, wire_address};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[("two_nodes_with_a_task_on_each", two_nodes_with_a_task_on_each)];

/// Fewest tasks first puts one on each; both are fetched from the other machine; a used token is refused.
fn two_nodes_with_a_task_on_each(world: &mut World) -> Result<()> {
    let control = world.node();
    for node in &world.nodes {
        node.guest.write("/srv/allowed/page/index.html", node.guest.name())?;
    }
    control.register(&json!({
        "family": "pages",
        "volumes": [{ "name": "page", "host": { "sourcePath": "/srv/allowed/page" } }],
        "containerDefinitions": [{
            "name": "main", "image": world.image(), "memory": 64,
            "portMappings": [{ "containerPort": 80, "hostPort": 8090 }],
            "mountPoints": [{ "sourceVolume": "page", "containerPath": "/www", "readOnly": true }],
        }],
    }))?;
    let ids = [control.start("pages")?, control.start("pages")?];
    let mut homes = Vec::new();
    for id in &ids {
        let task = control.wait_for(id, "RUNNING", Duration::from_secs(90))?;
        homes.push(task.0["containerInstanceId"].to_string());
    }
    ensure!(homes[0] != homes[1], "both tasks are on {}", homes[0]);
    for (from, to) in [(0, 2), (1, 1)] {
        let url = format!("http://{}:8090/", wire_address(to));
        let page = world.nodes[from].guest.until(20, &format!("curl -sf -m 5 {url}"))?;
        ensure!(page == world.nodes[to - 1].guest.name(), "{url} served {page:?}");
    }
    // The logs of a task on the other node come through the control plane.
    for id in &ids {
        let log = control.lighter(&format!("logs {id}"))?;
        ensure!(log.contains("started"), "the log of {id} is {log:?}");
        control.stop(id)?;
    }
    for node in &world.nodes {
        node.guest.sh("rm -r /srv/allowed/page")?;
    }
    used_token_is_refused(world)
}

fn used_token_is_refused(world: &World) -> Result<()> {
    let token = world.node().lighter("token create -q")?;
    let join = |folder: &str| {
        format!(
            "lighter agent join https://{}:7443 --token {token} --name {folder} --data-dir /tmp/{folder}",
            wire_address(1)
        )
    };
    let second = &world.nodes[1];
    second.guest.sh(&join("joined-once"))?;
    let again = second.guest.run(&join("joined-twice"))?;
    second.guest.sh("rm -rf /tmp/joined-*")?;
    ensure!(again.code != 0, "a token was good twice");
    ensure!(
        again.err.to_lowercase().contains("token"),
        "the refusal does not speak of the token: {}",
        again.err
    );
    Ok(())
}
