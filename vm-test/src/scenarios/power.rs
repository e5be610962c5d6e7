//! The power goes, and comes back.

use super::Scenario;
use crate::node::shell_task;
use crate::world::{World, wire_up};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[("power_cut", power_cut)];

/// After a power cut the daemons come up by themselves, the lost task is reported once, its shared volume is there.
fn power_cut(world: &mut World) -> Result<()> {
    let image = world.image();
    let mut definition =
        shell_task("lost", &image, "echo precious > /v/file; sync; while :; do sleep 1; done");
    definition["volumes"] =
        json!([{ "name": "v", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } }]);
    definition["containerDefinitions"][0]["mountPoints"] =
        json!([{ "sourceVolume": "v", "containerPath": "/v" }]);
    let id = world.node().run_until_running(&definition)?.id().to_string();
    world.node().guest.until(20, "grep -rq precious /var/lib/lighter/volumes && sync")?;
    world.nodes[0].machine.power_cut()?;
    let node = world.node();
    wire_up(node, 1)?;
    node.guest.until(90, "lighter node ls")?;
    let task = node.wait_for(&id, "STOPPED", Duration::from_secs(120))?;
    ensure!(node.stopped_events(&id)? == 1, "not one event: {:?}", node.task_events(&id)?);
    ensure!(!task.stopped_reason().is_empty(), "no reason in {}", task.0);
    node.guest.sh("grep -rq precious /var/lib/lighter/volumes")?;
    let after = node.run_until_stopped(&shell_task("again", &image, "exit 5"))?;
    ensure!(after.exit_code("main")? == Some(5), "{}", after.0);
    node.lighter("system prune --volumes").map(drop)
}
