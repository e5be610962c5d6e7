//! A task from registration to a fetched page, and the ways it ends by itself.

use super::Scenario;
use crate::node::shell_task;
use crate::registry::LAYERS;
use crate::world::World;
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[
    ("run_and_fetch", run_and_fetch),
    ("image_of_127_layers", image_of_127_layers),
    ("essential_exit_stops_the_others", essential_exit_stops_the_others),
    ("invalid_definitions_are_refused_by_field", invalid_definitions_are_refused_by_field),
];

/// Register, run, fetch through the port mapping and by the container's address, read the log, stop.
fn run_and_fetch(world: &mut World) -> Result<()> {
    let node = world.node();
    let task = node.run_until_running(&json!({
        "family": "web",
        "containerDefinitions": [{
            "name": "main", "image": world.image(), "memory": 64,
            "portMappings": [{ "containerPort": 80, "hostPort": 8080 }],
        }],
    }))?;
    let page = node.guest.until(10, "curl -sf http://127.0.0.1:8080/")?;
    ensure!(page == "cargo from the image", "the page was {page:?}");
    let address = task.address("main")?;
    ensure!(
        node.guest.sh(&format!("curl -sf http://{address}/"))? == page,
        "the container's own address {address}"
    );
    let log = node.logs(&task, "main")?;
    ensure!(log.contains("started"), "the log was {log:?}");
    let environment = node.guest.sh(&format!("tr '\\0' '\\n' < /proc/{}/environ", task.pid("main")?))?;
    ensure!(environment.contains("FROM_IMAGE=yes"), "the environment was {environment:?}");
    let list = node.lighter("ps")?;
    ensure!(list.contains(&task.id()[..8]) && list.contains("web"), "ps said {list}");
    let stopped = node.stop(task.id())?;
    ensure!(stopped.stopped_reason().contains("the scenario is over"), "stopped with {}", stopped.0);
    ensure!(node.guest.run("curl -s -m 2 http://127.0.0.1:8080/")?.code != 0, "the port still answers");
    Ok(())
}

/// As many layers as an image may have, on the kernel of the distribution: their paths fit into one mount.
fn image_of_127_layers(world: &mut World) -> Result<()> {
    let node = world.node();
    let script = "set -- /layer-*; read top < /top; echo $# files, $top on top";
    let id = node.run(&shell_task("layered", &world.registries.layered(), script))?;
    let task = node.wait_for(&id, "STOPPED", Duration::from_secs(120))?;
    let log = node.logs(&task, "main")?;
    ensure!(log.contains(&format!("{} files, {LAYERS} on top", LAYERS - 1)), "the log was {log:?}");
    Ok(())
}

/// The exit of an essential container ends the task with ECS's code and reason; a sidecar is stopped with it.
fn essential_exit_stops_the_others(world: &mut World) -> Result<()> {
    let node = world.node();
    let task = node.run_until_stopped(&json!({
        "family": "pair",
        "containerDefinitions": [
            { "name": "main", "image": world.image(), "memory": 32, "command": ["sh", "-c", "sleep 1; exit 9"] },
            { "name": "side", "image": world.image(), "memory": 32, "essential": false, "stopTimeout": 30,
              "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"] },
        ],
    }))?;
    ensure!(task.exit_code("main")? == Some(9), "{}", task.0);
    ensure!(task.exit_code("side")? == Some(0), "{}", task.0);
    ensure!(task.0["stopCode"] == "EssentialContainerExited", "{}", task.0);
    ensure!(task.stopped_reason() == "Essential container in task exited", "{}", task.0);
    Ok(())
}

/// What is wrong is said when it is registered, with the name of the field.
fn invalid_definitions_are_refused_by_field(world: &mut World) -> Result<()> {
    let node = world.node();
    let good = || shell_task("bad", &world.image(), "true");
    type Spoil = fn(&mut serde_json::Value);
    let cases: [(&str, Spoil); 4] = [
        ("memory", |d| d["containerDefinitions"][0]["memory"] = json!(5)),
        ("portMappings", |d| {
            d["containerDefinitions"][0]["portMappings"] = json!([{ "containerPort": 70000 }])
        }),
        ("bogusField", |d| d["containerDefinitions"][0]["bogusField"] = json!(true)),
        ("nowhere", |d| {
            d["containerDefinitions"][0]["mountPoints"] =
                json!([{ "sourceVolume": "nowhere", "containerPath": "/x" }]);
        }),
    ];
    for (field, spoil) in cases {
        let mut definition = good();
        spoil(&mut definition);
        let done = node.try_register(&definition)?;
        ensure!(done.code != 0, "a definition with a wrong {field} was registered");
        ensure!(done.err.contains(field), "the refusal does not name {field}: {}", done.err);
    }
    Ok(())
}
