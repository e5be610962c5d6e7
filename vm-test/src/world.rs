//! The stage of a group of scenarios: machines with Lighter installed, joined and idle.
//! In: the shared image, payload and registries. Out: nodes; the first one also runs the control plane.
//! Owns: the machines and their baselines. Never: knows a scenario.

use crate::host;
use crate::hub::Hub;
use crate::image::GuestImage;
use crate::machine::Machine;
use crate::node::Node;
use crate::oracle::{self, Inventory};
use crate::registry::Registries;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What all groups share.
#[derive(Clone)]
pub struct Shared {
    pub image: GuestImage,
    pub payload: PathBuf,
    pub registries: Arc<Registries>,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub registries: Arc<Registries>,
    baselines: Vec<Inventory>,
    hub: Hub,
    /// Dropped last: the hub's socket is in it.
    _folder: tempfile::TempDir,
}

/// The address of machine `n` (from 1) on the wire between the guests.
pub fn wire_address(n: usize) -> String {
    format!("192.168.77.{n}")
}

impl World {
    /// Loads `count` machines, installs Lighter, starts the control plane on the first and joins all by token.
    pub fn raise(shared: &Shared, group: &str, count: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&host::temporary("wire")).tempdir()?;
        let hub = Hub::start(folder.path())?;
        let nodes = (1..=count)
            .map(|n| {
                let name = if count == 1 { group.to_string() } else { format!("{group}{n}") };
                let node = Node::new(Machine::load(&name, &shared.image, &shared.payload, Some(&hub))?);
                install(&node, n, &shared.registries)?;
                Ok(node)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut world = Self {
            nodes,
            registries: shared.registries.clone(),
            baselines: Vec::new(),
            hub,
            _folder: folder,
        };
        world.raise_lighter().map_err(|error| error.context(world.journals()))?;
        world.baselines =
            world.nodes.iter().map(|node| Inventory::take(&node.guest)).collect::<Result<_>>()?;
        Ok(world)
    }

    fn raise_lighter(&self) -> Result<()> {
        self.start_control()?;
        (1..=self.nodes.len()).try_for_each(|n| self.join(n))?;
        self.warm_up()
    }

    /// The last words of the daemons of every machine.
    pub fn journals(&self) -> String {
        self.nodes
            .iter()
            .map(|node| format!("journal of {}:\n{}\n", node.guest.name(), node.journal_tail()))
            .collect()
    }

    /// The machine that has the control plane, and in most scenarios is the only one.
    pub fn node(&self) -> &Node {
        &self.nodes[0]
    }

    pub fn image(&self) -> String {
        self.registries.image()
    }

    /// The no-leak oracle: every machine holds what it held before the first scenario.
    pub fn settle(&self) -> Result<()> {
        self.nodes
            .iter()
            .zip(&self.baselines)
            .try_for_each(|(node, baseline)| oracle::settle(&node.guest, baseline))
    }

    pub fn baseline(&self) -> &Inventory {
        &self.baselines[0]
    }

    fn start_control(&self) -> Result<()> {
        let node = self.node();
        node.guest
            .write("/etc/lighter/control.toml", &format!("server_names = [\"{}\"]\n", wire_address(1)))?;
        node.guest.sh("systemctl enable -q --now lighter-control")?;
        node.guest.until(60, "lighter node ls").context("the control plane does not answer").map(drop)
    }

    /// A token made on the control machine, used on machine `n`, whose agent is then started.
    pub fn join(&self, n: usize) -> Result<()> {
        let token = self.node().lighter("token create -q")?;
        let node = &self.nodes[n - 1];
        node.lighter(&format!("agent join https://{}:7443 --token {token}", wire_address(1)))?;
        node.guest.sh("systemctl enable -q --now lighter-tasks lighter-agent")?;
        self.node()
            .guest
            .until(90, &format!("lighter node show {} -o json | jq -e .agentConnected", node.guest.name()))
            .with_context(|| format!("node {n} did not join: {}", node.journal_tail()))
            .map(drop)
    }

    /// One task on every node, so that what is made once and kept (the bridge, the pulled image, empty folders)
    /// is in the baseline.
    fn warm_up(&self) -> Result<()> {
        let mut definition = crate::node::shell_task("warm-up", &self.image(), "sleep 1");
        definition["volumes"] = json!([
            { "name": "own" },
            { "name": "shared", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } },
        ]);
        definition["containerDefinitions"][0]["mountPoints"] = json!([
            { "sourceVolume": "own", "containerPath": "/own" },
            { "sourceVolume": "shared", "containerPath": "/shared" },
        ]);
        definition["containerDefinitions"][0]["portMappings"] =
            json!([{ "containerPort": 80, "hostPort": 8079 }]);
        self.node().register(&definition)?;
        // At once, so that placement spreads them over the nodes.
        let ids = self.nodes.iter().map(|_| self.node().start("warm-up")).collect::<Result<Vec<_>>>()?;
        for id in ids {
            self.node().wait_for(&id, "STOPPED", Duration::from_secs(90))?;
        }
        for node in &self.nodes {
            node.lighter("system prune --volumes")?;
        }
        // The test image went with the leftovers; a scenario pulls it again, and what it pulls is not compared.
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.hub.end();
    }
}

/// Puts machine `n` on the wire; done again after a boot.
pub fn wire_up(node: &Node, n: usize) -> Result<()> {
    let address = wire_address(n);
    node.guest
        .sh(&format!("ip link set eth1 address 52:54:00:77:00:{n:02x}; ip addr add {address}/24 dev eth1; ip link set eth1 up"))
        .map(drop)
}

fn install(node: &Node, n: usize, registries: &Registries) -> Result<()> {
    wire_up(node, n)?;
    node.guest.sh("mkdir -p /srv/allowed; BIN_DIR=/payload/bin bash /payload/packaging/install.sh")?;
    let mut settings = String::from("allow_devices = true\nallow_host_paths = [\"/srv/allowed\"]\n");
    for host in [registries.open(), registries.closed(), registries.dead()] {
        settings.push_str(&format!("[registries.\"{host}\"]\nhttp = true\n"));
    }
    node.guest.write("/etc/lighter/agent.toml", &settings)
}

/// Groups run at once, each on a thread that owns its machines.
pub fn at_once<T: Send + 'static>(jobs: Vec<Box<dyn FnOnce() -> T + Send>>) -> Vec<thread::Result<T>> {
    let handles: Vec<_> = jobs.into_iter().map(thread::spawn).collect();
    handles.into_iter().map(thread::JoinHandle::join).collect()
}
