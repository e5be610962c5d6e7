//! Docker and podman, driven through their API socket and, as a second row, through their CLI.
//! In: what is installed. Out: the same figures as ours. Owns: the daemons it starts, with their
//! data under the scratch directory. Never: uses a daemon that was already running.

use crate::Plan;
use crate::account::CpuAccount;
use crate::images::Image;
use crate::latency::{FirstInstruction, monotonic_ns};
use crate::probes::{self, Shell};
use crate::processes::{Daemon, command_ok, memory_kib, pids_named};
use crate::statistics::Series;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A container that has ended is removed within milliseconds.
const REMOVED_WITHIN: Duration = Duration::from_secs(10);

/// What one peer measured, by the name of the figure.
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) condition: String,
    pub(crate) values: BTreeMap<&'static str, f64>,
}

/// A running peer.
pub(crate) struct Peer {
    kind: Kind,
    socket: PathBuf,
    share: PathBuf,
    image: String,
    _daemon: Daemon,
    account: CpuAccount,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Docker,
    Podman,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// Every peer that is installed and starts; one that does not start is named with its error.
pub(crate) async fn installed(plan: &Plan, scratch: &Path, image: &Image) -> Vec<Peer> {
    let mut peers = Vec::new();
    for (kind, program) in [(Kind::Docker, "dockerd"), (Kind::Podman, "podman")] {
        if !plan.has(kind.name()) {
            continue;
        }
        if command_ok(Command::new(program).arg("--version")).is_err() {
            println!("peer: {program} is not installed");
            continue;
        }
        match Peer::start(kind, scratch, image).await {
            Ok(peer) => peers.push(peer),
            Err(error) => println!("peer: {program} does not start: {error:#}"),
        }
    }
    peers
}

pub(crate) async fn measure(peer: Peer, plan: &Plan) -> Result<Figures> {
    let peer = Arc::new(peer);
    let mut values = BTreeMap::new();
    values.insert("pss_idle", peer.memory_mib()?);
    let api = peer.latency(plan, false).await?;
    values.insert("start_latency_p50", api.percentile(50.0));
    values.insert("start_latency_p90", api.percentile(90.0));
    values.insert("start_latency_p99", api.percentile(99.0));
    let cli = peer.latency(plan, true).await?;
    values.insert("starts_per_second", peer.rate(plan).await?);
    values.insert("pss_100_tasks", peer.loaded(plan).await?);
    // Podman leaves its health checks to timers of systemd; without it there is nothing to measure.
    if peer.kind == Kind::Docker {
        for shell in probes::shells() {
            values.insert(shell.figure, peer.probes(plan, shell).await?);
        }
    }
    let condition = format!(
        "{}: {}; through its CLI p50 {:.1} ms, p99 {:.1} ms",
        peer.name(),
        peer.describe()?,
        cli.percentile(50.0),
        cli.percentile(99.0)
    );
    Ok(Figures { name: peer.name().to_owned(), condition, values })
}

impl Peer {
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    async fn start(kind: Kind, scratch: &Path, image: &Image) -> Result<Self> {
        let name = kind.name();
        let home = scratch.join(name);
        std::fs::create_dir_all(&home)?;
        let (socket, share, log) =
            (home.join("api.sock"), scratch.join(format!("{name}-share")), home.join("log"));
        let account = CpuAccount::open(name)?;
        let command = match kind {
            Kind::Docker => {
                let mut command = Command::new("dockerd");
                command.arg("--data-root").arg(home.join("data")).arg("--exec-root").arg(home.join("exec"));
                command
                    .arg("--pidfile")
                    .arg(home.join("pid"))
                    .arg("-H")
                    .arg(format!("unix://{}", socket.display()))
                    .arg("--cgroup-parent")
                    .arg(format!("/{}", account.containers()));
                command
            }
            Kind::Podman => {
                std::fs::write(home.join(PODMAN_SETTINGS), PODMAN_LIMITS)?;
                let mut command = podman(&home);
                command.args(["system", "service", "--time=0"]).arg(format!("unix://{}", socket.display()));
                command
            }
        };
        let daemon = Daemon::start(&mut account.enter(&command), &log)?;
        let archive = home.join("image.tar");
        let _ = std::fs::remove_file(&archive);
        let source = format!("oci:{}:bench", image.layout.display());
        let target = format!("docker-archive:{}:localhost/bench:1", archive.display());
        command_ok(Command::new("skopeo").args(["copy", "--quiet", &source, &target]))?;
        let peer = Self { kind, socket, share, image: "localhost/bench:1".into(), _daemon: daemon, account };
        peer.wait_ready().await.with_context(|| format!("see {}", log.display()))?;
        command_ok(peer.cli().arg("load").arg("-i").arg(&archive))?;
        Ok(peer)
    }

