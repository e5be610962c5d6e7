//! The power goes, and comes back.

use super::Scenario;
use crate::node::shell_task;
use crate::world::{World, wire_up};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[("power_cut", power_cut), ("ordered_shutdown", ordered_shutdown)];

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
    let mut resumed = shell_task("resumed", &image, "while :; do sleep 1; done");
    resumed["containerDefinitions"][0]["restartPolicy"] = json!({ "enabled": true });
    let resumed = world.node().run_until_running(&resumed)?.id().to_string();
    world.node().guest.until(20, "grep -rq precious /var/lib/lighter/volumes && sync")?;
    world.nodes[0].machine.power_cut()?;
    let node = world.node();
    wire_up(node, 1)?;
    node.guest.until(90, "lighter node ls")?;
    let task = node.wait_for(&id, "STOPPED", Duration::from_secs(120))?;
    ensure!(node.stopped_events(&id)? == 1, "not one event: {:?}", node.task_events(&id)?);
    ensure!(!task.stopped_reason().is_empty(), "no reason in {}", task.0);
    node.guest.sh("grep -rq precious /var/lib/lighter/volumes")?;
    // The one with a restart policy runs again, under its own id.
    node.guest.until(60, &format!("cat /sys/fs/cgroup/system.slice/lighter-tasks.service/tasks/{resumed}/main/cgroup.procs | grep -q ."))?;
    ensure!(node.stopped_events(&resumed)? == 0, "reported: {:?}", node.task_events(&resumed)?);
    node.stop(&resumed)?;
    let after = node.run_until_stopped(&shell_task("again", &image, "exit 5"))?;
    ensure!(after.exit_code("main")? == Some(5), "{}", after.0);
    node.lighter("system prune --volumes").map(drop)
}

/// At a shutdown each task gets its stop signal and its time before agent and network go; the report is out before.
fn ordered_shutdown(world: &mut World) -> Result<()> {
    let image = world.image();
    let script = "trap 'sleep 2; echo told > /v/told; sync; exit 9' TERM; while :; do sleep 0.1; done";
    let mut definition = shell_task("polite", &image, script);
    definition["containerDefinitions"][0]["stopTimeout"] = json!(20);
    definition["volumes"] = json!([{ "name": "v", "host": { "sourcePath": "/srv/allowed" } }]);
    definition["containerDefinitions"][0]["mountPoints"] =
        json!([{ "sourceVolume": "v", "containerPath": "/v" }]);
    let id = world.node().run_until_running(&definition)?.id().to_string();
    let node = world.node();
    // As systemd does it on the way down; a second boot would cost this tier a minute.
    node.guest.sh("systemctl stop lighter-shutdown")?;
    node.guest.sh("grep -q told /srv/allowed/told && rm /srv/allowed/told")?;
    let stopped = node.wait_for(&id, "STOPPED", Duration::from_secs(20))?;
    ensure!(stopped.exit_code("main")? == Some(9), "{}", stopped.0);
    ensure!(stopped.0["stopCode"] == "TerminationNotice", "{}", stopped.0);
    let order = node.guest.sh("systemctl show -p After --value lighter-shutdown")?;
    ensure!(order.contains("lighter-agent.service"), "not stopped before the agent: {order}");
    node.guest.sh("systemctl restart lighter-agent && systemctl start lighter-shutdown")?;
    node.guest.until(30, "lighter node ls")?;
    let again = node.run_until_stopped(&shell_task("again", &image, "exit 5"))?;
    ensure!(again.exit_code("main")? == Some(5), "{}", again.0);
    Ok(())
}
