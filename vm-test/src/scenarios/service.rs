//! A service over two nodes, through what happens to services: a bad revision, a drain, the death and return of a node.

use super::Scenario;
use crate::node::Node;
use crate::world::{World, wire_up};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

pub(super) const ALL: &[Scenario] = &[
    ("service_survives_a_bad_revision_and_a_drain", service_survives_a_bad_revision_and_a_drain),
    ("service_survives_a_dead_node_that_returns", service_survives_a_dead_node_that_returns),
];

/// Of a healthy task in an endpoint list: `address:port`.
const ENDPOINTS: &str = "lighter service endpoints web";

/// Tasks whose container has processes, as the kernel has them.
const RUNNING: &str = "cd /sys/fs/cgroup/system.slice/lighter-tasks.service/tasks; grep -l . */main/cgroup.procs 2>/dev/null \
     | cut -d/ -f1 | sort";

/// A web server that says its revision; a check finds out in a second whether it answers.
fn definition(image: &str, revision: &str, command: &str) -> Value {
    json!({
        "family": "web",
        "containerDefinitions": [{
            "name": "main", "image": image, "memory": 64,
            "portMappings": [{ "containerPort": 80 }],
            "command": ["sh", "-c", format!("mkdir /tmp/w; echo {revision} > /tmp/w/index.html; {command}")],
            "healthCheck": { "command": ["CMD-SHELL", "wget -qO- http://127.0.0.1/"], "interval": 5 },
        }],
    })
}

/// Two tasks of a good revision, one on each node.
fn create(world: &World) -> Result<()> {
    let node = world.node();
    node.register(&definition(&world.image(), "good", "exec httpd -f -p 80 -h /tmp/w"))?;
    let service = json!({
        "serviceName": "web", "taskDefinition": "web", "desiredCount": 2,
        "deploymentConfiguration": { "deploymentCircuitBreaker": { "enable": true, "rollback": true } },
        "deregistrationDelaySeconds": 1,
        "nodeSilence": { "replace": true, "lostAfterSeconds": 25 },
    });
    node.guest.write("/tmp/service.json", &service.to_string())?;
    node.lighter("service create /tmp/service.json --timeout 2m")?;
    one_on_each(world)?;
    answered(world).map(drop)
}

/// The tasks that run on each node, in the kernel's words.
fn running(world: &World) -> Result<Vec<Vec<String>>> {
    let of = |node: &Node| Ok(node.guest.sh(RUNNING)?.lines().map(str::to_owned).collect());
    world.nodes.iter().map(of).collect()
}

/// Waits until just so many tasks run on a machine.
fn runs(node: &Node, count: usize, limit_s: u32) -> Result<()> {
    let condition =
        format!("ids=$({RUNNING}); printf %s \"$ids\"; [ $(printf %s \"$ids\" | grep -c .) = {count} ]");
    node.guest.until(limit_s, &condition).map(drop)
}

fn one_on_each(world: &World) -> Result<()> {
    world.nodes.iter().try_for_each(|node| runs(node, 1, 60))
}

/// Both endpoints, asked from every machine: each serves the good revision, and nftables leads its port on.
fn answered(world: &World) -> Result<String> {
    let list = world
        .node()
        .guest
        .until(30, &format!("{ENDPOINTS} | tee /tmp/list; [ $(wc -l < /tmp/list) = 2 ]"))?;
    for node in &world.nodes {
        for endpoint in list.lines() {
            let page = node.guest.until(20, &format!("curl -sf -m 5 http://{endpoint}/"))?;
            ensure!(page == "good", "{endpoint} said {page:?} to {}", node.guest.name());
            let (address, port) = endpoint.rsplit_once(':').context("an endpoint without a port")?;
            let leads = format!("! ip -o addr | grep -qw {address} || nft list ruleset | grep -qw {port}");
            node.guest.sh(&leads)?;
        }
    }
    Ok(list)
}

fn service(world: &World) -> Result<Value> {
    world.node().json("service describe web")
}

fn remove(world: &World) -> Result<()> {
    world.node().lighter("service rm web --force")?;
    world.node().guest.sh("rm /tmp/service.json /tmp/list")?;
    world.nodes.iter().try_for_each(|node| runs(node, 0, 20))
}

/// The breaker goes back without touching what runs; a drain moves what is there and its end brings it back.
fn service_survives_a_bad_revision_and_a_drain(world: &mut World) -> Result<()> {
    create(world)?;
    let node = world.node();
    let (before, listed) = (running(world)?, answered(world)?);
    node.register(&definition(&world.image(), "bad", "exit 1"))?;
    let bad = node.try_lighter("service update web --task-definition web --timeout 2m")?;
    ensure!(bad.code != 0 && bad.err.contains("was rolled back to web:"), "{} {}", bad.out, bad.err);
    let told = service(world)?;
    ensure!(told["deployments"][1]["rolloutState"] == "FAILED", "{told}");
    ensure!(told["deployments"][0]["rollbackOf"] == told["deployments"][1]["id"], "{told}");
    ensure!(running(world)? == before && answered(world)? == listed, "a healthy task was touched: {told}");
    let second = world.nodes[1].guest.name();
    node.lighter(&format!("node drain {second} --wait"))?;
    runs(&world.nodes[1], 0, 5)?;
    runs(node, 2, 5)?;
    answered(world)?;
    node.lighter(&format!("node activate {second}"))?;
    one_on_each(world)?;
    answered(world)?;
    remove(world)
}

/// Its tasks are replaced while it is away; it boots, is back, and gets its share again.
fn service_survives_a_dead_node_that_returns(world: &mut World) -> Result<()> {
    create(world)?;
    let before = running(world)?;
    // The wire is put on after a boot only, so that it is dead until then for the others.
    world.nodes[1].machine.power_cut()?;
    runs(world.node(), 2, 60)?;
    let list = answered_by_first(world)?;
    ensure!(running(world)?[0].contains(&before[0][0]), "the healthy one was touched: {list}");
    wire_up(&world.nodes[1], 2)?;
    one_on_each(world)?;
    answered(world)?;
    let after = running(world)?;
    ensure!(!after[1].contains(&before[1][0]), "what was replaced runs again: {before:?} {after:?}");
    remove(world)
}

/// Both are on the first machine, and it answers for both.
fn answered_by_first(world: &World) -> Result<String> {
    let guest = &world.node().guest;
    let list = guest
        .until(30, &format!("{ENDPOINTS} | tee /tmp/list; [ $(grep -c '^192.168.77.1:' /tmp/list) = 2 ]"))?;
    for endpoint in list.lines() {
        let page = guest.until(20, &format!("curl -sf -m 5 http://{endpoint}/"))?;
        ensure!(page == "good", "{endpoint} said {page:?}");
    }
    Ok(list)
}