    async fn wait_ready(&self) -> Result<()> {
        let began = Instant::now();
        while self.call("GET", "/_ping", "").await.is_err() {
            if began.elapsed() > Duration::from_secs(30) {
                bail!("{} does not answer", self.name());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn cli(&self) -> Command {
        match self.kind {
            Kind::Docker => {
                let mut command = Command::new("docker");
                command.arg("-H").arg(format!("unix://{}", self.socket.display()));
                command
            }
            Kind::Podman => podman(self.socket.parent().unwrap_or(Path::new("/"))),
        }
    }

    fn describe(&self) -> Result<String> {
        let format = match self.kind {
            Kind::Docker => "{{.ServerVersion}}, storage {{.Driver}}, cgroup v{{.CgroupVersion}}",
            Kind::Podman => {
                "{{.Version.Version}}, storage {{.Store.GraphDriverName}}, cgroup {{.Host.CgroupsVersion}}"
            }
        };
        Ok(command_ok(self.cli().args(["info", "--format", format]))?.trim().to_owned())
    }

    /// One HTTP/1.1 request on a connection of its own; the body of a 2xx answer.
    async fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        if !text.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {}", text.chars().take(2000).collect::<String>());
        }
        Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    fn create_body(&self) -> serde_json::Value {
        serde_json::json!({
            "Image": self.image, "ExposedPorts": {"8080/tcp": {}},
            "HostConfig": {
                "Binds": [format!("{}:/bench", self.share.display())],
                "PortBindings": {"8080/tcp": [{"HostPort": ""}]},
                "Memory": 64 << 20, "NanoCpus": 500_000_000u64,
                "CgroupParent": format!("/{}", self.account.containers()),
            },
        })
    }

    async fn start_one(&self, by_cli: bool) -> Result<String> {
        if by_cli {
            let share = format!("{}:/bench", self.share.display());
            let mut command = self.cli();
            command.args(["run", "-d", "-p", "8080", "-m", "64m", "--cpus", "0.5", "-v", &share]);
            command.arg("--cgroup-parent").arg(format!("/{}", self.account.containers())).arg(&self.image);
            let id = tokio::task::spawn_blocking(move || command_ok(&mut command)).await??;
            return Ok(id.trim().to_owned());
        }
        self.create_and_start(&self.create_body()).await
    }

    async fn create_and_start(&self, body: &serde_json::Value) -> Result<String> {
        let answer = self.call("POST", "/v1.40/containers/create", &body.to_string()).await?;
        let (begin, end) = (answer.find('{').context("no JSON")?, answer.rfind('}').context("no JSON")?);
        let id = serde_json::from_str::<serde_json::Value>(&answer[begin..=end])?["Id"]
            .as_str()
            .context("no Id")?
            .to_owned();
        self.call("POST", &format!("/v1.40/containers/{id}/start"), "").await?;
        Ok(id)
    }

    /// podman refuses to remove a container that ends by itself at the same moment: then it is asked again.
    async fn remove(&self, id: &str) -> Result<()> {
        let until = Instant::now() + REMOVED_WITHIN;
        loop {
            match self.call("DELETE", &format!("/v1.40/containers/{id}?force=1"), "").await {
                Err(error) if error.to_string().contains("state improper") && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done => return done.map(drop),
            }
        }
    }

    async fn latency(&self, plan: &Plan, by_cli: bool) -> Result<Series> {
        let first = FirstInstruction::listen(&self.share)?;
        let mut samples = Vec::new();
        for run in 0..plan.warm_up + plan.runs {
            let called = monotonic_ns();
            let id = self.start_one(by_cli).await?;
            let (began, stream) = first.next().await?;
            if run >= plan.warm_up {
                samples.push(began.saturating_sub(called) as f64 / 1e6);
            }
            drop(stream);
            self.remove(&id).await?;
        }
        Ok(Series::new(samples))
    }

    async fn rate(self: &Arc<Self>, plan: &Plan) -> Result<f64> {
        let first = FirstInstruction::listen(&self.share)?;
        let each = plan.starts / plan.clients;
        let began = Instant::now();
        let mut clients = Vec::new();
        for _ in 0..plan.clients {
            let peer = self.clone();
            clients.push(tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..each {
                    ids.push(peer.start_one(false).await?);
                }
                anyhow::Ok(ids)
            }));
        }
        let mut held = Vec::new();
        for _ in 0..each * plan.clients {
            held.push(first.next().await?.1);
        }
        let rate = (each * plan.clients) as f64 / began.elapsed().as_secs_f64();
        for client in clients {
            for id in client.await?? {
                self.remove(&id).await?;
            }
        }
        Ok(rate)
    }

