//! One `lighter control`, the program that is measured.
//! In: a directory with its state, where to listen. Out: an address. Owns: the process.

use super::tls::Admin;
use anyhow::{Context, Result};
use lighter_proto::v1;
use lighter_proto::v1::lighter_client::LighterClient;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

pub(crate) struct Plane {
    child: Child,
    pub address: SocketAddr,
    dir: PathBuf,
}

impl Plane {
    /// Starts the program; `serving` waits until it answers.
    pub(crate) fn start(bin_dir: &Path, dir: &Path, address: SocketAddr, etcd: Option<&str>) -> Result<Self> {
        let config = dir.join("control.toml");
        let store = etcd.map_or(String::new(), |endpoint| {
            format!("[store]\nkind = \"etcd\"\nendpoints = [{endpoint:?}]\n")
        });
        // Snapshots would be measured with it, in whichever run they fall.
        std::fs::write(&config, format!("[snapshots]\nevery_minutes = 0\n{store}"))?;
        let log = File::options().create(true).append(true).open(dir.join("control.log"))?;
        let child = Command::new(bin_dir.join("lighter"))
            .args(["control", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(dir)
            .args(["--listen", &address.to_string(), "--listen-plaintext"])
            .arg(dir.join("control.sock"))
            // One line for each of thousands of sessions is not what is measured.
            .env("LIGHTER_LOG", "warn")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start lighter of {}", bin_dir.display()))?;
        Ok(Self { child, address, dir: dir.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn admin(&self) -> Result<Admin> {
        Admin::read(&self.dir.join("admin.pem"))
    }

    /// A client, once it answers as one that leads.
    pub(crate) async fn serving(&self, limit: Duration) -> Result<LighterClient<Channel>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.answers().await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self.dir.join("control.log")).unwrap_or_default();
                    return Err(error.context(format!("the control plane does not serve; its log:\n{log}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    async fn answers(&self) -> Result<LighterClient<Channel>> {
        let mut client = LighterClient::new(self.admin()?.connect(self.address).await?);
        client.list_clusters(v1::ListClustersRequest::default()).await?;
        Ok(client)
    }

    /// SIGTERM, and waits until what it acknowledged is durable.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the control plane ended with {status}");
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
