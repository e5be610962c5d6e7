//! A cluster whose nodes have joined, kept as a directory; each run begins with a copy of it.
//! In: a plan. Out: running processes on a copy. Owns: the directories.

use super::etcd::{Etcd, free_port};
use super::fleet::Fleet;
use super::join;
use super::plan::Plan;
use super::plane::Plane;
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::Channel;

/// For anything that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redb,
    Etcd,
}

pub(crate) struct Bed {
    pub agents: usize,
    kind: Kind,
    scratch: PathBuf,
    template: TempDir,
    bin_dir: PathBuf,
}

/// Everything that runs in one run; ends with the value.
pub(crate) struct Running {
    pub fleet: Fleet,
    pub plane: Plane,
    pub client: LighterClient<Channel>,
    pub etcd: Option<Etcd>,
    pub dir: TempDir,
}

impl Bed {
    pub(crate) async fn prepare(scratch: &Path, plan: &Plan, kind: Kind, agents: usize) -> Result<Self> {
        let template = tempfile::tempdir_in(scratch)?;
        let bin_dir = std::path::absolute(&plan.bin_dir)?;
        let bed = Self { agents, kind, scratch: scratch.to_owned(), template, bin_dir };
        let (plane, etcd) = bed.processes(bed.template.path())?;
        let mut client = plane.serving(PATIENCE).await?;
        join::join(&plane, agents, plan.places_per_node(agents), &bed.identities()).await?;
        std::fs::write(bed.ca(), plane.admin()?.ca)?;
        for (family, cpu, memory) in [("bench", join::CPU_UNITS, join::MEMORY_MIB), ("light", 1, 6)] {
            let json = definition(family, cpu, memory);
            client.register_task_definition(v1::RegisterTaskDefinitionRequest { json }).await?;
        }
        let mut fleet = bed.fleet(&[plane.address])?;
        fleet.wait("the first connections", PATIENCE, |status| status.in_sync == agents).await?;
        plane.stop()?;
        drop((fleet, etcd));
        Ok(bed)
    }

    fn identities(&self) -> PathBuf {
        self.template.path().join("identities")
    }

    fn ca(&self) -> PathBuf {
        self.template.path().join("ca.pem")
    }

    pub(crate) fn fleet(&self, endpoints: &[SocketAddr]) -> Result<Fleet> {
        Fleet::start(endpoints, &self.identities(), &self.ca())
    }

    fn processes(&self, dir: &Path) -> Result<(Plane, Option<Etcd>)> {
        let etcd = match self.kind {
            Kind::Redb => None,
            Kind::Etcd => Some(Etcd::start(&dir.join("etcd"))?),
        };
        let plane = self.plane(&dir.join("control"), etcd.as_ref())?;
        Ok((plane, etcd))
    }

    /// A control plane on a directory, on a port of its own.
    pub(crate) fn plane(&self, dir: &Path, etcd: Option<&Etcd>) -> Result<Plane> {
        self.plane_at(dir, SocketAddr::from(([127, 0, 0, 1], free_port()?)), etcd)
    }

    pub(crate) fn plane_at(&self, dir: &Path, address: SocketAddr, etcd: Option<&Etcd>) -> Result<Plane> {
        std::fs::create_dir_all(dir)?;
        Plane::start(&self.bin_dir, dir, address, etcd.map(|etcd| etcd.endpoint.as_str()))
    }

    /// Control plane, store and nodes on a fresh copy, all nodes in sync.
    pub(crate) async fn start(&self) -> Result<Running> {
        let dir = self.copy()?;
        let (plane, etcd) = self.processes(dir.path())?;
        let client = plane.serving(PATIENCE).await?;
        let mut fleet = self.fleet(&[plane.address])?;
        let agents = self.agents;
        fleet.wait("the connections", PATIENCE, |status| status.in_sync == agents).await?;
        Ok(Running { fleet, plane, client, etcd, dir })
    }

    /// A fresh copy, without processes.
    pub(crate) fn copy(&self) -> Result<TempDir> {
        let dir = tempfile::tempdir_in(&self.scratch)?;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg("--reflink=auto").arg(self.template.path().join(".")).arg(dir.path());
        let status = copy.status().context("copy the prepared cluster")?;
        anyhow::ensure!(status.success(), "cp ended with {status}");
        Ok(dir)
    }
}

fn definition(family: &str, cpu: usize, memory: usize) -> String {
    serde_json::json!({
        "family": family,
        "containerDefinitions": [{"name": "web", "image": "registry.example/web:1", "cpu": cpu, "memory": memory}],
    })
    .to_string()
}