    async fn loaded(&self, plan: &Plan) -> Result<f64> {
        let first = FirstInstruction::listen(&self.share)?;
        let (mut ids, mut held) = (Vec::new(), Vec::new());
        for _ in 0..plan.tasks {
            ids.push(self.start_one(false).await?);
            held.push(first.next().await?.1);
        }
        let memory = self.memory_mib()?;
        for id in ids {
            self.remove(&id).await?;
        }
        Ok(memory)
    }

    async fn probes(&self, plan: &Plan, shell: &Shell) -> Result<f64> {
        let first = FirstInstruction::listen(&self.share)?;
        let mut body = self.create_body();
        let interval_ns = probes::INTERVAL_S * 1_000_000_000;
        body["Healthcheck"] = serde_json::json!({"Test": shell.test(), "Interval": interval_ns});
        let (mut ids, mut held) = (Vec::new(), Vec::new());
        for _ in 0..plan.tasks {
            ids.push(self.create_and_start(&body).await?);
            held.push(first.next().await?.1);
        }
        let percent = probes::percent(&self.account, plan).await?;
        for id in ids {
            let state = self.call("GET", &format!("/v1.40/containers/{id}/json"), "").await?;
            anyhow::ensure!(
                state.contains("\"Status\":\"healthy\""),
                "a container of the peer is not healthy"
            );
            self.remove(&id).await?;
        }
        Ok(percent)
    }

    /// PSS of every process the peer keeps for its work.
    fn memory_mib(&self) -> Result<f64> {
        let names: &[&str] = match self.kind {
            Kind::Docker => &["dockerd", "containerd", "containerd-shim", "docker-proxy"],
            Kind::Podman => &["podman", "conmon", "rootlessport", "netavark", "aardvark-dns"],
        };
        let mut kib = 0;
        for pid in pids_named(names)? {
            kib += memory_kib(pid).map(|(pss, _)| pss).unwrap_or(0);
        }
        Ok(kib as f64 / 1024.0)
    }
}

const PODMAN_SETTINGS: &str = "containers.conf";
/// Podman gives containers a million files and four million processes by default; where root may not raise its own
/// limits that high, no container starts ("OCI permission denied"). Soft and hard are equal because the compatible API
/// of podman 4.3 exchanges them, and runc refuses a soft limit above the hard one.
const PODMAN_LIMITS: &str = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n";

fn podman(home: &Path) -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", home.join(PODMAN_SETTINGS));
    command.arg("--root").arg(home.join("data")).arg("--runroot").arg(home.join("run"));
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
    command
}
